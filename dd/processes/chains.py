"""Transition matrices of discrete-state diffusion: uniform, absorbing and discretised Gaussian (Austin et al. 2021).

A chain has steps 1..T on S states. Rows are where a cell is, columns where it goes: q(x_n = j | x_s = i) = Q[i, j].
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dd.processes.base import OFFSET

SCHEDULES = ("information", "cosine", "linear")  # linear: in alpha_bar, which for the absorbing chain is information
FORGOTTEN = -7.0  # log amplitude left of the discretised Gaussian chain's slowest mode


class ScaledChain:
    """Q between any two steps is abar I + (1 - abar) R with an idempotent R, so alpha_bar is all there is to know.

    alpha_bar: (T + 1,), from 1 to 0.
    """

    def __init__(self, alpha_bar: np.ndarray, R: Tensor):
        self.alpha_bar = torch.as_tensor(np.asarray(alpha_bar), dtype=torch.float64)
        self.R, self.S, self.T = R, len(R), len(alpha_bar) - 1

    def between(self, s: Tensor, n: Tensor) -> Tensor:
        """q(x_n | x_s): (B, S, S) for integer tensors s <= n of shape (B,)."""
        a_s, a_n = self.alpha_bar[s], self.alpha_bar[n]
        a = torch.where(a_s > 0, a_n / a_s.clamp(min=1e-300), 0.0).view(-1, 1, 1)
        return a * torch.eye(self.S, dtype=torch.float64) + (1 - a) * self.R


class ProductChain:
    """A chain of unrelated one-step matrices (T, S, S), with its products: 16 T S^2 bytes, 1 GB at S = 256."""

    def __init__(self, steps: Tensor):
        self.T, self.S = steps.shape[:2]
        self.steps = steps
        bar = [torch.eye(self.S, dtype=torch.float64)]
        for Q in steps:
            bar.append(bar[-1] @ Q)
        self.bar = torch.stack(bar)

    def between(self, s: Tensor, n: Tensor) -> Tensor:
        """q(x_n | x_s): (B, S, S)."""
        return torch.stack([self._product(int(i), int(j)) for i, j in zip(s, n, strict=True)])

    def _product(self, s: int, n: int) -> Tensor:
        if s == 0:
            return self.bar[n]
        Q = torch.eye(self.S, dtype=torch.float64)
        for step in self.steps[s:n]:
            Q = Q @ step
        return Q


def uniform_chain(K: int, T: int, schedule: str) -> ScaledChain:
    """A cell keeps its category with abar and is redrawn uniformly otherwise."""
    alpha_bar = _alpha_bar(schedule, T, lambda a: _uniform_information(a, K))
    return ScaledChain(alpha_bar, torch.full((K, K), 1 / K, dtype=torch.float64))


def absorbing_chain(K: int, T: int, schedule: str) -> ScaledChain:
    """A cell keeps its category with abar and is masked (state K) otherwise; its information is abar itself."""
    R = torch.zeros(K + 1, K + 1, dtype=torch.float64)
    R[:, K] = 1
    return ScaledChain(_alpha_bar(schedule, T, lambda a: a), R)


def gaussian_chain(K: int, T: int) -> ProductChain:
    """Discretised Gaussian steps with their products; the categories must have an order."""
    return ProductChain(gaussian_steps(K, T))


def gaussian_steps(K: int, T: int) -> Tensor:
    """One-step matrices of the discretised Gaussian, beta linear in n (Austin et al. 2021, appendix A.2.3): (T, K, K).

    [Q]_ij = exp(-4 (i - j)^2 / ((K - 1)^2 beta)) / sum_{n=1-K}^{K-1} exp(-4 n^2 / ((K - 1)^2 beta)),  i != j,
    and the diagonal makes rows sum to one: symmetric and doubly stochastic, so the stationary law is uniform. The betas
    are those of Ho et al. (2020), linear from 1e-4 to 0.02, times one factor that depends on K and T and makes the
    chain forget: its slowest mode, a half cosine over the categories, keeps e^-7 of its amplitude (1e-6 nats a cell).
    """
    i = torch.arange(K, dtype=torch.float64)
    squared = (i[:, None] - i[None]) ** 2
    betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    mode = torch.cos(torch.pi * (i + 0.5) / K)
    jump = torch.bincount((i[:, None] - i[None]).abs().long().flatten(), ((mode[:, None] - mode) ** 2).flatten(), K)

    def kernel(factor: float, distance_squared: Tensor) -> Tensor:
        """exp(-4 d^2 / ((K - 1)^2 beta)), normalised over d = 1-K..K-1: (T, *distance_squared.shape)."""
        scale = (4 / ((K - 1) ** 2 * factor * betas)).view(-1, *(1,) * distance_squared.ndim)
        norm = 1 + 2 * torch.exp(-scale.view(-1, 1) * i[1:] ** 2).sum(1)
        return torch.exp(-scale * distance_squared) / norm.view(scale.shape)

    def kept(factor: float) -> float:
        """log of what all steps leave of the mode: sum_n log(1 - <mode, (1 - Q_n) mode> / <mode, mode>)."""
        return float(torch.log1p(-(kernel(factor, i**2) @ jump) / 2 / (mode @ mode)).sum())

    low, high = -10.0, 20.0  # log factor; kept() falls
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(np.exp(middle)) > FORGOTTEN else (low, middle)
    Q = kernel(float(np.exp(high)), squared)
    Q.diagonal(dim1=1, dim2=2).zero_()
    Q.diagonal(dim1=1, dim2=2).copy_(1 - Q.sum(2))
    return Q


def information(bar: Tensor) -> Tensor:
    """I(x_0; x_n) / log K for channels (N, K, S) under a uniform prior."""
    K = bar.shape[1]
    joint = bar / K
    marginal = joint.sum(1, keepdim=True)
    return (torch.xlogy(joint, bar) - torch.xlogy(joint, marginal)).sum((1, 2)) / np.log(K)


def _uniform_information(alpha_bar: np.ndarray, K: int) -> np.ndarray:
    stay, move = alpha_bar + (1 - alpha_bar) / K, (1 - alpha_bar) / K
    log_move = np.log(np.maximum(move, 1e-300))
    return 1 + (stay * np.log(stay) + (K - 1) * move * log_move) / np.log(K)


def _alpha_bar(schedule: str, T: int, information_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """alpha_bar_n, n = 0..T, with both ends exact. "information": the channel's information falls linearly."""
    t = np.arange(T + 1) / T
    if schedule == "linear":
        alpha_bar = 1 - t
    elif schedule == "cosine":
        # cos, where Nichol & Dhariwal (2021) have cos^2: Hoogeboom et al.'s (2021) alpha is the square root of theirs,
        # and their program takes it ("the alpha in our paper is the alpha_sqrt from the Gaussian diffusion").
        g = np.cos((t + OFFSET) / (1 + OFFSET) * np.pi / 2)
        alpha_bar = g / g[0]
    elif schedule == "information":
        fine = 1 - np.geomspace(1e-12, 1, 4096)[::-1]
        fine = np.union1d(fine, np.geomspace(1e-9, 1, 4096))
        fine = np.concatenate([[0.0], fine])
        alpha_bar = np.interp(1 - t, information_of(fine), fine)
    else:
        raise ValueError(f"unknown schedule {schedule!r}; choose one of {', '.join(SCHEDULES)}")
    alpha_bar[0], alpha_bar[-1] = 1.0, 0.0
    return alpha_bar
