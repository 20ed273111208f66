"""Likelihood bounds, in nats per image."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dd.processes import Process
from dd.samplers import Denoiser


@dataclass(frozen=True)
class Bound:
    """Upper bound on -log p(x_0). t: (N, R) times drawn; path: (N, R) weighted rates; ends: both end terms together."""

    t: Tensor
    path: Tensor
    ends: float

    @property
    def total(self) -> Tensor:
        """The bound of each image: (N,)."""
        return self.path.mean(1) + self.ends

    @property
    def mean(self) -> float:
        return float(self.total.mean())

    @property
    def stderr(self) -> float:
        """Standard error of the mean over images; times are stratified, so this errs on the large side."""
        return float(self.total.std() / len(self.total) ** 0.5)


def estimate_bound(
    process: Process,
    denoise: Callable[[Tensor, Tensor | None], Tensor],
    x0: Tensor,
    label: Tensor | None,
    repeats: int,
    generator: torch.Generator,
    batch: int = 100,
) -> Bound:
    """Monte-Carlo estimate of the bound for clean images x0 (N, H, W), `repeats` times per image.

    denoise(evidence, label): the network's f, for example `network_denoiser(network)`.
    """
    t_all, path = [], []
    for start in range(0, len(x0), batch):
        part = x0[start : start + batch]
        part_label = None if label is None else label[start : start + batch]
        t_rows, rows = [], []
        for _ in range(repeats):
            t, weight = process.times(len(part), generator)
            x_t = process.perturb(part, t, generator)
            l = process.evidence(x_t, t)
            rate = process.loss(denoise(l, part_label) + l, part, x_t, t)
            t_rows.append(t)
            rows.append(weight * rate.double())
        t_all.append(torch.stack(t_rows, 1))
        path.append(torch.stack(rows, 1))
    return Bound(torch.cat(t_all), torch.cat(path), process.ends(tuple(x0.shape[1:])))


def network_denoiser(network: nn.Module) -> Callable[[Tensor, Tensor | None], Tensor]:
    """(evidence, label) -> f for a trained network."""
    return lambda evidence, label: Denoiser(network, label)(evidence)
