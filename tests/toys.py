"""Toys: a few cells with a known joint law. Enumeration takes the network's place; samplers are held to the truth.

The D cells of a toy are a row; an image (R, D) is R independent toys, which are fast to compute together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Toy:
    """joint: (K, ..., K), one axis a cell, positive, summing to one. Images are (B, R, D)."""

    joint: Tensor

    @property
    def K(self) -> int:
        return self.joint.shape[0]

    @property
    def D(self) -> int:
        return self.joint.ndim

    @property
    def entropy(self) -> float:
        return float(-torch.xlogy(self.joint, self.joint).sum())

    def denoise(self, evidence: Tensor, _: Tensor | None = None) -> Tensor:
        """f_d,k = log p(x0_d = k | evidence of the other cells of the row), exactly. evidence, f: (B, K, R, D)."""
        likelihood = (evidence - evidence.amax(1, keepdim=True)).exp().movedim(1, 0)
        cells = [likelihood[..., d].flatten(1) for d in range(self.D)]  # of (K, B R)
        f = []
        for d in range(self.D):
            others = torch.ones(1, cells[0].shape[1], dtype=evidence.dtype)
            for e in (cells[j] for j in range(self.D) if j != d):
                others = (others[:, None] * e).flatten(0, 1)  # all states of the other cells
            f.append((self.joint.movedim(d, 0).flatten(1).to(evidence) @ others).log())
        return torch.stack(f, -1).view(likelihood.shape).movedim(0, 1)

    def sample(self, n: int, generator: torch.Generator, rows: int = 1) -> Tensor:
        """Clean images (n, rows, D)."""
        cdf = self.joint.flatten().cumsum(0)
        state = torch.searchsorted(cdf, torch.rand((n, rows), generator=generator, dtype=torch.float64) * cdf[-1])
        return torch.stack(torch.unravel_index(state, self.joint.shape), -1)

    def surprise(self, x: Tensor) -> Tensor:
        """-log p(x_0) of images x (B, R, D), in nats: (B,)."""
        return -self.joint[x.unbind(-1)].log().sum(1)

    def frequencies(self, x: Tensor) -> Tensor:
        """The empirical joint law of the rows of images x (B, R, D)."""
        place = self.K ** torch.arange(self.D - 1, -1, -1)
        counts = torch.bincount((x * place).sum(-1).flatten(), minlength=self.joint.numel())
        return (counts / counts.sum()).double().view(self.joint.shape)

    def total_variation(self, x: Tensor) -> float:
        return float((self.frequencies(x) - self.joint).abs().sum() / 2)


def three_cells(K: int = 3) -> Toy:
    """Three strongly correlated cells with unequal marginals: neighbours tend to agree."""
    i = torch.arange(K, dtype=torch.float64)
    a, b, c = i.view(-1, 1, 1), i.view(1, -1, 1), i.view(1, 1, -1)
    energy = 1.6 * (a == b).double() + 1.1 * (b == c).double() + 0.4 * a - 0.3 * ((a + c) % K == 1)
    return Toy(torch.softmax(energy.flatten(), 0).view(K, K, K))


def two_cells(K: int = 64) -> Toy:
    """Two cells on a ring of K categories: the second is near the first, the first is far from uniform."""
    i = torch.arange(K, dtype=torch.float64)
    ring = torch.cos(2 * torch.pi * (i[:, None] - i[None]) / K)
    energy = 4 * ring + torch.cos(2 * torch.pi * i / K)[:, None]
    return Toy(torch.softmax(energy.flatten(), 0).view(K, K))
