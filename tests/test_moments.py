"""Closed-form moments against the mixture over lineages and against draws."""

import torch

from dd.gamma import dirichlet
from dd.moments import corner_entropy, corner_moments, dirichlet_entropy, stationary
from dd.wright_fisher import WrightFisher, wright_fisher

UNEQUAL = torch.tensor((0.6, 1.0, 2.0), dtype=torch.float64)
Z = 4.5  # standard errors allowed


def test_corner_moments_are_those_of_the_mixture():
    """Sum over lineages of the moments of Dirichlet(alpha + m e_k)."""
    kernel = WrightFisher(UNEQUAL)
    for tau in (0.1, 0.5, 2.0):
        q = kernel.log_lineages(tau)[0].exp()
        m = torch.arange(len(q), dtype=torch.float64).view(-1, 1, 1)
        a = kernel.alpha + m * torch.eye(3, dtype=torch.float64)
        A = a.sum(2, keepdim=True)
        mean, square = corner_moments(kernel.alpha, tau)
        assert torch.allclose((q.view(-1, 1, 1) * a / A).sum(0), mean, atol=1e-6)
        assert torch.allclose((q.view(-1, 1, 1) * a * (a + 1) / (A * (A + 1))).sum(0), square, atol=1e-6)


def test_entropies_are_those_of_draws(generator):
    def close(entropy: torch.Tensor, x: torch.Tensor) -> bool:
        drawn = -torch.xlogy(x, x).sum(-1)
        return bool((entropy - drawn.mean()).abs() < Z * drawn.std() / len(x) ** 0.5)

    a = torch.tensor((0.5, 1.0, 3.0), dtype=torch.float64)
    assert close(dirichlet_entropy(a), dirichlet(a.view(1, -1), (20_000, 3), generator))
    kernel, tau = wright_fisher(3), 0.6
    x = kernel.sample(torch.ones(20_000, dtype=torch.long), tau, generator).double()
    assert close(corner_entropy(kernel, tau)[1], x)


def test_the_stationary_law_has_its_mean(generator):
    x = stationary(UNEQUAL, 20_000, generator)
    assert x.sum(1).sub(1).abs().max() < 1e-12
    error = (x.mean(0) - UNEQUAL / UNEQUAL.sum()).abs()
    assert bool((error < Z * x.std(0) / len(x) ** 0.5).all())
