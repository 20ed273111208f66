"""Time by destroyed information, the one clock that all processes on categories share.

1 - t = I(v) = 1 - E[H(softmax(l))] / log K for one cell under a uniform prior, where v is the process' own time
(log tau of the Wright-Fisher diffusion, log noise-to-signal of the Gaussian, ...). Austin et al. (2021) use the same
idea as D3PM's mutual-information schedule.
"""

import numpy as np
import torch
from torch import Tensor

EVENLY = 0.1  # share of the times drawn for training and bounds that is spread evenly over the native time


class Clock:
    """Monotone map between t in [0, 1] and the process' own time v in [v[0], v[-1]].

    v: (N,) increasing; lost: (N,) destroyed information at v. Both ends are stretched to exactly 0 and 1.
    whole: v counts the steps of a chain.
    """

    def __init__(self, v: np.ndarray, lost: np.ndarray, whole: bool = False):
        self.whole = whole
        lost = np.maximum.accumulate(np.asarray(lost, np.float64))
        lost = lost + np.linspace(0, 1e-9, len(lost))  # strictly increasing, so that both directions are functions
        self._t = (lost - lost[0]) / (lost[-1] - lost[0])
        self._v = np.asarray(v, np.float64)
        width = np.diff(self._v)
        where_lost = np.sqrt(np.diff(self._t) * width)
        share = EVENLY * width / width.sum() + (1 - EVENLY) * where_lost / where_lost.sum()
        self._cdf, self._density = np.concatenate([[0.0], share.cumsum()]), share / width

    def native(self, t: Tensor | float) -> Tensor:
        """v(t), float64."""
        t = torch.as_tensor(t, dtype=torch.float64)
        if not bool(((t >= 0) & (t <= 1)).all()):
            raise ValueError(f"t must lie in [0, 1], got {t}")
        return torch.as_tensor(np.interp(t.numpy(), self._t, self._v))

    def t(self, v: Tensor | float) -> Tensor:
        """t(v), float64."""
        v = torch.as_tensor(v, dtype=torch.float64)
        return torch.as_tensor(np.interp(v.numpy(), self._v, self._t))

    def apart(self, t: Tensor) -> Tensor:
        """Falling times (N + 1,), some of them moved where several would be the same step of a chain: each has its own.

        The ends stay. Where the chain has fewer than N steps between them, nothing is moved.
        """
        n = self.native(t).round()
        if not self.whole or n[0] - n[-1] < len(n) - 1:
            return t
        i = torch.arange(len(n))  # n falls strictly where n + i does not rise
        own = (n + i).flip(0).cummax(0).values.flip(0).clamp(max=n[0]) - i
        return torch.where(own == n, t, self.t(own))

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n stratified native times v and the density they were drawn with: (n,), (n,), float64.

        The density goes with sqrt(dt/dv), close to the optimal one for training: the root mean square of the gradient
        of the bound's rate (docs/decisions.md).
        """
        u = stratified(n, generator).numpy() * self._cdf[-1]
        interval = np.searchsorted(self._cdf[1:-1], u, side="right")
        return torch.from_numpy(np.interp(u, self._cdf, self._v)), torch.from_numpy(self._density[interval])


def stratified(n: int, generator: torch.Generator) -> Tensor:
    """n points of [0, 1), one in each of n equal parts, in random order; float64."""
    u = (torch.arange(n, dtype=torch.float64) + torch.rand(n, generator=generator, dtype=torch.float64)) / n
    return u[torch.randperm(n, generator=generator)]


def entropy(logits: Tensor) -> Tensor:
    """H(softmax(logits)) along axis 1 in nats; 0 log 0 = 0."""
    log_p = torch.log_softmax(logits, 1)
    return -torch.where(log_p > -80, log_p.exp() * log_p, 0.0).sum(1)
