"""Muon for the convolutions inside the trunk, AdamW for everything else.

Muon (Jordan et al. 2024; torch.optim.Muon) steps along the momentum of a matrix with all its singular values made
equal. A convolution counts as the matrix (c_out, k k c_in). Its step is scaled to the root mean square of AdamW's (Liu
et al. 2025), so that one rate serves both. What it gains over AdamW is in docs/decisions.md.
"""

from typing import Any

import torch
from torch import Tensor, nn

ENDS = ("enter.", "leave.")  # the trunk's first and last layer, whose planes are categories


class MuonAdamW:
    """One optimiser to those who use it: `set_rate`, `zero_grad`, `step`, `state_dict`, `load_state_dict`."""

    def __init__(self, network: nn.Module, rate: float, weight_decay: float):
        self._kernels, others = [], []
        for name, parameter in network.named_parameters():
            inside = parameter.ndim == 4 and not name.startswith(ENDS)
            (self._kernels if inside else others).append(parameter)
        if not all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in self._kernels):
            raise ValueError(
                "the network must be in channels-last order: network.to(memory_format=torch.channels_last)"
            )
        self._matrices = [nn.Parameter(matrix(kernel.detach())) for kernel in self._kernels]
        self._muon = torch.optim.Muon(
            self._matrices, lr=rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self._adamw = torch.optim.AdamW(others, lr=rate, weight_decay=weight_decay, fused=True)

    def set_rate(self, rate: float) -> None:
        for group in (*self._muon.param_groups, *self._adamw.param_groups):
            group["lr"] = rate

    def zero_grad(self) -> None:
        self._adamw.zero_grad()
        for kernel in self._kernels:
            kernel.grad = None

    def step(self) -> None:
        for view, kernel in zip(self._matrices, self._kernels, strict=True):
            view.grad = None if kernel.grad is None else matrix(kernel.grad)
        self._muon.step()
        self._adamw.step()

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "muon" not in state:
            raise ValueError(
                "--resume: the state was made with another optimiser; use --init with the run's checkpoint"
            )
        self._muon.load_state_dict(state["muon"])
        self._adamw.load_state_dict(state["adamw"])


def matrix(kernel: Tensor) -> Tensor:
    """(c_out, c_in, k, k) as (c_out, k k c_in), in channels-last order of memory: of such a kernel it is a view."""
    return kernel.permute(0, 2, 3, 1).flatten(1)
