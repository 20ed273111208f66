"""D3PM against brute-force enumeration of every path of a small chain."""

from itertools import product

import numpy as np
import pytest
import torch

from dd.processes.chains import (
    SCHEDULES,
    absorbing_chain,
    gaussian_chain,
    gaussian_steps,
    information,
    uniform_chain,
)
from dd.processes.d3pm import D3PM

K, T = 3, 4
CHAINS = [("uniform", s) for s in SCHEDULES] + [("absorbing", s) for s in SCHEDULES] + [("gaussian", "linear")]


def paths(process: D3PM) -> torch.Tensor:
    """P[x_0, x_1, ..., x_T] given x_0, from the one-step matrices alone: (K, S, ..., S)."""
    steps = [process.chain.between(torch.tensor([n]), torch.tensor([n + 1]))[0] for n in range(T)]
    P = torch.zeros(process.K, *(process.S,) * T, dtype=torch.float64)
    for path in product(range(process.K), *(range(process.S),) * T):
        probability = 1.0
        for n in range(T):
            probability *= float(steps[n][path[n], path[n + 1]])
        P[path] = probability
    return P


@pytest.mark.parametrize(("transition", "schedule"), CHAINS)
def test_products_and_posteriors_against_enumeration(transition: str, schedule: str) -> None:
    process = D3PM(K, transition, T, schedule)
    P = paths(process)
    p0 = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)  # the posterior's prior: what the context says
    for n in range(1, T + 1):
        others = [i for i in range(1, T + 1) if i != n]
        bar = P.sum(others) if others else P
        assert torch.allclose(process._bar(torch.tensor([n]))[0, :K], bar, atol=1e-12)
        for s in range(n):
            rest = [i for i in range(1, T + 1) if i not in (n, s)]
            joint = torch.einsum("k,k...->k...", p0, P.sum(rest) if rest else P)  # (x_0, x_s, x_n)
            if s == 0:
                joint = torch.diag_embed(joint.T, dim1=0, dim2=1)
                joint = torch.nn.functional.pad(joint, (0, 0, 0, process.S - K))
            marginal = joint.sum(0)  # (x_s, x_n)
            for x_n in range(process.S):
                if marginal[:, x_n].sum() < 1e-12:
                    continue
                x_t = torch.full((1, 1, 1), x_n)
                t = float(process.clock.t(float(n)))
                f = p0.log().view(1, K, 1, 1)
                w = process._weights(f, process.evidence(x_t, t).double())
                got = process.posterior(w, x_t.flatten(1), torch.tensor([n]), torch.tensor([s]))[0, 0]
                assert torch.allclose(got, marginal[:, x_n] / marginal[:, x_n].sum(), atol=1e-6)


@pytest.mark.parametrize(("transition", "schedule"), CHAINS)
def test_samples_follow_the_cumulative_product(transition: str, schedule: str) -> None:
    """Frequencies of 20,000 draws, seed 0, within 5 standard errors."""
    process = D3PM(K, transition, T, schedule)
    generator = torch.Generator().manual_seed(0)
    for n in range(1, T + 1):
        x = process.perturb(torch.ones(20_000, 1, 1, dtype=torch.long), float(process.clock.t(float(n))), generator)
        frequency = torch.bincount(x.flatten(), minlength=process.S) / 20_000
        p = process._bar(torch.tensor([n]))[0, 1]
        assert bool(((frequency - p).abs() <= 5 * (p * (1 - p) / 20_000).sqrt() + 1e-9).all())


def test_schedules() -> None:
    """Linear: abar = 1 - n / T. Cosine: Hoogeboom's. Information: the channel's information falls linearly."""
    n = np.arange(101) / 100
    assert absorbing_chain(5, 100, "linear").alpha_bar.numpy() == pytest.approx(1 - n)
    g = np.cos((n + 0.008) / 1.008 * np.pi / 2)
    assert uniform_chain(5, 100, "cosine").alpha_bar.numpy() == pytest.approx(g / g[0], abs=1e-12)
    chain = uniform_chain(5, 100, "information")
    bars = chain.between(torch.zeros(101, dtype=torch.long), torch.arange(101))
    assert information(bars).numpy() == pytest.approx(1 - n, abs=2e-4)
    with pytest.raises(ValueError, match="unknown schedule"):
        uniform_chain(3, 10, "square")
    with pytest.raises(ValueError, match="linear in n"):
        D3PM(3, "gaussian", 10, "cosine")


@pytest.mark.parametrize(("K", "T"), [(2, 100), (16, 1000), (256, 100)])
def test_gaussian_chain_is_austins_and_forgets(K: int, T: int) -> None:
    """Rows sum to one, symmetric, off-diagonal ratios are Gaussian in the distance, little is remembered at T."""
    chain = gaussian_chain(K, T)
    Q = chain.steps
    assert torch.allclose(Q.sum(2), torch.ones(T, K, dtype=torch.float64))
    assert torch.allclose(Q, Q.transpose(1, 2))
    assert bool((Q >= 0).all())
    if K > 3:
        log_ratio = (Q[-1, 0, 1].log() - Q[-1, 0, 2].log()) / 3  # 4 (4 - 1) / ((K - 1)^2 beta) / 3
        assert float(Q[-1, 0, 2].log() - Q[-1, 0, 3].log()) == pytest.approx(5 * float(log_ratio), rel=1e-6)
    bar = chain.bar[-1]
    assert float(torch.xlogy(bar, bar * K).sum(1).max()) < 1e-5
    assert bool((information(chain.bar[:: T // 10]).diff() < 0).all())


def test_gaussian_steps_at_256_levels_have_about_the_papers_betas() -> None:
    """At K = 256, T = 1000 Ho et al.'s own betas mix: the factor is within a factor of three of 1."""
    Q = gaussian_steps(256, 1000)[-1]
    beta = 12 / (255**2 * float(Q[0, 1].log() - Q[0, 2].log()))
    assert 0.02 / 3 < beta < 0.02 * 3


@pytest.mark.parametrize("transition", ["uniform", "absorbing", "gaussian"])
def test_no_nan_at_the_ends(transition: str) -> None:
    process, generator = D3PM(4, transition, 50), torch.Generator().manual_seed(0)
    x0 = torch.randint(0, 4, (6, 2, 2), generator=generator)
    f = torch.randn(6, 4, 2, 2, generator=generator)
    for t in (0.0, 1e-6, 0.5, 1.0):
        x_t = process.perturb(x0, t, generator)
        l = process.evidence(x_t, t)
        assert not bool(torch.isnan(l).any())
        assert not bool(torch.isnan(torch.softmax(f + l, 1)).any())
        loss = process.loss(f + l, x0, x_t, torch.full((6,), max(t, 1 / 50)))
        assert bool(torch.isfinite(loss).all())
        assert bool((loss >= -1e-6).all())
    x = process.step(process.prior((6, 2, 2), generator), f, 1.0, 0.0, "ancestral", generator)
    assert bool((x < 4).all())


def test_a_network_that_is_sure_of_what_is_all_but_ruled_out_has_a_finite_loss() -> None:
    """Its weight, 1 / Qbar, is beyond float32."""
    process, far = D3PM(16, "gaussian", 1000), torch.tensor([[[15]]])
    n = torch.tensor([30])
    l = process.evidence(torch.zeros(1, 1, 1, dtype=torch.long), process.clock.t(n))
    assert -700 < float(l[0, 15]) < -90
    f = torch.full((1, 16, 1, 1), -1000.0)
    f[:, 15] = 1000.0
    loss = process.kl_between(f + l, torch.zeros_like(far), torch.zeros_like(far), n, n - 1)
    assert bool(torch.isfinite(loss).all())


def test_many_small_steps_and_one_large_step_agree() -> None:
    """Composing q(x_s | x_n, x_0) over a subset of steps gives the same marginal for any subset: Q products."""
    chain = gaussian_chain(4, 20)
    a = chain.between(torch.tensor([3]), torch.tensor([9]))[0] @ chain.between(torch.tensor([9]), torch.tensor([17]))[0]
    assert torch.allclose(a, chain.between(torch.tensor([3]), torch.tensor([17]))[0], atol=1e-12)
