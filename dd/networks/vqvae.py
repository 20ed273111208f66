"""VQ-VAE (van den Oord et al. 2017): an image as a grid of K codes, and back.

    z = E(x),    k = argmin_j |z - e_j|^2,    x_hat = D(e_k),      z and e_j on the unit sphere of R^d

Fully convolutional and without normalisation layers, so that a code depends on its neighbourhood and on nothing else:
trained on 64 x 64 crops, used at any size. Latents and codes are l2-normalised (Yu et al. 2022), gradients pass the
quantiser by the rotation trick (Fifty et al. 2025), the codebook follows its latents by exponential averages, and
codes that nobody uses are put back where latents are.
"""

from dataclasses import dataclass
from math import log2

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """x + conv(SiLU(conv(SiLU(x)))), the identity at the start."""

    def __init__(self, c: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c, c, 3, padding=1)
        self.conv2 = nn.Conv2d(c, c, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


def rotate(z: Tensor, e: Tensor) -> Tensor:
    """The value e with the gradient of the rotation R that takes z to e; z, e: (N, d) unit vectors.

    R = I - 2 r r^T + 2 e z^T,   r = (z + e)/|z + e|,   R held constant (Fifty et al. 2025, eq. 4).
    """
    z_, e_ = z.detach(), e.detach()
    r = F.normalize(z_ + e_, dim=1)
    return z - 2 * (z * r).sum(1, keepdim=True) * r + 2 * (z * z_).sum(1, keepdim=True) * e_


class Quantiser(nn.Module):
    """K unit vectors e_j, and how often each is used (an average of counts per training step)."""

    def __init__(self, K: int, d: int):
        super().__init__()
        self.K, self.d = K, d
        self.register_buffer("codebook", F.normalize(torch.randn(K, d), dim=1))
        self.register_buffer("counts", torch.zeros(K))

    def similarity(self, z: Tensor) -> Tensor:
        """<z, e_j>: (N, K). The nearest unit vector is the one of largest inner product.

        A checkpoint has the average of its training's codebooks, whose vectors are up to 3 % shorter; there the
        inner product is what defines the code.
        """
        return z @ self.codebook.T

    def forward(self, z: Tensor) -> Tensor:
        """Nearest codes (N,) of latents (N, d), in pieces that bound the memory."""
        with torch.autocast(z.device.type, enabled=False):
            return torch.cat([self.similarity(part).argmax(1) for part in z.split(16384)])

    @torch.no_grad()
    def update(self, z: Tensor, codes: Tensor, decay: float, revive: float, generator: torch.Generator) -> int:
        """One step of the codebook; returns how many codes were revived.

        counts <- decay counts + (1 - decay) n,    e_j <- (e_j + (1 - decay) sum_{i: k_i = j} (z_i - e_j) / counts_j)
        normalised: the running k-means of van den Oord et al. (2017, appendix A.1). A code used less than `revive`
        times the mean use is put on a random latent of this batch, and given the mean count so that it has time to
        settle.
        """
        z = z.detach()
        if not bool(self.counts.any()):  # the first batch is the first codebook
            self._place(torch.arange(self.K, device=z.device), z, generator)
            return self.K
        n = torch.bincount(codes, minlength=self.K).float()
        pull = torch.zeros_like(self.codebook).index_add_(0, codes, z - self.codebook[codes])
        self.counts.lerp_(n, 1 - decay)
        self.codebook += (1 - decay) * pull / self.counts.clamp(min=1e-6)[:, None]
        self.codebook.copy_(F.normalize(self.codebook, dim=1))
        dead = (self.counts < revive * len(z) / self.K).nonzero()[:, 0]
        self._place(dead, z, generator)
        return len(dead)

    def _place(self, which: Tensor, z: Tensor, generator: torch.Generator) -> None:
        """Put these codes on random latents of the batch."""
        if len(which):
            draw = torch.randint(len(z), (len(which),), generator=generator).to(z.device)
            noise = 0.01 * torch.randn((len(which), self.d), generator=generator).to(z)  # no two codes alike
            self.codebook[which] = F.normalize(z[draw] + noise, dim=1)
            self.counts[which] = len(z) / self.K


@dataclass(frozen=True)
class Coded:
    """x_hat (B, c, H, W); codes (B, h, w); latents z and quantised latents z_q (B, d, h, w), unit vectors."""

    x_hat: Tensor
    codes: Tensor
    z: Tensor
    z_q: Tensor


class VqVae(nn.Module):
    """Images (B, colours, H, W) in [0, 1] to codes (B, H/factor, W/factor) in 0..K-1 and back; factor = 2^levels.

    channels, encoder, decoder: width and residual blocks of each level, the first at half the image's resolution.
    """

    def __init__(
        self,
        K: int,
        colours: int = 3,
        d: int = 8,
        channels: tuple[int, ...] = (64, 128),
        encoder: tuple[int, ...] = (1, 3),
        decoder: tuple[int, ...] = (2, 4),
    ):
        super().__init__()
        self.K, self.colours, self.d, self.factor = K, colours, d, 2 ** len(channels)
        down: list[nn.Module] = []
        c = colours
        for c_out, n in zip(channels, encoder, strict=True):
            down += [nn.PixelUnshuffle(2), nn.Conv2d(4 * c, c_out, 3, padding=1), *(Residual(c_out) for _ in range(n))]
            c = c_out
        self.encoder = nn.Sequential(*down, nn.SiLU(), nn.Conv2d(c, d, 1))
        self.quantiser = Quantiser(K, d)
        up: list[nn.Module] = [nn.Conv2d(d, c, 3, padding=1)]
        for level in reversed(range(len(channels))):
            c_out = channels[level - 1] if level else colours
            up += [Residual(channels[level]) for _ in range(decoder[level])]
            up += [nn.SiLU(), nn.Conv2d(channels[level], 4 * c_out, 3, padding=1), nn.PixelShuffle(2)]
        self.decoder = nn.Sequential(*up)

    def latents(self, x: Tensor) -> Tensor:
        """z = E(x) on the unit sphere: (B, d, h, w), float32. H and W divisible by the factor."""
        return F.normalize(self.encoder(2 * x - 1).float(), dim=1)

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, h, w), in float32 whatever the caller's autocast: rounded latents would choose other codes."""
        with torch.autocast(x.device.type, enabled=False):
            return self._nearest(self.latents(x))

    def _nearest(self, z: Tensor) -> Tensor:
        return self.quantiser(_rows(z)).view(len(z), *z.shape[2:])

    def decode(self, codes: Tensor) -> Tensor:
        """Images (B, colours, H, W) of codes (B, h, w); about [0, 1], not clipped."""
        return self.decode_vectors(self.quantiser.codebook[codes].movedim(-1, 1))

    def decode_mixture(self, p: Tensor) -> Tensor:
        """Images of points p (B, K, h, w) of the simplex: D(e / |e|) of their mean code vectors e = sum_k p_k e_k.

        On the unit sphere, as everything that the decoder has seen: the states of a Dirichlet diffusion over many codes
        keep away from the corners long after their codes are certain.
        """
        e = torch.einsum("bkhw,kd->bdhw", p, self.quantiser.codebook)
        return self.decode_vectors(F.normalize(e, dim=1))

    def decode_vectors(self, e: Tensor) -> Tensor:
        """D(e), e (B, d, h, w), in float32."""
        return (self.decoder(e * self.d**0.5).float() + 1) / 2

    def forward(self, x: Tensor) -> Coded:
        """The whole way, with gradients through the quantiser by the rotation trick."""
        z = self.latents(x)
        codes = self._nearest(z)
        rows = rotate(_rows(z), self.quantiser.codebook[codes.flatten()])
        z_q = rows.view(len(z), *z.shape[2:], self.d).movedim(-1, 1)
        return Coded(self.decode_vectors(z_q), codes, z, z_q)

    def pad(self, x: Tensor) -> Tensor:
        """Repeat the last row and column until both sides are divisible by the factor."""
        H, W = x.shape[-2:]
        return F.pad(x, (0, -W % self.factor, 0, -H % self.factor), mode="replicate")

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Any size: (image like x, in [0, 1]; codes of the padded image)."""
        codes = self.encode(self.pad(x))
        return self.decode(codes)[..., : x.shape[-2], : x.shape[-1]].clamp(0, 1), codes

    def bits_per_pixel(self) -> float:
        """log2 K bits a code."""
        return log2(self.K) / self.factor**2


class CausalContext(nn.Module):
    """p(k | codes above and to the left), a small PixelCNN (van den Oord et al. 2016) on code vectors.

    It prices codes while the VQ-VAE trains (the rate term), and says how predictable a set of codes is.
    """

    def __init__(self, K: int, d: int, width: int = 64):
        super().__init__()
        self.first = CausalConv(d, width, 5, here=False)
        self.layers = nn.ModuleList(CausalConv(width, width, 3, here=True) for _ in range(2))
        self.out = nn.Conv2d(width, K, 1)

    def forward(self, e: Tensor) -> Tensor:
        """log p (B, K, h, w) from code vectors e (B, d, h, w)."""
        h = self.first(e * e.shape[1] ** 0.5)
        for layer in self.layers:
            h = h + layer(F.silu(h))
        return torch.log_softmax(self.out(F.silu(h)).float(), 1)


class CausalConv(nn.Conv2d):
    """A convolution that sees the rows above and, in its own row, what lies to the left (and itself if `here`)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, here: bool):
        super().__init__(c_in, c_out, kernel, padding=kernel // 2)
        mask = torch.zeros(kernel, kernel)
        mask[: kernel // 2] = 1
        mask[kernel // 2, : kernel // 2 + here] = 1
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)


def _rows(z: Tensor) -> Tensor:
    """(B, d, h, w) -> (B h w, d)."""
    return z.movedim(1, -1).flatten(0, 2)
