"""Gamma and Dirichlet draws in log space: exact for every shape however small, and made of whole-tensor operations.

Marsaglia & Tsang (2000), for shapes a >= 1. With d = a - 1/3, 9 d c^2 = 1, z ~ N(0, 1), w ~ U(0, 1) and y = c z,

    G = d (1 + y)^3  is Gamma(a, 1)  where  y > -1  and  log(1 - w) <= 3 d r(y),
    r(y) = log(1 + y) - y + y^2/2 - y^3/3,

and is drawn again elsewhere. -r(y) = int_0^y s^3 / (1 + s) ds <= y^4/4 / (1 + min(y, 0)) and 3 d y^2 = z^2 / 3, so

    w (1 + min(y, 0)) >= (y z)^2 / 12

is enough: no logarithm, and of the draws 7.1 % fail it at a = 1, about 1 / (36 d) for large d.

Below a = 1, G(a) = G(a + 1) U^(1/a).
"""

import torch
from torch import Tensor


def log_gamma(a: Tensor, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """log of Gamma(a, 1) draws; a > 0, expandable to size. In a's precision, on the CPU."""
    smallest = float(a.min())
    if smallest == 1 == float(a.max()):
        return _uniform(size, torch.float64, generator).log_().neg_().log_().to(a.dtype)  # float32 is coarse near 1
    if smallest >= 1:
        return _marsaglia_tsang(a - 1 / 3, size, generator)
    log_g = _marsaglia_tsang(a + 2 / 3, size, generator)
    return log_g.add_(_uniform(size, a.dtype, generator).log_().div_(a))


def dirichlet(a: Tensor, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """x ~ Dirichlet(a) along axis 1; a > 0, expandable to size. In a's precision."""
    return shares(log_gamma(a, size, generator))


def shares(log_g: Tensor) -> Tensor:
    """g / sum g along axis 1, whatever underflows, so that the smallest shapes give corners as they should.

    torch.softmax rounds differently with another number of threads.
    """
    g = (log_g - log_g.amax(1, keepdim=True)).exp_()
    return g.div_(g.sum(1, keepdim=True))


def _marsaglia_tsang(d: Tensor, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """log G of the module's head for every d = a - 1/3 >= 2/3."""
    z = torch.randn(size, generator=generator, dtype=d.dtype)
    w = _uniform(size, d.dtype, generator)
    y = z * d.mul(9).rsqrt_()
    undecided = _in_doubt(y, z, w).flatten().nonzero()[:, 0]
    log_g = y.add_(1).log_().mul_(3).add_(d.log())
    if len(undecided):
        z, w, d = (v.expand(size).flatten()[undecided].double() for v in (z, w, d))
        log_g.view(-1)[undecided] = _decided(z, w, d, generator).to(log_g)
    return log_g


def _in_doubt(y: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """Where the test without logarithms of the module's head does not accept; not for NaN, which no test would."""
    return (y * z).square_().div_(12) > y.clamp(max=0).add_(1).mul_(w)


def _decided(z: Tensor, w: Tensor, d: Tensor, generator: torch.Generator) -> Tensor:
    """log G of (N,) proposals, by the exact test; what it refuses is drawn until it is accepted. float64."""
    log_g, place = torch.empty_like(d), torch.arange(len(d))
    while len(place):
        y = z * (9 * d).rsqrt()
        log_1_y = torch.log1p(y)  # NaN where y < -1, which no comparison lets pass
        accepted = torch.log1p(-w) <= 3 * d * (log_1_y - y + y**2 / 2 - y**3 / 3)
        log_g[place[accepted]] = (d.log() + 3 * log_1_y)[accepted]
        place, d = place[~accepted], d[~accepted]
        z = torch.randn(len(d), generator=generator, dtype=torch.float64)
        w = _uniform((len(d),), torch.float64, generator)
    return log_g


def _uniform(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Uniform on (0, 1), in float32 on (0, 1], from 31 random bits.

    torch.rand has 24, zero among them, and takes longer.
    """
    bits = torch.empty(size, dtype=torch.int32).random_(generator=generator)
    return bits.to(dtype).add_(0.5).mul_(2**-31)
