"""Sticks and points of the simplex, and the Jacobi diffusions that sticks are."""

import torch

from dd.moments import stationary
from dd.triangle.stick_breaking import from_sticks, to_sticks


def test_sticks_are_inverted(generator):
    x = stationary(torch.full((3,), 2.0), 40, generator)
    assert torch.allclose(from_sticks(to_sticks(x)), x)
    assert torch.allclose(from_sticks(to_sticks(x)).sum(1), torch.ones(40, dtype=torch.float64))
