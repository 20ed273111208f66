"""Every process at t = 1 and t = 0: no NaN, no infinity where there should be none."""

import pytest
import torch

from dd.processes import EVERY, process


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("t", [0.0, 1.0])
@pytest.mark.parametrize("K", [2, 16])
def test_no_nan_at_the_ends(name: str, t: float, K: int, generator: torch.Generator) -> None:
    """Sure and unsure networks alike: f = 0, f far out at either side, and as far out as guidance can stretch it."""
    process_ = process(name, K, 64)
    x0 = torch.randint(K, (3, 8, 8), generator=generator)
    x_t = process_.perturb(x0, torch.full((3,), t), generator)
    l = process_.evidence(x_t, torch.full((3,), t))
    assert not bool(torch.isnan(l).any())
    for size in (0.0, 15.0, 285.0):
        f = torch.full((3, 1 if name == "ddpm" else K, 8, 8), size)
        f[:, :1] *= -1
        p = process_.estimate(f, l)
        assert bool(torch.isfinite(p).all())
        for method in process_.methods if t > 0 else ():
            x_s = process_.step(x_t, f, t, t - 0.1, _inner(method), generator)
            assert bool(torch.isfinite(x_s.float()).all()), method


def _inner(method: str) -> str:
    """The step that a sampler of two calls begins with."""
    return {"heun": "ode", "langevin": "dirichlet"}.get(method, method)
