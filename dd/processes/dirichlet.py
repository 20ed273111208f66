"""The Dirichlet diffusion: Wright-Fisher noise on every cell, reversed by mutation plus selection.

Reverse-time SDE with the network's posterior p (Anderson 1982, using that the forward process is reversible under pi):

    dx = [1/2 (alpha - theta x) + x * (u - <x, u>)] ds + Sigma(x)^(1/2) dW,     u_i = p_i h'/h_tau,i(x_i).

"Generating is evolution": mutation, drift, and natural selection with fitness u.
"""

from itertools import pairwise
from math import ceil
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import betaln
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from dd.bridge import bridge
from dd.gamma import dirichlet
from dd.processes.base import END_NATS, Categorical, Option, draw
from dd.processes.clock import Clock, entropy
from dd.wright_fisher import WrightFisher, tau_for_kl, wright_fisher


class Dirichlet(Categorical):
    """K categories, `cells` cells per image (they set tau_min and tau_max), concentrations alpha (a number, or K)."""

    name = "dirichlet"
    continuous = True
    longest = 0.1  # of a part of a step, in log tau (docs/decisions.md)
    losses = ("bound", "cross-entropy", "hybrid", "simple")
    methods = ("dirichlet", "euler", "ode", "heun", "langevin", "bridge")
    flow = "ode"
    options: ClassVar[dict[str, Option]] = {
        "stretch": Option(
            1.0, 0.25, 4.0, "Time dilation: multiplies the length of every step below the time chosen; 1 is exact.",
            ("dirichlet", "euler", "ode"),
        ),
        "below": Option(
            1.0, 0.0, 1.0, "Dilate only below this t (0 is data, 1 is noise).", ("dirichlet", "euler", "ode")
        ),
    }  # fmt: skip

    def __init__(self, K: int, cells: int = 784, alpha: float | Tensor = 1.0):
        self.K, self.cells = K, cells
        self.kernel = wright_fisher(K, float(alpha)) if isinstance(alpha, int | float) else WrightFisher(alpha)
        if self.kernel.K != K:
            raise ValueError(f"alpha has {self.kernel.K} concentrations, but there are K = {K} categories")
        self.alpha, self.theta = self.kernel.alpha, self.kernel.theta
        self._answers = WeakIdKeyDictionary()  # x_t -> (t, log h and h'/h), as long as somebody holds x_t
        grid = np.linspace(np.log(self.kernel.tau_lo), np.log(self.kernel.tau_hi), 48)
        pairs = np.array([pairwise_confusion(self.kernel, tau) for tau in np.exp(grid)]) / np.log(K)
        exact = K == 2 and len(self.kernel.unique_alpha) == 1
        lost = pairs if exact else np.minimum(destroyed_information(self.kernel, np.exp(grid)), pairs)
        self.tau_min = float(np.exp(brentq(self._excess, grid[0], grid[-1], xtol=1e-4)))
        self.tau_max = min(tau_for_kl(self.theta, float(self.alpha.min()), END_NATS / cells), self.kernel.tau_hi)
        v = np.linspace(np.log(self.tau_min), np.log(self.tau_max), 256)
        self.clock = Clock(v, np.interp(v, grid, lost))

    def _excess(self, log_tau: float) -> float:
        """log of the nats of confusion left in an image at tau, relative to END_NATS."""
        left = self.cells * pairwise_confusion(self.kernel, float(np.exp(log_tau)))
        return float(np.log((left + 1e-300) / END_NATS))

    def tau(self, t: Tensor | float) -> Tensor:
        """tau(t) = e^v(t), the time of the Wright-Fisher diffusion, float64."""
        return self.clock.native(t).exp()

    # -- forward -----------------------------------------------------------------------------------------------------

    def prior(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """x_1 ~ pi = Dirichlet(alpha) in every cell: (B, K, H, W)."""
        return self.kernel.stationary(shape, generator)

    def perturb(self, x0: Tensor, t: Tensor | float, generator: torch.Generator) -> Tensor:
        """x_t ~ h_tau,k(x_k) pi(x), the Wright-Fisher kernel from corner k = x_0: (B, K, H, W)."""
        return self.kernel.sample(x0, self.tau(t), generator)

    def evidence(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """l_i = log h_tau,i(x_i)."""
        return self._log_h(x_t, t)[0]

    def _log_h(self, x_t: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """log h and h'/h at x_t. Steps and losses ask for what the evidence has asked for: the last answer is kept."""
        if x_t.requires_grad:  # an answer with a graph would keep x_t alive
            return self.kernel.log_h(x_t, self.tau(t))
        kept = self._answers.get(x_t)
        if kept is None or not _same(kept[0], t):
            self._answers[x_t] = kept = (t, self.kernel.log_h(x_t, self.tau(t)))
        return kept[1]

    def simplex(self, x_t: Tensor) -> Tensor:
        """x_t itself."""
        return x_t

    # -- reverse -----------------------------------------------------------------------------------------------------

    def fitness(self, x_t: Tensor, f: Tensor, t: Tensor | float) -> Tensor:
        """u_i = p_i h'/h_tau,i(x_i), the selection that the posterior exerts."""
        l, slope = self._log_h(x_t, t)
        return torch.softmax(f + l, 1) * slope

    def score(self, x_t: Tensor, f: Tensor, t: Tensor | float) -> Tensor:
        """grad log p_t(x) = (alpha - 1)/x + u, up to a constant vector (the simplex has no normal direction).

        At x_i = 0 the first term is 0 for alpha_i = 1, and as large as floats go for others.
        """
        alpha = _channels(self.alpha, x_t)
        return (alpha - 1) / x_t.clamp(min=torch.finfo(x_t.dtype).tiny) + self.fitness(x_t, f, t)

    def step(
        self, x_t: Tensor, f: Tensor, t: float, s: float, method: str, generator: torch.Generator,
        stretch: float = 1.0, below: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """One reverse step from t to s by `method`.

        Time dilation (Avdeyev et al. 2023): for t <= below the step's length in tau is multiplied by `stretch`.
        """
        if method == "bridge":
            k = draw(torch.softmax(f + self.evidence(x_t, t), 1).movedim(1, -1).double().cumsum(-1), generator)
            return bridge(self.kernel, x_t, k, float(self.tau(s)), float(self.tau(t)), generator)
        u = self.fitness(x_t, f, t)
        d = (stretch if t <= below else 1.0) * float(self.tau(t) - self.tau(s))
        if method == "dirichlet":
            return self.dirichlet_step(x_t, u, d, generator)
        if method == "euler":
            return self.euler_step(x_t, u, d, generator)
        if method == "ode":
            return replicator(x_t, u / 2, d)
        raise ValueError(f"no single step is a {method!r} step; it is one of dirichlet, euler, ode, bridge")

    def parts(self, t: float, s: float, method: str) -> list[float]:
        """As few as leave none longer than `longest`, all alike in log tau; the bridge is exact over any length."""
        v_t, v_s = (float(self.clock.native(time)) for time in (t, s))
        n = 1 if method == "bridge" else max(1, ceil((v_t - v_s) / self.longest))
        return [t, *self.clock.t(torch.linspace(v_t, v_s, n + 1, dtype=torch.float64)[1:-1]).tolist(), s]

    def euler_step(self, x: Tensor, u: Tensor, d: float, generator: torch.Generator) -> Tensor:
        """Euler-Maruyama, clipped to the simplex. Sigma^(1/2) dW = sqrt(x) dB - x <sqrt(x), dB>.

        The scheme is useless unless theta d / 2 << 1, and near t = 1 a step in t is long in tau: such a step is split,
        at constant fitness u, into parts of theta d / 2 <= 1/8. Clipping adds about d^alpha to rare categories, so for
        alpha < 1, where paths reach the boundary, parts are shorter: 8^(-1/alpha), from alpha = 1/2 down no shorter.
        The network is not asked again.
        """
        longest = 0.125 ** (1 / min(1.0, max(0.5, float(self.alpha.min()))))
        parts = max(1, int(np.ceil(self.theta * d / 2 / longest)))
        d = d / parts
        kept = 1 - self.theta * d / 2
        growth, mutants = kept + d * u, _channels(self.alpha, x) * (d / 2)
        for _ in range(parts):
            grown = x * growth
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).mul_((d * x).sqrt_())
            excess = grown.sum(1, keepdim=True) - kept + noise.sum(1, keepdim=True)  # d <x, u> + <sqrt(x), dB>
            x = grown.add_(noise).add_(mutants).addcmul_(x, excess, value=-1).clamp_(min=0)
            x = x / x.sum(1, keepdim=True)
        return x

    def dirichlet_step(self, x: Tensor, u: Tensor, d: float, generator: torch.Generator) -> Tensor:
        """One Dirichlet with the mean and summed variance of the frozen Wright-Fisher diffusion after time d.

        Freezing a_i = alpha_i/2 + x_i u_i, A = sum a, the drift is a - A x; with T = a/A, c = 2A + 1, k = 2a + 1

            E[x]   = T + (x - T) e^(-A d)
            E[x^2] = x^2 e^(-c d) + k [T (1 - e^(-c d))/c + (x - T)(e^(-A d) - e^(-c d))/(c - A)]
            precision (1 - sum E[x^2]) / (sum E[x^2] - sum E[x]^2).
        """
        return frozen_step(x, torch.addcmul(_channels(self.alpha, x) / 2, x, u), d, generator)

    def heun(self, x_t: Tensor, f_t: Tensor, x_s: Tensor, f_s: Tensor, t: float, s: float) -> Tensor:
        """The trapezoidal correction of an "ode" step from x_t to x_s: the mean of both ends' fitness."""
        u = (self.fitness(x_t, f_t, t) + self.fitness(x_s, f_s, s)) / 2
        return replicator(x_t, u / 2, float(self.tau(t) - self.tau(s)))

    def correct(self, x_s: Tensor, f: Tensor, t: float, s: float, generator: torch.Generator) -> Tensor:
        """Langevin dynamics at constant time s for the length of the step t to s; leaves p_s invariant.

        Mutation, noise and half the selection: dx = [1/2 (alpha - theta x) + 1/2 x (u - <x, u>)] dr + Sigma^(1/2) dW.
        """
        x = x_s
        for a, b in pairwise(self.parts(t, s, "langevin")):
            x = self.dirichlet_step(x, self.fitness(x, f, s) / 2, float(self.tau(a) - self.tau(b)), generator)
        return x

    # -- likelihood --------------------------------------------------------------------------------------------------

    def times(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """log tau drawn by the clock; the rate is per unit of tau, so the weight is tau over the density of log tau."""
        log_tau, density = self.clock.draw(n, generator)
        return self.clock.t(log_tau), log_tau.exp() / density

    def loss(self, logits: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """1/2 <Delta u, Sigma(x) Delta u> summed over cells, Delta u_i = ([i = k] - p_i) h'/h(x_i): nats per unit tau.

        The Girsanov path-KL between the true reverse SDE of x_0 and the model's: denoising score matching weighted so
        that its integral over tau bounds the likelihood.
        """
        v = self._fitness_error(logits, x0, x_t, t)
        x_v = x_t * v
        return 0.5 * ((x_v * v).sum(1) - x_v.sum(1) ** 2).flatten(1).sum(1)

    def simple_loss(self, logits: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Plain denoising score matching, 1/2 ||Delta u||^2 of the zero-sum part of Delta u, per unit of tau
        (no nats: the metric Sigma is left out)."""
        v = self._fitness_error(logits, x0, x_t, t)
        v = v - v.mean(1, keepdim=True)
        return 0.5 * (v * v).flatten(1).sum(1)

    def _fitness_error(self, logits: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        hot = torch.zeros_like(logits).scatter_(1, x0[:, None], 1.0)
        return (hot - torch.softmax(logits, 1)) * self._log_h(x_t, t)[1]

    def kl_prior(self, shape: tuple[int, int]) -> float:
        """KL(p_T || pi), exactly. The reconstruction at tau_min needs the network: dd.likelihood.estimate_bound."""
        return shape[0] * shape[1] * float(self.kernel.kl_prior(self.tau_max).max())


def frozen_step(x: Tensor, a: Tensor, d: float, generator: torch.Generator) -> Tensor:
    """`Dirichlet.dirichlet_step` for frozen rates: dx = (a - A x) ds + Sigma(x)^(1/2) dW over time d, A = sum a.

    x, a: (B, K, ...), a > 0. Mean and summed variance are exact; for K = 2 that is every variance.
    """
    return dirichlet(frozen_concentration(x, a, d), tuple(x.shape), generator)


def frozen_concentration(x: Tensor, a: Tensor, d: float) -> Tensor:
    """The Dirichlet's concentrations in `frozen_step`: precision times mean, like x.

    Summed over i, the formulas of `dirichlet_step` are, with D(v, w) = sum_i v_i (1 - w_i), phi(z) = (1 - e^-z) / z,
    p = phi(A d), q = phi((A + 1) d) and e = e^(-A d),

        1 - sum E[x^2]           = e^2 e^-d D(x, x) + 2 A d e q D(x, T) + F D(T, T),     F = 2 A^2 d (p - e q) / c
        sum E[x^2] - sum E[x]^2  = e^2 (1 - e^-d) D(x, x) + 2 A d e (p - q) D(x, T) + ((A d p)^2 - F) D(T, T).

    Nothing cancels near a corner or in a short step: three sums over categories in the precision of x, and one number a
    cell in float64.
    """
    A = a.sum(1, keepdim=True)
    T = a / A
    D_xx, D_xT, D_TT = ((v * (1 - w)).sum(1, keepdim=True).double() for v, w in ((x, x), (x, T), (T, T)))
    A = A.double()
    e, p, q = torch.exp(-A * d), _phi(A * d), _phi((A + 1) * d)
    F = 2 * A * A * d * (p - e * q) / (2 * A + 1)
    left = e * e * np.exp(-d) * D_xx + 2 * A * d * e * q * D_xT + F * D_TT
    variance = -e * e * np.expm1(-d) * D_xx + 2 * A * d * e * (p - q) * D_xT + ((A * d * p) ** 2 - F) * D_TT
    precision = (left / variance.clamp(min=1e-300)).clamp(min=1e-6)
    return torch.addcmul(T * (A * d * p * precision).to(x), x, (e * precision).to(x))


def _phi(z: Tensor) -> Tensor:
    """(1 - e^-z) / z."""
    return -torch.expm1(-z) / z


def replicator(x: Tensor, fitness: Tensor, d: float) -> Tensor:
    """The replicator equation dx/ds = x (w - <x, w>) over time d at constant fitness: x e^(w d), renormalised."""
    return torch.softmax(x.clamp(min=torch.finfo(x.dtype).tiny).log() + fitness * d, 1)


def destroyed_information(kernel: WrightFisher, taus: np.ndarray) -> np.ndarray:
    """E[H(softmax(l))] / log K at each tau (N,), uniform prior over corners, by importance sampling over lineages.

    Few lineages are what confuses corners, and at small tau few lineages are rare; so m is drawn from g ~ sqrt(q) and
    reweighted by q/g, with the same random numbers at every tau.
    """
    K = kernel.K
    n = K * max(ceil(256 / K), 32768 // K**2)  # every corner as often
    lost = []
    for tau in taus:
        generator = torch.Generator().manual_seed(0)
        log_q = kernel.log_lineages(tau)[0]
        q, g = log_q.exp(), (log_q / 2).exp()
        g = g / g.sum()
        u = torch.rand(n, generator=generator, dtype=torch.float64)
        m = torch.searchsorted(g.cumsum(0), u).clamp(max=len(g) - 1)
        weight = q[m] / g[m]
        corner = torch.arange(n) % K
        concentration = kernel.alpha.repeat(n, 1)
        concentration[torch.arange(n), corner] += m
        x = dirichlet(concentration, (n, K), generator)
        lost.append(float((weight * entropy(kernel.log_h(x, tau)[0])).mean() / np.log(K)))
    return np.minimum(np.array(lost), 1.0)


def pairwise_confusion(kernel: WrightFisher, tau: float) -> float:
    """Nats by which a corner is confused: (K - 1) max_kj E[log(1 + h_j(x_j) / h_k(x_k)) | e_k] >= E[-log softmax(l)_k].

    For K = 2 and equal alpha an equality; at small tau, where ties are between two corners, nearly one. The expectation
    under Dirichlet(alpha_k, alpha_j, rest) is a trapezoidal sum in x_k = s w, x_j = s (1 - w), along logit s and
    logit w = sinh(g) / 100 (dense at the tie), both as far as the smallest alpha's tails go. Of more than three
    distinct concentrations the extremes and the middle one stand for all.
    """
    unique = kernel.unique_alpha.tolist()
    chosen = sorted({unique[0], unique[len(unique) // 2], unique[-1]})
    place = {a: int((kernel.alpha == a).nonzero()[0]) for a in chosen}
    tails = max(1.0, 1 / unique[0])  # e^(-alpha |logit|) is their density
    end = float(np.arcsinh(np.sinh(8.0) * tails))
    g = torch.linspace(-end, end, 161, dtype=torch.float64)
    b, db = torch.sinh(g) / 100, torch.cosh(g) / 100 * (end / 80)
    log_w, log_v = torch.nn.functional.logsigmoid(b), torch.nn.functional.logsigmoid(-b)
    c, dc = torch.linspace(-12, 24, 121, dtype=torch.float64)[:, None] * tails, 0.3 * tails
    worst = 0.0
    for a_k in chosen:
        mean = []
        for a_j in chosen:
            if a_j == a_k and int((kernel.alpha == a_k).sum()) < 2:
                continue  # there is no other corner like this one
            rest = kernel.theta - a_k - a_j
            log_density = a_k * log_w + a_j * log_v - betaln(a_k, a_j) + db.log()
            log_s = torch.zeros(1, 1, dtype=torch.float64)
            if kernel.K > 2:
                log_s, log_r = torch.nn.functional.logsigmoid(c), torch.nn.functional.logsigmoid(-c)
                log_density = log_density + (a_k + a_j) * log_s + rest * log_r - betaln(a_k + a_j, rest) + np.log(dc)
            log_h = kernel.log_h_of((log_s + log_w).exp(), tau, place[a_k])
            gap = kernel.log_h_of((log_s + log_v).exp(), tau, place[a_j]) - log_h
            mean.append(float(((log_density + log_h).exp() * torch.nn.functional.softplus(gap)).sum()))
        worst = max(worst, (kernel.K - 1) * max(mean))
    return worst


def _same(t: Tensor | float, s: Tensor | float) -> bool:
    """Whether two times are one: the same tensor, or equal numbers."""
    return t is s if isinstance(t, Tensor) or isinstance(s, Tensor) else t == s


def _channels(alpha: Tensor, x: Tensor) -> Tensor:
    return alpha.to(x).view(1, -1, *(1,) * (x.ndim - 2))
