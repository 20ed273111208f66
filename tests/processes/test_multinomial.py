"""Multinomial diffusion: brute-force enumeration of a small chain, whose step is D3PM-uniform's."""

from itertools import product

import pytest
import torch

from dd.processes import make_process
from dd.processes.chains import SCHEDULES
from dd.processes.d3pm import D3PM
from dd.processes.multinomial import Multinomial


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_posterior_against_enumeration(schedule: str) -> None:
    """p(x_s | x_n) of every path x_0, ..., x_T of x_n ~ alpha_n x_(n-1) + (1 - alpha_n) / K, x_0 ~ softmax(f)."""
    K, T = 3, 4
    ours, p0 = Multinomial(K, T, schedule), torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    alpha = ours.chain.alpha_bar[1:] / ours.chain.alpha_bar[:-1]
    P = torch.zeros((K,) * (T + 1), dtype=torch.float64)
    for x in product(range(K), repeat=T + 1):
        P[x] = p0[x[0]]
        for n in range(1, T + 1):
            P[x] *= alpha[n - 1] * (x[n] == x[n - 1]) + (1 - alpha[n - 1]) / K
    f = p0.log().view(1, K, 1, 1)
    for n in range(1, T + 1):
        for s in range(n):
            joint = P.sum([i for i in range(T + 1) if i not in (s, n)])  # (x_s, x_n)
            for x_n in range(K):
                x_t, t = torch.full((1, 1, 1), x_n), float(ours.clock.t(float(n)))
                got = ours._law(x_t, f, t, torch.tensor([n]), torch.tensor([s]))[0, 0, 0]
                assert torch.allclose(got, joint[:, x_n] / joint[:, x_n].sum(), atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_step_and_kl_equal_uniform_d3pm(schedule: str) -> None:
    K, T = 5, 40
    ours, d3pm, generator = (
        Multinomial(K, T, schedule),
        D3PM(K, "uniform", T, schedule),
        torch.Generator().manual_seed(0),
    )
    x0 = torch.randint(0, K, (7, 2, 3), generator=generator)
    f = torch.randn(7, K, 2, 3, generator=generator, dtype=torch.float64)
    for n, s in ((40, 39), (40, 20), (20, 3), (2, 1), (1, 0), (40, 0)):
        n_, s_ = torch.tensor([n]), torch.tensor([s])
        x_t = d3pm.perturb(x0, d3pm.clock.t(float(n)), generator)
        log_p = ours.log_theta_post(x_t, torch.log_softmax(f, 1), n_, s_)
        w = d3pm._weights(f, d3pm.evidence(x_t, d3pm.clock.t(float(n))))
        theirs = d3pm.posterior(w, x_t.flatten(1), n_, s_)
        assert torch.allclose(log_p.exp().flatten(2).transpose(1, 2), theirs, atol=1e-6)
        logits = f + ours.evidence(x_t, ours.clock.t(float(n)))
        kl = ours.kl_between(logits, x0, x_t, n_, s_)
        assert torch.allclose(kl, d3pm.kl_between(logits, x0, x_t, n_, s_), atol=1e-5)


def test_same_seed_same_draws_as_uniform_d3pm() -> None:
    ours, d3pm = Multinomial(4, 30), D3PM(4, "uniform", 30, "cosine")
    x = torch.randint(0, 4, (50, 3, 3), generator=torch.Generator().manual_seed(1))
    f = torch.randn(50, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    a, b = (p.step(x, f, 0.8, 0.5, "ancestral", torch.Generator().manual_seed(3)) for p in (ours, d3pm))
    assert float((a == b).double().mean()) > 0.998  # equal but for rounding at a border


def test_registered() -> None:
    assert make_process("multinomial", 3, 9).name == "multinomial"
    assert make_process("multinomial", 3, 9).chain.alpha_bar[500] == pytest.approx(0.7011, abs=2e-3)
