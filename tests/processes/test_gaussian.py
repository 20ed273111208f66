"""Gaussian diffusion of one-hot cells: evidence, moments of the step, losses, the prior's KL."""

import numpy as np
import pytest
import torch

from dd.processes.gaussian import Gaussian, pairwise_confusion


@pytest.fixture(scope="module")
def process() -> Gaussian:
    return Gaussian(3, 784)


def test_evidence_is_the_log_likelihood(process: Gaussian) -> None:
    """log N(x; sqrt(abar) e_i, 1 - abar) up to a constant."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(0, 3, (5, 2, 2), generator=generator)
    for t in (0.05, 0.5, 0.95):
        abar = float(process.alpha_bar(t))
        x = process.perturb(x0, t, generator)
        exact = torch.stack([-((x.movedim(1, -1) - abar**0.5 * torch.eye(3)[i]) ** 2).sum(-1) for i in range(3)], 1)
        exact = exact / (2 * (1 - abar))
        l = process.evidence(x, t)
        assert torch.allclose(torch.log_softmax(l, 1), torch.log_softmax(exact, 1), atol=1e-3)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_step_keeps_the_marginal_when_the_posterior_knows(process: Gaussian, eta: float) -> None:
    """With p = e_k a step from q(x_t | x_0) lands in q(x_s | x_0), for every eta (Song et al. 2021, lemma 1)."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.zeros(40_000, 1, 1, dtype=torch.long)
    t, s = 0.7, 0.4
    f = torch.tensor([1e3, 0, 0]).view(1, 3, 1, 1).expand(40_000, -1, 1, 1)
    x = process.step(process.perturb(x0, t, generator), f, t, s, "ddpm", generator, eta=eta).double()[:, :, 0, 0]
    abar = float(process.alpha_bar(s))
    assert x.mean(0).numpy() == pytest.approx(np.array([abar**0.5, 0, 0]), abs=5 * (1 - abar) ** 0.5 / 200)
    assert x.var(0).numpy() == pytest.approx(np.full(3, 1 - abar), rel=0.04)


def test_eta_of_ancestral_sampling_is_one_and_of_ddim_zero(process: Gaussian) -> None:
    """eta = 1 has the variance of q(x_s | x_t, x_0): (1 - abar_s)/(1 - abar_t) (1 - abar_t/abar_s)."""
    x, f = torch.zeros(40_000, 3, 1, 1), torch.zeros(40_000, 3, 1, 1)
    abar_t, abar_s = float(process.alpha_bar(0.7)), float(process.alpha_bar(0.4))
    ancestral = process.step(x, f, 0.7, 0.4, "ddpm", torch.Generator().manual_seed(0))
    variance = (1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)
    assert float(ancestral.var()) == pytest.approx(variance, rel=0.03)
    ddim = process.step(x, f, 0.7, 0.4, "ddim", torch.Generator().manual_seed(0))
    assert torch.equal(ddim, process.step(x, f, 0.7, 0.4, "ddpm", torch.Generator().manual_seed(0), eta=0.0))
    assert float(ddim.std()) < 1e-6


def test_simple_loss_is_the_squared_noise_error(process: Gaussian) -> None:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(0, 3, (4, 2, 2), generator=generator)
    t = torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=torch.float64)
    x_t = process.perturb(x0, t, generator)
    logits = torch.randn(4, 3, 2, 2, generator=generator)
    abar = process.alpha_bar(t).float().view(-1, 1, 1, 1)
    hot = torch.nn.functional.one_hot(x0, 3).movedim(-1, 1)
    eps = (x_t - abar.sqrt() * hot) / (1 - abar).sqrt()
    guess = (x_t - abar.sqrt() * torch.softmax(logits, 1)) / (1 - abar).sqrt()
    expected = (eps - guess).square().flatten(1).sum(1)
    assert torch.allclose(process.simple_loss(logits, x0, x_t, t), expected, rtol=1e-3)


def test_kl_prior(process: Gaussian) -> None:
    """KL(N(sqrt(abar) e_k, 1 - abar) || N(0, 1)) by torch, and the confusion left at t = 0."""
    abar = float(process.alpha_bar(1.0))
    q = torch.distributions.Normal(torch.tensor([abar**0.5, 0, 0], dtype=torch.float64), (1 - abar) ** 0.5)
    p = torch.distributions.Normal(torch.zeros(3, dtype=torch.float64), 1.0)
    assert process.kl_prior((28, 28)) == pytest.approx(
        784 * float(torch.distributions.kl_divergence(q, p).sum()), abs=1e-6
    )
    assert process.kl_prior((28, 28)) <= 0.0102
    assert 784 * pairwise_confusion(3, process.clock.native(0.0).item()) <= 0.0102


def test_pairwise_confusion_against_monte_carlo() -> None:
    """Two categories: equal to E[-log softmax(l)_k] within 4 standard errors; 200,000 draws, seed 0."""
    snr = 2.0
    g = snr + (2 * snr) ** 0.5 * torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = torch.nn.functional.softplus(-g)
    assert pairwise_confusion(2, -np.log(snr)) == pytest.approx(float(loss.mean()), abs=4 * float(loss.std()) / 447)
