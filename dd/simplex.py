"""One cell of three categories, with exact mathematics: paths, densities, fields and the numbers they must agree with.

Every diffusion here is reversible under a stationary law pi: dx = f dtau + D^(1/2) dW, f = 1/2 (div D + D grad log pi).
With rho = p_tau / pi its reverse-time drift and its probability flow are therefore always (docs/math.md)

    f + D grad log rho        "mutation + selection"            and        1/2 D grad log rho,

and with three corners and prior weights w the posterior is exact: rho = sum_k w_k rho_k, p_k = w_k rho_k / rho.
A path is an array of frames; how they are shown is dd.ui.simplex' work.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dd.bakosi import BakosiRistorcelli
from dd.moments import corner_entropy, corner_moments, stationary
from dd.processes.base import draw
from dd.processes.clock import Clock, entropy
from dd.processes.d3pm import D3PM
from dd.processes.dirichlet import frozen_step, replicator
from dd.processes.gaussian import Gaussian
from dd.stick_breaking import StickBreaking
from dd.wright_fisher import WrightFisher, tau_for_kl

SAMPLERS = ("native", "euler", "ode")
ALPHA = (0.1, 5.0)  # concentrations offered
MAX_PARTICLES, MAX_STEPS = 2000, 200
PRIOR_NATS = 3e-4  # KL(p_T || pi) at t = 1: less than 2,000 particles can show
D3PM_SAMPLER = "ancestral jumps"
GAUSSIAN_SAMPLERS = {"native": "DDPM ancestral step", "euler": "Euler-Maruyama", "ode": "DDIM"}
CORNERS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]], dtype=torch.float64)  # of the drawn triangle
NO_FLOW = (
    "Bakosi-Ristorcelli has no forward probability flow here: next to a corner its density has detail of size tau^2, "
    "finer than the numerical score. Choose another sampler, or the reverse direction."
)
_EULER_STEP = 0.02  # longest forward Euler substep
_CERTAIN_T = 2e-4  # share of the information destroyed at which the clock begins: below it a cell looks clean


class Diffusion(Protocol):
    """A diffusion of the triangle, reversible under Dirichlet(alpha). x: (N, 3) float64; p: (N, 3) posterior."""

    name: str
    step_name: str
    alpha: Tensor
    tau_lo: float
    tau_hi: float

    def evidence(self, x: Tensor, tau: float) -> Tensor:
        """l_k = log rho_k(x): (N, 3)."""

    def fitness(self, x: Tensor, tau: float, p: Tensor) -> Tensor:
        """w with D grad log rho = x (w - <x, w>): (N, 3)."""

    def drift(self, x: Tensor) -> Tensor:
        """f(x): (N, 3)."""

    def noise(self, x: Tensor, dB: Tensor) -> Tensor:
        """D^(1/2) dB: (N, 3)."""

    def step(self, x: Tensor, tau: float, p: Tensor | None, d: float, generator: torch.Generator) -> Tensor:
        """A simplex-preserving step of length d with drift f + D grad log rho, or f alone where there is no p."""

    def sample(self, k: Tensor, tau: float, generator: torch.Generator) -> Tensor:
        """x_tau given corners k (N,)."""

    def moments(self, tau: float) -> tuple[Tensor, Tensor]:
        """E[x_i | e_k], E[x_i^2 | e_k]: two (3, 3), rows k."""

    def entropy(self, tau: float) -> Tensor | None:
        """E[H(x) | e_k]: (3,), or None where no closed form is known."""


class NeutralWrightFisher:
    """dx = 1/2 (alpha - theta x) dtau + Sigma(x)^(1/2) dW, as a `Diffusion`; the kernel is dd/wright_fisher.py."""

    name = "Wright-Fisher"
    step_name = "Dirichlet step"

    def __init__(self, alpha: Tensor):
        self.kernel = WrightFisher(alpha)
        self.alpha, self.theta = self.kernel.alpha, self.kernel.theta
        self.tau_lo, self.tau_hi = self.kernel.tau_lo, self.kernel.tau_hi

    def evidence(self, x: Tensor, tau: float) -> Tensor:
        return self.kernel.log_h(x, tau)[0]

    def fitness(self, x: Tensor, tau: float, p: Tensor) -> Tensor:
        """u_i = p_i h'/h_tau,i(x_i)."""
        return p * self.kernel.log_h(x, tau)[1]

    def drift(self, x: Tensor) -> Tensor:
        return (self.alpha - self.theta * x) / 2

    def noise(self, x: Tensor, dB: Tensor) -> Tensor:
        """Sigma^(1/2) dW = sqrt(x) dB - x <sqrt(x), dB>."""
        root = x.clamp(min=0).sqrt() * dB
        return root - x * root.sum(1, keepdim=True)

    def step(self, x: Tensor, tau: float, p: Tensor | None, d: float, generator: torch.Generator) -> Tensor:
        a = (self.alpha / 2).expand_as(x)
        return frozen_step(x, a if p is None else a + x * self.fitness(x, tau, p), d, generator)

    def sample(self, k: Tensor, tau: float, generator: torch.Generator) -> Tensor:
        return self.kernel.sample(k, tau, generator).double()

    def moments(self, tau: float) -> tuple[Tensor, Tensor]:
        return corner_moments(self.alpha, tau)

    def entropy(self, tau: float) -> Tensor:
        return corner_entropy(self.kernel, min(max(tau, self.tau_lo), self.tau_hi))


# -- what a run needs to know of a process ---------------------------------------------------------------------------


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

    jumps = False
    box, span = (-0.04, -0.02, 1.04, 0.89), (0.0, 1.0)

    def __init__(self, diffusion: Diffusion, w: Tensor, sampler: str = "native"):
        self.diffusion, self.w = diffusion, w
        self.clock = _clock(diffusion)
        self.title = diffusion.name
        self.note = _diffusion_samplers(diffusion.step_name)[sampler]
        if isinstance(diffusion, BakosiRistorcelli):
            self.note += f"; score by numerical Fokker-Planck, resolution 1/{diffusion.fine.N}"

    def native_time(self, t: float) -> float:
        """tau(t); t = 0 is the clean corner itself."""
        return 0.0 if t == 0 else float(self.clock.native(t).exp())

    def _shown_tau(self, t: float) -> float:
        return float(self.clock.native(t).exp())

    def posterior(self, x: Tensor, tau: float) -> Tensor:
        """p_k = w_k rho_k / rho: (N, 3)."""
        return torch.softmax(_log_weights(self.w) + self.diffusion.evidence(x, tau), 1)

    def _step(self, x: Tensor, tau: float, d: float, sampler: str, backwards: bool, generator: torch.Generator):
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
        if sampler == "ode" and isinstance(self.diffusion, BakosiRistorcelli):
            raise ValueError(NO_FLOW)
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

    title, jumps = "Gaussian on one-hots", False
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

    jumps = True
    box, span = (-0.1, -0.1, 1.1, 0.97), DiffusionCell.span

    def __init__(self, transition: str, w: Tensor, sampler: str = "native"):
        self.w, self.process = w, _d3pm(transition)
        self.title, self.note = f"D3PM {transition}", f"{D3PM_SAMPLER}, exact at any number of steps"

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


# -- runs --------------------------------------------------------------------------------------------------------------

PROCESSES: dict[str, Callable[[tuple[float, ...], Tensor, str], Cell]] = {
    "Wright-Fisher": lambda alpha, w, sampler: DiffusionCell(_diffusion("Wright-Fisher", alpha), w, sampler),
    "Stick-breaking Jacobi": lambda alpha, w, sampler: DiffusionCell(
        _diffusion("Stick-breaking Jacobi", alpha), w, sampler
    ),
    "Bakosi-Ristorcelli": lambda alpha, w, sampler: DiffusionCell(_diffusion("Bakosi-Ristorcelli", alpha), w, sampler),
    "D3PM uniform": lambda alpha, w, sampler: D3PMCell("uniform", w, sampler),
    "D3PM absorbing": lambda alpha, w, sampler: D3PMCell("absorbing", w, sampler),
    "Gaussian on one-hots": lambda alpha, w, sampler: GaussianCell(w, sampler),
}


DIFFUSIONS = {  # those of the triangle, which have an alpha; the others have a stationary law of their own
    "Wright-Fisher": NeutralWrightFisher,
    "Stick-breaking Jacobi": StickBreaking,
    "Bakosi-Ristorcelli": BakosiRistorcelli,
}


def sampler_names(processes: list[str], backwards: bool) -> dict[str, str]:
    """{sampler: what these processes call it}: the samplers that any of them has and none refuses."""
    known = [_samplers_of(name) for name in processes]
    out = {s: " / ".join(dict.fromkeys(names[s] for names in known if s in names)) for s in SAMPLERS}
    if not backwards and "Bakosi-Ristorcelli" in processes:
        del out["ode"]  # NO_FLOW says why
    return {sampler: called for sampler, called in out.items() if called}


def _check_name(process: str) -> None:
    if process not in PROCESSES:
        raise ValueError(f"Unknown process {process!r}; choose one of {', '.join(PROCESSES)}.")


def _samplers_of(process: str) -> dict[str, str]:
    _check_name(process)
    if process in DIFFUSIONS:
        return _diffusion_samplers(DIFFUSIONS[process].step_name)
    return {"native": D3PM_SAMPLER} if process.startswith("D3PM") else GAUSSIAN_SAMPLERS


def _diffusion_samplers(step_name: str) -> dict[str, str]:
    return {"native": step_name, "euler": "Euler-Maruyama", "ode": "probability-flow ODE"}


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
                raise ValueError(f"Every alpha must lie between {ALPHA[0]} and {ALPHA[1]}; got {a}.")
        if not all(np.isfinite(self.weights)) or min(self.weights) < 0:
            raise ValueError("Corner weights must be numbers of at least 0.")
        if sum(self.weights) <= 0:
            raise ValueError("At least one corner weight must be above 0.")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"Unknown sampler {self.sampler!r}; choose one of {', '.join(SAMPLERS)}.")
        if not 2 <= self.steps <= MAX_STEPS:
            raise ValueError(f"The number of steps must lie between 2 and {MAX_STEPS}; got {self.steps}.")
        if not 1 <= self.particles <= MAX_PARTICLES:
            raise ValueError(f"The number of particles must lie between 1 and {MAX_PARTICLES}; got {self.particles}.")
        if not 0 <= self.seed < 2**63:
            raise ValueError("The seed must be a whole number of at least 0.")

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


# -- small things ------------------------------------------------------------------------------------------------------


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


@lru_cache(maxsize=8)
def _diffusion(name: str, alpha: tuple[float, ...]) -> Diffusion:
    return DIFFUSIONS[name](torch.tensor(alpha, dtype=torch.float64))


@lru_cache(maxsize=1)
def _gaussian() -> Gaussian:
    return Gaussian(3, cells=10)  # 0.001 nat is left at either end


@lru_cache(maxsize=2)
def _d3pm(transition: str) -> D3PM:
    return D3PM(3, transition)


@lru_cache(maxsize=8)
def _clock(diffusion: Diffusion) -> Clock:
    """t by destroyed information: from the kernel's own table, or by Monte-Carlo with the same numbers at every tau."""
    if isinstance(diffusion, BakosiRistorcelli):
        taus, lost = diffusion.taus, diffusion.lost
    else:
        theta, alpha_min = float(diffusion.alpha.sum()), float(diffusion.alpha.min())
        if isinstance(diffusion, StickBreaking):
            theta = min(float(pair.sum()) for pair in diffusion.pairs)  # the slower stick
        last = min(diffusion.tau_hi, tau_for_kl(theta, min(alpha_min, theta / 2), PRIOR_NATS))
        taus = np.geomspace(diffusion.tau_lo, last, 40)
        lost = np.array([_destroyed(diffusion, tau) for tau in taus])
    first = max(int(np.searchsorted(np.maximum.accumulate(lost), _CERTAIN_T)) - 1, 0)
    return Clock(np.log(taus[first:]), lost[first:])


def _destroyed(diffusion: Diffusion, tau: float, n: int = 2000) -> float:
    """E[H(p(x_0 | x_tau))] / log 3 under a uniform prior, n cells a corner."""
    k = torch.arange(3).repeat(n)
    x = diffusion.sample(k, tau, torch.Generator().manual_seed(0))
    return float(entropy(diffusion.evidence(x, tau)).mean() / np.log(3))
