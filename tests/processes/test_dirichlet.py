"""The Dirichlet process: the bound is noise-free and tight, the bridge has the known law, options act as they say."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from dd.bridge import _joint, bridge, evolve, tables, window
from dd.likelihood import training_loss
from dd.processes.clock import entropy
from dd.processes.dirichlet import Dirichlet, frozen_concentration, pairwise_confusion
from dd.samplers import generate, time_grid
from dd.wright_fisher import WrightFisher
from tests import oracles

P_MIN = 1e-3


@cache
def with_alpha(alpha: tuple[float, ...]) -> Dirichlet:
    """784 cells; its tables take seconds."""
    return Dirichlet(len(alpha), 784, torch.tensor(alpha, dtype=torch.float64))


def test_path_kl_equals_the_cross_entropy_it_removes() -> None:
    """Independent fair binary cells, f = 0: path-KL between two times is exactly the cross-entropy that it removes.

    Quadrature in x and log tau, no noise: per 784-cell image the whole bound is 784 log 2 to 0.01 nat, and so is every
    piece of it.
    """
    process = Dirichlet(2, 784)
    node, weight = np.polynomial.legendre.leggauss(400)
    phi, w_phi = (node + 1) * np.pi / 2, weight * np.pi / 2
    y = torch.from_numpy(np.sin(phi / 2) ** 2)
    w = torch.from_numpy(w_phi * np.sin(phi) / 2)
    x = torch.stack([y, 1 - y], 1)[:, :, None, None]
    x0 = torch.zeros(len(y), 1, 1, dtype=torch.long)

    def expected(t: float) -> tuple[float, float]:
        l = process.evidence(x, t)
        density = w * l[:, 0, 0, 0].exp()
        rate = process.loss(l, x0, x, torch.tensor(t))
        return float((density * rate).sum()), float((density * -torch.log_softmax(l, 1)[:, 0, 0, 0]).sum())

    edges = np.linspace(np.log(process.tau_min), np.log(process.tau_max), 6)
    node, weight = np.polynomial.legendre.leggauss(40)
    whole = 0.0
    for low, high in pairwise(edges):
        v = (low + high) / 2 + (high - low) / 2 * node
        rates = np.array([expected(float(process.clock.t(u)))[0] for u in v])
        path = float((weight * (high - low) / 2 * rates * np.exp(v)).sum())
        left = [expected(float(process.clock.t(u)))[1] for u in (low, high)]
        assert path == pytest.approx(left[1] - left[0], abs=2e-6)
        whole += path
    at_ends = expected(0.0)[1] + float(process.kernel.kl_prior(process.tau_max).max())
    assert 784 * (whole + at_ends) == pytest.approx(784 * np.log(2), abs=0.01)


@pytest.mark.parametrize(("K", "tau"), [(2, 0.5), (3, 0.3), (64, 0.04)])
def test_pairwise_confusion_bounds_the_cross_entropy(K: int, tau: float) -> None:
    """Against 100,000 draws, seed 0: never below the cross-entropy, equal for two categories."""
    kernel = WrightFisher(np.ones(K))
    n = 200_000 // K
    x = kernel.sample(torch.zeros(n, dtype=torch.long), tau, torch.Generator().manual_seed(0))
    loss = -torch.log_softmax(kernel.log_h(x, tau)[0].double(), 1)[:, 0]
    stderr = float(loss.std()) / n**0.5
    bound = pairwise_confusion(kernel, tau)
    assert bound >= float(loss.mean()) - 4 * stderr
    if K == 2:
        assert bound == pytest.approx(float(loss.mean()), abs=4 * stderr)


UNEQUAL = [(0.5, 5.0), (1.0, 1.0, 3.7), (0.6, 1.0, 1.9), (0.2, 0.2, 0.2, 5.0)]


@pytest.mark.parametrize("alpha", UNEQUAL)
def test_pairwise_confusion_bounds_the_cross_entropy_of_unequal_corners(alpha: tuple[float, ...]) -> None:
    """Of every corner, against 50,000 draws of each, seed 0; and not by more than a factor of K - 1."""
    kernel, generator, n = WrightFisher(alpha), torch.Generator().manual_seed(0), 50_000
    left = []
    for k in range(kernel.K):
        x = kernel.sample(torch.full((n,), k), 0.4, generator)
        left.append(-torch.log_softmax(kernel.log_h(x, 0.4)[0].double(), 1)[:, k])
    worst = max(left, key=lambda loss: float(loss.mean()))
    stderr, bound = float(worst.std()) / n**0.5, pairwise_confusion(kernel, 0.4)
    assert float(worst.mean()) - 4 * stderr <= bound
    assert bound <= (kernel.K - 1) * (kernel.K - 1) * float(worst.mean()) + 4 * stderr


@pytest.mark.parametrize(
    ("K", "alpha"), [(2, 1.0), (3, 0.3), (64, 1.0), (16, 100.0), (512, 3.0), *((len(a), a) for a in UNEQUAL)]
)
def test_ends_are_as_small_as_promised(K: int, alpha: float | tuple[float, ...]) -> None:
    process = Dirichlet(K, 784, alpha) if isinstance(alpha, float) else with_alpha(alpha)
    assert 784 * pairwise_confusion(process.kernel, process.tau_min) <= 0.0102
    assert 0 <= process.kl_prior((28, 28)) <= 0.0102


@pytest.mark.parametrize("alpha", [(1.0, 1.0, 1.0), *UNEQUAL])
def test_clock(alpha: tuple[float, ...]) -> None:
    """1 - t is the information that is left: t -> tau is increasing, and entropy at t is about t log K."""
    K, generator = len(alpha), torch.Generator().manual_seed(0)
    process = with_alpha(alpha)
    x0 = torch.arange(20_000).view(-1, 1, 1) % K
    for t in (0.1, 0.4, 0.8):
        H = entropy(process.evidence(process.perturb(x0, t, generator), t)).mean() / np.log(K)
        assert float(H) == pytest.approx(t, abs=0.02)
    assert bool((process.tau(torch.linspace(0, 1, 500, dtype=torch.float64)).diff() > 0).all())
    with pytest.raises(ValueError, match="t must lie"):
        process.tau(1.5)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_nothing_breaks_at_corners_and_edges(alpha: float) -> None:
    process, generator = Dirichlet(3, 784, alpha), torch.Generator().manual_seed(0)
    x = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [1 - 2e-7, 1e-7, 1e-7]])[:, :, None, None]
    f = torch.tensor([[0.0, 0, 0], [15, -15, 0], [-15, 15, 15], [0, 15, -15]])[:, :, None, None]
    for method in process.methods:
        for t, s in ((1.0, 0.9), (1.0, 0.0), (0.5, 0.4), (1e-3, 0.0)):
            if method == "heun":
                y = process.step(x, f, t, s, "ode", generator)
                y = process.heun(x, f, y, f, t, s)
            elif method == "langevin":
                y = process.correct(x, f, t, s, generator)
            else:
                y = process.step(x, f, t, s, method, generator)
            assert bool(torch.isfinite(y).all()), method
            assert bool((y >= 0).all()), method
            assert torch.allclose(y.sum(1), torch.ones(4, 1, 1), atol=1e-5)
            assert bool(torch.isfinite(process.evidence(y.float(), s)).all())


@pytest.mark.slow
@pytest.mark.parametrize("K", [256, 512])
def test_many_categories(K: int) -> None:
    """A network that knows the code of every cell: every sampler finds them, and losses and gradients are finite."""
    process, generator = Dirichlet(K, 64), torch.Generator().manual_seed(0)
    x0 = torch.randint(0, K, (4, 8, 8), generator=generator)
    f = 12.0 * torch.nn.functional.one_hot(x0, K).movedim(-1, 1).float()  # p(x0) = e^12 / (e^12 + K - 1) at t = 1
    for method in process.methods:
        made = generate(process, lambda l, t: f, (4, 8, 8), 6, generator, method)
        assert float((made == x0).float().mean()) > 0.97
    t, weight = process.times(4, generator)
    x_t = process.perturb(x0, t, generator)
    logits = (f / 4 + process.evidence(x_t, t)).requires_grad_()
    for kind in process.losses:
        loss = training_loss(process, kind, logits, x0, x_t, t, weight).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        assert bool(torch.isfinite(gradient).all())
        assert 0 < loss.item() < float("inf")


def test_score_is_the_gradient_of_the_density() -> None:
    """grad log sum_k w_k p(x | e_k) along the simplex, f = log w, by central differences in float64."""
    alpha = torch.tensor([0.5, 1.5, 1.0], dtype=torch.float64)
    process, t = Dirichlet(3, 16, alpha), 0.5
    f = torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
    x = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).view(1, 3, 1, 1)

    def log_density(x: torch.Tensor) -> float:
        pi = ((alpha - 1) * x.flatten().log()).sum()
        return float(pi + torch.logsumexp(f + process.evidence(x, t), 1).squeeze())

    direction = torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64).view(1, 3, 1, 1)
    slope = (log_density(x + 1e-4 * direction) - log_density(x - 1e-4 * direction)) / 2e-4
    assert float((process.score(x, f, t) * direction).sum()) == pytest.approx(slope, rel=1e-3)


def test_score_at_a_corner_is_the_fitness_for_alpha_1() -> None:
    process, corner = Dirichlet(3, 16), torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    f = torch.zeros(1, 3, 1, 1)
    assert torch.equal(process.score(corner, f, 0.5), process.fitness(corner, f, 0.5))
    assert bool(torch.isfinite(process.score(corner, f, 0.5)).all())


def test_as_many_concentrations_as_categories() -> None:
    with pytest.raises(ValueError, match="alpha has 2 concentrations, but there are K = 3 categories"):
        Dirichlet(3, 16, torch.tensor([0.5, 1.5], dtype=torch.float64))


def test_simple_loss_and_path_kl_agree_where_sigma_is_known() -> None:
    """For K = 2, Delta u zero-sum is (v, -v) / 2: ||.||^2 / 2 = v^2 / 4 and <v, Sigma v> / 2 = x (1 - x) v^2 / 2."""
    process, generator = Dirichlet(2, 1), torch.Generator().manual_seed(0)
    x0 = torch.zeros(50, 1, 1, dtype=torch.long)
    t = torch.full((50,), 0.5, dtype=torch.float64)
    x = process.perturb(x0, t, generator)
    logits = process.evidence(x, t)
    ratio = process.loss(logits, x0, x, t) / process.simple_loss(logits, x0, x, t)
    assert torch.allclose(ratio, (2 * x[:, 0] * x[:, 1]).flatten(), rtol=1e-4)


def test_time_dilation() -> None:
    """stretch multiplies the step's length for t <= below only."""
    process, generator = Dirichlet(2, 16), torch.Generator().manual_seed(0)
    x, f = process.prior((5, 1, 1), generator), torch.zeros(5, 2, 1, 1)
    plain = process.step(x, f, 0.5, 0.45, "ode", generator)
    assert torch.equal(plain, process.step(x, f, 0.5, 0.45, "ode", generator, stretch=3.0, below=0.4))
    u = process.fitness(x, f, 0.5)
    d = 3 * float(process.tau(0.5) - process.tau(0.45))
    dilated = torch.softmax(x.log() + u / 2 * d, 1)
    assert torch.allclose(dilated, process.step(x, f, 0.5, 0.45, "ode", generator, stretch=3.0, below=0.5), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("K", [2, 3, 64])
@pytest.mark.parametrize("d", [1e-8, 1e-5, 1e-3, 0.03, 1.0])
def test_frozen_concentrations_against_oracle(K: int, d: float, dtype: torch.dtype) -> None:
    """Inside, in a corner, on an edge, all but in a corner: to 1e-5; the last, in float32, to what x itself says.

    1 - x is 1e-6 there, and x comes in steps of 6e-8.
    """
    generator = torch.Generator().manual_seed(0)
    corners = torch.eye(K, dtype=torch.float64)
    inside = torch.softmax(torch.randn(K, generator=generator, dtype=torch.float64), 0)
    points = [inside, corners[0], (corners[0] + corners[1]) / 2, corners[0] + 1e-6 * (inside - corners[0])]
    x = torch.stack(points).to(dtype)
    a = 0.5 + x * (30 * torch.rand(K, generator=generator)).to(dtype)
    found = frozen_concentration(x, a, d).double().numpy()
    for i in range(4):
        exact = oracles.frozen_concentration(x[i].tolist(), a[i].tolist(), d)
        assert found[i] == pytest.approx(exact, rel=0.06 if i == 3 and dtype == torch.float32 else 1e-5)


def test_an_euler_step_is_the_textbooks() -> None:
    """x + [1/2 (alpha - theta x) + x (u - <x, u>)] d + sqrt(x) dB - x <sqrt(x), dB>, with the same dB."""
    process, d = Dirichlet(3, 16, torch.tensor([0.6, 1.0, 1.9], dtype=torch.float64)), 1e-3
    x = process.prior((40, 5, 5), torch.Generator().manual_seed(0)).double() * 0.97 + 0.01
    u = 9 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    dB = d**0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    drift = (process.alpha.view(1, 3, 1, 1) - process.theta * x) / 2 + x * (u - (x * u).sum(1, keepdim=True))
    noise = x.sqrt() * dB - x * (x.sqrt() * dB).sum(1, keepdim=True)
    y = (x + drift * d + noise).clamp(min=0)
    moved = process.euler_step(x, u, d, torch.Generator().manual_seed(2))
    assert torch.allclose(moved, y / y.sum(1, keepdim=True), atol=1e-12)


def test_a_loss_looks_up_what_the_evidence_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kept answer is that of the same state at the same time, for the one tensor of times of a batch too."""
    process, generator = Dirichlet(3, 16), torch.Generator().manual_seed(0)
    x0 = torch.zeros(4, 2, 2, dtype=torch.long)
    t, s = torch.full((4,), 0.3, dtype=torch.float64), torch.full((4,), 0.6, dtype=torch.float64)
    x = process.perturb(x0, t, generator)
    at_t = process.evidence(x, t)
    assert process.evidence(x, t) is at_t
    assert torch.allclose(process.evidence(x, s), Dirichlet(3, 16).evidence(x, s))
    assert torch.allclose(process.evidence(x, 0.3), at_t)
    at_t = process.evidence(x, t)
    monkeypatch.setattr(process.kernel, "log_h", lambda *_: pytest.fail("looked up twice"))
    process.loss(at_t, x0, x, t)


# -- the bridge ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tau_s", "tau_t"), [(0.3, 0.5), (0.3, 0.301), (0.1, 3.0)])
def test_bridge_weights_sum_to_the_lineages_at_t(tau_s: float, tau_t: float) -> None:
    """sum over m, m' of the weights of (j, m, m') is q_j(tau_t) (theta)_j: the coalescent is consistent with itself."""
    kernel = WrightFisher([0.5, 1.5, 1.0])
    founders, log_founders = window(tau_t - tau_s, kernel.theta)
    j = np.arange(12)
    _, log_w = _joint(kernel.log_lineages(tau_s)[0].numpy(), j, founders, log_founders, kernel.theta)
    total = np.logaddexp.reduce(log_w, axis=1)
    rising = np.concatenate([[0], np.cumsum(np.log(kernel.theta + j[:-1]))])
    expected = kernel.log_lineages(tau_t)[0][:12].numpy() + rising
    assert total[expected > -25] == pytest.approx(expected[expected > -25], abs=1e-6)


@pytest.mark.parametrize("alpha", [(1.0, 1.0, 1.0), (0.5, 1.5, 1.0)])
def test_bridge_has_the_joint_law_of_the_forward_process(alpha: tuple[float, ...]) -> None:
    """x_s -> x_t forward, then the bridge from x_t: (x_s', x_t) has the law of (x_s, x_t). n = 20,000, seed 5."""
    kernel, generator = WrightFisher(alpha), torch.Generator().manual_seed(5)
    k = torch.arange(3).repeat_interleave(20_000)
    x_s = kernel.sample(k, 0.35, generator).double()
    x_t = evolve(kernel, x_s, 0.25, generator)
    back = bridge(kernel, x_t, k, 0.35, 0.6, generator)
    assert torch.allclose(back.sum(1), torch.ones(len(k), dtype=torch.float64))
    for group in range(3):
        rows = k == group
        a, b, c = x_s[rows].numpy(), back[rows].numpy(), x_t[rows].numpy()
        for i in range(3):
            assert stats.ks_2samp(a[:, i], b[:, i]).pvalue > P_MIN
            for v in (c[:, i], np.log(c[:, i] + 1e-9)):
                assert stats.ks_2samp(a[:, i] - v / 9, b[:, i] - v / 9).pvalue > P_MIN
                assert np.mean(a[:, i] * v) == pytest.approx(np.mean(b[:, i] * v), abs=5 * np.std(a[:, i] * v) / 100)


def test_bridge_tables_of_a_short_step_among_many_categories() -> None:
    process = Dirichlet(64, 16)
    t, s = 0.3, 0.297
    table = tables(process.kernel, float(process.tau(s)), float(process.tau(t)))
    assert bool(torch.isfinite(table.founder_cdf).all())
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(0, 64, (300, 1, 1), generator=generator)
    x_t = process.perturb(x0, t, generator)
    x_s = bridge(process.kernel, x_t, x0, float(process.tau(s)), float(process.tau(t)), generator)
    r = float(process.tau(t) - process.tau(s))
    moved = (x_s - x_t).square().sum(1).mean()  # about r times the trace of Sigma
    assert float(moved) == pytest.approx(r * float((1 - x_t.square().sum(1)).mean()), rel=0.15)


def test_bridge_tables_of_a_long_run_are_there_for_the_next() -> None:
    """A cache that is read from end to end and too small by one has nothing at all of it the second time."""
    process, steps = Dirichlet(2, 4), 100
    taus = [float(process.tau(t)) for t in time_grid(process, steps, "cosine")][:-1]
    for _ in range(2):
        before = tables.cache_info()
        for tau_t, tau_s in pairwise(taus):
            tables(process.kernel, tau_s, tau_t)
    assert tables.cache_info().misses == before.misses
    assert tables.cache_info().hits == before.hits + steps - 1


def test_bridge_of_very_short_steps() -> None:
    """A step of 1e-6 hardly moves a cell; its tables hold a million founders."""
    kernel, generator = WrightFisher(np.ones(3)), torch.Generator().manual_seed(0)
    k = torch.zeros(2000, dtype=torch.long)
    x_t = kernel.sample(k, 0.5, generator)
    x_s = bridge(kernel, x_t, k, 0.5 - 1e-6, 0.5, generator)
    moved = (x_s - x_t).square().sum(1).mean()
    assert float(moved) == pytest.approx(1e-6 * float((1 - x_t.square().sum(1)).mean()), rel=0.15)
