"""The ancestral process: how many lineages q_m(tau) of Kingman's coalescent with mutation are left.

A pure death process that starts at infinity and goes from m to m - 1 at rate

    lambda_m = m (m + theta - 1) / 2.

The transition density of the neutral Wright-Fisher diffusion is a mixture of Dirichlets with these weights
(Griffiths 1979; Tavare 1984; Jenkins & Spano 2017). Everything here is float64 and in log space: the left tail of q_m
carries the likelihood of rare states and is needed to relative, not absolute, precision.
"""

import numpy as np
from scipy.special import gammaln, loggamma, psi

_NODES = 26  # trapezoidal nodes on half the contour; the rule converges geometrically
_HALF_WIDTH = 10.0  # contour half-length in units of the integrand's width at the saddle


def death_rate(m: np.ndarray, theta: float) -> np.ndarray:
    """lambda_m = m (m + theta - 1) / 2, per unit of tau."""
    return m * (m + theta - 1) / 2


def _mean_time(S: np.ndarray, m: np.ndarray, theta: float) -> np.ndarray:
    """G(S) = sum_{j >= m} 1 / (s + lambda_j) with s = S - lambda_m: the tilted mean of the time to leave m."""
    c = (theta - 1) / 2
    delta = np.sqrt(c**2 - 2 * (S - death_rate(m, theta)) + 0j)
    delta = np.where(np.abs(delta) < 1e-6, 1e-6, delta)
    return ((psi(m + c + delta) - psi(m + c - delta)) / delta).real


def _saddle(m: np.ndarray, tau: np.ndarray, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """The S > 0 with G(S) = tau, and the width of the integrand there in the contour's parameter u.

    log G is a decreasing function of log S with slope between -1 and -1/2, so a fixed slope of -3/4 contracts by 1/3:
    24 rounds leave 4e-12 of the first error, which for small tau (S ~ 2 / tau^2) is large.
    """
    log_S = -np.log(tau) + np.zeros_like(m)
    for _ in range(24):
        log_S = log_S + np.log(_mean_time(np.exp(log_S), m, theta) / tau) / 0.75
    S, h = np.exp(log_S), 1e-4
    dG = (_mean_time(S * (1 + h), m, theta) - _mean_time(S * (1 - h), m, theta)) / (2 * h)  # S G'(S)
    return S, 0.5 / np.sqrt(-S * dG)


def log_lineages(m: np.ndarray, tau: np.ndarray, theta: float) -> np.ndarray:
    """log q_m(tau), by inverting the Laplace transform in tau along a parabola through its saddle point.

    With a, b = (theta - 1)/2 +- sqrt((theta - 1)^2/4 - 2 s), so that s + lambda_j = (j + a)(j + b)/2,

        int_0^inf e^(-s tau) q_m(tau) dtau = 1/(s + lambda_m) prod_{j > m} lambda_j / (s + lambda_j)
                                           = 2 Gamma(m + a) Gamma(m + b) / (Gamma(m + 1) Gamma(m + theta)).

    The contour s = -lambda_m + S (1 + i u)^2 passes through the real saddle S and encloses every pole -lambda_j,
    j >= m. Nothing cancels there, so the *relative* error stays near rounding for every m and tau, where the
    alternating spectral sum loses all digits.

    m, tau: broadcastable arrays, m >= 0 whole numbers, tau > 0. Returns float64 of the broadcast shape.
    """
    m, tau = np.broadcast_arrays(np.asarray(m, np.float64), np.asarray(tau, np.float64))
    S, width = _saddle(m, tau, theta)
    lam = death_rate(m, theta)
    c = (theta - 1) / 2
    w, dw = np.linspace(0, _HALF_WIDTH, _NODES, retstep=True)

    def log_integrand(u: np.ndarray) -> np.ndarray:
        s = -lam + S * (1 + 1j * u) ** 2
        delta = np.sqrt(c**2 - 2 * s + 0j)
        return s * tau + loggamma(m + c + delta) + loggamma(m + c - delta)

    log_peak = log_integrand(np.zeros_like(width)).real
    total = np.full(m.shape, 0.5)  # the node u = 0, with the trapezoidal half weight
    for w_j in w[1:]:
        u = width * w_j
        total += ((1 + 1j * u) * np.exp(log_integrand(u) - log_peak)).real
    integral = np.log(total * dw * width * 2 * S / np.pi) + log_peak
    return np.log(2) + integral - gammaln(m + 1) - gammaln(m + theta)


def mean_lineages(tau: float, theta: float) -> float:
    """Griffiths' asymptotic mean 2 eta / tau; used only to size tables, never inside a density."""
    beta = (theta - 1) * tau / 2
    eta = beta / np.expm1(beta) if abs(beta) > 1e-8 else 1.0
    return 2 * eta / tau
