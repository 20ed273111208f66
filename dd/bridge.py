"""The Wright-Fisher bridge: where a cell that starts at corner e_k and is now at x_t was at an earlier time, exactly.

Count lineages (Kingman's coalescent with mutation) at three places: m of time s reach back to e_k, the population at s
descends from m' founders at t, and j of those founders are met by the m lineages. With y = x_t,k and r = tau_t - tau_s

    j:        q_j(tau_t) (theta)_j / (alpha_k)_j y^j
    m, m':    q_m'(r) C(m', j) / (theta + m')_m  q_m(tau_s) (theta)_m m! / (m - j)!     given j, whatever k and y are
    x_s:      Dirichlet(alpha + l + m e_k),   l = j e_k + Multinomial(m' - j, x_t).

Summed over j this is the mixture with weights q_m'(r) q_m(tau_s) (theta)_m (alpha_k + l_k)_m / [(alpha_k)_m
(theta + m')_m], because (alpha_k + l)_m = sum_j C(l, j) m! / (m - j)! (alpha_k + j)_(m - j). Nothing is discretised
in time.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.special import gammaln
from torch import Tensor

from dd.gamma import dirichlet
from dd.lineages import log_lineages, mean_lineages
from dd.wright_fisher import WrightFisher

NEGLIGIBLE = 60.0  # nats below the largest weight
CHUNK = 65536  # cells whose table rows are expanded at once


@dataclass(frozen=True)
class Tables:
    """Of one step. log_j: (A, J) without y^j, a row per distinct alpha; founders: (W,) values of m';
    founder_cdf: (J, W) of m' given j; log_m: (J, M) = log q_m(tau_s) (theta)_m m! / (m - j)!."""

    log_j: Tensor
    founders: Tensor
    founder_cdf: Tensor
    log_m: Tensor


@lru_cache(maxsize=256)  # more than a run has steps, or the next run would find none of them
def tables(kernel: WrightFisher, tau_s: float, tau_t: float) -> Tables:
    """The weights of the module's head for 0 < tau_s < tau_t, as far as they are within NEGLIGIBLE of the largest."""
    theta, alpha = kernel.theta, kernel.unique_alpha.numpy()
    log_q_t = kernel.log_lineages(tau_t).numpy()
    j = np.arange(log_q_t.shape[1])
    ratio = gammaln(theta + j) - gammaln(theta) - gammaln(alpha[:, None] + j) + gammaln(alpha[:, None])
    log_j = log_q_t + ratio
    J = int(np.flatnonzero((log_j > log_j.max(1, keepdims=True) - NEGLIGIBLE).any(0))[-1]) + 1
    founders, log_founders = window(tau_t - tau_s, theta)
    J = min(J, int(founders[-1]) + 1)  # there are no more lineages than founders
    log_m, log_founders_given_j = _joint(kernel.log_lineages(tau_s)[0].numpy(), j[:J], founders, log_founders, theta)
    cdf = np.cumsum(np.exp(log_founders_given_j - log_founders_given_j.max(1, keepdims=True)), 1)
    return Tables(
        torch.from_numpy(log_j[:, :J]),
        torch.from_numpy(founders),
        torch.from_numpy(cdf / cdf[:, -1:]),
        torch.from_numpy(log_m),
    )


def window(tau: float, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """The m that matter at any tau > 0, however small, and log q_m(tau): (W,), (W,)."""
    mean = mean_lineages(tau, theta)
    reach = 12 + 12 * np.sqrt(mean)
    m = np.arange(max(0, int(mean - reach)), int(mean + reach) + 1)
    log_q = log_lineages(m, np.array(tau), theta)
    keep = log_q > log_q.max() - NEGLIGIBLE
    return m[keep], log_q[keep]


def _joint(
    log_q_s: np.ndarray, j: np.ndarray, founders: np.ndarray, log_founders: np.ndarray, theta: float
) -> tuple[np.ndarray, np.ndarray]:
    """log_m (J, M), and log weights of (j, m') summed over m: (J, W). Their sum over m' is q_j(tau_t) (theta)_j."""
    m = np.arange(len(log_q_s))
    with np.errstate(invalid="ignore"):
        falling = np.where(m >= j[:, None], gammaln(m + 1) - gammaln(np.maximum(m - j[:, None], 0) + 1), -np.inf)
        choose = gammaln(founders + 1) - gammaln(j[:, None] + 1) - gammaln(np.maximum(founders - j[:, None], 0) + 1)
        choose = np.where(founders >= j[:, None], choose, -np.inf)
    log_m = log_q_s + gammaln(theta + m) - gammaln(theta) + falling
    # sum over m as a matrix product; (theta + m')_m is taken relative to scale^m, and each row to its largest entry
    log_scale = m * np.log(theta + founders.mean())
    rising = gammaln(theta + founders + m[:, None]) - gammaln(theta + founders)
    left = log_m - log_scale
    peak = left.max(1, keepdims=True)
    with np.errstate(divide="ignore"):
        total = np.log(np.exp(left - peak) @ np.exp(log_scale[:, None] - rising)) + peak
    return log_m, log_founders + choose + total


def bridge(
    kernel: WrightFisher, x_t: Tensor, k: Tensor, tau_s: float, tau_t: float, generator: torch.Generator
) -> Tensor:
    """x_s given corner k (B, ...) at tau = 0 and x_t (B, K, ...) at tau_t: like x_t."""
    dtype, x_t = x_t.dtype, x_t.double()
    table = tables(kernel, tau_s, tau_t)
    y, row = x_t.gather(1, k[:, None]).flatten(), kernel.row_of[k].flatten()
    count = torch.arange(table.log_j.shape[1], dtype=torch.float64)
    pieces = [
        _draw(table.log_j[row_] + torch.xlogy(count, y_[:, None]), generator)
        for y_, row_ in zip(y.split(CHUNK), row.split(CHUNK), strict=True)
    ]
    j = torch.cat(pieces)
    w = _pick(table.founder_cdf, j, generator)
    pair, which = torch.unique(j * len(table.founders) + w, return_inverse=True)
    pair_j, founders = pair // len(table.founders), table.founders[pair % len(table.founders)].double()[:, None]
    lineages = torch.arange(table.log_m.shape[1], dtype=torch.float64)
    rising = torch.lgamma(kernel.theta + founders + lineages) - torch.lgamma(kernel.theta + founders)
    m = _pick(torch.softmax(table.log_m[pair_j] - rising, 1).cumsum(1), which, generator)
    l = multinomial((table.founders[w] - j).view(k.shape), x_t, generator)
    l.scatter_add_(1, k[:, None], (j + m).double().view(k.shape)[:, None])
    concentration = l.add_(kernel.alpha.view(1, -1, *(1,) * (x_t.ndim - 2)))
    return dirichlet(concentration.to(dtype), tuple(x_t.shape), generator)


def evolve(kernel: WrightFisher, x: Tensor, duration: float, generator: torch.Generator) -> Tensor:
    """The forward diffusion from any x (B, K, ...), exactly: m ~ q_m, l ~ Multinomial(m, x), Dirichlet(alpha + l)."""
    x = x.double()
    values, log_q = window(duration, kernel.theta)
    cdf = torch.softmax(torch.from_numpy(log_q), 0).cumsum(0)[None]
    m = torch.from_numpy(values)[_pick(cdf, torch.zeros(x[:, 0].numel(), dtype=torch.long), generator)]
    l = multinomial(m.view(x[:, 0].shape), x, generator)
    return dirichlet(kernel.alpha.view(1, -1, *(1,) * (x.ndim - 2)) + l, tuple(x.shape), generator)


def _draw(log_w: Tensor, generator: torch.Generator) -> Tensor:
    """One index a row: (N, J) log weights -> (N,)."""
    return _pick(torch.softmax(log_w, 1).cumsum(1), torch.arange(len(log_w)), generator)


def _pick(cdf: Tensor, row: Tensor, generator: torch.Generator) -> Tensor:
    """An index drawn from row `row` (N,) of cdf (R, W), by one search in all rows laid end to end."""
    u = torch.rand(row.shape, generator=generator, dtype=torch.float64) * cdf[row, -1]
    end_to_end = (cdf + torch.arange(len(cdf), dtype=torch.float64)[:, None]).flatten()
    found = torch.searchsorted(end_to_end, u + row, right=True) - row * cdf.shape[1]
    return found.clamp(0, cdf.shape[1] - 1)


def multinomial(n: Tensor, p: Tensor, generator: torch.Generator) -> Tensor:
    """Counts (B, K, ...) of n (B, ...) draws from p (B, K, ...), by halving the categories: log2 K binomials deep."""
    K = p.shape[1]
    depth = (K - 1).bit_length()
    p = torch.nn.functional.pad(p.movedim(1, -1), (0, 2**depth - K))
    counts = n.double()[..., None]
    for level in range(depth):
        mass = p.unflatten(-1, (2 ** (level + 1), -1)).sum(-1).unflatten(-1, (-1, 2))  # (..., 2^level, 2)
        share = (mass[..., 0] / mass.sum(-1).clamp(min=1e-300)).clamp(0, 1)
        left = torch.binomial(counts, share, generator=generator)
        counts = torch.stack([left, counts - left], -1).flatten(-2)
    return counts[..., :K].movedim(-1, 1)
