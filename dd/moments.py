"""Closed-form moments of the Wright-Fisher diffusion from a corner, and its stationary law; float64."""

import torch
from torch import Tensor

from dd.gamma import dirichlet
from dd.wright_fisher import WrightFisher


def corner_moments(alpha: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """E[x_i] and E[x_i^2] at tau given e_k: two (K, K), rows k.

    From L x_i = 1/2 (alpha_i - theta x_i) and L x_i^2 = (alpha_i + 1) x_i - (theta + 1) x_i^2, with T = alpha / theta:

        E[x_i]   = T_i + (delta_ik - T_i) e^(-theta tau/2)
        E[x_i^2] = delta_ik e^(-c tau) + (alpha_i + 1) [T_i (1 - e^(-c tau))/c
                   + (delta_ik - T_i)(e^(-theta tau/2) - e^(-c tau))/(c - theta/2)],      c = theta + 1.
    """
    K, theta = len(alpha), alpha.sum()
    e_k, T, A, c = torch.eye(K, dtype=torch.float64), alpha / theta, theta / 2, theta + 1
    e_A, e_c = torch.exp(-A * tau), torch.exp(-c * tau)
    mean = T + (e_k - T) * e_A
    square = e_k * e_c + (alpha + 1) * (T * (1 - e_c) / c + (e_k - T) * (e_A - e_c) / (c - A))
    return mean, square


def dirichlet_entropy(a: Tensor) -> Tensor:
    """E[-sum_i x_i log x_i] of x ~ Dirichlet(a), a (..., K): psi(A + 1) - sum_i a_i/A psi(a_i + 1)."""
    A = a.sum(-1, keepdim=True)
    return torch.digamma(A[..., 0] + 1) - (a / A * torch.digamma(a + 1)).sum(-1)


def corner_entropy(kernel: WrightFisher, tau: float) -> Tensor:
    """E[H(x_tau) | e_k] = sum_m q_m(tau) E[H(Dirichlet(alpha + m e_k))]: (K,)."""
    q = kernel.log_lineages(tau)[0].exp()
    m = torch.arange(len(q), dtype=torch.float64).view(-1, 1, 1)
    a = kernel.alpha + m * torch.eye(kernel.K, dtype=torch.float64)  # (M, K, K)
    return (q[:, None] * dirichlet_entropy(a)).sum(0) / q.sum()


def stationary(alpha: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """x ~ Dirichlet(alpha): (n, K)."""
    return dirichlet(alpha.double().view(1, -1), (n, len(alpha)), generator)
