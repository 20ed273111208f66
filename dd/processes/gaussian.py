"""Gaussian diffusion of one-hot cells (Ho et al. 2020; Song et al. 2021; Kingma et al. 2021).

    x_t = sqrt(abar) e_k + sqrt(1 - abar) eps,     l_i = x_i sqrt(abar) / (1 - abar)

The clean estimate is the posterior mean p itself; the noise prediction is derived from it.
"""

from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from dd.processes.base import END_NATS, OFFSET, Categorical, Option
from dd.processes.clock import Clock, entropy


class Gaussian(Categorical):
    """K categories, `cells` cells per image. Own time v = log((1 - abar) / abar), the log noise-to-signal ratio.

    nichol: between v and the time of Nichol & Dhariwal's schedule, stretched to the ends of v.
    """

    name = "gaussian"
    continuous = True
    losses = ("bound", "cross-entropy", "hybrid", "simple")
    methods = ("ddpm", "ddim", "heun")
    flow = "ddim"
    options: ClassVar[dict[str, Option]] = {
        "eta": Option(1.0, 0.0, 1.0, "Noise of the step: 1 is the ancestral sampler, 0 is DDIM.", ("ddpm",))
    }

    def __init__(self, K: int, cells: int = 784):
        self.K, self.cells = K, cells
        grid = np.linspace(-7.0, 16.0, 140)
        confusion = np.array([pairwise_confusion(K, v) for v in grid])
        lost = np.minimum(_destroyed_information(K, grid), confusion / np.log(K))
        v_min = brentq(
            lambda v: np.log((cells * pairwise_confusion(K, v) + 1e-300) / END_NATS), grid[0], grid[-1], xtol=1e-4
        )
        # abar is about e^-v there, and KL to N(0, I) abar / 2 a cell: half of END_NATS in all
        v_max = float(np.log(cells / END_NATS))
        v = np.linspace(v_min, v_max, 256)
        self.clock = Clock(v, np.interp(v, grid, lost))
        self.nichol = Clock(v, nichol_time(v))

    def alpha_bar(self, t: Tensor | float) -> Tensor:
        """abar(t), float64."""
        return torch.sigmoid(-self.clock.native(t))

    def prior(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """x_1 ~ N(0, I): (B, K, H, W)."""
        return torch.randn((shape[0], self.K, *shape[1:]), generator=generator)

    def perturb(self, x0: Tensor, t: Tensor | float, generator: torch.Generator) -> Tensor:
        """x_t = sqrt(abar) e_k + sqrt(1 - abar) eps, k = x_0: (B, K, H, W)."""
        abar = _batch(self.alpha_bar(t), x0.ndim + 1)
        eps = torch.randn((len(x0), self.K, *x0.shape[1:]), generator=generator)
        return eps.mul_((1 - abar).sqrt()).scatter_add_(1, x0[:, None], abar.sqrt().expand(len(x0), 1, *x0.shape[1:]))

    def evidence(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """l_i = x_i sqrt(abar) / (1 - abar), log N(x; sqrt(abar) e_i, (1 - abar) I) but for a constant."""
        v = self.clock.native(t)
        scale = torch.sigmoid(-v).sqrt() / torch.sigmoid(v)
        return x_t * _batch(scale, x_t.ndim)

    def simplex(self, x_t: Tensor) -> Tensor:
        """Gaussian states leave the simplex: shown by clipping and renormalising."""
        x = x_t.clamp(min=1e-6)
        return x / x.sum(1, keepdim=True)

    def step(
        self, x_t: Tensor, f: Tensor, t: float, s: float, method: str, generator: torch.Generator, eta: float = 1.0
    ) -> Tensor:
        """DDIM with noise eta ("ddpm"; eta = 1 is the ancestral step) or without ("ddim", the probability-flow ODE)."""
        if method not in ("ddpm", "ddim"):
            raise ValueError(f"no single step is a {method!r} step; it is one of ddpm, ddim")
        x_0 = self.clean_estimate(x_t, f, t)
        return self.ddim_step(x_t, x_0, t, s, eta if method == "ddpm" else 0.0, generator)

    def clean_estimate(self, x_t: Tensor, f: Tensor, t: float) -> Tensor:
        """x_0 as the network sees it: the posterior mean of the one-hot, p."""
        return self.estimate(f, self.evidence(x_t, t))

    def ddim_step(self, x_t: Tensor, x_0: Tensor, t: float, s: float, eta: float, generator: torch.Generator) -> Tensor:
        """x_s = sqrt(abar_s) x_0 + sqrt(1 - abar_s - sigma^2) eps + sigma z (Song et al. 2021, eq. 12 and 16)."""
        v_t, v_s = float(self.clock.native(t)), float(self.clock.native(s))
        abar_t, abar_s = _sigmoid(-v_t), _sigmoid(-v_s)
        sigma2 = eta**2 * _sigmoid(v_s) / _sigmoid(v_t) * max(0.0, 1 - abar_t / abar_s)
        eps = self._noise(x_t, x_0, t)
        x_s = abar_s**0.5 * x_0 + max(0.0, _sigmoid(v_s) - sigma2) ** 0.5 * eps
        if sigma2 > 0:
            x_s = x_s + sigma2**0.5 * torch.randn(x_t.shape, generator=generator)
        return x_s

    def heun(self, x_t: Tensor, f_t: Tensor, x_s: Tensor, f_s: Tensor, t: float, s: float) -> Tensor:
        """Trapezoidal rule for dz/dsigma = eps in z = x / sqrt(abar), sigma = sqrt((1 - abar)/abar)."""
        v_t, v_s = float(self.clock.native(t)), float(self.clock.native(s))
        x_0, x_0_s = self.clean_estimate(x_t, f_t, t), self.clean_estimate(x_s, f_s, s)
        eps = (self._noise(x_t, x_0, t) + self._noise(x_s, x_0_s, s)) / 2
        z = x_t / _sigmoid(-v_t) ** 0.5 + (np.exp(v_s / 2) - np.exp(v_t / 2)) * eps
        return z * _sigmoid(-v_s) ** 0.5

    def _noise(self, x_t: Tensor, x_0: Tensor, t: float) -> Tensor:
        """eps = (x_t - sqrt(abar) x_0) / sqrt(1 - abar)."""
        v = float(self.clock.native(t))
        return (x_t - _sigmoid(-v) ** 0.5 * x_0) / _sigmoid(v) ** 0.5

    def times(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """v drawn by the clock; the rate is per unit of SNR = e^-v, so the weight is e^-v over the density of v."""
        v, density = self.clock.draw(n, generator)
        return self.clock.t(v), torch.exp(-v) / density

    def loss(self, logits: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """1/2 ||e_k - p||^2 per unit of SNR, over all cells: the continuous-time VLB (Kingma et al. 2021, eq. 15)."""
        hot = torch.zeros_like(logits).scatter_(1, x0[:, None], 1.0)
        return 0.5 * (hot - torch.softmax(logits, 1)).square().flatten(1).sum(1)

    def simple_loss(self, logits: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """L_simple = ||eps - eps_hat||^2 = abar / (1 - abar) ||e_k - p||^2 over all cells (Ho et al. 2020, eq. 14)."""
        return 2 * torch.exp(-self.clock.native(t)).reshape(-1).to(logits) * self.loss(logits, x0, x_t, t)

    def kl_prior(self, shape: tuple[int, int]) -> float:
        """KL(q(x_T | x_0) || N(0, I)), exactly. The reconstruction at t = 0 needs the network."""
        cells, abar = shape[0] * shape[1], float(self.alpha_bar(1.0))
        kl = 0.5 * (abar - self.K * (abar + np.log1p(-abar)))
        return cells * kl


def nichol_signal(u: np.ndarray) -> np.ndarray:
    """abar(u), u from 0 to 1: the cosine schedule of Nichol & Dhariwal (2021, eq. 17)."""
    return (np.cos((u + OFFSET) / (1 + OFFSET) * np.pi / 2) / np.cos(OFFSET / (1 + OFFSET) * np.pi / 2)) ** 2


def nichol_time(v: np.ndarray) -> np.ndarray:
    """The u at which that schedule has abar = sigmoid(-v)."""
    angle = np.arccos(np.sqrt(1 / (1 + np.exp(v))) * np.cos(OFFSET / (1 + OFFSET) * np.pi / 2))
    return angle * 2 / np.pi * (1 + OFFSET) - OFFSET


def pairwise_confusion(K: int, v: float) -> float:
    """(K - 1) E[log(1 + e^-g)] >= E[-log softmax(l)_k], with g = l_k - l_j ~ N(snr, 2 snr), snr = e^-v; nats."""
    snr = np.exp(-v)
    z = np.linspace(-40, 40, 8001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    g = snr + np.sqrt(2 * snr) * z
    return float((K - 1) * (density * np.logaddexp(0, -g)).sum())


def _destroyed_information(K: int, v: np.ndarray, n: int = 4096) -> np.ndarray:
    """E[H(softmax(l))] / log K on a grid of v, with the same noise everywhere."""
    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(max(128, n * 4 // K), K, generator=generator, dtype=torch.float64)
    lost = []
    for v_ in v:
        signal, noise = _sigmoid(-v_), _sigmoid(v_)
        l = eps * (signal / noise) ** 0.5
        l[:, 0] += signal / noise
        lost.append(float(entropy(l).mean() / np.log(K)))
    return np.minimum(np.array(lost), 1.0)


def _sigmoid(v: float) -> float:
    return float(1 / (1 + np.exp(-v)))


def _batch(scalar: Tensor, ndim: int) -> Tensor:
    return scalar.reshape(-1, *(1,) * (ndim - 1)).float()
