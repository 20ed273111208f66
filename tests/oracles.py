"""Slow high-precision twins of the fast kernel. They share no formula with it: spectral series in mpmath."""

from functools import lru_cache

import mpmath as mp
import numpy as np

DIGITS = 420  # the spectral sums alternate and cancel up to 370 digits at the smallest tau and largest theta


@lru_cache(maxsize=4)
def polynomials(alpha_k: float, theta: float, y: tuple[float, ...], n: int) -> tuple[list, list, list]:
    """Jacobi polynomials orthonormal under Beta(alpha_k, theta - alpha_k): at 1 (n,), at y and their slopes (n, Y).

    Three-term recurrence of P_j^(a, b)(z), z = 2 y - 1, a = theta - alpha_k - 1, b = alpha_k - 1 (DLMF 18.9.1-2).
    """
    b, c = mp.mpf(alpha_k), mp.mpf(theta)
    a, b = c - b - 1, b - 1
    z = [2 * mp.mpf(v) - 1 for v in (1.0, *y)]
    P = [[mp.mpf(1)] * len(z), [(a + 1) + (a + b + 2) * (v - 1) / 2 for v in z]]
    D = [[mp.mpf(0)] * len(z), [a + b + 2] * len(z)]  # dP/dy = 2 dP/dz
    for j in range(1, n - 1):
        s = 2 * j + a + b
        d = 2 * (j + 1) * (j + a + b + 1) * s
        A, B, C = (s + 1) * (s + 2) * s / d, (s + 1) * (a * a - b * b) / d, 2 * (j + a) * (j + b) * (s + 2) / d
        P.append([(A * v + B) * p - C * q for v, p, q in zip(z, P[j], P[j - 1], strict=True)])
        D.append([(A * v + B) * p - C * q + 2 * A * r for v, p, q, r in zip(z, D[j], D[j - 1], P[j], strict=True)])
    norm = []  # E[P_j^2] under the Beta law (DLMF 18.3.1 divided by the mass of the weight)
    for j in range(n):
        top = mp.rf(a + 1, j) * mp.rf(b + 1, j) * (1 if j == 0 else (a + b + 1) / (2 * j + a + b + 1))
        norm.append(top / (mp.factorial(j) * (1 if j == 0 else mp.rf(a + b + 1, j))))
    at_one = [p[0] / w for p, w in zip(P, norm, strict=True)]
    return at_one, [p[1:] for p in P], [d[1:] for d in D]


def log_h(alpha_k: float, theta: float, tau: float, y: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """log h and h'/h at y: h = sum_j e^(-j (j + theta - 1) tau / 2) P_j(1) P_j(y) / E[P_j^2]."""
    with mp.workdps(DIGITS):
        n = terms(theta, tau)
        at_one, P, D = polynomials(alpha_k, theta, y, max(n, 256))
        w = [mp.exp(-j * (j + mp.mpf(theta) - 1) * mp.mpf(tau) / 2) * at_one[j] for j in range(n)]
        h = [mp.fdot(w, [P[j][i] for j in range(n)]) for i in range(len(y))]
        dh = [mp.fdot(w, [D[j][i] for j in range(n)]) for i in range(len(y))]
        return np.array([float(mp.log(v)) for v in h]), np.array([float(d / v) for d, v in zip(dh, h, strict=True)])


def terms(theta: float, tau: float) -> int:
    """Terms until e^(-j (j + theta - 1) tau / 2) is below 10^-(DIGITS - 50), with room for the polynomials' growth."""
    nats = 2.31 * (DIGITS - 50)
    c = theta - 1
    return int((-c + (c * c + 8 * nats / tau) ** 0.5) / 2) + 2


def log_lineages(m: int, tau: float, theta: float) -> float:
    """log q_m(tau) by the alternating spectral sum (Tavare 1984; Jenkins & Spano 2017, eq. 5)."""
    with mp.workdps(DIGITS):
        theta, tau = mp.mpf(theta), mp.mpf(tau)
        rising = mp.mpf(1)  # (theta + m)_(j - 1) / (j - m)!
        for i in range(m - 1):
            rising *= theta + m + i
        total = mp.mpf(1) if m == 0 else mp.mpf(0)
        for j in range(m, m + terms(float(theta), float(tau))):
            if j > m:
                rising *= (theta + m + j - 2 if j > 1 else 1) / mp.mpf(j - m)
            if j > 0:
                total += (-1) ** (j - m) * (2 * j + theta - 1) * rising * mp.exp(-j * (j + theta - 1) * tau / 2)
        return float(mp.log(total / mp.factorial(m)))


def frozen_concentration(x: list[float], a: list[float], d: float) -> np.ndarray:
    """Mean times precision of dx = (a - A x) ds + Sigma(x)^(1/2) dW after time d, from every category's own moments."""
    with mp.workdps(60):
        x, a, d = [mp.mpf(v) / mp.fsum(x) for v in x], [mp.mpf(v) for v in a], mp.mpf(d)
        A = mp.fsum(a)
        c, e_A, e_c = 2 * A + 1, mp.exp(-A * d), mp.exp(-(2 * A + 1) * d)
        mean = [b / A + (v - b / A) * e_A for v, b in zip(x, a, strict=True)]
        square = mp.fsum(
            v * v * e_c + (2 * b + 1) * (b / A * (1 - e_c) / c + (v - b / A) * (e_A - e_c) / (c - A))
            for v, b in zip(x, a, strict=True)
        )
        precision = (1 - square) / (square - mp.fsum(m * m for m in mean))
        return np.array([float(m * precision) for m in mean])
