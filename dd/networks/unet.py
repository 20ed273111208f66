"""The evidence U-Net: what does the context say about every cell?

Input is softmax(evidence), the sufficient statistic of a noisy cell under any process; there is no time input. Output
is f; the posterior over clean categories is softmax(f + evidence), so that a cell's own evidence never has to pass
through the network.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

F_CAP = 15.0  # |f| stays below this
_GROUP = 16  # channels per group of a norm; narrower groups fall off the fast path of channels-last group norm


def _norm(c: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, c // _GROUP), c)


class Block(nn.Module):
    """Residual block: norm, SiLU, 3x3 convolution, twice; the class shifts and scales the second norm (FiLM)."""

    def __init__(self, c_in: int, c_out: int, c_emb: int, dropout: float):
        super().__init__()
        self.norm1 = _norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.film = nn.Linear(c_emb, 2 * c_out) if c_emb else None
        self.norm2 = _norm(c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, emb: Tensor | None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.norm2(h)
        if self.film is not None:
            scale, shift = self.film(emb)[:, :, None, None].chunk(2, 1)
            h = torch.addcmul(shift, h, 1 + scale)
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))


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


class EvidenceUNet(nn.Module):
    """U-Net from evidence l (B, K, H, W) to f (B, K, H, W); H and W divisible by 2^(levels - 1).

    channels, blocks: width and residual blocks of each level, on the way down and again on the way up. Most of the work
    is best put below the top level, where a cell of the grid is cheap.
    classes: size of the label set, 0 for none. Label `classes` means "any" (what guidance and dropout use).
    """

    def __init__(
        self,
        K: int,
        channels: tuple[int, ...] = (32, 64, 96),
        blocks: tuple[int, ...] = (1, 2, 2),
        classes: int = 0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.K, self.classes = K, classes
        c_emb = 128 if classes else 0
        self.label = nn.Embedding(classes + 1, c_emb) if classes else None
        self.enter = nn.Conv2d(K, channels[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        levels = list(zip(channels, blocks, strict=True))
        c = channels[0]
        for level, (c_out, n) in enumerate(levels):
            stage = nn.ModuleList([nn.Conv2d(c, c_out, 3, stride=2, padding=1)] if level else [])
            stage.extend(Block(c_out, c_out, c_emb, dropout) for _ in range(n))
            self.down.append(stage)
            c = c_out
        self.middle = nn.ModuleList([Attention(c), Block(c, c, c_emb, dropout), Attention(c)])
        for level, (c_out, n) in reversed(list(enumerate(levels))):
            stage = nn.ModuleList([Block(2 * c_out if i == 0 else c_out, c_out, c_emb, dropout) for i in range(n)])
            if level:
                stage.append(nn.Conv2d(c_out, channels[level - 1], 1))
                stage.append(nn.Upsample(scale_factor=2, mode="nearest"))
            self.up.append(stage)
        self.norm = _norm(channels[0])
        self.leave = nn.Conv2d(channels[0], K, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, evidence: Tensor, label: Tensor | None = None) -> Tensor:
        """f (B, K, H, W) in float32. label: (B,) classes, or None for "any"."""
        emb = None
        if self.label is not None:
            if label is None:
                label = torch.full((len(evidence),), self.classes, device=evidence.device)
            emb = F.silu(self.label(label))
        x = (torch.softmax(evidence, 1) - 1 / self.K) * self.K**0.5
        h = self.enter(x.to(self.enter.weight.dtype))
        skips = []
        for stage in self.down:
            h = _run(stage, h, emb)
            skips.append(h)
        h = _run(self.middle, h, emb)
        for stage in self.up:
            h = _run(stage, torch.cat([h, skips.pop()], 1), emb)
        f = self.leave(F.silu(self.norm(h))).float()
        return F_CAP * torch.tanh(f / F_CAP)


def _run(layers: nn.ModuleList, h: Tensor, emb: Tensor | None) -> Tensor:
    for layer in layers:
        h = layer(h, emb) if isinstance(layer, Block) else layer(h)
    return h
