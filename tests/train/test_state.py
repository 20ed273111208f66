"""What training scripts share: seeds of steps, workers that wait for the first one."""

import pytest
import torch

from train import state


def test_random_numbers_of_a_step_are_its_own():
    seen = {
        float(torch.rand(1, generator=state.step_generator(seed, step, rank)))
        for seed in (0, 1)
        for step in (0, 1)
        for rank in (0, 1)
    }
    assert len(seen) == 8
    state.step_generator(state.LARGEST_SEED, 99_999_999, 4095)
    for seed in (-1, state.LARGEST_SEED + 1):
        with pytest.raises(ValueError, match="seed of a training must be from 0 to"):
            state.step_generator(seed, 0, 0)


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
