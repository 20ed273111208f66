"""Diffusions of the triangle: the law that they keep."""

import pytest
import torch

from dd.moments import stationary
from dd.triangle.simulation import DIFFUSIONS
from tests.triangle.toys import UNEQUAL, Z


@pytest.mark.parametrize("make", DIFFUSIONS.values())
def test_drift_keeps_the_dirichlet_stationary(make):
    """E_pi[L q] = 0 for q = x_i x_j: 2 E[x_i f_j] symmetrised + E[D_ij] = 0, by 200,000 draws."""
    diffusion = make(torch.tensor(UNEQUAL))
    x = stationary(diffusion.alpha, 200_000, torch.Generator().manual_seed(0))
    f = diffusion.drift(x)
    assert float(f.sum(1).abs().max()) < 1e-12
    S = torch.stack([diffusion.noise(x, e.expand_as(x)) for e in torch.eye(3, dtype=torch.float64)], 2)
    rate = x[:, :, None] * f[:, None] + f[:, :, None] * x[:, None] + S @ S.mT
    assert bool((rate.mean(0).abs() <= Z * rate.std(0) / len(x) ** 0.5).all())
