"""Likelihood bounds of a network on many images: of a process, of a chain's N steps, of a flow; decade by decade."""

from math import ceil, floor, log, log10

import torch
from torch import Tensor, nn

from dd.likelihood import (
    Bound,
    cross_entropy,
    differentiable_denoiser,
    estimate_bound,
    exact_vlb,
    network_denoiser,
    ode_bound,
)
from dd.processes import Process
from dd.processes.d3pm import D3PM
from dd.processes.dirichlet import Dirichlet

ODE_IMAGES = 500  # images of the ODE's bound, which costs a derivative a step
ODE_STEPS = 100  # of its integration; with few steps the integral is wrong by hundreds of nats, and no bound at all
BATCH = 100  # images a network call; times are stratified within a batch


def stderr(values: Tensor) -> float:
    """Standard error of the mean of values (N,), one an image, whose times are stratified within batches of BATCH.

    With ten full batches or more, from the spread of batch means, which knows of the stratification.
    """
    if len(values) >= 10 * BATCH:
        values = values[: len(values) // BATCH * BATCH].view(-1, BATCH).mean(1)
    return float(values.std() / len(values) ** 0.5)


def likelihood(bound: Bound, cells: int) -> dict[str, float]:
    """The bound as nats per image and as bits per dimension (cell)."""
    nats = bound.mean
    return {"nll_nats": nats, "nll_stderr": stderr(bound.total), "bits_per_dim": nats / cells / log(2)}


def own_time(process: Process, t: Tensor | float) -> Tensor:
    """tau of the Dirichlet diffusion, noise-to-signal ratio of the Gaussian, step of a chain."""
    v = process.clock.native(t)
    return v if process.clock.whole else v.exp()


def by_decade(process: Process, network: nn.Module, bound: Bound, x0: Tensor, generator: torch.Generator) -> list:
    """The path-KL of each decade of the process' own time, beside the cross-entropy left at the decade's end.

    For the exact posterior the path-KL below any time is at most the cross-entropy -log p(x_0 | x_t) left at that time:
    denoising in many steps loses no information over doing so cell by cell in one. A larger one (by 3 standard errors:
    "leak") is an error in the numerics, or of a network that is worse below that time than at it.
    """
    tau = own_time(process, bound.t)
    first, last = own_time(process, torch.tensor([0.0, 1.0])).clamp(min=1.0 if process.clock.whole else 0.0)
    rows = []
    for decade in range(floor(log10(first)), ceil(log10(last))):
        low, high = 10.0**decade, min(10.0 ** (decade + 1), float(last))
        inside, below = (tau > low) & (tau <= high), tau <= high
        if decade == floor(log10(first)):
            inside = below
        part, path = (torch.where(mask, bound.path, 0.0).mean(1) for mask in (inside, below))
        left = cross_entropy_left(process, network, x0, _clock_time(process, high), generator)
        gap = path - left  # of each image: what makes it hard is in both
        rows.append(
            {
                "from": low, "to": high,
                "path_nats": float(part.mean()), "path_stderr": stderr(part),
                "path_below_nats": float(path.mean()), "path_below_stderr": stderr(path),
                "cross_entropy_left": float(left.mean()), "cross_entropy_stderr": stderr(left),
                "leak": float(gap.mean()) > 3 * stderr(gap),
            }
        )  # fmt: skip
    return rows


def decades_table(rows: list[dict]) -> str:
    """`by_decade` in Markdown, nats per image."""
    lines = ["| own time | path-KL in it | path-KL below its end | cross-entropy left there | leak |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        figures = (
            f"{row[value]:.3f} ± {row[error]:.3f}"
            for value, error in (
                ("path_nats", "path_stderr"),
                ("path_below_nats", "path_below_stderr"),
                ("cross_entropy_left", "cross_entropy_stderr"),
            )
        )
        span, leak = f"{row['from']:g} to {row['to']:.4g}", "yes" if row["leak"] else "no"
        lines.append(f"| {' | '.join((span, *figures, leak))} |")
    return "\n".join(lines)


def _clock_time(process: Process, tau: float) -> float:
    return float(process.clock.t(tau if process.clock.whole else log(tau)))


def cross_entropy_left(
    process: Process, network: nn.Module, x0: Tensor, t: float, generator: torch.Generator
) -> Tensor:  # fmt: skip
    """-log p(x_0 | x_t) of each image, cell by cell: (N,) nats."""
    labelled_denoise, out = network_denoiser(network), []
    for part in x0.split(BATCH):
        l = process.evidence(process.perturb(part, t, generator), t)
        logits = process.logits(labelled_denoise(l, None), l)
        out.append(cross_entropy(logits.double(), part))
    return torch.cat(out)


def continuous_bound(
    process: Process, network: nn.Module, x0: Tensor, generator: torch.Generator, repeats: int = 1
) -> Bound:
    """The continuous-time bound, without class label."""
    return estimate_bound(process, network_denoiser(network), x0, None, repeats, generator, BATCH)


def chain_bound(
    chain: D3PM, network: nn.Module, x0: Tensor, steps: int, schedule: str, generator: torch.Generator
) -> Bound:
    """L_vb of sampling the chain in that many steps of that schedule, without class label; T steps are all of them,
    whatever the schedule."""
    return exact_vlb(chain, network_denoiser(network), x0, None, steps, generator, schedule, BATCH)


def flow_bound(process: Dirichlet, network: nn.Module, x0: Tensor, generator: torch.Generator) -> Bound:
    """The bound of the Dirichlet probability-flow ODE, without class label."""
    return ode_bound(process, differentiable_denoiser(network), x0, None, ODE_STEPS, generator, batch=BATCH)
