"""Bounds are bounds, and tight where the posterior is exact."""

import numpy as np
import pytest
import torch

from dd.likelihood import cross_entropy, differentiable_denoiser, estimate_bound, exact_vlb, ode_bound, training_loss
from dd.processes import REGISTRY, Process, make_process
from dd.processes.d3pm import D3PM
from dd.processes.dirichlet import Dirichlet
from tests.toys import Toy, three_cells, two_cells
from train.bounds import BATCH, stderr

CHAINS = [name for name in REGISTRY if not make_process(name, 3, 3).continuous]


def excess(toy: Toy, process: Process, images: int, rows: int, repeats: int) -> tuple[float, float]:
    """(bound - surprise) / entropy with the toy's exact posterior, and its standard error; seed 11.

    -log p(x_0) is what the bound of an exact continuous process is on average *for each x_0*: taking it off leaves the
    mean of bound - entropy as it is, and only the noise of t and x_t in it. One t serves the `rows` toys of an image.
    """
    generator = torch.Generator().manual_seed(11)
    x0 = toy.sample(images, generator, rows)
    bound = estimate_bound(process, toy.denoise, x0, None, repeats, generator, BATCH)
    relative = (bound.total - toy.surprise(x0)) / rows / toy.entropy
    return float(relative.mean()), stderr(relative)


@pytest.mark.parametrize("name", REGISTRY)
def test_bound_of_three_cells(name: str) -> None:
    """>= entropy - 3 standard errors and within 1% of it; 512,000 toys, 4 times each, standard error below 0.3%."""
    mean, error = excess(three_cells(), make_process(name, 3, 3 * 256), 2000, 256, 4)
    assert error < 0.003
    assert -3 * error <= mean <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", REGISTRY)
def test_bound_of_two_cells_of_64(name: str) -> None:
    """The same from 128,000 toys, 8 times each."""
    mean, error = excess(two_cells(), make_process(name, 64, 2 * 64), 2000, 64, 8)
    assert error < 0.003
    assert -3 * error <= mean <= 0.01


@pytest.mark.slow
def test_bound_of_two_cells_of_64_with_unequal_alpha() -> None:
    alpha = torch.linspace(0.5, 1.5, 64, dtype=torch.float64).round(decimals=1)
    mean, error = excess(two_cells(), Dirichlet(64, 2 * 64, alpha), 2000, 64, 8)
    assert error < 0.003
    assert -3 * error <= mean <= 0.01


def test_bound_with_unequal_alpha() -> None:
    alpha = torch.tensor([0.6, 1.0, 1.9], dtype=torch.float64)
    mean, error = excess(three_cells(), Dirichlet(3, 3 * 256, alpha), 2000, 256, 4)
    assert error < 0.003
    assert -3 * error <= mean <= 0.01


@pytest.mark.parametrize("name", CHAINS)
def test_exact_vlb_by_enumeration(name: str) -> None:
    """All T terms, each averaged over every (x_0, x_n) with its probability: no noise. >= entropy, within 0.1% of it.

    What is above the entropy is what cells drawn apart lose in T = 1000 steps, and the prior's mismatch.
    """
    toy, chain = three_cells(), make_process(name, 3, 3)
    clean, noisy = (torch.cartesian_prod(*[torch.arange(states)] * 3) for states in (chain.K, chain.S))
    x0, x_n = clean.repeat_interleave(len(noisy), 0)[:, None], noisy.repeat(len(clean), 1)[:, None]
    p_x0 = (-toy.surprise(x0)).exp()
    path = 0.0
    for n in range(1, chain.T + 1):
        t, n_ = chain.clock.t(float(n)), torch.tensor([n])
        weight = p_x0 * chain._bar(n_)[0][x0, x_n].prod(2)[:, 0]
        l = chain.evidence(x_n, t)
        kl = chain.kl_between(toy.denoise(l) + l, x0, x_n, n_, n_ - 1)
        path += float(torch.where(weight > 0, weight * kl, 0.0).sum())
    L_vb = path + chain.kl_prior((1, 3))
    assert toy.entropy * (1 - 1e-6) <= L_vb <= toy.entropy * 1.001


def test_a_wrong_posterior_costs_what_it_should() -> None:
    """With f = log marginals the bound is the sum of the marginals' entropies."""
    toy, generator = three_cells(), torch.Generator().manual_seed(11)
    marginals = torch.stack([toy.joint.sum([j for j in range(3) if j != d]).log() for d in range(3)], -1)
    independent = lambda l, label: marginals.float()[None, :, None].expand_as(l)  # noqa: E731
    cost = -float(sum((toy.joint.sum([j for j in range(3) if j != d]) * marginals[:, d]).sum() for d in range(3)))
    bound = estimate_bound(
        make_process("dirichlet", 3, 3 * 256), independent, toy.sample(2000, generator, 256), None, 2, generator, BATCH
    )
    assert cost > toy.entropy + 0.1
    assert stderr(bound.total) < 0.004 * 256 * cost
    assert abs(bound.mean / 256 - cost) <= 3 * stderr(bound.total) / 256 + 1e-3 * cost


@pytest.mark.parametrize("transition", ["uniform", "absorbing", "gaussian"])
def test_exact_vlb_of_one_cell_against_enumeration(transition: str) -> None:
    """One cell, f = log p(x_0): every reverse step is exact, so L_vb is the entropy, at any number of steps."""
    p = torch.tensor([0.5, 0.2, 0.3])
    f = lambda l, label: p.log().view(1, 3, 1, 1).expand_as(l)  # noqa: E731
    generator = torch.Generator().manual_seed(0)
    x0 = torch.multinomial(p, 20_000, True, generator=generator).view(-1, 1, 1)
    for steps in (1, 3, 20):
        bound = exact_vlb(D3PM(3, transition, 40), f, x0, None, steps, generator, batch=20_000)
        assert bound.path.shape[1] <= steps
        assert abs(bound.mean - float(-(p * p.log()).sum())) <= 4 * bound.stderr + 1e-3


@pytest.mark.parametrize("name", CHAINS)
def test_exact_vlb_falls_with_the_number_of_steps(name: str) -> None:
    """Cells drawn apart in one step cost the total correlation; many steps cost next to nothing."""
    toy, generator = three_cells(), torch.Generator().manual_seed(11)
    process, x0 = make_process(name, 3, 3), toy.sample(4_000, generator)
    one, few, many = (exact_vlb(process, toy.denoise, x0, None, n, generator, batch=4_000) for n in (1, 8, 64))
    apart = float(
        sum(-torch.xlogy(m, m).sum() for m in (toy.joint.sum((1, 2)), toy.joint.sum((0, 2)), toy.joint.sum((0, 1))))
    )
    assert abs(one.mean - apart) <= 4 * one.stderr + 0.01
    assert one.mean > few.mean > many.mean - 4 * many.stderr
    assert many.mean >= toy.entropy - 3 * many.stderr
    assert many.mean <= toy.entropy * 1.02 + 3 * many.stderr


def test_sum_of_terms_equals_the_sampled_bound() -> None:
    """At N = T exact_vlb sums the terms that estimate_bound samples."""
    toy, generator = three_cells(), torch.Generator().manual_seed(5)
    chain, x0 = D3PM(3, "uniform", 12), toy.sample(4_000, generator)
    exact = exact_vlb(chain, toy.denoise, x0, None, 12, generator, "information", batch=4_000)
    sampled = estimate_bound(chain, toy.denoise, x0, None, 6, generator, batch=4_000)
    assert exact.path.shape[1] == 12
    assert abs(exact.mean - sampled.mean) <= 4 * (exact.stderr**2 + sampled.stderr**2) ** 0.5


@pytest.mark.parametrize("alpha", [1.0, torch.tensor([0.6, 1.0, 1.9], dtype=torch.float64)])
def test_ode_bound_is_tight_for_the_exact_posterior(alpha: float | torch.Tensor) -> None:
    """p_ODE is the data's own law then, and the bound of every image its surprise: within 1% from 12,000 toys."""
    toy, generator, rows = three_cells(), torch.Generator().manual_seed(11), 200
    x0 = toy.sample(60, generator, rows)
    bound = ode_bound(Dirichlet(3, 3 * rows, alpha), toy.denoise, x0, None, 48, generator, batch=60)
    relative = (bound.total - toy.surprise(x0)) / rows / toy.entropy
    error = float(relative.std()) / 60**0.5
    assert error < 0.002
    assert abs(float(relative.mean())) <= 0.01 - 3 * error


def test_ode_bound_converges_at_second_order() -> None:
    """Independent fair binary cells, f = 0: the bound is cells log 2 without noise, and half the step a quarter off."""
    zero = lambda l, label: torch.zeros_like(l)  # noqa: E731
    x0 = torch.randint(0, 2, (10, 14, 14), generator=torch.Generator().manual_seed(0))
    errors = []
    for steps in (50, 100):
        bound = ode_bound(Dirichlet(2, 196), zero, x0, None, steps, torch.Generator().manual_seed(1))
        errors.append(bound.mean / (196 * np.log(2)) - 1)
    assert abs(errors[1]) < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_loss_is_finite_differentiable_and_smallest_at_the_posterior(name: str) -> None:
    """Averaged over data, the exact posterior beats a shifted one for every kind of loss."""
    toy, generator = three_cells(), torch.Generator().manual_seed(0)
    process = make_process(name, 3, 3)
    x0 = toy.sample(3_000, generator)
    t, weight = process.times(3_000, generator)
    x_t = process.perturb(x0, t, generator)
    l = process.evidence(x_t, t)
    shift = torch.tensor([0.7, 0.0, -0.7]).view(1, 3, 1, 1)
    for kind in process.losses:
        f = toy.denoise(l).requires_grad_()
        right = training_loss(process, kind, f + l, x0, x_t, t, weight)
        assert right.shape == (3_000,)
        right.mean().backward()
        assert bool(torch.isfinite(f.grad).all())
        wrong = training_loss(process, kind, (f + l + shift).detach(), x0, x_t, t, weight)
        assert float(wrong.mean()) > float(right.detach().mean())
    with pytest.raises(ValueError, match="has no loss"):
        training_loss(process, "perceptual", l, x0, x_t, t, weight)


def test_cross_entropy_and_hybrid() -> None:
    logits = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    x0 = torch.randint(0, 3, (4, 2, 2), generator=torch.Generator().manual_seed(1))
    by_hand = -torch.log_softmax(logits, 1).gather(1, x0[:, None]).sum((1, 2, 3))
    assert torch.allclose(cross_entropy(logits, x0), by_hand)
    chain, t = D3PM(3, "uniform", 10), torch.full((4,), 0.5, dtype=torch.float64)
    weight = torch.full((4,), 10.0, dtype=torch.float64)
    args = (logits, x0, x0, t, weight)
    hybrid = training_loss(chain, "hybrid", *args, lam=0.3)
    assert torch.allclose(hybrid, training_loss(chain, "bound", *args) + 0.3 * by_hand, atol=1e-5)


def test_entropy_of_the_toy_is_what_numpy_says() -> None:
    p = three_cells().joint.numpy()
    assert three_cells().entropy == pytest.approx(float(-(p * np.log(p)).sum()))


def test_a_network_on_another_device_is_asked_there() -> None:
    class Elsewhere(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))

        def forward(self, evidence, label):
            assert evidence.device.type == label.device.type == "meta"
            return torch.ones(evidence.shape)

    f = differentiable_denoiser(Elsewhere())(torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.long))
    assert f.device.type == "cpu"
    assert f.shape == (2, 3, 4, 4)
