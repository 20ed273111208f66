"""The U-Net, and its two uses. The evidence network answers: what does the context say about every cell?

Input is softmax(evidence), the sufficient statistic of a noisy cell under any process; there is no time input. Output
is f; the posterior over clean categories is softmax(f + evidence), so that a cell's own evidence never has to pass
through the network. The noise network is the DDPM's: the same trunk, told the time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

F_CAP = 15.0  # |f| stays below this
C_EMB = 128  # numbers in an embedding of label and time
_GROUP = 16  # channels per group of a norm; narrower groups fall off the fast path of channels-last group norm


def _norm(c: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, c // _GROUP), c)


class Block(nn.Module):
    """Residual block: norm, SiLU, 3x3 convolution, twice; the class shifts and scales the second norm (FiLM)."""

    def __init__(self, c_in: int, c_out: int, c_emb: int):
        super().__init__()
        self.norm1 = _norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.film = nn.Linear(c_emb, 2 * c_out) if c_emb else None
        self.norm2 = _norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, emb: Tensor | None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.norm2(h)
        if self.film is not None:
            scale, shift = self.film(emb)[:, :, None, None].chunk(2, 1)
            h = torch.addcmul(shift, h, 1 + scale)
        return self.skip(x) + self.conv2(F.silu(h))


class Attention(nn.Module):
    """Multi-head self-attention over the grid, with a residual connection.

    softmax(q k^T / sqrt(d)) v is written out: on CPUs, at 49 cells, torch's fused kernel is ten times slower backwards.
    """

    def __init__(self, c: int, head: int = 32):
        super().__init__()
        self.heads = max(1, c // head)
        self.norm = _norm(c)
        self.qkv = nn.Conv2d(c, 3 * c, 1)
        self.out = nn.Conv2d(c, c, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        q, k, v = self.qkv(self.norm(x)).view(B, 3, self.heads, C // self.heads, H * W).transpose(-1, -2).unbind(1)
        weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
        h = weights.to(v.dtype) @ v
        return x + self.out(h.transpose(-1, -2).reshape(B, C, H, W))


class UNet(nn.Module):
    """The trunk: c_in planes to c_out planes on the same grid; H and W divisible by 2^(levels - 1).

    channels, blocks: width and residual blocks of each level, on the way down and again on the way up. Most of the work
    is best put below the top level, where a cell of the grid is cheap.
    classes: size of the label set, 0 for none. Label `classes` means "any" (what guidance and dropout use).
    c_emb: size of the embedding that the blocks are told, 0 for none.
    """

    def __init__(
        self, c_in: int, c_out: int, channels: tuple[int, ...], blocks: tuple[int, ...], classes: int, c_emb: int,
    ):  # fmt: skip
        super().__init__()
        self.classes = classes
        self.label = nn.Embedding(classes + 1, c_emb) if classes else None
        self.enter = nn.Conv2d(c_in, channels[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        levels = list(zip(channels, blocks, strict=True))
        c = channels[0]
        for level, (width, n) in enumerate(levels):
            stage = nn.ModuleList([nn.Conv2d(c, width, 3, stride=2, padding=1)] if level else [])
            stage.extend(Block(width, width, c_emb) for _ in range(n))
            self.down.append(stage)
            c = width
        self.middle = nn.ModuleList([Attention(c), Block(c, c, c_emb), Attention(c)])
        for level, (width, n) in reversed(list(enumerate(levels))):
            stage = nn.ModuleList([Block(2 * width if i == 0 else width, width, c_emb) for i in range(n)])
            if level:
                stage.append(nn.Conv2d(width, channels[level - 1], 1))
                stage.append(nn.Upsample(scale_factor=2, mode="nearest"))
            self.up.append(stage)
        self.norm = _norm(channels[0])
        self.leave = nn.Conv2d(channels[0], c_out, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def embed(self, label: Tensor | None) -> Tensor | float:
        """The labels' embedding (B, c_emb); of "any" for None, (1, c_emb) for all images; 0 without classes."""
        if self.label is None:
            return 0.0
        return self.label.weight[self.classes :] if label is None else self.label(label)

    def trunk(self, x: Tensor, emb: Tensor | None) -> Tensor:
        """(B, c_in, H, W) to (B, c_out, H, W), float32."""
        h = self.enter(x.to(self.enter.weight.dtype))
        skips = []
        for stage in self.down:
            h = _run(stage, h, emb)
            skips.append(h)
        h = _run(self.middle, h, emb)
        for stage in self.up:
            h = _run(stage, torch.cat([h, skips.pop()], 1), emb)
        return self.leave(F.silu(self.norm(h))).float()


class EvidenceUNet(UNet):
    """Evidence l (B, K, H, W) to f (B, K, H, W). It is told the class, if any, and never the time."""

    def __init__(
        self, K: int, channels: tuple[int, ...] = (32, 64, 96), blocks: tuple[int, ...] = (1, 2, 2), classes: int = 0,
    ):  # fmt: skip
        super().__init__(K, K, channels, blocks, classes, C_EMB if classes else 0)
        self.K = K

    def forward(self, evidence: Tensor, label: Tensor | None = None) -> Tensor:
        """f (B, K, H, W) in float32. label: (B,) classes, or None for "any"."""
        emb = F.silu(self.embed(label)) if self.classes else None
        x = (torch.softmax(evidence, 1) - 1 / self.K) * self.K**0.5
        return F_CAP * torch.tanh(self.trunk(x, emb) / F_CAP)


class NoiseUNet(UNet):
    """Noise prediction eps (B, 1, H, W) from x_t and the time, (B, 2, H, W) as dd.processes.pixels gives them."""

    def __init__(
        self, channels: tuple[int, ...] = (32, 64, 96), blocks: tuple[int, ...] = (1, 2, 2), classes: int = 0,
    ):  # fmt: skip
        super().__init__(1, 1, channels, blocks, classes, C_EMB)
        self.time = nn.Sequential(nn.Linear(C_EMB, C_EMB), nn.SiLU(), nn.Linear(C_EMB, C_EMB))

    def forward(self, x_and_v: Tensor, label: Tensor | None = None) -> Tensor:
        """eps (B, 1, H, W) in float32. The time is v = log((1 - abar) / abar), in the second plane."""
        v = x_and_v[:, 1, 0, 0]
        frequencies = torch.exp(torch.linspace(-4, 2, C_EMB // 2, device=v.device))
        angles = v[:, None] * frequencies
        waves = torch.cat([angles.sin(), angles.cos()], 1).to(self.enter.weight.dtype)
        emb = F.silu(self.time(waves) + self.embed(label))
        return self.trunk(x_and_v[:, :1], emb)


def _run(layers: nn.ModuleList, h: Tensor, emb: Tensor | None) -> Tensor:
    for layer in layers:
        h = layer(h, emb) if isinstance(layer, Block) else layer(h)
    return h
