"""The Dirichlet SDE of Bakosi & Ristorcelli (2013) on three categories, with a numerical Fokker-Planck kernel.

    dY_i = b_i/2 [S_i Y_3 - (1 - S_i) Y_i] dt + sqrt(kappa_i Y_i Y_3) dW_i,   i = 1, 2,   Y_3 = 1 - Y_1 - Y_2.

Dirichlet(alpha) is stationary when b_i = kappa_i (alpha_i + alpha_3), S_i = alpha_i / (alpha_i + alpha_3); with
kappa_i = 1, the choice here,

    dY_i = 1/2 (alpha_i Y_3 - alpha_3 Y_i) dt + sqrt(Y_i Y_3) dW_i.

Categories 1 and 2 exchange mass with category 3 only. The generator is L = sum_i 1/2 (alpha_i Y_3 - alpha_3 Y_i) d_i +
1/2 Y_i Y_3 d_i^2, d_i the derivative along e_i - e_3. It is reversible under pi, so rho = p_t / pi solves
d rho/dt = L rho. There is no closed-form kernel. But L turns the multinomial probability of n = (n_1, n_2, n_3), sum N,
as a function of Y, into a combination of its neighbours': p_N(n) = E[Multinomial(n; N, Y_t)] obeys, exactly, the
master equation of a chain in which n_i and n_3 exchange one unit at rates

    n + e_i - e_3:  (n_i + alpha_i) n_3 / 2,        n - e_i + e_3:  n_i (n_3 + alpha_3) / 2,

a Moran model whose stationary law is Dirichlet-multinomial(alpha), DM. From Y = e_k, n = N e_k for certain; p_N is
computed to rounding by uniformisation, and p_N(n) / DM(n) = E[rho(Y)], Y ~ Dirichlet(alpha + n): the solution of the
Fokker-Planck equation seen through a window of width ~ sqrt(x (1 - x) / N). The window's bias, O(1/N), is removed to
first order by Richardson extrapolation of log rho from N and N/2.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.linalg import expm
from scipy.sparse import csr_matrix, identity
from scipy.special import gammaln
from torch import Tensor

from dd.triangle.stick_breaking import beta_step

_N = 84  # draws: lattice points per side, minus one; halved for the extrapolation
_TAUS = 44
_FLOOR = -60.0  # log rho below which nothing visible happens
NO_FLOW = (
    "Bakosi-Ristorcelli has no forward probability flow here: next to a corner its density has detail of size tau^2, "
    "finer than the numerical score. Choose another sampler, or the reverse direction."
)


class BakosiRistorcelli:
    """The diffusion as `dd.triangle.diffusions.Diffusion`; alpha: (3,) concentrations."""

    name = "Bakosi-Ristorcelli"
    step_name = "Beta steps on the pairs (1,3) and (2,3), Strang splitting"
    detail = f"score by numerical Fokker-Planck, resolution 1/{_N}"
    refuses: ClassVar[dict[str, str]] = {"ode": NO_FLOW}

    def __init__(self, alpha: Tensor):
        self.alpha = torch.as_tensor(alpha, dtype=torch.float64)
        gap = -float(np.linalg.eigvals(self._generator()[1:3, 1:3]).real.max())  # slowest decay of the means
        self.tau_lo, self.tau_hi = 3 / _N, float(np.log(1e4) / (2 * gap))
        self.taus = np.geomspace(self.tau_lo, self.tau_hi, _TAUS)
        self.fine, self.coarse = (MoranChain(self.alpha, N, self.taus) for N in (_N, _N // 2))

    def information(self) -> tuple[np.ndarray, np.ndarray]:
        return self.taus, self.fine.lost()

    def _lookup(self, x: Tensor, tau: float) -> Tensor:
        """log rho_k, d_1 log rho_k, d_2 log rho_k at x, extrapolated to an infinite lattice: (M, 3 corners, 3)."""
        return 2 * self.fine.lookup(x, tau) - self.coarse.lookup(x, tau)

    def evidence(self, x: Tensor, tau: float) -> Tensor:
        """l_k = log rho_k, numerical: (M, 3)."""
        return self._lookup(x, tau)[:, :, 0]

    def _slopes(self, x: Tensor, tau: float, p: Tensor) -> Tensor:
        """g_i = d_i log rho = sum_k p_k d_i log rho_k, i = 1, 2: (M, 2)."""
        return (p[:, :, None] * self._lookup(x, tau)[:, :, 1:]).sum(1)

    def fitness(self, x: Tensor, tau: float, p: Tensor) -> Tensor:
        """w with D grad log rho = x (w - <x, w>): w_i = Y_3 g_i, w_3 = -sum_i Y_i g_i."""
        g = self._slopes(x, tau, p)
        return torch.cat([x[:, 2:] * g, -(x[:, :2] * g).sum(1, keepdim=True)], 1)

    def drift(self, x: Tensor) -> Tensor:
        f = 0.5 * (self.alpha[:2] * x[:, 2:] - self.alpha[2] * x[:, :2])
        return torch.cat([f, -f.sum(1, keepdim=True)], 1)

    def noise(self, x: Tensor, dB: Tensor) -> Tensor:
        dY = (x[:, :2] * x[:, 2:]).clamp(min=0).sqrt() * dB[:, :2]
        return torch.cat([dY, -dY.sum(1, keepdim=True)], 1)

    def step(self, x: Tensor, tau: float, p: Tensor | None, d: float, generator: torch.Generator) -> Tensor:
        """Pair (i, 3) alone is a two-allele Wright-Fisher diffusion of z = Y_i / (Y_i + Y_3): Strang splitting of both.

        Selection on z is z (1 - z) (Y_i + Y_3) g_i.
        """
        g = torch.zeros_like(x[:, :2]) if p is None else self._slopes(x, tau, p)
        for i, part in ((0, d / 2), (1, d), (0, d / 2)):
            x = self._exchange(x, i, g[:, i], part, generator)
        return x

    def _exchange(self, x: Tensor, i: int, g: Tensor, d: float, generator: torch.Generator) -> Tensor:
        s = x[:, i] + x[:, 2]
        z = torch.where(s > 0, x[:, i] / s.clamp(min=1e-300), 0.5).clamp(0, 1)
        z = beta_step(z, self.alpha[[i, 2]], s * g, d, generator)
        y = x.clone()
        y[:, i], y[:, 2] = s * z, s * (1 - z)
        return y

    def sample(self, k: Tensor, tau: float, generator: torch.Generator) -> Tensor:
        """x_tau given e_k, by `step` from the corner in substeps of at most 0.01 (no exact sampler is known)."""
        x = torch.eye(3, dtype=torch.float64)[k]
        steps = int(np.ceil(tau / 0.01))
        for _ in range(steps):
            x = self.step(x, tau, None, tau / steps, generator)
        return x

    def _generator(self) -> np.ndarray:
        """G with d/dt E[q] = G E[q] for the monomials q = (1, Y_1, Y_2, Y_1^2, Y_1 Y_2, Y_2^2)."""
        a1, a2, a3 = self.alpha.tolist()
        G = np.zeros((6, 6))
        G[1] = np.array([a1, -a1 - a3, -a1, 0, 0, 0]) / 2
        G[2] = np.array([a2, -a2, -a2 - a3, 0, 0, 0]) / 2
        G[3] = np.array([0, a1 + 1, 0, -a1 - a3 - 1, -a1 - 1, 0])  # 2 Y_1 f_1 + Y_1 Y_3
        G[4] = np.array([0, a2, a1, -a2, -a1 - a2 - 2 * a3, -a1]) / 2  # Y_1 f_2 + Y_2 f_1
        G[5] = np.array([0, 0, a2 + 1, 0, -a2 - 1, -a2 - a3 - 1])
        return G

    def moments(self, tau: float) -> tuple[Tensor, Tensor]:
        """E[x_i | e_k] and E[x_i^2 | e_k], rows k, from the linear ODE of the moments, exactly."""
        start = np.array([[1, 1, 0, 1, 0, 0], [1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 0]], dtype=float)
        q = torch.from_numpy(start @ expm(self._generator() * tau).T)
        first = torch.stack([q[:, 1], q[:, 2], 1 - q[:, 1] - q[:, 2]], 1)
        third = 1 - 2 * (q[:, 1] + q[:, 2]) + q[:, 3] + 2 * q[:, 4] + q[:, 5]
        return first, torch.stack([q[:, 3], q[:, 5], third], 1)

    def entropy(self, tau: float) -> None:
        """No closed form."""
        return None


@dataclass
class MoranChain:
    """The law of N draws from a cell, from every corner: law[i] (S, 3) at taus[i], on the lattice n (S, 3)."""

    alpha: Tensor
    N: int
    taus: np.ndarray

    def __post_init__(self) -> None:
        n1, n2 = (index.ravel() for index in np.meshgrid(*[np.arange(self.N + 1)] * 2, indexing="ij"))
        self.n = np.stack([n1, n2, self.N - n1 - n2], 1)[n1 + n2 <= self.N]
        position = np.full((self.N + 1, self.N + 1), -1)
        position[self.n[:, 0], self.n[:, 1]] = np.arange(len(self.n))
        Q, rate = self._rates(self.n, position)
        jump = (identity(len(self.n)) + Q / rate).T.tocsr()
        p = np.zeros((len(self.n), 3))
        p[[position[self.N, 0], position[0, self.N], position[0, 0]], [0, 1, 2]] = 1
        self.law = []
        for d in np.diff(self.taus, prepend=0.0):
            p = _uniformise(jump, p, rate * d)
            self.law.append(p)
        self.tables = torch.from_numpy(
            np.stack([self._table(p) * tau for p, tau in zip(self.law, self.taus, strict=True)])
        )
        self.tables = self.tables.float()  # (T, 3 corners, value and two slopes, N + 1, N + 1), times tau

    def _table(self, p: np.ndarray) -> np.ndarray:
        """log rho_k = log p_N / DM and its derivatives along e_i - e_3 on the square lattice; zero outside."""
        a, n, N = self.alpha.numpy(), self.n, self.N
        log_dm = (gammaln(a + n) - gammaln(a) - gammaln(n + 1)).sum(1)
        log_dm += gammaln(N + 1) + gammaln(a.sum()) - gammaln(a.sum() + N)
        table = np.full((3, N + 1, N + 1), np.nan)
        table[:, n[:, 0], n[:, 1]] = (np.log(p.clip(1e-300)) - log_dm[:, None]).clip(_FLOOR, None).T
        return np.nan_to_num(np.stack([table, _slope(table, 1, N), _slope(table, 2, N)], 1))

    def lost(self) -> np.ndarray:
        """Destroyed information E[H(p(x_0 | n))] / log 3 at every tau, uniform prior."""
        posterior = [p / p.sum(1, keepdims=True).clip(1e-300) for p in self.law]
        H = [-np.sum(p * np.log(q.clip(1e-300))) / 3 / np.log(3) for p, q in zip(self.law, posterior, strict=True)]
        return np.minimum(np.array(H), 1.0)

    def _rates(self, n: np.ndarray, position: np.ndarray) -> tuple[csr_matrix, float]:
        """The chain's generator (S, S), rows are where it is, and its largest total rate."""
        alpha, rows, columns, values = self.alpha.numpy(), [], [], []
        for i in (0, 1):
            for sign, rate in ((1, (n[:, i] + alpha[i]) * n[:, 2] / 2), (-1, n[:, i] * (n[:, 2] + alpha[2]) / 2)):
                to = n[:, :2].copy()
                to[:, i] += sign
                live = rate > 0
                rows.append(np.flatnonzero(live))
                columns.append(position[to[live, 0], to[live, 1]])
                values.append(rate[live])
        Q = csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (len(n), len(n)))
        out = np.asarray(Q.sum(1)).ravel()
        Q.setdiag(-out)
        return Q.tocsr(), float(out.max())

    def lookup(self, x: Tensor, tau: float) -> Tensor:
        """log rho_k, d_1 log rho_k, d_2 log rho_k at x: (M, 3 corners, 3), linear in lattice triangles.

        The window Dirichlet(alpha + n) has mean (alpha + n) / (theta + N), so x is read at n = x (theta + N) - alpha.
        """
        i = float(np.interp(np.log(tau), np.log(self.taus), np.arange(len(self.taus))))
        lo = min(int(i), len(self.taus) - 2)
        table = torch.lerp(self.tables[lo], self.tables[lo + 1], i - lo) / min(max(tau, self.taus[0]), self.taus[-1])
        n = (x * (self.alpha.sum() + self.N) - self.alpha).clamp(min=0)
        n = n * (self.N / n.sum(1, keepdim=True))
        base = n[:, :2].floor().clamp(0, self.N - 1).long()
        over = (base.sum(1) >= self.N).long()  # only a node on the far edge
        base = torch.stack([base[:, 0] - over * (base[:, 0] > 0), base[:, 1] - over * (base[:, 0] == 0)], 1)
        f = n[:, :2] - base
        upper = ((f.sum(1) > 1) & (base.sum(1) <= self.N - 2))[:, None]  # the other half of the square
        # lower triangle: (0,0), (1,0), (0,1); upper: (1,1), (0,1), (1,0)
        weight = torch.where(
            upper,
            torch.stack([f.sum(1) - 1, 1 - f[:, 0], 1 - f[:, 1]], 1),
            torch.stack([1 - f.sum(1), f[:, 0], f[:, 1]], 1),
        )
        flip = upper[:, 0].long()
        corner = [(flip, flip), (1 - flip, flip), (flip, 1 - flip)]
        values = [
            table[:, :, (base[:, 0] + a).clamp(max=self.N), (base[:, 1] + b).clamp(max=self.N)] for a, b in corner
        ]
        return (torch.stack(values, -1) * weight).sum(-1).permute(2, 0, 1).double()


def _uniformise(jump: csr_matrix, p: np.ndarray, events: float) -> np.ndarray:
    """sum_j Poisson(j; events) jump^j p: all terms positive, so small probabilities stay accurate."""
    j_max = int(events + 10 * np.sqrt(events) + 30)
    j = np.arange(j_max + 1)
    weight = np.exp(j * np.log(max(events, 1e-300)) - events - gammaln(j + 1))
    total = weight[0] * p
    for w in weight[1:]:
        p = jump @ p
        total = total + w * p
    return total


def _slope(table: np.ndarray, axis: int, N: int) -> np.ndarray:
    """Derivative of (3, N + 1, N + 1) per unit of Y along an axis: central, one-sided where a neighbour is missing."""
    ahead, behind = np.full_like(table, np.nan), np.full_like(table, np.nan)
    step = np.diff(table, axis=axis) * N
    to_front = tuple(slice(None, -1) if i == axis else slice(None) for i in range(3))
    to_back = tuple(slice(1, None) if i == axis else slice(None) for i in range(3))
    ahead[to_front], behind[to_back] = step, step
    return np.where(np.isnan(ahead), behind, np.where(np.isnan(behind), ahead, (ahead + behind) / 2))
