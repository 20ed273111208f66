"""A small residual CNN that judges samples: class accuracy, and features for the Frechet distance.

It sees categories as the samples have them, as grey x / (K - 1); nothing between the levels ever enters.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """relu(x + conv-norm-relu-conv-norm(x)), 3x3 convolutions, batch norm (He et al. 2016)."""

    def __init__(self, c: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(c)
        self.conv2 = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(h)))


class Classifier(nn.Module):
    """Categories (B, H, W) in 0..K-1 to class logits (B, classes).

    channels: width of each level; every level but the first halves the grid, then follows one residual block. The
    feature layer is the last level's mean over the grid, behind a ReLU: (B, channels[-1]).
    """

    def __init__(self, K: int, classes: int = 10, channels: tuple[int, ...] = (16, 48, 128)):
        super().__init__()
        self.K, self.classes = K, classes
        levels, c = [], 1
        for level, c_out in enumerate(channels):
            levels += [
                nn.Conv2d(c, c_out, 3, stride=2 if level else 1, padding=1, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(),
            ]
            if level:
                levels.append(Residual(c_out))
            c = c_out
        self.levels = nn.Sequential(*levels)
        self.leave = nn.Linear(c, classes)

    def features(self, x: Tensor) -> Tensor:
        """The feature layer: (B, channels[-1]), non-negative float32."""
        grey = 2 * x[:, None].float() / (self.K - 1) - 1
        return self.levels(grey.contiguous(memory_format=torch.channels_last)).float().mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.features(x)).float()
