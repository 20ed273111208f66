"""The ancestral process against a high-precision spectral sum and against its own moments."""

import numpy as np
import pytest

from dd.lineages import log_lineages
from tests import oracles


@pytest.mark.parametrize(("theta", "tau"), [(0.6, 0.05), (2.0, 0.031), (2.0, 6.0), (48.0, 0.05), (256.0, 0.0126)])
def test_relative_error_against_spectral_sum(theta: float, tau: float) -> None:
    for m in (0, 1, 2, 20, 90):
        exact = oracles.log_lineages(m, tau, theta)
        assert float(log_lineages(np.array(m), np.array(tau), theta)) == pytest.approx(exact, rel=1e-10, abs=1e-9)


@pytest.mark.parametrize("theta", [0.6, 2.0, 77.0, 1536.0])
def test_normalisation_and_moments(theta: float) -> None:
    """sum q = 1 and E[m (m-1)..(m-n+1) / (theta+m)_n] = e^(-n (n + theta - 1) tau / 2), n = 1, 2."""
    for mean in (2.0, 30.0, 400.0, 1e4, 1e6):
        tau = 2 * np.log1p((theta - 1) / mean) / (theta - 1)
        m = np.arange(max(0, int(mean - 20 * mean**0.5)), int(mean + 20 * mean**0.5 + 100))
        q = np.exp(log_lineages(m, np.array(tau), theta))
        small = 1e-10 if mean < 1000 else 1e-8
        assert q.sum() == pytest.approx(1, abs=small)
        assert (q * m / (theta + m)).sum() == pytest.approx(np.exp(-theta * tau / 2), rel=10 * small)
        second = q * m * (m - 1) / (theta + m) / (theta + m + 1)
        assert second.sum() == pytest.approx(np.exp(-(theta + 1) * tau), rel=10 * small)


def test_death_process() -> None:
    """dq_m/dtau = lambda_(m+1) q_(m+1) - lambda_m q_m, by central differences."""
    theta, tau, step, m = 3.5, 0.4, 1e-4, np.arange(60)
    lam = m * (m + theta - 1) / 2
    q = np.exp(log_lineages(m, np.array(tau), theta))
    slope = np.exp(log_lineages(m, np.array(tau + step), theta)) - np.exp(log_lineages(m, np.array(tau - step), theta))
    expected = lam[1:] * q[1:] - (lam * q)[:-1]
    assert slope[:-1] / (2 * step) == pytest.approx(expected, abs=1e-6)
