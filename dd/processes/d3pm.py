"""D3PM, diffusion over discrete states (Austin et al. 2021), with the network's posterior over the clean category.

    p(x_s | x_t) = sum_k p_k q(x_s | x_t, e_k) = Q_{t|s}[x_s, x_t] sum_k w_k Qbar_s[k, x_s],
    w_k = p_k / Qbar_t[k, x_t] = exp(f_k - logsumexp(f + l)),     l_k = log Qbar_t[k, x_t],

where w stays finite even where the evidence rules a category out. The state of a cell is one of S = K integers, or
K + 1 with the mask.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dd.processes.base import Categorical, Option, draw
from dd.processes.chains import absorbing_chain, gaussian_chain, information, uniform_chain
from dd.processes.clock import Clock, stratified

LARGEST = 700.0  # log of a weight: finite where the evidence rules a category out that the network is all but sure of


class D3PM(Categorical):
    """K categories, transition "uniform", "absorbing" or "gaussian", T steps.

    schedule: one of chains.SCHEDULES, "information" by default; the Gaussian transition has its own, "linear".
    """

    continuous = False
    losses = ("bound", "cross-entropy", "hybrid")
    methods = ("ancestral",)
    options: ClassVar[dict[str, Option]] = {}

    def __init__(self, K: int, transition: str = "absorbing", T: int = 1000, schedule: str | None = None):
        self.K, self.T, self.name, self.ordered = K, T, f"d3pm-{transition}", transition == "gaussian"
        schedule = schedule or ("linear" if transition == "gaussian" else "information")
        if transition == "gaussian":
            if schedule != "linear":
                raise ValueError(f"the discretised Gaussian chain has betas linear in n, no schedule {schedule!r}")
            self.chain = gaussian_chain(K, T)
        elif transition in ("uniform", "absorbing"):
            self.chain = {"uniform": uniform_chain, "absorbing": absorbing_chain}[transition](K, T, schedule)
        else:
            raise ValueError(f"unknown transition {transition!r}; choose uniform, absorbing or gaussian")
        self.S = self.chain.S
        self.mask = K if self.S > K else None
        n = np.arange(T + 1)
        if schedule == "information":
            lost = n / T
        else:
            coarse = np.unique(np.linspace(0, T, min(T, 200) + 1).round().astype(int))
            bars = [information(self._bar(torch.tensor([i]))[:, :K]) for i in coarse]
            lost = np.interp(n, coarse, 1 - torch.cat(bars).numpy())
        self.clock = Clock(n, lost, whole=True)
        share = 0.5 / T + 0.5 * np.diff(lost) / (lost[-1] - lost[0])
        self._share = torch.from_numpy(share / share.sum())

    def _bar(self, n: Tensor) -> Tensor:
        return self.chain.between(torch.zeros_like(n), n)

    def index(self, t: Tensor | float) -> Tensor:
        """The chain's step n at time t: (B,) or (1,) integers."""
        return self.clock.native(t).reshape(-1).round().long()

    # -- forward -----------------------------------------------------------------------------------------------------

    def prior(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """x_T: the mask in every cell, where there is one, else uniform over the categories: (B, H, W)."""
        if self.mask is not None:
            return torch.full(shape, self.mask)
        return torch.randint(0, self.K, shape, generator=generator)

    def perturb(self, x0: Tensor, t: Tensor | float, generator: torch.Generator) -> Tensor:
        """x_t ~ Qbar_t[x_0, .]: (B, H, W) states."""
        cdf = self._bar(self.index(t))[:, : self.K].cumsum(-1)  # (B, K, S)
        batch = torch.arange(len(x0)).view(-1, *(1,) * (x0.ndim - 1)) if len(cdf) > 1 else 0
        return draw(cdf[batch, x0], generator)

    def evidence(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """l_k = log Qbar_t[k, x_t]; minus infinity where x_t rules e_k out."""
        log_bar = self._bar(self.index(t))[:, : self.K].transpose(1, 2).log().float()  # (B, S, K)
        batch = torch.arange(len(x_t)).view(-1, *(1,) * (x_t.ndim - 1)) if len(log_bar) > 1 else 0
        return log_bar[batch, x_t].movedim(-1, 1)

    def simplex(self, x_t: Tensor) -> Tensor:
        """Corners; the mask stands at the centroid."""
        corners = torch.cat([torch.eye(self.K), torch.full((1, self.K), 1 / self.K)])
        return corners[x_t].movedim(-1, 1)

    # -- reverse -----------------------------------------------------------------------------------------------------

    def posterior(self, w: Tensor, x_t: Tensor, n: Tensor, s: Tensor) -> Tensor:
        """p(x_s | x_t) for weights w (B, cells, K), states x_t (B, cells), steps n > s (B,): (B, cells, S)."""
        arrive = self.chain.between(s, n).transpose(1, 2)  # [x_t, x_s]
        batch = torch.arange(len(x_t))[:, None] if len(arrive) > 1 else 0
        out = arrive[batch, x_t] * (w.double() @ self._bar(s)[:, : self.K])
        return out / out.sum(-1, keepdim=True)

    def step(self, x_t: Tensor, f: Tensor, t: float, s: float, method: str, generator: torch.Generator) -> Tensor:
        """x_s ~ p(x_s | x_t), drawn from the posterior in the module's docstring: (B, H, W)."""
        if method not in self.methods:
            raise ValueError(f"unknown method {method!r}; choose one of {', '.join(self.methods)}")
        n, s_ = self.index(t), self.index(s)
        if bool((n == s_).all()):
            return x_t
        return draw(self._law(x_t, f, t, n, s_).cumsum(-1), generator).view(x_t.shape)

    def _law(self, x_t: Tensor, f: Tensor, t: float, n: Tensor, s: Tensor) -> Tensor:
        """p(x_s | x_t) that `step` draws from, states on the last axis: (B, cells, S)."""
        return self.posterior(self._weights(f, self.evidence(x_t, t)), x_t.flatten(1), n, s)

    def _weights(self, f: Tensor, l: Tensor) -> Tensor:
        """w_k = exp(f_k - logsumexp(f + l)), float64: (B, cells, K)."""
        f, l = f.double(), l.double()  # guidance may stretch f far beyond what float32's exponent holds
        return _cells_last((f - torch.logsumexp(f + l, 1, keepdim=True)).clamp(max=LARGEST).exp())

    # -- likelihood --------------------------------------------------------------------------------------------------

    def times(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Steps 1..T, stratified, half of them evenly and half where information is lost; weight 1 / probability."""
        step = torch.searchsorted(self._share.cumsum(0), stratified(n, generator)).clamp(max=self.T - 1)
        return self.clock.t(step + 1.0), 1 / self._share[step]

    def loss(self, logits: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """One term of L_vb: KL(q(x_{n-1} | x_n, x_0) || p(x_{n-1} | x_n)), nats per image; n = 1: -log p(x_0 | x_1)."""
        n = self.index(t)
        return self.kl_between(logits, x0, x_t, n, n - 1)

    def kl_between(self, logits: Tensor, x0: Tensor, x_t: Tensor, n: Tensor, s: Tensor) -> Tensor:
        """The same term for a step from n to any s < n: (B,)."""
        l = self.evidence(x_t, self.clock.t(n))
        # what the evidence rules out has no weight
        f = torch.where(l > -torch.inf, logits.double() - l.double(), -torch.inf)
        q = self.posterior(_cells_last(torch.zeros_like(l).scatter_(1, x0[:, None], 1.0)), x_t.flatten(1), n, s)
        p = self.posterior(self._weights(f, l), x_t.flatten(1), n, s)
        log_p = p.clamp(min=1e-30).log()
        return torch.where(q > 0, q * (q.clamp(min=1e-30).log() - log_p), 0.0).flatten(1).sum(1)

    def kl_prior(self, shape: tuple[int, int]) -> float:
        """KL(q(x_T | x_0) || prior); the reconstruction term is the step n = 1."""
        if self.mask is not None:
            return 0.0
        bar = self._bar(torch.tensor([self.T]))[0]
        return float(shape[0] * shape[1] * torch.xlogy(bar, bar * self.K).sum(1).max())


def _cells_last(x: Tensor) -> Tensor:
    """(B, K, H, W) -> (B, H W, K)."""
    return x.flatten(2).transpose(1, 2)
