"""Diffusions of the triangle of three categories, reversible under Dirichlet(alpha), behind one interface.

dx = f dtau + D^(1/2) dW with f = 1/2 (div D + D grad log pi). With rho = p_tau / pi the reverse-time drift and the
probability flow are therefore always (docs/math.md)

    f + D grad log rho        "mutation + selection"            and        1/2 D grad log rho.

Wright-Fisher is here; stick_breaking and bakosi have the others, simulation the list of all.
"""

from functools import lru_cache
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from dd.moments import corner_entropy, corner_moments
from dd.processes.clock import Clock, entropy
from dd.processes.dirichlet import frozen_step
from dd.wright_fisher import WrightFisher, tau_for_kl

PRIOR_NATS = 3e-4  # KL(p_T || pi) at t = 1: less than 2,000 particles can show
_CERTAIN_T = 2e-4  # share of the information destroyed at which the clock begins: below it a cell looks clean


class Diffusion(Protocol):
    """A diffusion of the triangle, reversible under Dirichlet(alpha). x: (N, 3) float64; p: (N, 3) posterior."""

    name: str
    step_name: str
    detail: str  # what is numerical about it, for the page
    refuses: dict[str, str]  # samplers that it lacks forwards, and why
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

    def information(self) -> tuple[np.ndarray, np.ndarray]:
        """Increasing times tau (M,), the last one next to pi, and the share of information destroyed at them (M,)."""


@lru_cache(maxsize=8)
def clock(diffusion: Diffusion) -> Clock:
    """t by destroyed information."""
    taus, lost = diffusion.information()
    first = max(int(np.searchsorted(np.maximum.accumulate(lost), _CERTAIN_T)) - 1, 0)
    return Clock(np.log(taus[first:]), lost[first:])


def simulated_information(diffusion: Diffusion, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """`Diffusion.information` by Monte-Carlo, with the same numbers at every tau. theta: of its slowest part, which
    decides when pi is near."""
    last = tau_for_kl(theta, min(float(diffusion.alpha.min()), theta / 2), PRIOR_NATS)
    taus = np.geomspace(diffusion.tau_lo, min(diffusion.tau_hi, last), 40)
    return taus, np.array([_destroyed(diffusion, tau) for tau in taus])


def _destroyed(diffusion: Diffusion, tau: float, n: int = 2000) -> float:
    """E[H(p(x_0 | x_tau))] / log 3 under a uniform prior, n cells a corner."""
    k = torch.arange(3).repeat(n)
    x = diffusion.sample(k, tau, torch.Generator().manual_seed(0))
    return float(entropy(diffusion.evidence(x, tau)).mean() / np.log(3))


class NeutralWrightFisher:
    """dx = 1/2 (alpha - theta x) dtau + Sigma(x)^(1/2) dW, as a `Diffusion`; the kernel is dd/wright_fisher.py."""

    name = "Wright-Fisher"
    step_name, detail = "Dirichlet step", ""
    refuses: ClassVar[dict[str, str]] = {}

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

    def information(self) -> tuple[np.ndarray, np.ndarray]:
        return simulated_information(self, self.theta)
