"""What tests of the triangle share."""

import torch

from dd.moments import stationary
from dd.triangle.cells import Cell
from dd.triangle.simulation import PROCESSES, Settings

UNEQUAL = (0.6, 1.0, 2.0)
WEIGHTS = (0.5, 0.3, 0.2)
Z = 4.5  # standard errors allowed; about 60 comparisons a run


def cell_of(name: str, alpha: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Cell:
    return PROCESSES[name](alpha, Settings(weights=WEIGHTS).w, "native")


def interior(n: int = 40) -> torch.Tensor:
    """Points of the triangle away from its edges: (n, 3)."""
    return stationary(torch.full((3,), 2.0), n, torch.Generator().manual_seed(3))
