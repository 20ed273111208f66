"""Runs of one cell of three categories on the triangle: what can be chosen, and the paths that come of it.

The processes themselves are in cells (what is shown of each) and, for diffusions of the triangle, in diffusions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from dd.processes.base import draw
from dd.triangle.bakosi import BakosiRistorcelli
from dd.triangle.cells import (
    D3PM_SAMPLERS,
    GAUSSIAN_SAMPLERS,
    Cell,
    D3PMCell,
    DiffusionCell,
    GaussianCell,
    SettingsError,
    diffusion_samplers,
)
from dd.triangle.diffusions import Diffusion, NeutralWrightFisher
from dd.triangle.stick_breaking import StickBreaking

SAMPLERS = ("native", "euler", "ode")
ALPHA = (0.1, 5.0)  # concentrations offered
MAX_PARTICLES, MAX_STEPS = 2000, 200
CORNERS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]], dtype=torch.float64)  # of the drawn triangle
DIFFUSIONS = {  # those of the triangle, which have an alpha; the others have a stationary law of their own
    "Wright-Fisher": NeutralWrightFisher,
    "Stick-breaking Jacobi": StickBreaking,
    "Bakosi-Ristorcelli": BakosiRistorcelli,
}


@lru_cache(maxsize=8)
def _diffusion(name: str, alpha: tuple[float, ...]) -> Diffusion:
    return DIFFUSIONS[name](torch.tensor(alpha, dtype=torch.float64))


def _of_diffusion(name: str, alpha: tuple[float, ...], w: Tensor, sampler: str) -> Cell:
    return DiffusionCell(_diffusion(name, alpha), w, sampler)


PROCESSES: dict[str, Callable[[tuple[float, ...], Tensor, str], Cell]] = {
    **{name: partial(_of_diffusion, name) for name in DIFFUSIONS},
    "D3PM uniform": lambda alpha, w, sampler: D3PMCell("uniform", w, sampler),
    "D3PM absorbing": lambda alpha, w, sampler: D3PMCell("absorbing", w, sampler),
    "Gaussian on one-hots": lambda alpha, w, sampler: GaussianCell(w, sampler),
}


def sampler_names(processes: list[str], backwards: bool) -> dict[str, str]:
    """{sampler: what these processes call it}: the samplers that any of them has and none refuses."""
    known = [_samplers_of(name) for name in processes]
    out = {s: " / ".join(dict.fromkeys(names[s] for names in known if s in names)) for s in SAMPLERS}
    refused = {s for name in processes if name in DIFFUSIONS and not backwards for s in DIFFUSIONS[name].refuses}
    return {sampler: called for sampler, called in out.items() if called and sampler not in refused}


def _check_name(process: str) -> None:
    if process not in PROCESSES:
        raise SettingsError(f"Unknown process {process!r}; choose one of {', '.join(PROCESSES)}.")


def _samplers_of(process: str) -> dict[str, str]:
    _check_name(process)
    if process in DIFFUSIONS:
        return diffusion_samplers(DIFFUSIONS[process].step_name)
    return D3PM_SAMPLERS if process.startswith("D3PM") else GAUSSIAN_SAMPLERS


@dataclass(frozen=True)
class Settings:
    """What a visitor chooses; anything impossible is refused with a sentence."""

    alpha: tuple[float, float, float] = (1.0, 1.0, 1.0)
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    backwards: bool = True
    sampler: str = "native"
    steps: int = 96
    particles: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for a in self.alpha:
            if not ALPHA[0] <= a <= ALPHA[1]:  # also refuses NaN
                raise SettingsError(f"Every alpha must lie between {ALPHA[0]} and {ALPHA[1]}; got {a}.")
        if not all(np.isfinite(self.weights)) or min(self.weights) < 0:
            raise SettingsError("Corner weights must be numbers of at least 0.")
        if sum(self.weights) <= 0:
            raise SettingsError("At least one corner weight must be above 0.")
        if self.sampler not in SAMPLERS:
            raise SettingsError(f"Unknown sampler {self.sampler!r}; choose one of {', '.join(SAMPLERS)}.")
        if not 2 <= self.steps <= MAX_STEPS:
            raise SettingsError(f"The number of steps must lie between 2 and {MAX_STEPS}; got {self.steps}.")
        if not 1 <= self.particles <= MAX_PARTICLES:
            raise SettingsError(
                f"The number of particles must lie between 1 and {MAX_PARTICLES}; got {self.particles}."
            )
        if not 0 <= self.seed < 2**63:
            raise SettingsError("The seed must be a whole number of at least 0.")

    @property
    def w(self) -> Tensor:
        w = torch.tensor(self.weights, dtype=torch.float64)
        return w / w.sum()


@dataclass(frozen=True)
class Run:
    """Paths (F, N, 3) of N cells at times (F,), the corner each belongs to (N,), and the process that made them."""

    cell: Cell
    times: list[float]
    paths: Tensor
    corner: Tensor


def grid(steps: int, backwards: bool) -> list[float]:
    """steps + 1 times between 0 and 1, cosine in destroyed information: the shared clock of every process."""
    i = torch.arange(steps + 1, dtype=torch.float64) / steps
    t = (1 - torch.cos(torch.pi * i)) / 2
    t[0], t[-1] = 0.0, 1.0
    return (t.flip(0) if backwards else t).tolist()


def simulate(process: str, settings: Settings) -> Run:
    """One run of the process of that name in PROCESSES; the same settings give the same run."""
    _check_name(process)
    cell = PROCESSES[process](settings.alpha, settings.w, settings.sampler)
    generator = torch.Generator().manual_seed(settings.seed)
    times = grid(settings.steps, settings.backwards)
    if settings.backwards:
        paths = cell.reverse(times, settings.sampler, settings.particles, generator)
        return Run(cell, times, paths, paths[-1].argmax(1))
    k = draw(settings.w.cumsum(0).expand(settings.particles, 3), generator)
    return Run(cell, times, cell.forward(times, settings.sampler, k, generator), k)


def plane(x: Tensor) -> Tensor:
    """Barycentric (..., 3), sum 1, to the drawn plane (..., 2)."""
    return x @ CORNERS


def barycentric(xy: Tensor) -> Tensor:
    """The drawn plane (..., 2) to barycentric (..., 3), sum 1, negative outside the triangle."""
    x_3 = xy[..., 1] / CORNERS[2, 1]
    x_2 = xy[..., 0] - x_3 / 2
    return torch.stack([1 - x_2 - x_3, x_2, x_3], -1)
