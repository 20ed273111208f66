"""The neutral Wright-Fisher diffusion on the simplex: exact kernel, evidence, score factor and sampling.

Forward SDE of one cell (K alleles, mutation rates alpha/2, theta = sum alpha):

    dx = 1/2 (alpha - theta x) dtau + Sigma(x)^(1/2) dW,      Sigma(x) = diag(x) - x x^T

with stationary law pi = Dirichlet(alpha). Its transition from a corner is a mixture of Dirichlets, and relative to pi
it depends on the single number y = x_k (Griffiths & Spano 2010), since
Dirichlet(x; alpha + m e_k) / pi(x) = (theta)_m / (alpha_k)_m x_k^m:

    p_tau(x | e_k) = sum_m q_m(tau) Dirichlet(x; alpha + m e_k)
    p_tau(x | e_k) / pi(x) = h_tau,k(x_k),    h_tau,k(y) = sum_m q_m(tau) (theta)_m / (alpha_k)_m y^m.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from scipy.special import gammaln
from torch import Tensor

from dd.gamma import dirichlet, log_gamma, shares
from dd.lineages import death_rate, log_lineages, mean_lineages

_CELL_NATS = 1e-8  # chi-square left per cell at the far end of the tables
_LINEAGES = 64.0  # mean lineages at the near end, at least: enough for concentrations up to 3
_LOG_ODDS = 198.0  # nats by which m lineages tell two corners apart there, about m log(1 + m / alpha): at least so many


class WrightFisher:
    """Tables of log h and log h'/h, exact in y and tau to the accuracy stated in tests/test_wright_fisher.py.

    Along tau they are Chebyshev series in log tau; along y piecewise cubics in z = log(1 + y / eps). One call reads the
    rows for its times (one matrix product) and then looks every cell up in its row.

    alpha: (K,) concentrations, all > 0. Equal ones share a table.
    """

    z_nodes = 480

    def __init__(self, alpha: Tensor | np.ndarray | list[float]):
        self.alpha = torch.as_tensor(alpha, dtype=torch.float64).cpu()
        if self.alpha.ndim != 1 or len(self.alpha) < 2:
            raise ValueError("alpha must be a vector of at least two concentrations")
        if not bool(torch.isfinite(self.alpha).all()) or float(self.alpha.min()) <= 0:
            raise ValueError(f"every concentration must be finite and positive, got {self.alpha.tolist()}")
        self.K = len(self.alpha)
        self.theta = float(self.alpha.sum())
        self.unique_alpha, self.row_of = torch.unique(self.alpha, return_inverse=True)
        self.tau_lo, self.tau_hi = _tau_range(self.theta, float(self.alpha.min()), float(self.alpha.max()))
        # zeros of q_0 lie at distance pi/2 from the real axis of log tau, so the series converge as e^(-pi n / range)
        self.tau_nodes = max(40, int(np.ceil(6.9 * np.log(self.tau_hi / self.tau_lo))))
        q_0, q_1 = np.exp(log_lineages(np.arange(2), np.array(self.tau_lo), self.theta))
        steepest = q_1 / q_0 * self.theta / float(self.alpha.min())  # h'/h at y = 0, tau_lo
        self.eps = min(self.tau_lo**2 / 40, 3 / steepest)
        self.dz = float(np.log1p(1 / self.eps)) / (self.z_nodes - 1)
        self._build()

    # -- tables ------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        """log q_m at Chebyshev nodes, then log h and log h'/h at the nodes of z for every distinct alpha_k."""
        angle = np.pi * (np.arange(self.tau_nodes) + 0.5) / self.tau_nodes
        centre, radius = np.log(self.tau_lo * self.tau_hi) / 2, np.log(self.tau_hi / self.tau_lo) / 2
        tau = np.exp(centre + radius * np.cos(angle))
        y = self.eps * np.expm1(self.dz * np.arange(self.z_nodes))
        y[-1] = 1.0
        M = self._count_terms()
        m = np.arange(M)
        log_q = log_lineages(m[None], tau[:, None], self.theta)
        log_h, log_slope = [], []
        for alpha_k in self.unique_alpha.tolist():
            log_c = gammaln(self.theta + m) - gammaln(self.theta) - gammaln(alpha_k + m) + gammaln(alpha_k)
            pair = [_log_series(torch.from_numpy(row + log_c), torch.from_numpy(y)) for row in log_q]
            log_h.append(torch.stack([p[0] for p in pair]))
            log_slope.append(torch.stack([p[1] for p in pair]))
        self._centre, self._radius = centre, radius
        tau_ = torch.from_numpy(tau)
        # values that vary gently with log tau: tau log h (log h ~ -distance^2 / 2 tau), log q_m + lambda_m tau
        to_series = _chebyshev_transform(self.tau_nodes)
        self._log_h = to_series @ (torch.stack(log_h) * tau_[:, None])  # (A, T, Z)
        log_slope = to_series @ torch.stack(log_slope)
        cubics = torch.cat([_cubic_coefficients(self._log_h), _cubic_coefficients(log_slope)], -1)
        self._cubics = cubics.movedim(-1, 0).contiguous()  # (8, A, T, Z - 1)
        self._log_q = to_series @ torch.from_numpy(log_q + death_rate(m, self.theta) * tau[:, None])  # (T, M)
        self._death_rate = torch.from_numpy(death_rate(m, self.theta))

    def _count_terms(self) -> int:
        """Terms beyond which those of h at y = 1, tau = tau_lo are below e^-45 of the largest, rounded up."""
        alpha_min, m = float(self.alpha.min()), np.arange(32, 1024, 32)
        while True:
            log_c = gammaln(self.theta + m) - gammaln(alpha_min + m)
            terms = log_lineages(m, np.array(self.tau_lo), self.theta) + log_c
            if terms[-1] < terms.max() - 45:
                return int(m[terms > terms.max() - 45][-1]) + 32
            m = m * 2

    def _rows(self, series: Tensor, tau: Tensor) -> Tensor:
        """Chebyshev series (..., T, N) at tau (B,): (..., B, N). Clenshaw is not needed, |T_n| <= 1."""
        u = ((tau.log() - self._centre) / self._radius).clamp(-1, 1)
        basis = torch.cos(torch.arange(self.tau_nodes, dtype=torch.float64) * torch.acos(u)[:, None])
        return basis @ series

    def _check(self, tau: Tensor | float) -> Tensor:
        tau = torch.as_tensor(tau, dtype=torch.float64).cpu().reshape(-1)
        slack = 1e-9
        if not bool(((tau >= self.tau_lo * (1 - slack)) & (tau <= self.tau_hi * (1 + slack))).all()):
            raise ValueError(f"tau must lie in [{self.tau_lo:.4g}, {self.tau_hi:.4g}], got {tau.tolist()[:4]}")
        return tau

    def log_lineages(self, tau: Tensor | float) -> Tensor:
        """log q_m(tau) for m = 0..M-1: (B, M), float64."""
        tau = self._check(tau)
        return self._rows(self._log_q, tau) - self._death_rate * tau[:, None]

    def log_h(self, x: Tensor, tau: Tensor | float) -> tuple[Tensor, Tensor]:
        """log h_tau,i(x_i) and h'/h_tau,i(x_i) for every coordinate.

        x: (B, K, ...) on the simplex; tau: scalar or (B,). Returns two tensors like x. Finite for every x in [0, 1].
        """
        tau = self._check(tau)
        if len(tau) not in (1, len(x)):
            raise ValueError(f"tau has {len(tau)} entries for a batch of {len(x)}")
        _, n_alpha, _, n_cells = self._cubics.shape
        cubics = self._rows(self._cubics, tau)  # (8, A, B, Z - 1)
        cubics[:4] /= tau[:, None]  # what is tabulated is tau log h
        cubics = cubics.to(x.dtype).flatten(1)
        z = (x / self.eps).add_(1).log_().div_(self.dz)
        cell = z.floor().clamp_(0, n_cells - 1)
        w = z.sub_(cell)
        index = cell.int()
        if len(tau) * n_alpha > 1:
            trailing = (1,) * (x.ndim - 2)
            batch = torch.arange(len(tau), dtype=torch.int32).view(-1, 1, *trailing)
            row = self.row_of.int().view(1, -1, *trailing)
            index = index + (row * len(tau) + batch) * n_cells
        index = index.flatten()
        c = [table.index_select(0, index).view(x.shape) for table in cubics]  # short vectors: they stay in the cache
        return _cubic(c[:4], w), _cubic(c[4:], w).exp_()

    def log_h_of(self, y: Tensor, tau: float, k: int) -> Tensor:
        """log h_tau,k(y) of the one category k at any y in [0, 1]: float64, like y."""
        tau_, row = self._check(tau), int(self.row_of[k])
        c = _cubic_coefficients(self._rows(self._log_h[row], tau_)[0] / tau_)
        z = torch.log1p(y / self.eps) / self.dz
        cell = z.floor().clamp(0, len(c) - 1)
        return _cubic(c[cell.long()].unbind(-1), z - cell)

    # -- exact sampling ----------------------------------------------------------------------------------------------

    def sample_lineages(self, tau: Tensor | float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """m ~ q_m(tau), shape (B, ...); tau scalar or (B,)."""
        cdf = self.log_lineages(tau).exp().cumsum(-1)
        u = torch.rand(shape, generator=generator, dtype=torch.float64) * cdf[:, -1].view(-1, *(1,) * (len(shape) - 1))
        if len(cdf) == 1:
            return torch.searchsorted(cdf[0], u)
        return torch.searchsorted(cdf, u.flatten(1)).view(shape)

    def sample(self, x0: Tensor, tau: Tensor | float, generator: torch.Generator) -> Tensor:
        """x_tau given x_0 = e_k, exactly: m ~ q_m(tau), then x ~ Dirichlet(alpha + m e_k).

        x0: (B, ...) categories; tau: scalar or (B,). Returns (B, K, ...), float32.
        """
        m = self.sample_lineages(tau, tuple(x0.shape), generator)
        trailing = (1,) * (x0.ndim - 1)
        alpha = self.alpha.float()
        log_g = log_gamma(alpha.view(1, -1, *trailing), (len(x0), self.K, *x0.shape[1:]), generator)
        hot = log_gamma(alpha[x0] + m, tuple(x0.shape), generator)
        return shares(log_g.scatter_(1, x0[:, None], hot[:, None]))

    def stationary(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """x ~ Dirichlet(alpha): shape (B, ...) gives (B, K, ...), float32."""
        alpha = self.alpha.float().view(1, -1, *(1,) * (len(shape) - 1))
        return dirichlet(alpha, (shape[0], self.K, *shape[1:]), generator)

    # -- integrals ---------------------------------------------------------------------------------------------------

    def kl_prior(self, tau: float) -> Tensor:
        """KL(p_tau(. | e_k) || pi) = E log h_k(x_k), nats for every k: (K,), by Gauss-Jacobi quadrature."""
        kl = []
        for alpha_k in self.unique_alpha.tolist():
            y, w = map(torch.from_numpy, beta_quadrature(200, alpha_k, self.theta - alpha_k))
            log_h = self.log_h_of(y, tau, int((self.alpha == alpha_k).nonzero()[0]))
            kl.append((w * log_h.exp() * log_h).sum())
        return torch.stack(kl)[self.row_of]


def beta_quadrature(n: int, a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes y and weights w with E f(y) ~ sum w f(y) for y ~ Beta(a, b): exact for polynomials below degree 2n.

    Golub & Welsch (1969): eigenvalues, and squared first components of the eigenvectors, of the Jacobi polynomials'
    recurrence. The weights are probabilities, so nothing overflows, whatever a and b are.
    """
    A, B, i = b - 1, a - 1, np.arange(1, n, dtype=np.float64)
    s = 2 * i + A + B
    diagonal = np.concatenate([[(B - A) / (A + B + 2)], (B - A) * (B + A) / (s * (s + 2))])
    first = 4 * (1 + A) * (1 + B) / ((2 + A + B) ** 2 * (3 + A + B))  # its own form: A + B + 1 may be 0
    i, s = i[1:], s[1:]
    others = 4 * i * (i + A) * (i + B) * (i + A + B) / (s**2 * (s + 1) * (s - 1))
    x, v = eigh_tridiagonal(diagonal, np.sqrt(np.concatenate([[first], others])))
    return (1 + x) / 2, v[0] ** 2


@lru_cache(maxsize=16)
def wright_fisher(K: int, alpha: float = 1.0) -> WrightFisher:
    """The kernel with K equal concentrations; tables are built once per process."""
    return WrightFisher(torch.full((K,), float(alpha), dtype=torch.float64))


def tau_for_kl(theta: float, alpha_min: float, nats: float) -> float:
    """tau at which KL(p_tau || pi) <= chi^2 ~ (theta + 1) (1 - p)/p e^(-theta tau), p = alpha_min/theta, is `nats`."""
    p = alpha_min / theta
    return float(np.log((theta + 1) * (1 - p) / p / nats) / theta)


def _tau_range(theta: float, alpha_min: float, alpha_max: float) -> tuple[float, float]:
    lineages = _LINEAGES
    while lineages * np.log1p(lineages / alpha_max) < _LOG_ODDS:
        lineages *= 1.05
    lo, hi = 1e-6, 10.0
    for _ in range(80):
        mid = np.sqrt(lo * hi)
        lo, hi = (mid, hi) if mean_lineages(mid, theta) > lineages else (lo, mid)
    return float(lo), tau_for_kl(theta, alpha_min, _CELL_NATS)


def _log_series(log_w: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """log sum_m w_m y^m and log of its logarithmic derivative, for weights (M,) in log space at points y (Z,)."""
    m = torch.arange(len(log_w), dtype=torch.float64)
    log_h = torch.logsumexp(log_w + torch.xlogy(m, y[:, None]), -1)
    log_dh = torch.logsumexp(m[1:].log() + log_w[1:] + torch.xlogy(m[1:] - 1, y[:, None]), -1)
    return log_h, log_dh - log_h


def _chebyshev_transform(n: int) -> Tensor:
    """(n, n): values at the Chebyshev points cos(pi (j + 1/2) / n) to coefficients of T_0..T_{n-1}."""
    j = torch.arange(n, dtype=torch.float64)
    C = 2 / n * torch.cos(torch.pi * j[:, None] * (j + 0.5) / n)
    C[0] /= 2
    return C


def _cubic(c: Sequence[Tensor], w: Tensor) -> Tensor:
    """c_0 + c_1 w + c_2 w^2 + c_3 w^3."""
    return torch.addcmul(c[0], w, torch.addcmul(c[1], w, torch.addcmul(c[2], w, c[3])))


def _cubic_coefficients(rows: Tensor) -> Tensor:
    """Local Lagrange cubics through four neighbouring nodes: (..., Z) -> (..., Z - 1, 4)."""
    Z = rows.shape[-1]
    start = (torch.arange(Z - 1) - 1).clamp(0, Z - 4)
    f = torch.stack([rows[..., start + j] for j in range(4)], -1)  # nodes start .. start + 3
    a = (torch.arange(Z - 1) - start).double()  # position of the interval's left end in its stencil: 0, 1 or 2
    # monomials in s = a + w at the stencil's integer nodes 0..3 ...
    V = torch.linalg.inv(torch.vander(torch.arange(4.0, dtype=torch.float64), increasing=True))
    g = f @ V.T
    # ... re-expanded around a
    c0 = g[..., 0] + a * (g[..., 1] + a * (g[..., 2] + a * g[..., 3]))
    c1 = g[..., 1] + a * (2 * g[..., 2] + a * 3 * g[..., 3])
    c2 = g[..., 2] + 3 * a * g[..., 3]
    return torch.stack([c0, c1, c2, g[..., 3]], -1)
