"""The Bakosi-Ristorcelli process: its table of laws against moments from another solver."""

import numpy as np
import pytest
import torch

from dd.triangle.bakosi import BakosiRistorcelli


def test_moran_chain_has_the_moments_of_the_linear_ode():
    """E[n_i]/N = E[Y_i] and E[n_i (n_i - 1)]/(N (N - 1)) = E[Y_i^2], exactly: two independent solvers."""
    diffusion = BakosiRistorcelli(torch.tensor((0.6, 1.0, 2.0)))
    n, N = diffusion.fine.n, diffusion.fine.N
    for i in (0, 20, 43):
        p = diffusion.fine.law[i]
        first, second = diffusion.moments(float(diffusion.taus[i]))
        assert p.sum(0) == pytest.approx(1, abs=1e-9)
        assert np.abs(p.T @ n / N - first.numpy()).max() < 1e-8
        assert np.abs(p.T @ (n * (n - 1)) / (N * (N - 1)) - second.numpy()).max() < 1e-8
