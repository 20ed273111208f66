"""The stick-breaking Jacobi diffusion of the Dirichlet Diffusion Score Model (Avdeyev et al. 2023), three categories.

    x_1 = v_1,   x_2 = (1 - v_1) v_2,   x_3 = (1 - v_1)(1 - v_2),
    dv_j = 1/2 [a_j (1 - v_j) - b_j v_j] dtau + sqrt(v_j (1 - v_j)) dW_j,   a_j = alpha_j,  b_j = sum_{i > j} alpha_i.

Each stick is a Wright-Fisher diffusion with two alleles, Beta(a_j, b_j) is its stationary law, and the product of the
two is Dirichlet(alpha). A hot e_k starts the sticks before k at 0, stick k at 1, and those after k in their stationary
law; so the kernel is a product of two-allele kernels h^(j) (dd/wright_fisher.py):

    p_tau(x | e_k) / pi(x) = prod_{j < k} h^(j)_2(1 - v_j) * h^(k)_1(v_k).
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dd.moments import corner_entropy, corner_moments, dirichlet_entropy
from dd.processes.dirichlet import frozen_step
from dd.triangle.diffusions import simulated_information
from dd.wright_fisher import WrightFisher


class StickBreaking:
    """The diffusion as `dd.triangle.diffusions.Diffusion`; alpha: (3,) concentrations."""

    name = "Stick-breaking Jacobi"
    step_name, detail = "Beta step on every stick", ""
    refuses: ClassVar[dict[str, str]] = {}

    def __init__(self, alpha: Tensor):
        self.alpha = torch.as_tensor(alpha, dtype=torch.float64)
        tail = self.alpha.flip(0).cumsum(0).flip(0)
        self.pairs = [torch.stack([self.alpha[j], tail[j + 1]]) for j in range(2)]
        self.sticks = [WrightFisher(pair) for pair in self.pairs]
        self.tau_lo = max(stick.tau_lo for stick in self.sticks)
        self.tau_hi = max(stick.tau_hi for stick in self.sticks)

    def information(self) -> tuple[np.ndarray, np.ndarray]:
        return simulated_information(self, min(float(pair.sum()) for pair in self.pairs))  # the slower stick

    def _kernel(self, v: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        """log h and h'/h of both alleles of both sticks: two tensors (N, stick, allele)."""
        out = []
        for j, stick in enumerate(self.sticks):
            at = min(max(tau, stick.tau_lo), stick.tau_hi)  # beyond tau_hi, h = 1 to 1e-8
            out.append(torch.stack(stick.log_h(torch.stack([v[:, j], 1 - v[:, j]], 1), at)))
        return tuple(torch.stack(out, 2))

    def evidence(self, x: Tensor, tau: float) -> Tensor:
        """l_k = sum_{j < k} log h^(j)_2(1 - v_j) + log h^(k)_1(v_k): (N, 3)."""
        l = self._kernel(to_sticks(x), tau)[0]
        return torch.stack([l[:, 0, 0], l[:, 0, 1] + l[:, 1, 0], l[:, 0, 1] + l[:, 1, 1]], 1)

    def _slope(self, v: Tensor, tau: float, p: Tensor) -> Tensor:
        """g_j = d log(p_tau / pi) / d v_j for posterior p: (N, 2)."""
        s = self._kernel(v, tau)[1]
        g_1 = p[:, 0] * s[:, 0, 0] - (p[:, 1] + p[:, 2]) * s[:, 0, 1]
        g_2 = p[:, 1] * s[:, 1, 0] - p[:, 2] * s[:, 1, 1]
        return torch.stack([g_1, g_2], 1)

    def fitness(self, x: Tensor, tau: float, p: Tensor) -> Tensor:
        """w with D grad log(p_tau / pi) = x (w - <x, w>): w_i = dlog x_i when dv_j = v_j (1 - v_j) g_j."""
        v = to_sticks(x)
        g = self._slope(v, tau, p)
        first = -v[:, 0] * g[:, 0]
        w = [(1 - v[:, 0]) * g[:, 0], first + (1 - v[:, 1]) * g[:, 1], first - v[:, 1] * g[:, 1]]
        return torch.stack(w, 1)

    def drift(self, x: Tensor) -> Tensor:
        """f in x. The map v -> x is linear in each stick, so Ito adds nothing: f_x = (dx/dv) f_v."""
        v = to_sticks(x)
        f = [0.5 * (pair[0] * (1 - v[:, j]) - pair[1] * v[:, j]) for j, pair in enumerate(self.pairs)]
        return _push(v, *f)

    def noise(self, x: Tensor, dB: Tensor) -> Tensor:
        """(dx/dv) sqrt(v (1 - v)) dB for Brownian increments dB (N, 3), of which two are used."""
        v = to_sticks(x)
        root = (v * (1 - v)).clamp(min=0).sqrt() * dB[:, :2]
        return _push(v, root[:, 0], root[:, 1])

    def step(self, x: Tensor, tau: float, p: Tensor | None, d: float, generator: torch.Generator) -> Tensor:
        """Both sticks by one Beta each, with the frozen diffusion's mean and variance; stays on the triangle."""
        v = to_sticks(x)
        g = torch.zeros_like(v) if p is None else self._slope(v, tau, p)
        new = [beta_step(v[:, j], pair, g[:, j], d, generator) for j, pair in enumerate(self.pairs)]
        return from_sticks(torch.stack(new, 1))

    def sample(self, k: Tensor, tau: float, generator: torch.Generator) -> Tensor:
        """x_tau given e_k, exactly; k: (N,) corners."""
        v = []
        for j, stick in enumerate(self.sticks):
            at = min(max(tau, stick.tau_lo), stick.tau_hi)
            hot = stick.sample((k > j).long(), at, generator)[:, 0].double()
            v.append(torch.where(k < j, stick.stationary((len(k),), generator)[:, 0].double(), hot))
        return from_sticks(torch.stack(v, 1))

    def moments(self, tau: float) -> tuple[Tensor, Tensor]:
        """E[x_i | e_k] and E[x_i^2 | e_k], rows k: sticks are independent given k."""
        first, second = [], []
        for k in range(3):
            m, s = [], []
            for j, pair in enumerate(self.pairs):
                mean, square = corner_moments(pair, tau)
                if k < j:  # stationary: the limit of either corner
                    mean, square = corner_moments(pair, 1e9)
                row = 1 if k > j else 0
                m.append(mean[row, 0]), s.append(square[row, 0])
            rest, rest2 = 1 - m[0], 1 - 2 * m[0] + s[0]
            first.append(torch.stack([m[0], rest * m[1], rest * (1 - m[1])]))
            second.append(torch.stack([s[0], rest2 * s[1], rest2 * (1 - 2 * m[1] + s[1])]))
        return torch.stack(first), torch.stack(second)

    def entropy(self, tau: float) -> Tensor:
        """E[H(x) | e_k] = E[h(v_1)] + E[1 - v_1] E[h(v_2)], h the binary entropy: (3,)."""
        at = [min(max(tau, stick.tau_lo), stick.tau_hi) for stick in self.sticks]
        h_1, h_2 = (corner_entropy(stick, t) for stick, t in zip(self.sticks, at, strict=True))
        rest = 1 - corner_moments(self.pairs[0], tau)[0][:, 0]
        return torch.stack(
            [h_1[0] + rest[0] * dirichlet_entropy(self.pairs[1]), h_1[1] + rest[1] * h_2[0], h_1[1] + rest[1] * h_2[1]]
        )


def beta_step(z: Tensor, pair: Tensor, g: Tensor, d: float, generator: torch.Generator) -> Tensor:
    """dz = 1/2 [a (1 - z) - b z] ds + z (1 - z) g ds + sqrt(z (1 - z)) dW over time d, rates frozen; pair = (a, b).

    z, g: (N,). Selection g > 0 feeds z, g < 0 its complement, as in `Dirichlet.dirichlet_step` for K = 2.
    """
    y = torch.stack([z, 1 - z], 1)
    a = pair.view(1, 2) / 2 + y * torch.stack([g.clamp(min=0), (-g).clamp(min=0)], 1)
    return frozen_step(y, a, d, generator)[:, 0]


def to_sticks(x: Tensor) -> Tensor:
    """v_1 = x_1, v_2 = x_2 / (x_2 + x_3): (N, 3) to (N, 2); 1/2 where the second stick has no length."""
    rest = x[:, 1] + x[:, 2]
    v_2 = torch.where(rest > 0, x[:, 1] / rest.clamp(min=1e-300), 0.5)
    return torch.stack([x[:, 0], v_2], 1).clamp(0, 1)


def from_sticks(v: Tensor) -> Tensor:
    rest = 1 - v[:, 0]
    return torch.stack([v[:, 0], rest * v[:, 1], rest * (1 - v[:, 1])], 1)


def _push(v: Tensor, dv_1: Tensor, dv_2: Tensor) -> Tensor:
    """The vector (dx/dv) dv: (N, 3)."""
    rest = 1 - v[:, 0]
    return torch.stack([dv_1, rest * dv_2 - v[:, 1] * dv_1, -rest * dv_2 - (1 - v[:, 1]) * dv_1], 1)
