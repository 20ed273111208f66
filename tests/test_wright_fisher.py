"""The exact kernel: tables against a 420-digit spectral oracle, sampling against exact distribution functions."""

import time
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import betaln
from scipy.stats import ks_2samp

from dd.bridge import evolve
from dd.gamma import dirichlet
from dd.lineages import log_lineages
from dd.moments import corner_moments
from dd.processes.dirichlet import Dirichlet
from dd.wright_fisher import WrightFisher, beta_quadrature, wright_fisher
from tests import oracles

Z = 4.5  # standard errors allowed
Y = (1e-9, 3.3e-7, 2e-4, 0.013, 0.17, 0.49, 0.71, 0.93, 0.9991, 1 - 2.7e-6, 1 - 1e-9)


def on_simplex(y: np.ndarray, column: int, K: int) -> torch.Tensor:
    """Rows whose coordinate `column` is y; the kernel reads one coordinate at a time."""
    x = torch.zeros(len(y), K, dtype=torch.float64)
    x[:, column] = torch.as_tensor(y)
    return x


def ten_times(kernel: WrightFisher, tau_min: float, tau_max: float) -> list[float]:
    """The tables' and the process' ends, and irregular times between, all off the Chebyshev grid."""
    lo, hi = np.log(kernel.tau_lo), np.log(kernel.tau_hi)
    inner = lo + (hi - lo) * np.array([0.031, 0.117, 0.2718, 0.3819, 0.511, 0.6389, 0.77, 0.913])
    return [kernel.tau_lo, tau_min, *np.exp(inner), tau_max, kernel.tau_hi]


@pytest.mark.parametrize(("K", "alpha"), list(product((2, 3, 16, 256), (0.3, 1.0, 3.0))))
def test_log_h_and_slope_against_oracle(K: int, alpha: float) -> None:
    kernel = wright_fisher(K, alpha)
    process = Dirichlet(K, 784, alpha)
    x = on_simplex(np.array(Y), K - 1, K)
    for tau in ten_times(kernel, process.tau_min, process.tau_max):
        log_h, slope = kernel.log_h(x, tau)
        exact_log_h, exact_slope = oracles.log_h(alpha, K * alpha, tau, Y)
        assert np.abs(log_h[:, -1].numpy() - exact_log_h).max() <= 1e-4
        assert np.abs(slope[:, -1].numpy() / exact_slope - 1).max() <= 1e-3


def test_legendre_series_for_two_flat_categories() -> None:
    """K = 2, alpha = 1: h = sum_n (2n + 1) e^(-n (n + 1) tau / 2) P_n(2x - 1), in float64 where it converges."""
    kernel, y, n = wright_fisher(2), np.linspace(0, 1, 37), np.arange(80)
    for tau in (0.34, 0.9, 1.24, 4.0):
        h = np.polynomial.legendre.legval(2 * y - 1, (2 * n + 1) * np.exp(-n * (n + 1) * tau / 2))
        assert kernel.log_h(on_simplex(y, 0, 2), tau)[0][:, 0].exp().numpy() == pytest.approx(h, rel=1e-6)


def test_unequal_alpha_equals_one_dimensional_oracle() -> None:
    alpha = (0.4, 1.0, 2.5)
    kernel = WrightFisher(alpha)
    tau = float(np.sqrt(kernel.tau_lo * kernel.tau_hi))
    for k, alpha_k in enumerate(alpha):
        log_h, slope = kernel.log_h(on_simplex(np.array(Y), k, 3), tau)
        exact_log_h, exact_slope = oracles.log_h(alpha_k, sum(alpha), tau, Y)
        assert np.abs(log_h[:, k].numpy() - exact_log_h).max() <= 1e-4
        assert np.abs(slope[:, k].numpy() / exact_slope - 1).max() <= 1e-3


@pytest.mark.parametrize(("K", "alpha"), [(2, 0.3), (3, 1.0), (256, 3.0), (512, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_everywhere(K: int, alpha: float, dtype: torch.dtype) -> None:
    kernel = wright_fisher(K, alpha)
    x = on_simplex(np.array([0, 1e-38, 1e-12, 0.5, 1 - 1e-7, 1]), 0, K).to(dtype)
    for tau in (kernel.tau_lo, 0.5 * (kernel.tau_lo + kernel.tau_hi), kernel.tau_hi):
        log_h, slope = kernel.log_h(x, tau)
        assert bool(torch.isfinite(log_h).all())
        assert bool(torch.isfinite(slope).all())
        assert bool((slope > 0).all())
        assert bool((log_h[:, 0].diff() >= 0).all())


@pytest.mark.parametrize(("K", "alpha"), [(2, 0.01), (2, 30.0), (16, 0.01), (16, 10.0)])
def test_extreme_concentrations_against_oracle(K: int, alpha: float) -> None:
    kernel = wright_fisher(K, alpha)
    x = on_simplex(np.array(Y), K - 1, K)
    for share in (0.0, 0.217, 0.4519, 0.733, 1.0):
        tau = kernel.tau_lo * (kernel.tau_hi / kernel.tau_lo) ** share
        log_h, slope = kernel.log_h(x, tau)
        exact_log_h, exact_slope = oracles.log_h(alpha, K * alpha, tau, Y)
        assert np.abs(log_h[:, -1].numpy() - exact_log_h).max() <= 1e-4
        assert np.abs(slope[:, -1].numpy() / exact_slope - 1).max() <= 1e-3


@pytest.mark.parametrize(("K", "alpha"), [(2, 0.001), (2, 1000.0), (3, 0.001), (16, 100.0)])
def test_nothing_breaks_at_extreme_concentrations(K: int, alpha: float) -> None:
    process, generator = Dirichlet(K, 784, alpha), torch.Generator().manual_seed(0)
    x0 = torch.randint(0, K, (2000, 1, 1), generator=generator)
    f = torch.zeros(1, K, 1, 1)
    for t, s in ((1.0, 0.5), (0.5, 0.1), (0.1, 0.0)):
        for x in (process.perturb(x0, t, generator), process.prior((2000, 1, 1), generator)):
            for method in ("dirichlet", "ode", "bridge"):
                y = process.step(x, f, t, s, method, generator)
                assert torch.allclose(y.sum(1), torch.ones(2000, 1, 1), atol=1e-5), method
    assert bool(torch.isfinite(process.evidence(process.prior((2000, 1, 1), generator), 1.0)).all())
    assert 0 <= process.kl_prior((28, 28)) <= 0.0102


@pytest.mark.parametrize("K", [2, 256])
def test_at_the_boundary_and_below_what_float32_holds(K: int) -> None:
    """x exactly 0 or 1, and what is denormal in float32, as coordinates of K = 256 may be: log h(0) = log q_0."""
    kernel, y = wright_fisher(K), np.array([0.0, 1e-45, 1e-38, 1.0])
    for tau in (kernel.tau_lo, float(np.sqrt(kernel.tau_lo * kernel.tau_hi)), kernel.tau_hi):
        exact_log_h, exact_slope = oracles.log_h(1.0, K, tau, (0.0, 1.0))
        for dtype, rel in ((torch.float64, 1e-5), (torch.float32, 1e-4)):
            log_h, slope = (v[:, -1].double().numpy() for v in kernel.log_h(on_simplex(y, K - 1, K).to(dtype), tau))
            assert log_h == pytest.approx(exact_log_h[[0, 0, 0, 1]], rel=rel, abs=1e-4)
            assert slope == pytest.approx(exact_slope[[0, 0, 0, 1]], rel=1e-3)
            assert log_h[0] == pytest.approx(float(log_lineages(np.array(0), np.array(tau), K)), rel=rel, abs=1e-4)


def test_one_time_per_image_equals_one_call_each() -> None:
    kernel, generator = WrightFisher([0.5, 1.5, 1.0]), torch.Generator().manual_seed(0)
    x = kernel.stationary((4, 5), generator).double()
    tau = torch.tensor([0.06, 0.3, 1.0, 2.0])
    log_h, slope = kernel.log_h(x, tau)
    for i in range(4):
        alone = kernel.log_h(x[i : i + 1], tau[i])
        assert torch.allclose(log_h[i], alone[0][0])
        assert torch.allclose(slope[i], alone[1][0])


def test_kl_prior_against_monte_carlo() -> None:
    """KL(p_tau || pi) = E log h; 200,000 draws, seed 0."""
    kernel, generator = WrightFisher([0.5, 1.5, 1.0]), torch.Generator().manual_seed(0)
    for k, kl in enumerate(kernel.kl_prior(0.8).tolist()):
        x = kernel.sample(torch.full((200_000,), k), 0.8, generator)
        log_h = kernel.log_h(x, 0.8)[0][:, k].double()
        assert kl == pytest.approx(float(log_h.mean()), abs=4 * float(log_h.std()) / 200_000**0.5)


# -- sampling: Kolmogorov-Smirnov, n = 20,000, seed 1, p > 1e-3 ------------------------------------------------------

N, P_MIN = 20_000, 1e-3


def mixture_cdf(a: float, b: float, hot: bool, tau: float, theta: float):
    """F(x) = sum_m q_m BetaCDF(x; a + m, b) for the hot coordinate, BetaCDF(x; a, b + m) for another."""
    m = np.arange(400)
    q = np.exp(log_lineages(m, np.array(tau), theta))

    def cdf(x: np.ndarray) -> np.ndarray:
        grid = np.concatenate([np.geomspace(1e-12, 0.5, 600), 1 - np.geomspace(0.4999, 1e-12, 600)])
        beta = stats.beta.cdf(grid[:, None], a + m, b) if hot else stats.beta.cdf(grid[:, None], a, b + m)
        return np.interp(x, grid, beta @ q)

    return cdf


@pytest.mark.parametrize("tau", [0.1, 0.47, 1.7])
def test_sampling_two_flat_categories(tau: float) -> None:
    """Against the integrated Legendre series: int P_n = (P_(n+1) - P_(n-1)) / (2n + 1)."""
    n = np.arange(1, 200)
    decay = np.exp(-n * (n + 1) * tau / 2)
    c = np.zeros(202)
    np.add.at(c, n + 1, decay)
    np.add.at(c, n - 1, -decay)
    x0 = torch.zeros(N, dtype=torch.long)
    x = wright_fisher(2).sample(x0, tau, torch.Generator().manual_seed(1))[:, 0].double().numpy()
    cdf = lambda v: v + np.polynomial.legendre.legval(2 * v - 1, c) / 2  # noqa: E731
    assert stats.kstest(x, cdf).pvalue > P_MIN


@pytest.mark.parametrize("alpha", [(1.0, 1.0, 1.0), (0.3, 0.3, 0.3), (0.4, 1.0, 2.5)])
@pytest.mark.parametrize("tau", [0.15, 1.0])
def test_sampling_marginals(alpha: tuple[float, ...], tau: float) -> None:
    kernel, theta = WrightFisher(alpha), sum(alpha)
    x = kernel.sample(torch.ones(N, dtype=torch.long), tau, torch.Generator().manual_seed(1)).double().numpy()
    for i, a in enumerate(alpha):
        assert stats.kstest(x[:, i], mixture_cdf(a, theta - a, i == 1, tau, theta)).pvalue > P_MIN


def test_sampling_many_categories_and_one_time_per_image() -> None:
    kernel, K = wright_fisher(64), 64
    tau = torch.tensor([0.03, 0.06])
    x0 = torch.full((2, N), 5)
    x = kernel.sample(x0, tau, torch.Generator().manual_seed(1)).double().numpy()
    for row in range(2):
        cdf = mixture_cdf(1.0, K - 1.0, True, float(tau[row]), K)
        assert stats.kstest(x[row, 5], cdf).pvalue > P_MIN


@pytest.mark.parametrize("alpha", [(1.0, 1.0), (0.3, 0.7, 2.0)])
def test_mean(alpha: tuple[float, ...]) -> None:
    """E[x] = e^(-theta tau / 2) e_k + (1 - e^(-theta tau / 2)) alpha / theta, within 5 standard errors."""
    kernel, theta = WrightFisher(alpha), sum(alpha)
    for tau in (0.1, 0.5, 2.0):
        x = kernel.sample(torch.zeros(N, dtype=torch.long), tau, torch.Generator().manual_seed(2)).double()
        kept = np.exp(-theta * tau / 2)
        mean = (1 - kept) * torch.tensor(alpha, dtype=torch.float64) / theta
        mean[0] += kept
        assert bool(((x.mean(0) - mean).abs() <= 5 * x.std(0) / N**0.5 + 1e-6).all())


@pytest.mark.parametrize("alpha", [(1.0, 1.0), (0.4, 1.0, 2.5)])
@pytest.mark.parametrize("duration", [0.003, 0.2])
def test_stationarity(alpha: tuple[float, ...], duration: float) -> None:
    """Dirichlet stays Dirichlet under the exact transition from any point, and moves."""
    kernel, generator = WrightFisher(alpha), torch.Generator().manual_seed(3)
    start = kernel.stationary((N,), generator)
    x = evolve(kernel, start, duration, generator).numpy()
    for i, a in enumerate(alpha):
        assert stats.kstest(x[:, i], stats.beta(a, kernel.theta - a).cdf).pvalue > P_MIN
        correlation = np.corrcoef(x[:, i], start[:, i])[0, 1]
        assert correlation == pytest.approx(np.exp(-kernel.theta * duration / 2), abs=0.03)


def test_chapman_kolmogorov() -> None:
    """A sample at tau = 0.3 evolved by 0.2 has the law at 0.5: two-sample KS, n = 20,000, seed 4."""
    kernel, generator = WrightFisher([0.4, 1.0, 2.5]), torch.Generator().manual_seed(4)
    x0 = torch.zeros(N, dtype=torch.long)
    two = evolve(kernel, kernel.sample(x0, 0.3, generator), 0.2, generator)
    one = kernel.sample(x0, 0.5, generator)
    for i in range(3):
        assert stats.ks_2samp(one[:, i].numpy(), two[:, i].numpy()).pvalue > P_MIN


@pytest.mark.parametrize(("K", "seconds"), [(2, 6.0), (256, 20.0)])
def test_set_up_time(K: int, seconds: float) -> None:
    """Processor time of the whole Dirichlet process, tables and clock, with no cache; quiet: 1.2 and 1.8 s."""
    start = time.process_time()
    Dirichlet(K, 784, torch.full((K,), 1.0))
    assert time.process_time() - start < seconds


@pytest.mark.parametrize("alpha", [[1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, -2.0]])
def test_bad_concentrations(alpha: list[float]) -> None:
    with pytest.raises(ValueError, match=r"alpha|concentration"):
        WrightFisher(alpha)


def test_tau_outside_the_tables() -> None:
    with pytest.raises(ValueError, match="tau must lie in"):
        wright_fisher(2).log_h(torch.full((1, 2), 0.5), 1e-9)


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.3, 0.7), (1.0, 1535.0), (1000.0, 1000.0)])
def test_beta_quadrature(a: float, b: float) -> None:
    """Moments of the Beta law, to rounding: E y^n = prod (a + i) / (a + b + i)."""
    y, w = beta_quadrature(40, a, b)
    for n in (0, 1, 2, 7):
        i = np.arange(n)
        assert (w * y**n).sum() == pytest.approx(np.prod((a + i) / (a + b + i)), rel=1e-9)


# -- what the lineages are for: docs/math.md, section 2 ---------------------------------------------------------------


def test_one_dirichlet_does_not_compose():
    """docs/math.md section 2: two single-Dirichlet steps have moments that no single step of the family has."""
    beta = lambda a, b: (a / (a + b), a * (a + 1) / (a + b) / (a + b + 1))  # noqa: E731
    y, y2 = beta(3, 1)
    x, x2 = (1 + 2 * y) / 4, (2 + 6 * y + 4 * y2) / 20
    assert (x, x2) == (pytest.approx(5 / 8), pytest.approx(89 / 200))
    c = (2 * x - 1) / (1 - x)
    assert beta(1 + c, 1) == (pytest.approx(x), pytest.approx(5 / 11))
    g = torch.Generator().manual_seed(0)
    first = torch.distributions.Beta(3.0, 1.0)
    assert float(first.mean) == pytest.approx(y)
    drawn = 1 - torch.rand(200_000, generator=g, dtype=torch.float64).pow(1 / 3)  # 1 - Beta(3, 1)
    a = 1 + 2 * (1 - drawn)
    drawn = dirichlet(torch.stack([a, 4 - a], 1), (len(a), 2), g)[:, 0]
    assert float(drawn.square().mean()) == pytest.approx(89 / 200, abs=Z * float(drawn.square().std()) / 200_000**0.5)


def test_the_mixture_composes():
    """Chapman-Kolmogorov: tau then sigma by (2), against tau + sigma in one draw; KS on 20,000 draws, p > 1e-3."""
    kernel, n, tau, sigma = wright_fisher(3), 20_000, 0.3, 0.45
    g = torch.Generator().manual_seed(4)
    k = torch.zeros(n, dtype=torch.long)
    y = kernel.sample(k, tau, g).double()
    m = kernel.sample_lineages(sigma, (n,), g)
    counts = torch.zeros(n, 3, dtype=torch.float64)
    for i in range(int(m.max())):  # multinomial draws, one ancestor at a time
        u = torch.rand(n, 1, generator=g, dtype=torch.float64)
        chosen = (u > y.cumsum(1)[:, :2]).sum(1)
        counts[torch.arange(n), chosen] += (i < m).double()
    x = dirichlet(1.0 + counts, (n, 3), g)
    once = kernel.sample(k, tau + sigma, g).double()
    for i in range(3):
        assert ks_2samp(x[:, i].numpy(), once[:, i].numpy()).pvalue > 1e-3


def test_no_beta_law_has_the_kernels_ends():
    """docs/math.md section 2: the density is q_0 at one end and sum q_m (m + 1) at the other, its mean is not 1/2."""
    kernel, tau = wright_fisher(2), 0.7
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    q = kernel.log_lineages(tau)[0].exp()
    h = kernel.log_h(x, tau)[0][:, 0].exp()
    assert float(h[0]) == pytest.approx(float(q[0]), rel=1e-4)
    assert 0 < float(h[0]) < 1
    assert float(h[1]) == pytest.approx(float((q * (1 + torch.arange(len(q)))).sum()), rel=1e-4)
    assert float(corner_moments(kernel.alpha, tau)[0][0, 0]) == pytest.approx((1 + np.exp(-tau)) / 2)
    assert betaln(1, 1) == 0  # Beta(1, 1), the only Beta law with such ends, is uniform: mean 1/2
