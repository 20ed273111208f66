"""Every process at t = 1 and t = 0: no NaN, no infinity where there should be none."""

import pytest
import torch

from dd.processes import EVERY, Process, make_process


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("t", [0.0, 1.0])
@pytest.mark.parametrize("K", [2, 16])
def test_no_nan_at_the_ends(name: str, t: float, K: int, generator: torch.Generator) -> None:
    """Sure and unsure networks alike: f = 0, f far out at either side, and as far out as guidance can stretch it."""
    process = make_process(name, K, 64)
    x0 = torch.randint(K, (3, 8, 8), generator=generator)
    x_t = process.perturb(x0, torch.full((3,), t), generator)
    l = process.evidence(x_t, torch.full((3,), t))
    assert not bool(torch.isnan(l).any())
    for size in (0.0, 15.0, 285.0, 2850.0):
        f = torch.full((3, 1 if name == "ddpm" else K, 8, 8), size)
        f[:, :1] *= -1
        p = process.estimate(f, l)
        assert bool(torch.isfinite(p).all())
        for method in process.methods if t > 0 else ():
            x_s = process.step(x_t, f, t, t - 0.1, _inner(process, method), generator)
            assert bool(torch.isfinite(x_s.float()).all()), method
        if "ancestral" in process.methods and t > 0:
            law = process._law(x_t, f, t, process.index(t), process.index(t - 0.1))
            assert torch.allclose(law.sum(-1), torch.ones_like(law.sum(-1)))


def test_no_category_of_probability_zero_is_drawn_where_rounding_leaves_less_than_one(monkeypatch, generator) -> None:
    """The largest u below 1 is above the total of these p, 1 - 2^-23."""
    p = torch.tensor([0.5, 0.5 - 2**-23, 0.0]).view(1, 3, 1, 1)
    for u in (0.0, 1 - 2**-24):
        monkeypatch.setattr(torch, "rand", lambda shape, u=u, **_: torch.full(tuple(shape), u))
        assert p.flatten()[make_process("gaussian", 3, 64).clean(p, generator)] > 0
        leading = p.flip(1)
        assert leading.flatten()[make_process("gaussian", 3, 64).clean(leading, generator)] > 0


def test_a_cell_that_is_unmasked_stays_whatever_the_network_is_sure_of() -> None:
    """A drawn category would silently be 0 where its law is NaN."""
    absorbing = make_process("d3pm-absorbing", 4, 64)
    x_t, f = torch.full((1, 8, 8), 2), torch.zeros(1, 4, 8, 8)
    f[:, 1] = 2000.0
    x_s = absorbing.step(x_t, f, 0.5, 0.4, "ancestral", torch.Generator().manual_seed(0))
    assert torch.equal(x_s, x_t)


def _inner(process: Process, method: str) -> str:
    """The step that a sampler of two calls begins with."""
    return {"heun": process.flow, "langevin": process.methods[0]}.get(method, method)
