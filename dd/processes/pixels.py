"""The DDPM of the textbooks (Ho et al. 2020): Gaussian diffusion of pixel intensities, with a network of its own.

    x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps,    x_0 = 2 k / (K - 1) - 1 in [-1, 1],    L_simple = ||eps - f||^2

on the cosine schedule of Nichol & Dhariwal (2021). The network predicts eps and is told the time. In the place of
evidence it is given the state itself with a plane of v = log((1 - abar) / abar). No simplex is involved; what is shown
of it is the grey that it means, as a mixture of black and white.
"""

import numpy as np
import torch
from torch import Tensor

from dd.processes.clock import Clock, stratified
from dd.processes.gaussian import Gaussian, nichol_signal

ENDS = 0.003  # of the schedule at either end, where abar is 1 or 0 in all but name


class Pixels(Gaussian):
    """K grey levels of one channel. Own time v as for `Gaussian`; t is Nichol & Dhariwal's, linear."""

    name = "ddpm"
    architecture = "noise-unet"
    categorical = False
    continuous = False
    losses = ("simple",)

    def __init__(self, K: int, cells: int = 784):
        self.K, self.cells, self.nichol = K, cells, None  # it is the clock's own
        t = np.linspace(ENDS, 1 - ENDS, 512)
        abar = nichol_signal(t)
        self.clock = Clock(np.log((1 - abar) / abar), t)

    def intensities(self, x0: Tensor) -> Tensor:
        """Categories (B, H, W) as intensities (B, 1, H, W) in [-1, 1]."""
        return (2 / (self.K - 1) * x0.float() - 1)[:, None]

    def prior(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """x_1 ~ N(0, 1) in every pixel: (B, 1, H, W)."""
        return torch.randn((shape[0], 1, *shape[1:]), generator=generator)

    def perturb(self, x0: Tensor, t: Tensor | float, generator: torch.Generator) -> Tensor:
        """x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps, x_0 as intensities: (B, 1, H, W)."""
        v = self.clock.native(t).float().reshape(-1, 1, 1, 1)
        eps = torch.randn((len(x0), 1, *x0.shape[1:]), generator=generator)
        return torch.sigmoid(-v).sqrt() * self.intensities(x0) + torch.sigmoid(v).sqrt() * eps

    def evidence(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """(B, 2, H, W): x_t and, in every cell, v."""
        v = self.clock.native(t).to(x_t).reshape(-1, 1, 1, 1)
        return torch.cat([x_t, v.expand(x_t.shape)], 1)

    def logits(self, f: Tensor, evidence: Tensor) -> Tensor:
        """eps is regressed directly."""
        return f

    def clean_estimate(self, x_t: Tensor, f: Tensor, t: float) -> Tensor:
        """x_0 = (x_t - sqrt(1 - abar) eps) / sqrt(abar), clipped to [-1, 1] as intensities are."""
        return _denoised(f, self.evidence(x_t, t)).clamp(-1, 1)

    def estimate(self, f: Tensor, evidence: Tensor) -> Tensor:
        """The grey of the clean estimate as a mixture of black and white: (B, 2, H, W)."""
        return self.simplex(_denoised(f, evidence))

    def simplex(self, x_t: Tensor) -> Tensor:
        """(1 - g, g) with the grey g = (x + 1) / 2, clipped to [0, 1]: (B, 2, H, W)."""
        grey = ((x_t + 1) / 2).clamp(0, 1)
        return torch.cat([1 - grey, grey], 1)

    def clean(self, p: Tensor, generator: torch.Generator) -> Tensor:
        """The nearest grey level."""
        return (p[:, 1] * (self.K - 1)).round().long()

    def times(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """t stratified uniform, every time counting the same."""
        return stratified(n, generator), torch.ones(n, dtype=torch.float64)

    def loss(self, logits: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """L_simple (Ho et al. 2020, eq. 14): ||eps - f||^2 over the image, with the eps that made x_t: (B,)."""
        v = self.clock.native(t).to(x_t).reshape(-1, 1, 1, 1)
        eps = (x_t - torch.sigmoid(-v).sqrt() * self.intensities(x0)) / torch.sigmoid(v).sqrt()
        return (eps - logits).square().flatten(1).sum(1)

    simple_loss = loss

    def kl_prior(self, shape: tuple[int, int]) -> float:
        raise NotImplementedError("L_simple is no likelihood bound; compare this process by its samples")


def _denoised(eps: Tensor, evidence: Tensor) -> Tensor:
    """(x_t - sqrt(1 - abar) eps) / sqrt(abar), not clipped: (B, 1, H, W)."""
    x_t, v = evidence[:, :1], evidence[:, 1:]
    return (x_t - torch.sigmoid(v).sqrt() * eps) / torch.sigmoid(-v).sqrt()
