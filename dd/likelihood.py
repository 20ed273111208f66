"""Losses, likelihood bounds and the ODE's likelihood, in nats per image."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from dd.processes import Process
from dd.processes.d3pm import D3PM
from dd.processes.dirichlet import Dirichlet, replicator
from dd.samplers import Denoiser, time_grid

LabelledDenoise = Callable[[Tensor, Tensor | None], Tensor]  # f (B, K, H, W) for evidence (B, K, H, W) and label (B,)


# -- losses ----------------------------------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, x0: Tensor) -> Tensor:
    """-sum over cells of log p(x0 | x_t), logits (B, K, H, W), x0 (B, H, W): nats per image, (B,)."""
    return nn.functional.cross_entropy(logits, x0, reduction="none").flatten(1).sum(1)


def training_loss(
    process: Process, kind: str, logits: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, weight: Tensor, lam: float = 1.0
) -> Tensor:
    """What to minimise at the times (t, weight) = process.times(...): (B,).

    "bound"          weight x rate: the path part of the likelihood bound (path-KL, L_vb, continuous VLB)
    "cross-entropy"  -log p(x0 | x_t), the same at every t
    "hybrid"         L_vb + lam CE (Austin et al. 2021, eq. 5), L_vb the sum over all steps. Their program adds
                     0.001 CE to one of T = 1,000 terms drawn at random, which is lam = 0.001 T = 1
    "simple"         the unweighted score or noise regression: 1/2 ||Delta u||^2 per unit of tau (Dirichlet),
                     L_simple (Gaussian), every drawn time counting the same
    """
    if kind not in process.losses:
        raise ValueError(f"{process.name} has no loss {kind!r}; choose one of {', '.join(process.losses)}")
    if kind == "cross-entropy":
        return cross_entropy(logits, x0)
    if kind == "simple":
        return process.simple_loss(logits, x0, x_t, t)
    bound = weight.to(logits) * process.loss(logits, x0, x_t, t)
    return bound if kind == "bound" else bound + lam * cross_entropy(logits, x0)


# -- bounds ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """Upper bound on -log p(x_0) of N images.

    t: (N, R) times drawn; path: (N, R) weighted rates, whose mean over R is the path part;
    kl_prior: KL(q(x_1 | x_0) || prior); reconstruction: (N,) -log p(x_0 | x_t) at t = 0, zero for chains, whose first
    step it is.
    """

    t: Tensor
    path: Tensor
    kl_prior: float
    reconstruction: Tensor | float = 0.0

    @property
    def total(self) -> Tensor:
        """The bound of each image: (N,)."""
        return self.path.mean(1) + self.kl_prior + self.reconstruction

    @property
    def mean(self) -> float:
        return float(self.total.mean())

    @property
    def stderr(self) -> float:
        """Standard error of the mean over images; times are stratified, so this errs on the large side."""
        return float(self.total.std() / len(self.total) ** 0.5)


def estimate_bound(
    process: Process,
    labelled_denoise: LabelledDenoise,
    x0: Tensor,
    label: Tensor | None,
    repeats: int,
    generator: torch.Generator,
    batch: int = 100,
) -> Bound:
    """Monte-Carlo estimate of the bound for clean images x0 (N, H, W), `repeats` times per image.

    labelled_denoise(evidence, label): the network's f, for example `network_denoiser(network)`; batches bring labels of
    their own, where a sampler's denoise(evidence, times) has those of its run built in (dd.samplers.Denoise). A
    continuous process asks once more per image, at t = 0, for the reconstruction term.
    """
    *_, bound = growing_bound(process, labelled_denoise, x0, label, repeats, generator, batch)
    return bound


def growing_bound(
    process: Process,
    labelled_denoise: LabelledDenoise,
    x0: Tensor,
    label: Tensor | None,
    repeats: int,
    generator: torch.Generator,
    batch: int,
) -> Iterator[Bound]:
    """`estimate_bound` batch by batch: after each of them, the bound of the images so far."""
    t_all, path, reconstruction = [], [], []
    kl_prior = process.kl_prior(tuple(x0.shape[1:]))
    for part, part_label in _batches(x0, label, batch):
        t_rows, rows = [], []
        for _ in range(repeats):
            t, weight = process.times(len(part), generator)
            x_t = process.perturb(part, t, generator)
            l = process.evidence(x_t, t)
            rate = process.loss(process.logits(labelled_denoise(l, part_label), l), part, x_t, t)
            t_rows.append(t)
            rows.append(weight * rate.double())
        t_all.append(torch.stack(t_rows, 1))
        path.append(torch.stack(rows, 1))
        if process.continuous:
            l = process.evidence(process.perturb(part, 0.0, generator), 0.0)
            logits = process.logits(labelled_denoise(l, part_label), l)
            reconstruction.append(cross_entropy(logits, part).double())
        extra = torch.cat(reconstruction) if reconstruction else 0.0
        yield Bound(torch.cat(t_all), torch.cat(path), kl_prior, extra)


def exact_vlb(
    process: D3PM,
    labelled_denoise: LabelledDenoise,
    x0: Tensor,
    label: Tensor | None,
    steps: int,
    generator: torch.Generator,
    schedule: str = "cosine",
    batch: int = 100,
) -> Bound:
    """L_vb of the chain that samples in `steps` network calls: every term, one draw of x_n and one call each.

    L_vb = KL(q(x_T | x_0) || prior) + sum_n E KL(q(x_s | x_n, x_0) || p(x_s | x_n)) over neighbours s < n of the
    sampler's schedule, the last of them, s = 0, being -log p(x_0 | x_n) (Austin et al. 2021, eq. 1).
    """
    visited = [int(process.index(t)) for t in time_grid(process, steps, schedule)]
    moves = [(n, s) for n, s in pairwise(visited) if n > s]
    path = []
    for part, part_label in _batches(x0, label, batch):
        terms = []
        for n, s in moves:
            t = process.clock.t(torch.tensor([float(n)]))
            x_n = process.perturb(part, t, generator)
            l = process.evidence(x_n, t)
            logits = process.logits(labelled_denoise(l, part_label), l)
            terms.append(process.kl_between(logits, part, x_n, torch.tensor([n]), torch.tensor([s])).double())
        path.append(torch.stack(terms, 1) * len(moves))
    t = process.clock.t(torch.tensor([float(n) for n, _ in moves])).expand(len(x0), -1)
    return Bound(t, torch.cat(path), process.kl_prior(tuple(x0.shape[1:])))


def ode_bound(
    process: Dirichlet,
    labelled_denoise: LabelledDenoise,
    x0: Tensor,
    label: Tensor | None,
    steps: int,
    generator: torch.Generator,
    probes: int = 1,
    batch: int = 100,
) -> Bound:
    """The likelihood of the probability-flow ODE, as a bound on -log p(x_0):

        E_q[ log q(x_min | x_0) - log p_ODE(x_min) - log p(x_0 | x_min) ],     x_min ~ q at tau_min,

    with densities in K - 1 coordinates. Along dx/dtau = v(x) = -1/2 x (u - <x, u>) from tau_min to tau_max

        log p_ODE(x_min) = log pi(x_max) + int div v dtau,

    by Heun's method on `steps` equal steps of log tau. div v is the trace of J = dv/dx on the simplex's tangent space,
    E <eps, J eps> over zero-sum probes eps (Hutchinson) of length sqrt(K - 1) in every cell: a cell's own part of the
    trace is exact then for K = 2. `labelled_denoise` must be differentiable.
    """
    log_tau, h = np.linspace(np.log(process.tau_min), np.log(process.tau_max), steps + 1, retstep=True)
    t_grid = [0.0, *process.clock.t(torch.from_numpy(log_tau[1:-1])).tolist(), 1.0]
    totals = []
    for part, part_label in _batches(x0, label, batch):
        x = process.perturb(part, 0.0, generator).double()
        l = process.evidence(x, 0.0)
        with torch.no_grad():
            logits = process.logits(labelled_denoise(l.float(), part_label), l)
            reconstruction = cross_entropy(logits.double(), part)
        log_q = l.gather(1, part[:, None]).flatten(1).sum(1) + log_stationary(process, x)
        log_p = torch.zeros(len(part), dtype=torch.float64)
        u, div = _flow(process, labelled_denoise, part_label, x, t_grid[0], probes, generator)
        for s in t_grid[1:]:
            guess = replicator(x, -u / 2, h)
            u_guess, _ = _flow(process, labelled_denoise, part_label, guess, s, 0, generator)
            x = replicator(x, -(u + u_guess) / 4, h)
            div_before = div
            u, div = _flow(process, labelled_denoise, part_label, x, s, probes, generator)
            log_p = log_p + h * (div_before + div) / 2
        log_p = log_p + log_stationary(process, x)
        totals.append(log_q - log_p + reconstruction)
    total = torch.cat(totals)
    return Bound(torch.zeros(len(total), 1), total[:, None], 0.0)


def log_stationary(process: Dirichlet, x: Tensor) -> Tensor:
    """log pi(x) summed over cells, the Dirichlet(alpha) density in K - 1 coordinates: (B,)."""
    alpha = process.alpha.view(1, -1, *(1,) * (x.ndim - 2))
    log_norm = torch.lgamma(process.alpha).sum() - torch.lgamma(process.alpha.sum())
    return (torch.xlogy(alpha - 1, x).sum(1) - log_norm).flatten(1).sum(1)


def _flow(
    process: Dirichlet, labelled_denoise: LabelledDenoise, label: Tensor | None,
    x: Tensor, t: float, probes: int, g: torch.Generator,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """tau u and Hutchinson's estimate of tau div v, both per unit of log tau: (B, K, ...), (B,)."""
    tau = float(process.tau(t))
    with torch.enable_grad():
        x = x.detach().requires_grad_(probes > 0)
        u = tau * process.fitness(x, labelled_denoise(process.evidence(x, t).float(), label), t)
        v = -x * (u - (x * u).sum(1, keepdim=True)) / 2
        div = torch.zeros(len(x), dtype=torch.float64)
        for _ in range(probes):
            eps = torch.randn(x.shape, generator=g, dtype=x.dtype)
            eps = eps - eps.mean(1, keepdim=True)
            eps = eps * ((process.K - 1) ** 0.5 / torch.linalg.vector_norm(eps, dim=1, keepdim=True))
            (eps_J,) = torch.autograd.grad((v * eps).sum(), x, retain_graph=True)
            div = div + (eps_J * eps).flatten(1).sum(1) / probes
    return u.detach(), div


def _batches(x0: Tensor, label: Tensor | None, batch: int) -> list[tuple[Tensor, Tensor | None]]:
    labels = [None] * -(-len(x0) // batch) if label is None else label.split(batch)
    return list(zip(x0.split(batch), labels, strict=True))


def network_denoiser(network: nn.Module) -> LabelledDenoise:
    """(evidence, label) -> f for a trained network."""
    return lambda evidence, label: Denoiser(network, label)(evidence)


def differentiable_denoiser(network: nn.Module) -> LabelledDenoise:
    """The same with gradients, in full precision, for `ode_bound`."""
    device = next(network.parameters()).device

    def denoise(evidence: Tensor, label: Tensor | None) -> Tensor:
        f = network(evidence.to(device), None if label is None else label.to(device))
        return f.to(evidence.device)

    return denoise
