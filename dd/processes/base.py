"""What the rest of the code sees of a noise process.

Shapes: clean categories x_0 are (B, H, W) integers; evidence l, network output f and posterior p are (B, K, H, W) with
the categories on axis 1; times t are scalars or (B,), 0 = data, 1 = noise. t is the fraction of one cell's information
that the noise has destroyed (D3PM's mutual-information schedule), so it means the same for every process on categories.
(The DDPM of dd.processes.pixels has intensities in their place, shapes of its own and the time of its paper.) States,
evidence and generators live on the CPU, whatever device the network has (dd.samplers.Denoiser).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dd.processes.clock import Clock

END_NATS = 0.01  # nats per image left at each end of a continuous process' path, at most
OFFSET = 0.008  # s of the cosine schedules: Nichol & Dhariwal (2021), section 3.2; Hoogeboom et al. (2021)


@dataclass(frozen=True)
class Option:
    """A number that `step` takes by name, and the methods it applies to."""

    default: float
    minimum: float
    maximum: float
    help: str
    methods: tuple[str, ...]


class Process(Protocol):
    """A process is pure mathematics: no network, no optimiser, nothing that a call leaves behind but tables.

    Nor may anybody change a state in place: the Dirichlet process keeps what it has looked up at a state for as long as
    somebody holds that state, since evidence and step ask for the same.

    Beyond this interface, a process with the method "heun" has `heun` (the corrected end of a step), with "langevin"
    `correct` (a step that leaves the marginal alone), with the loss "simple" `simple_loss`.
    """

    name: str
    architecture: str  # of the networks that answer its evidence
    categorical: bool  # whether states are categories or points of the simplex: a cell can be known, a temperature set
    ordered: bool  # whether noise goes to neighbouring categories, which must have an order then
    K: int
    clock: Clock
    nichol: Clock | None  # to Nichol & Dhariwal's time, where the process has alpha_bar and another time of its own
    methods: tuple[str, ...]
    flow: str | None  # the method without noise, which "heun" corrects
    options: dict[str, Option]
    mask: int | None  # the state of a cell that stands for none of the categories
    continuous: bool  # whether the reconstruction at t = 0 is a term of its own, or one of the chain's steps
    losses: tuple[str, ...]  # the kinds that dd.likelihood.training_loss offers; without "bound" there is none

    def prior(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """The state at t = 1 for shape (B, H, W)."""

    def perturb(self, x0: Tensor, t: Tensor | float, generator: torch.Generator) -> Tensor:
        """x_t ~ q(x_t | x_0), exactly."""

    def evidence(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """l_i = log p(x_t | x_0 = e_i) + const. The network and the posterior see nothing else of x_t."""

    def step(
        self, x_t: Tensor, f: Tensor, t: float, s: float, method: str, generator: torch.Generator, **options: float
    ) -> Tensor:
        """One reverse step from t to s < t, given the network's f at x_t."""

    def parts(self, t: float, s: float, method: str) -> list[float]:
        """Times from t to s; between each and the next `step` is taken with the same f (dd.samplers.moved)."""

    def times(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n stratified times and weights with E[w rate(t)] = the path part of the bound."""

    def loss(self, logits: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The bound's rate at t, nats per image: (B,)."""

    def kl_prior(self, shape: tuple[int, int]) -> float:
        """KL(q(x_1 | x_0) || prior), nats per image: an upper bound over x_0."""

    def simplex(self, x_t: Tensor) -> Tensor:
        """The state as a point of the simplex for display: (B, K, H, W)."""

    def logits(self, f: Tensor, evidence: Tensor) -> Tensor:
        """What `loss` takes: what the network's output says together with the evidence."""

    def estimate(self, f: Tensor, evidence: Tensor) -> Tensor:
        """The clean estimate as a point of the simplex: (B, K, H, W)."""

    def clean(self, p: Tensor, generator: torch.Generator) -> Tensor:
        """Categories (B, H, W) at the end of a run, from the last posterior."""


class Categorical:
    """What processes share whose clean cells are categories and whose network sees the evidence alone."""

    architecture = "evidence-unet"
    categorical = True
    ordered = False
    nichol: Clock | None = None
    flow: str | None = None
    mask: int | None = None

    def logits(self, f: Tensor, evidence: Tensor) -> Tensor:
        """log p(x_0 = e_i | x_t, context) = f + l up to a constant: Bayes' rule with the context as prior."""
        return f + evidence

    def estimate(self, f: Tensor, evidence: Tensor) -> Tensor:
        return torch.softmax(f + evidence, 1)

    def parts(self, t: float, s: float, method: str) -> list[float]:
        return [t, s]

    def clean(self, p: Tensor, generator: torch.Generator) -> Tensor:
        """Drawn from p, not its argmax: p is what the model means."""
        return draw(p.cumsum(1).movedim(1, -1), generator)


def draw(cdf: Tensor, generator: torch.Generator) -> Tensor:
    """Inverse-CDF draw along the last axis; the total need not be exactly one."""
    u = torch.rand(cdf.shape[:-1], generator=generator, dtype=cdf.dtype) * cdf[..., -1]
    return (u[..., None] >= cdf[..., :-1]).sum(-1)
