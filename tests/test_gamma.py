"""Gamma and Dirichlet draws against their laws: Kolmogorov-Smirnov, n = 200,000, seed 1, p > 1e-3."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import gammainc, gammaln

from dd.gamma import _decided, _in_doubt, dirichlet, log_gamma

N, P_MIN = 200_000, 1e-3


def seed() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def log_gamma_cdf(a: float):
    """P(log G <= l); where e^l is next to nothing, e^(a l) / Gamma(a + 1), which is left of the series."""
    return lambda l: np.where(l > -18, gammainc(a, np.exp(l)), np.exp(a * np.minimum(l, -18) - gammaln(a + 1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("a", [1e-3, 0.03, 0.3, 0.97, 1.0, 1.02, 1.6, 4.0, 37.0, 1e4])
def test_gamma_of_one_shape(a: float, dtype: torch.dtype) -> None:
    log_g = log_gamma(torch.tensor([a], dtype=dtype), (N,), seed())
    assert log_g.dtype == dtype
    assert bool(torch.isfinite(log_g).all())
    assert stats.kstest(log_g.double().numpy(), log_gamma_cdf(a)).pvalue > P_MIN


def test_gamma_of_many_shapes_at_once() -> None:
    a = torch.tensor([1e-2, 0.4, 1.0, 2.5, 300.0, 1e7], dtype=torch.float64)
    log_g = log_gamma(a[None, :, None], (50, 6, 4000), seed())
    for i in range(6):
        assert stats.kstest(log_g[:, i].flatten().numpy(), log_gamma_cdf(float(a[i]))).pvalue > P_MIN


@pytest.mark.parametrize("a", [1.0, 1.7, 1e3])
def test_the_exact_test_alone_draws_gammas(a: float) -> None:
    """What the quick test leaves open is decided by Marsaglia and Tsang's own, here for every proposal."""
    generator = seed()
    z, w = torch.randn(N, generator=generator).double(), torch.rand(N, generator=generator).double()
    log_g = _decided(z, w, torch.full((N,), a - 1 / 3, dtype=torch.float64), generator)
    assert stats.kstest(log_g.numpy(), log_gamma_cdf(a)).pvalue > P_MIN


@pytest.mark.timeout(20)
def test_a_shape_that_is_no_number_gives_none_and_comes_to_an_end() -> None:
    log_g = log_gamma(torch.tensor([1.5, torch.nan, 4.0]), (1000, 3), seed())
    assert torch.equal(torch.isnan(log_g).any(0), torch.tensor([False, True, False]))
    assert bool(torch.isnan(log_g[:, 1]).all())


@pytest.mark.parametrize("a", [1.0, 1.3, 4.0, 300.0])
def test_what_is_surely_accepted_is_accepted(a: float) -> None:
    """Wherever the quick test accepts, so does log(1 - w) <= 3 d (log(1 + y) - y + y^2/2 - y^3/3); mostly it does."""
    z, w = (torch.linspace(*ends, 1001, dtype=torch.float64) for ends in ((-8, 8), (1e-6, 1 - 1e-6)))
    z, w, d = z[:, None].expand(-1, 1001), w.expand(1001, -1), a - 1 / 3
    y = z * (9 * d) ** -0.5
    r = torch.log1p(y) - y + y**2 / 2 - y**3 / 3  # NaN, which accepts nothing, where y < -1
    surely = ~_in_doubt(y, z, w)
    assert bool((torch.log1p(-w) <= 3 * d * r + 1e-12)[surely].all())
    likely = torch.exp(-z.square() / 2)
    assert float((surely * likely).sum() / likely.sum()) > 0.92


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("a", [(0.3, 0.4, 1.3), (2.0, 7.0, 31.0), (1.0, 1.0, 1.0)])
def test_dirichlet_marginals(a: tuple[float, ...], dtype: torch.dtype) -> None:
    x = dirichlet(torch.tensor(a, dtype=dtype)[None], (N, 3), seed())
    assert x.dtype == dtype
    assert torch.allclose(x.sum(1), torch.ones(N, dtype=dtype))
    for i in range(3):
        assert stats.kstest(x[:, i].double().numpy(), stats.beta(a[i], sum(a) - a[i]).cdf).pvalue > P_MIN


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("a", "b"), [(1e-3, 1e-3), (1e-3, 3e-3)])
def test_dirichlet_of_shapes_whose_gammas_underflow(a: float, b: float, dtype: torch.dtype) -> None:
    """Mean a / (a + b) and E[x_1 x_2] = ab / ((a + b)(a + b + 1)), 5 standard errors."""
    x = dirichlet(torch.tensor([[a, b]], dtype=dtype), (N, 2), seed())
    assert torch.allclose(x.sum(1), torch.ones(N, dtype=dtype))
    mean, product = a / (a + b), a * b / ((a + b) * (a + b + 1))
    assert float(x[:, 0].mean()) == pytest.approx(mean, abs=5 * float(x[:, 0].std()) / N**0.5)
    both = x[:, 0] * x[:, 1]
    assert float(both.mean()) == pytest.approx(product, abs=5 * float(both.std()) / N**0.5)


def test_draws_do_not_depend_on_threads() -> None:
    a = torch.linspace(0.1, 4, 40)[None, :, None]
    threads = torch.get_num_threads()
    try:
        drawn = []
        for n in (1, 3):
            torch.set_num_threads(n)
            drawn.append(dirichlet(a, (64, 40, 100), seed()))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*drawn)
