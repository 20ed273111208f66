"""The patch discriminator (Isola et al. 2017) and the hinge losses (Lim & Ye 2017) of the VQ-VAE's GAN stage."""

import torch.nn.functional as F
from torch import Tensor, nn

MOST = 1e3  # that the GAN's gradient is multiplied by


class PatchDiscriminator(nn.Module):
    """One real-or-rebuilt score for every patch of an image (B, colours, H, W) in [0, 1]: (B, 1, H/4, W/4).

    Spectrally normalised instead of batch-normalised, so that a score depends on its patch alone.
    """

    def __init__(self, colours: int = 3, width: int = 48):
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.layers = nn.Sequential(
            nn.Conv2d(colours, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            norm(nn.Conv2d(2 * width, 2 * width, 3, padding=1)),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(2 * x - 1).float()


def discriminator_loss(real: Tensor, rebuilt: Tensor) -> Tensor:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(x_hat)), halved."""
    return (F.relu(1 - real).mean() + F.relu(1 + rebuilt).mean()) / 2


def generator_loss(rebuilt: Tensor) -> Tensor:
    """-E D(x_hat)."""
    return -rebuilt.mean()


def adaptive_weight(g_rec: Tensor, g_gan: Tensor) -> Tensor:
    """|g_rec| / |g_gan|, at most MOST (Esser et al. 2021, eq. 7)."""
    return (g_rec.norm() / (g_gan.norm() + 1e-6)).clamp(max=MOST).detach()
