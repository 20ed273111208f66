"""Samplers: the reverse process as a generator that shows every state and asks for the network when it needs it.

`reverse` is a coroutine over (process, times): it yields queries and is sent the network's f. That one detour lets a
page step it, an evaluator exhaust it, and several lanes share one network call (`race`).
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import acos, pi

import torch
from torch import Tensor, nn

from dd.device import autocast, spread
from dd.processes import Process

EVERYWHERE = ("cosine", "early", "information", "native")  # schedules that every process has
SCHEDULES = (*EVERYWHERE, "nichol")
TWO_CALLS = ("heun", "langevin")  # second-order and corrected methods ask for the network twice a step
ONE_CALL = (0.0, 1.0)  # guidance with which one answer is all of it
CERTAIN = 1e3  # log-evidence of a known cell: finite, so that it can be added to anything
Denoise = Callable[[Tensor, Tensor], Tensor]  # f (B, K, H, W) for evidence (B, K, H, W) and times (B,)


@dataclass(frozen=True)
class Query:
    """A state x at time t whose evidence the network shall see.

    estimate: from (f, evidence) to the clean estimate p. shown: False for a method's inner points. last: the end of
    the run, where the previous f serves (the evidence there is all but certain), so that N steps cost N calls.
    """

    t: float
    x: Tensor
    evidence: Tensor
    estimate: Callable[[Tensor, Tensor], Tensor]
    shown: bool = True
    last: bool = False


@dataclass(frozen=True)
class Frame:
    """What a viewer gets after each step: the state, and the posterior p over clean categories there.

    calls: queries of the network so far; with guidance each of them is two calls. seconds: what the step took, with the
    lane's share of the network calls that it has in common with others.
    """

    step: int
    calls: int
    t: float
    x: Tensor
    p: Tensor
    seconds: float = 0.0


def time_grid(process: Process, steps: int, schedule: str = "cosine", start: float = 1.0) -> list[float]:
    """steps + 1 times from `start` to 0, by `schedule`; r goes from 0 to 1 in equal steps.

    "cosine"       t = (1 + cos(pi r)) / 2, dense at both ends
    "early"        t = cos(pi r / 2), dense where all is noise: MaskGIT's cosine (Chang et al. 2022, section 3.3)
    "information"  t = 1 - r
    "native"       even in the process' own time
    "nichol"       even in that of Nichol & Dhariwal's cosine schedule (Gaussian alone)

    From a start below 1, the steps are spread over the part of the whole way from 1 that lies below it.
    """
    if steps < 1:
        raise ValueError(f"the number of steps must be at least 1, got {steps}")
    if schedule not in schedules(process):
        raise ValueError(f"{process.name} has no schedule {schedule!r}; choose one of {', '.join(schedules(process))}")
    first, begin, last = process.clock.native(torch.tensor([1.0, start, 0.0], dtype=torch.float64))
    if schedule == "information":
        t = torch.linspace(start, 0, steps + 1, dtype=torch.float64)
    elif schedule == "cosine":
        t = (1 + torch.cos(torch.linspace(acos(2 * start - 1), pi, steps + 1, dtype=torch.float64))) / 2
    elif schedule == "early":
        t = torch.cos(torch.linspace(acos(start), pi / 2, steps + 1, dtype=torch.float64))
    elif schedule == "native":
        passed = float((begin - first) / (last - first))
        t = process.clock.t(first + (last - first) * torch.linspace(passed, 1, steps + 1, dtype=torch.float64))
    else:
        u = torch.linspace(float(process.nichol.t(begin)), 0, steps + 1, dtype=torch.float64)
        t = process.clock.t(process.nichol.native(u))
    t[0], t[-1] = start, 0.0
    return process.clock.apart(t).tolist()


def schedules(process: Process) -> tuple[str, ...]:
    """The schedules that a process has."""
    return EVERYWHERE if process.nichol is None else SCHEDULES


def default_schedule(method: str, usual: str = "cosine") -> str:
    """Steps go where information is, by a schedule that may be chosen for a checkpoint (dd.checkpoints.schedule); the
    second-order ODE wants its own clock."""
    return "native" if method == "heun" else usual


def calls_per_step(method: str, guidance: float = 1.0) -> int:
    """Network calls of one reverse step; guidance doubles every call, but for w = 0 and 1."""
    return (2 if method in TWO_CALLS else 1) * (1 if guidance in ONE_CALL else 2)


def steps_for(calls: int, method: str, guidance: float = 1.0) -> int:
    """As many steps as that many network calls pay for, at least one."""
    return max(1, calls // calls_per_step(method, guidance))


def reverse(
    process: Process, x: Tensor, times: list[float], method: str, generator: torch.Generator, **options: float
) -> Generator[Query, Tensor, None]:
    """Run the process backwards along `times` from x. Yields a query for each point, is sent f, ends at times[-1]."""
    if method not in process.methods:
        raise ValueError(f"{process.name} has no sampler {method!r}; choose one of {', '.join(process.methods)}")
    see = process.estimate
    for t, s in pairwise(times):
        f = yield Query(t, x, process.evidence(x, t), see)
        if method == "heun":
            guess = moved(process, x, f, t, s, process.flow, generator, **options)
            f_s = yield Query(s, guess, process.evidence(guess, s), see, shown=False)
            x = corrected(process, x, f, f_s, t, s, generator)
        elif method == "langevin":
            x = moved(process, x, f, t, s, process.methods[0], generator, **options)
            f = yield Query(s, x, process.evidence(x, s), see, shown=False)
            x = process.correct(x, f, t, s, generator)
        else:
            x = moved(process, x, f, t, s, method, generator, **options)
    yield Query(times[-1], x, process.evidence(x, times[-1]), see, last=True)


def moved(
    process: Process,
    x: Tensor,
    f: Tensor,
    t: float,
    s: float,
    method: str,
    generator: torch.Generator,
    **options: float,
) -> Tensor:
    """From x_t to x_s with the network's f held, in parts.

    Of a cell's posterior softmax(f + l) the network is asked for f alone, what the other cells say. The cell's own
    evidence l is exact and cheap, and it is what changes fastest: every part takes it anew.
    """
    for a, b in pairwise(process.parts(t, s, method)):
        x = process.step(x, f, a, b, method, generator, **options)
    return x


def corrected(
    process: Process, x: Tensor, f_t: Tensor, f_s: Tensor, t: float, s: float, generator: torch.Generator
) -> Tensor:
    """From x_t to x_s along the probability flow by Heun's rule in every part, f going evenly from f_t to f_s."""
    times, f_a = process.parts(t, s, "heun"), f_t
    for i, (a, b) in enumerate(pairwise(times), 1):
        f_b = torch.lerp(f_t, f_s, i / (len(times) - 1))
        guess = process.step(x, f_a, a, b, process.flow, generator)
        x, f_a = process.heun(x, f_a, guess, f_b, a, b), f_b
    return x


class Denoiser:
    """The network as a function of evidence: class label, guidance, temperature and known cells are set here.

    label: (B,) classes or None for "any"; evidence of n B images gets the labels n times over (lanes of a race).
    guidance w: f = f_any + w (f_label - f_any); w = 1 is the plain conditional model and w = 0 the
    unconditional one: they cost one call.
    temperature T, tilt k: f / T(t) in the place of f, T(t) = T + k (t - 1/2). softmax(f) is what the network believes
    of a cell from all the others, and becomes softmax(f)^(1/T(t)), normalised; the cell's own evidence is exact and
    stays as it is. Early, near t = 1, composition is decided, late the details.
    known: (B, H, W) categories, -1 where a cell is not known. Known cells are certain at every time (inpainting).
    """

    def __init__(
        self,
        network: nn.Module,
        label: Tensor | None = None,
        guidance: float = 1.0,
        known: Tensor | None = None,
        temperature: float = 1.0,
        tilt: float = 0.0,
    ):
        self.network, self.label, self.guidance, self.known = network, label, guidance, known
        self.temperature, self.tilt = temperature, tilt
        self.device = next(network.parameters()).device

    @torch.inference_mode()
    def __call__(self, evidence: Tensor, t: Tensor | None = None) -> Tensor:
        """f for evidence (B, K, H, W); float32, on the evidence's device. t: its times (B,), which a tilt needs."""
        l = evidence
        if self.known is not None:
            known = self.known.repeat(len(l) // len(self.known), 1, 1)[:, None]
            certain = torch.zeros_like(l).scatter_(1, known.clamp(min=0), CERTAIN)
            l = torch.where(known >= 0, certain, l)
        f = self._guided(l.to(self.device)).float().to(evidence.device)
        if self.tilt:
            if t is None:
                raise ValueError("a tilted temperature depends on t: give the times of the evidence")
            f = f / (self.temperature + self.tilt * (t.to(f) - 0.5)).view(-1, 1, 1, 1)
        else:
            f = f / self.temperature
        return f if self.known is None else torch.where(known >= 0, certain, f)

    def _guided(self, l: Tensor) -> Tensor:
        if not self.network.classes:
            return self._ask(l)
        anyone = torch.full((len(l),), self.network.classes, device=self.device)
        if self.label is None or self.guidance == 0.0:
            return self._ask(l, anyone)
        label = self.label.to(self.device).repeat(len(l) // len(self.label))
        if self.guidance == 1.0:
            return self._ask(l, label)
        f, f_any = self._ask(torch.cat([l, l]), torch.cat([label, anyone])).chunk(2)
        return f_any + self.guidance * (f - f_any)

    def _ask(self, *inputs: Tensor) -> Tensor:
        return spread(self._call, *inputs)

    @torch.inference_mode()
    def _call(self, *inputs: Tensor) -> Tensor:
        with autocast(self.device):
            return self.network(*inputs)


def frames(run: Generator[Query, Tensor, None], denoise: Denoise) -> Iterator[Frame]:
    """Drive one sampler: a frame per reverse step, the first one before any step."""
    return (lane[0] for lane in race([run], denoise))


def race(runs: list[Generator[Query, Tensor, None]], denoise: Denoise | list[Denoise]) -> Iterator[list[Frame]]:
    """Drive several samplers in lockstep: all evidence for the same network goes through it as one batch.

    denoise: the network of all lanes, or a list with one for each. Methods that call the network twice a step share
    their second call; a lane that has ended keeps its last frame.
    """
    n = len(runs)
    denoisers = denoise if isinstance(denoise, list) else [denoise] * n
    queries: list[Query | None] = [next(run) for run in runs]
    f, calls, latest, spent = [None] * n, [0] * n, [None] * n, [0.0] * n

    def ask(lanes: list[int]) -> None:
        for network in {id(denoisers[i]): denoisers[i] for i in lanes}.values():
            together = [i for i in lanes if denoisers[i] is network]
            start = time.perf_counter()
            t = torch.cat([torch.full((len(queries[i].x),), queries[i].t) for i in together])
            answers = network(torch.cat([queries[i].evidence for i in together]), t)
            seconds = time.perf_counter() - start
            for i, f_i in zip(together, answers.split([len(queries[i].x) for i in together]), strict=True):
                f[i] = f_i
                calls[i] += 1
                spent[i] += seconds * len(f_i) / len(answers)

    def advance(lanes: list[int]) -> None:
        for i in lanes:
            start = time.perf_counter()
            try:
                queries[i] = runs[i].send(f[i])
            except StopIteration:
                queries[i], latest[i] = None, replace(latest[i], seconds=0.0)
            spent[i] += time.perf_counter() - start

    step = 0
    while live := [i for i in range(n) if queries[i] is not None]:
        if asking := [i for i in live if not queries[i].last]:
            ask(asking)
        for i in live:
            q = queries[i]
            latest[i] = Frame(step, calls[i], q.t, q.x, q.estimate(f[i], q.evidence), spent[i])
        yield list(latest)
        spent = [0.0] * n
        step += 1
        advance(live)
        if inner := [i for i in live if queries[i] is not None and not queries[i].shown]:
            ask(inner)
            advance(inner)


def generate(
    process: Process,
    denoise: Denoise,
    shape: tuple[int, int, int],
    steps: int,
    generator: torch.Generator,
    method: str | None = None,
    schedule: str | None = None,
    **options: float,
) -> Tensor:
    """Clean categories (B, H, W), by `steps` reverse steps of `method` (the process' first by default) on a schedule
    (the method's own by default).

    denoise(evidence, times): the network's f, with the labels of this run built in (`Denoiser`); a bound's
    labelled_denoise(evidence, label) is told them with every batch (dd.likelihood.LabelledDenoise).
    """
    method = method or process.methods[0]
    times = time_grid(process, steps, schedule or default_schedule(method))
    x = process.prior(shape, generator)
    run = reverse(process, x, times, method, generator, **options)
    (last,) = deque(frames(run, denoise), maxlen=1)  # the others are let go: a frame is four tensors like x
    return process.clean(last.p, generator)
