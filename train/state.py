"""Run folders, resumable state, budgets and processes: what every training script shares."""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dd.checkpoints import replacing, write_text


def worker_count() -> tuple[int, int]:
    """(rank, world size) as torchrun and accelerate set them; joins the process group if there are several."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and not torch.distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return rank, world


@contextmanager
def first_alone() -> Iterator[None]:
    """The first worker of every machine goes ahead, the others follow: what it downloads is there for them."""
    several, ahead = torch.distributed.is_initialized(), os.environ.get("LOCAL_RANK", "0") == "0"
    if several and not ahead:
        torch.distributed.barrier()
    yield
    if several and ahead:
        torch.distributed.barrier()


def step_generator(seed: int, step: int, rank: int) -> torch.Generator:
    """Of every random number of a step, so that there is no generator state to save.

    The three are hashed into the 32 bits of a seed that torch's generator on the CPU takes notice of.
    """
    (mixed,) = np.random.SeedSequence((step, rank, seed)).generate_state(1)
    return torch.Generator().manual_seed(int(mixed))


def largest(value: float) -> float:
    """The largest of all workers' values, so that they agree when a run is over."""
    if not torch.distributed.is_initialized():
        return value
    x = torch.tensor(value, dtype=torch.float64)
    torch.distributed.all_reduce(x, torch.distributed.ReduceOp.MAX)
    return float(x)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """The mean over the workers of every gradient, in place; nothing to do for one worker."""
    if torch.distributed.is_initialized():
        for parameter in parameters:
            if parameter.grad is not None:
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= torch.distributed.get_world_size()


def gathered(x: Tensor) -> Tensor:
    """The rows of all workers, in the same order everywhere."""
    if not torch.distributed.is_initialized():
        return x
    parts = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, x.contiguous())
    return torch.cat(parts)


class StopFlag:
    """True once SIGTERM or SIGINT has reached any worker, so that a run can save and leave between two steps."""

    def __init__(self) -> None:
        self._raised = False

    def __enter__(self) -> "StopFlag":
        self._before = {sig: signal.signal(sig, self._raise) for sig in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for sig, handler in self._before.items():
            signal.signal(sig, handler)

    def _raise(self, *_: object) -> None:
        self._raised = True

    @property
    def raised(self) -> bool:
        """To be asked by all workers alike."""
        return largest(float(self._raised)) > 0


class Budget:
    """How far a run is, from 0 to 1: by steps (reproducible) or by minutes of its own stepping time.

    A step counts at most `longest` seconds, so that a paused process does not eat its budget.
    """

    longest = 20.0

    def __init__(self, steps: int | None, minutes: float | None):
        if (steps is None) == (minutes is None):
            raise ValueError("give either --steps or --minutes")
        self.steps, self.minutes = steps, minutes
        self.step, self.seconds = 0, 0.0
        self._last = time.monotonic()

    @property
    def progress(self) -> float:
        if self.steps is not None:
            return min(1.0, self.step / self.steps)
        return min(1.0, self.seconds / (60 * self.minutes))

    def tick(self) -> None:
        now = time.monotonic()
        self.seconds = largest(self.seconds + min(now - self._last, self.longest))
        self._last = now
        self.step += 1

    def start(self) -> None:
        self._last = time.monotonic()


class Ema:
    """Exponential moving average of parameters, with the usual warm-up (1 + n)/(10 + n)."""

    def __init__(self, network: nn.Module, decay: float):
        self.decay, self.n = decay, 0
        self.shadow = {k: v.detach().clone() for k, v in network.state_dict().items()}

    def load(self, shadow: dict[str, Tensor], n: int) -> None:
        """Go on from a stored average, on this one's device."""
        self.n = n
        for key, value in shadow.items():
            self.shadow[key].copy_(value)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.n += 1
        decay = min(self.decay, (1 + self.n) / (10 + self.n))
        ours, theirs = [], []
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                ours.append(self.shadow[key])
                theirs.append(value)
            else:
                self.shadow[key].copy_(value)
        torch._foreach_lerp_(ours, theirs, 1 - decay)


def save_state(path: Path, state: dict[str, Any]) -> bool:
    """Write a resumable state through a temporary file. A full disk is reported, and the old state stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        return True
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        print(f"warning: could not save {path} ({error}); the previous state is kept. Free some space.", flush=True)
        return False


def load_state(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"--resume: there is no {path}; start without --resume, or give the run's --out folder")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"--resume: {path} is damaged ({error}); use --init with a checkpoint instead") from error


class JsonLines:
    """Append-only metrics; that records cannot be written is reported once, and the run goes on."""

    def __init__(self, path: Path):
        self.path, self._complained = path, False
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **record: Any) -> None:
        try:
            with self.path.open("a") as file:
                file.write(json.dumps({k: _plain(v) for k, v in record.items()}) + "\n")
        except OSError as error:
            if not self._complained:
                print(f"warning: could not write {self.path} ({error}); its records are lost", flush=True)
            self._complained = True

    def truncate_after(self, step: int) -> None:
        """Drop records beyond `step`, which a resumed run writes again, and half of one that a crash left."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            with suppress(json.JSONDecodeError):
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
        write_text(self.path, "".join(kept))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def cosine_rate(peak: float, progress: float, warmup: float = 0.01) -> float:
    """Linear warm-up over the first `warmup` of the run, then a half cosine to zero."""
    if progress < warmup:
        return peak * (progress / warmup + 1e-3)
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def every(seconds: float, action: Callable[[], None]) -> Callable[[], None]:
    """A call that runs `action` at most once every `seconds`."""
    last = time.monotonic()

    def maybe() -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            action()
            last = time.monotonic()

    return maybe
