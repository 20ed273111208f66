"""One cell of three categories under one process, as the triangle shows it: paths, densities, fields, exact numbers.

With three corners and prior weights w the posterior is exact: rho = sum_k w_k rho_k, p_k = w_k rho_k / rho. A path is
an array of frames; how they are shown is dd.ui.simplex' work.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dd.moments import stationary
from dd.processes.base import draw
from dd.processes.d3pm import D3PM
from dd.processes.dirichlet import replicator
from dd.processes.gaussian import Gaussian
from dd.triangle.diffusions import Diffusion, clock

D3PM_SAMPLERS = {"native": "ancestral jumps"}
GAUSSIAN_SAMPLERS = {"native": "DDPM ancestral step", "euler": "Euler-Maruyama", "ode": "DDIM"}
_EULER_STEP = 0.02  # longest forward Euler substep


class SettingsError(ValueError):
    """A setting of the triangle that makes no sense; the message says which do."""


def diffusion_samplers(step_name: str) -> dict[str, str]:
    """What the samplers of a `Diffusion` are called."""
    return {"native": step_name, "euler": "Euler-Maruyama", "ode": "probability-flow ODE"}


@dataclass(frozen=True)
class Theory:
    """Exact mean (3,) and variance (3,) of the shown coordinates; mean entropy and state fractions where they exist."""

    mean: Tensor
    var: Tensor
    entropy: float | None = None
    fractions: Tensor | None = None


class Cell(Protocol):
    """One cell under one process, its clean category drawn from the weights w (3,). t: destroyed information."""

    title: str
    note: str
    jumps: bool
    unit: str  # of its own time, as the formulas have it
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 of the plane shown
    span: tuple[float, float]  # range of a shown coordinate

    def native_time(self, t: float) -> float: ...

    def forward(self, times: list[float], sampler: str, k: Tensor, generator: torch.Generator) -> Tensor:
        """Paths from corners k (N,) along increasing times from 0: (F, N, 3)."""

    def reverse(self, times: list[float], sampler: str, n: int, generator: torch.Generator) -> Tensor:
        """Paths from the stationary law along decreasing times from 1 to 0: (F, n, 3), ending in corners."""

    def theory(self, t: float) -> Theory: ...

    def log_density(self, x: Tensor, t: float) -> Tensor | None:
        """log of the marginal density over that of the uniform law on the triangle, at x (M, 3): (M,)."""

    def field(self, x: Tensor, t: float) -> tuple[Tensor, Tensor] | None:
        """f and D grad log rho at x (M, 3), per unit of the process' own time: two (M, 3)."""


class DiffusionCell:
    """A `Diffusion` of the triangle with corner weights w."""

    jumps, unit = False, "τ"
    box, span = (-0.04, -0.02, 1.04, 0.89), (0.0, 1.0)

    def __init__(self, diffusion: Diffusion, w: Tensor, sampler: str = "native"):
        self.diffusion, self.w = diffusion, w
        self.clock = clock(diffusion)
        self.title = diffusion.name
        called = diffusion_samplers(diffusion.step_name)[sampler]
        self.note = "; ".join(filter(None, (called, diffusion.detail)))

    def native_time(self, t: float) -> float:
        """tau(t); t = 0 is the clean corner itself."""
        return 0.0 if t == 0 else float(self.clock.native(t).exp())

    def _shown_tau(self, t: float) -> float:
        return float(self.clock.native(t).exp())

    def posterior(self, x: Tensor, tau: float) -> Tensor:
        """p_k = w_k rho_k / rho: (N, 3)."""
        return torch.softmax(_log_weights(self.w) + self.diffusion.evidence(x, tau), 1)

    def _step(
        self, x: Tensor, tau: float, d: float, sampler: str, backwards: bool, generator: torch.Generator
    ) -> Tensor:
        """One step of length d with selection (backwards) or without (forward); the ODE follows the flow either way."""
        D = self.diffusion
        p = self.posterior(x, tau) if backwards or sampler == "ode" else None
        if sampler == "native":
            return D.step(x, tau, p, d, generator)
        if sampler == "ode":
            return replicator(x, (0.5 if backwards else -0.5) * D.fitness(x, tau, p), d)
        drift = D.drift(x)
        if backwards:
            drift = drift + _select(x, D.fitness(x, tau, p))
        dB = d**0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = (x + drift * d + D.noise(x, dB)).clamp(min=0)
        return x / x.sum(1, keepdim=True)

    def forward(self, times: list[float], sampler: str, k: Tensor, generator: torch.Generator) -> Tensor:
        """The first step is drawn from the kernel: at a corner Euler has no noise and the flow is not unique."""
        if sampler in self.diffusion.refuses:
            raise SettingsError(self.diffusion.refuses[sampler])
        x = self.diffusion.sample(k, self._shown_tau(times[1]), generator)
        frames = [torch.eye(3, dtype=torch.float64)[k], x]
        for s, t in pairwise(times[1:]):
            tau, d = self._shown_tau(s), self._shown_tau(t) - self._shown_tau(s)
            parts = max(1, round(d / _EULER_STEP)) if sampler == "euler" else 1  # no posterior is needed on the way
            for _ in range(parts):
                x = self._step(x, tau, d / parts, sampler, False, generator)
            frames.append(x)
        return torch.stack(frames)

    def reverse(self, times: list[float], sampler: str, n: int, generator: torch.Generator) -> Tensor:
        """Down to the last time above 0, where the clean corner is drawn from its posterior."""
        x = stationary(self.diffusion.alpha, n, generator)
        frames = [x]
        for t, s in pairwise(times[:-1]):
            d = self._shown_tau(t) - self._shown_tau(s)
            x = self._step(x, self._shown_tau(t), d, sampler, True, generator)
            frames.append(x)
        k = draw(self.posterior(x, self._shown_tau(times[-2])).cumsum(1), generator)
        return torch.stack([*frames, torch.eye(3, dtype=torch.float64)[k]])

    def theory(self, t: float) -> Theory:
        first, second = self.diffusion.moments(self.native_time(t))
        mean = self.w @ first
        H = None
        if t == 0:
            H = 0.0
        elif (per_corner := self.diffusion.entropy(self.native_time(t))) is not None:
            H = float(self.w @ per_corner)
        return Theory(mean, (self.w @ second - mean**2).clamp(min=0), H)

    def log_density(self, x: Tensor, t: float) -> Tensor:
        x, alpha = _inside(x, 0.004), self.diffusion.alpha
        log_pi = torch.lgamma(alpha.sum()) - torch.lgamma(alpha).sum() + ((alpha - 1) * x.log()).sum(1)
        l = self.diffusion.evidence(x, self._shown_tau(t))
        return log_pi - np.log(2) + torch.logsumexp(_log_weights(self.w) + l, 1)

    def field(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        x, tau = _inside(x, 0.01), self._shown_tau(t)
        return self.diffusion.drift(x), _select(x, self.diffusion.fitness(x, tau, self.posterior(x, tau)))


class GaussianCell:
    """x_t = sqrt(abar) e_k + sqrt(1 - abar) eps, seen in the plane of the triangle: y = 1/3 + (I - 11^T/3) x.

    Own time r = -log abar, in which dx = -1/2 x dr + dW; pi = N(0, I).
    """

    title, jumps, unit = "Gaussian on one-hots", False, "r"
    box, span = (-1.35, -1.55, 2.35, 2.1), (-5.0, 6.0)

    def __init__(self, w: Tensor, sampler: str = "native"):
        self.w, self.process = w, _gaussian()
        self.note = GAUSSIAN_SAMPLERS[sampler]

    def _abar(self, t: float) -> float:
        return float(self.process.alpha_bar(t))

    def native_time(self, t: float) -> float:
        return 0.0 if t == 0 else -float(np.log(self._abar(t)))

    def posterior(self, x: Tensor, t: float) -> Tensor:
        return torch.softmax(_log_weights(self.w) + x * (self._abar(t) ** 0.5 / (1 - self._abar(t))), 1)

    def _score(self, x: Tensor, t: float) -> Tensor:
        """grad log p_t = (sqrt(abar) E[x_0 | x] - x) / (1 - abar)."""
        abar = self._abar(t)
        return (abar**0.5 * self.posterior(x, t) - x) / (1 - abar)

    def forward(self, times: list[float], sampler: str, k: Tensor, generator: torch.Generator) -> Tensor:
        x = torch.eye(3, dtype=torch.float64)[k]
        frames = [x]
        for s, t in pairwise(times):
            keep = self._abar(t) / (self._abar(s) if s > 0 else 1.0)
            if sampler == "ode" and s > 0:
                x = self.process.ddim_step(x, self.posterior(x, s), s, t, 0.0, generator)
            elif sampler == "euler" and s > 0:
                d = -float(np.log(keep))
                parts = max(1, round(d / _EULER_STEP))
                for _ in range(parts):
                    dW = (d / parts) ** 0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
                    x = x * (1 - d / parts / 2) + dW
            else:
                x = keep**0.5 * x + (1 - keep) ** 0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
            frames.append(x)
        return _to_plane(torch.stack(frames))

    def reverse(self, times: list[float], sampler: str, n: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        frames = [x]
        for t, s in pairwise(times[:-1]):
            if sampler == "euler":
                d = float(np.log(self._abar(s) / self._abar(t)))
                dW = d**0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
                x = x + (x / 2 + self._score(x, t)) * d + dW
            else:
                eta = 1.0 if sampler == "native" else 0.0
                x = self.process.ddim_step(x, self.posterior(x, t), t, s, eta, generator)
            frames.append(x)
        k = draw(self.posterior(x, times[-2]).cumsum(1), generator)
        return _to_plane(torch.stack([*frames, torch.eye(3, dtype=torch.float64)[k]]))

    def theory(self, t: float) -> Theory:
        """E[y] = 1/3 + sqrt(abar) (w - 1/3); Var y_i = abar w_i (1 - w_i) + (1 - abar) 2/3."""
        abar = 1.0 if t == 0 else self._abar(t)
        return Theory(1 / 3 + abar**0.5 * (self.w - 1 / 3), abar * self.w * (1 - self.w) + (1 - abar) * 2 / 3)

    def log_density(self, x: Tensor, t: float) -> Tensor:
        """Three round Gaussians of variance 1 - abar in y, over 1 / area; the triangle's area in y is sqrt(3)/2."""
        abar = self._abar(t)
        centre = 1 / 3 + abar**0.5 * (torch.eye(3, dtype=torch.float64) - 1 / 3)
        square = (x[:, None] - centre).square().sum(2)
        log_p = torch.logsumexp(_log_weights(self.w) - square / (2 * (1 - abar)), 1)
        return log_p - np.log(2 * np.pi * (1 - abar)) + np.log(3**0.5 / 2)

    def field(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """f = -x/2 and D grad log(p/pi) = x + grad log p, within the plane (x is centred: y - 1/3)."""
        x = x - 1 / 3
        selection = x + self._score(x, t)
        return -x / 2, selection - selection.mean(1, keepdim=True)


class D3PMCell:
    """Jumps between corners (Austin et al. 2021); a masked cell is shown at the centroid."""

    jumps, unit = True, "n"
    box, span = (-0.1, -0.1, 1.1, 0.97), DiffusionCell.span

    def __init__(self, transition: str, w: Tensor, sampler: str = "native"):
        self.w, self.process = w, _d3pm(transition)
        self.title, self.note = f"D3PM {transition}", f"{D3PM_SAMPLERS['native']}, exact at any number of steps"

    def native_time(self, t: float) -> float:
        return float(self.process.index(t))

    def forward(self, times: list[float], sampler: str, k: Tensor, generator: torch.Generator) -> Tensor:
        x, frames = k, [k]
        for s, t in pairwise(times):
            Q = self.process.chain.between(self.process.index(s), self.process.index(t))[0]
            x = draw(Q[x].cumsum(-1), generator)
            frames.append(x)
        return self._corners(torch.stack(frames))

    def reverse(self, times: list[float], sampler: str, n: int, generator: torch.Generator) -> Tensor:
        x = self.process.prior((n, 1, 1), generator)
        f = _log_weights(self.w).view(1, 3, 1, 1).expand(n, 3, 1, 1)
        frames = [x]
        for t, s in pairwise(times):
            x = self.process.step(x, f, t, s, "ancestral", generator)
            frames.append(x)
        return self._corners(torch.stack(frames)[..., 0, 0])

    def _corners(self, states: Tensor) -> Tensor:
        return torch.cat([torch.eye(3, dtype=torch.float64), torch.full((1, 3), 1 / 3, dtype=torch.float64)])[states]

    def theory(self, t: float) -> Theory:
        """Fractions w Qbar_n; mean and variance of the shown corners; entropy of the fractions."""
        fractions = self._fractions(self.process.index(t))
        corners = self._corners(torch.arange(len(fractions)))
        mean = fractions @ corners
        var = fractions @ corners**2 - mean**2
        return Theory(mean, var.clamp(min=0), float(-torch.xlogy(fractions, fractions).sum()), fractions)

    def rates(self, t: float) -> tuple[Tensor, Tensor]:
        """Reverse jump rates from i to j per unit of r = -log abar, as mutation + selection: two (S, S).

        With the forward rates Q = R - 1 and the marginal p the reverse ones are Q[j, i] p_j / p_i. The uniform chain is
        reversible under pi, and rho = p / pi: mutation Q[i, j], selection Q[i, j] (rho_j / rho_i - 1). The absorbing
        chain keeps nothing but the mask: its forward jumps never happen backwards, and all of unmasking is selection.
        """
        Q, n = self.process.chain.R.clone().fill_diagonal_(0), self.process.index(t).clamp(min=1)
        p = self._fractions(n)
        reverse = Q.T * p / p[:, None].clamp(min=1e-30)
        mutation = Q if torch.equal(Q, Q.T) else torch.zeros_like(Q)
        return mutation, reverse - mutation

    def _fractions(self, n: Tensor) -> Tensor:
        """w Qbar_n: (S,)."""
        return self.w @ self.process.chain.between(torch.zeros_like(n), n)[0, :3]

    def log_density(self, x: Tensor, t: float) -> None:
        return None

    def field(self, x: Tensor, t: float) -> None:
        return None


def _select(x: Tensor, w: Tensor) -> Tensor:
    """x (w - <x, w>)."""
    return x * (w - (x * w).sum(1, keepdim=True))


def _log_weights(w: Tensor) -> Tensor:
    return w.clamp(min=1e-30).log()


def _inside(x: Tensor, margin: float) -> Tensor:
    """The triangle's points pushed at least `margin` inside, where densities are finite."""
    x = x.clamp(min=margin)
    return x / x.sum(1, keepdim=True)


def _to_plane(x: Tensor) -> Tensor:
    """y = 1/3 + (I - 11^T/3) x."""
    return 1 / 3 + x - x.mean(-1, keepdim=True)


@lru_cache(maxsize=1)
def _gaussian() -> Gaussian:
    return Gaussian(3, cells=10)  # 0.001 nat is left at either end


@lru_cache(maxsize=2)
def _d3pm(transition: str) -> D3PM:
    return D3PM(3, transition)
