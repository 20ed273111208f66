"""What training scripts share: seeds of steps, workers that wait for the first one."""

import pytest
import torch

from train import state


def test_random_numbers_of_a_step_are_its_own():
    """Also of seeds that agree in their lowest bits, which are all that torch's generator takes notice of."""
    seen = {
        float(torch.rand(1, generator=state.step_generator(seed, step, rank), dtype=torch.float64))
        for seed in (0, 1, 4096, 2**32, 2**40 + 1)
        for step in (0, 1, 99_999_999)
        for rank in (0, 1)
    }
    assert len(seen) == 5 * 3 * 2
    assert torch.equal(*(torch.rand(9, generator=state.step_generator(5, 7, 1)) for _ in range(2)))


@pytest.mark.parametrize(("local", "order"), [("0", ["load", "meet"]), ("1", ["meet", "load"])])
def test_the_first_worker_of_a_machine_loads_before_the_others(monkeypatch, local, order):
    seen = []
    monkeypatch.setenv("LOCAL_RANK", local)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "barrier", lambda: seen.append("meet"))
    with state.first_alone():
        seen.append("load")
    assert seen == order


def test_a_worker_alone_waits_for_nobody(monkeypatch):
    monkeypatch.setattr(torch.distributed, "barrier", None)
    with state.first_alone():
        pass
