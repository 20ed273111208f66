from itertools import pairwise

import numpy as np
import pytest
import torch

from dd.processes import make_process
from dd.processes.clock import EVENLY, Clock


@pytest.fixture
def clock() -> Clock:
    v = np.linspace(-3.0, 5.0, 200)
    return Clock(v, 1 / (1 + np.exp(-v)))


def test_both_directions_are_each_others_inverse(clock):
    t = torch.linspace(0, 1, 50)
    torch.testing.assert_close(clock.t(clock.native(t)).float(), t, atol=1e-6, rtol=0)


def test_draws_follow_the_density_they_report(clock):
    v, density = clock.draw(20_000, torch.Generator().manual_seed(0))
    edges = torch.linspace(-3.0, 5.0, 17, dtype=torch.float64)
    drawn = torch.histogram(v, edges).hist / 20_000
    # the mean of 1/density over the draws of a bin is the bin's width
    for i, (low, high) in enumerate(pairwise(edges)):
        inside = (v >= low) & (v < high)
        assert float(torch.where(inside, 1 / density, 0.0).mean()) == pytest.approx(0.5, rel=0.02)
        assert float(drawn[i]) > EVENLY / 17


@pytest.mark.parametrize("name", ["dirichlet", "gaussian"])
def test_every_weight_is_bounded_by_the_even_share(name):
    process = make_process(name, 16, 784)
    v, density = process.clock.draw(4_000, torch.Generator().manual_seed(1))
    low, high = (float(process.clock.native(t)) for t in (0.0, 1.0))
    assert float(v.min()) >= low
    assert float(v.max()) <= high
    assert float((1 / density).max()) <= (high - low) / EVENLY
    assert float((1 / density).mean()) == pytest.approx(high - low, rel=0.02)


def test_draws_are_stratified_and_reproducible(clock):
    """One draw in each of n parts of equal probability."""
    first, again = (clock.draw(64, torch.Generator().manual_seed(2))[0] for _ in range(2))
    assert torch.equal(first, again)
    u = np.interp(first.numpy(), clock._v, clock._cdf)
    assert sorted(np.floor(u / clock._cdf[-1] * 64)) == list(range(64))
