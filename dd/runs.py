"""A run: one recipe (what to generate and how), one or more lanes in lockstep, every step kept for scrubbing.

The page, the command line and the API all drive the same object, so that a recipe gives the same picture everywhere.
"""

import dataclasses
import json
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dd import checkpoints
from dd.checkpoints import Checkpoint
from dd.device import for_inference
from dd.processes import REGISTRY, process
from dd.processes.clock import entropy
from dd.samplers import TWO_CALLS, Denoiser, Frame, default_grid, draw_clean, race, reverse, time_grid

MAX_STEPS, MAX_IMAGES, MAX_LANES = 500, 64, 4
MAX_WORK = 40_000  # steps x images x lanes of one run
MAX_GUIDANCE = 10.0
MASK = 255  # grey code of a masked cell in a picture; greys are 0..254


class RecipeError(ValueError):
    """A recipe that cannot be run; the message says what was wrong and what to do."""


@dataclass(frozen=True)
class Lane:
    """A process, its sampler, and options of its reverse step such as stretch or eta."""

    process: str = "dirichlet"
    method: str = "dirichlet"
    options: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """Everything a picture depends on. label: a class index, "any" (no class given) or "each" (0, 1, 2, ... in turn).

    equal_calls: methods that call the network twice a step take half the steps, so that lanes cost the same.
    sha256: of the weights that made the picture, filled in when a run is saved.
    """

    checkpoint: str = "digits"
    lanes: tuple[Lane, ...] = (Lane(),)
    steps: int = 64
    images: int = 16
    label: int | str = "each"
    guidance: float = 1.0
    seed: int = 0
    equal_calls: bool = False
    sha256: str = ""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> "Recipe":
        try:
            raw = json.loads(text)
            lanes = tuple(Lane(**lane) for lane in raw.pop("lanes"))
            return Recipe(lanes=lanes, **raw)
        except (json.JSONDecodeError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise RecipeError(f"this is not a recipe saved here ({error}); choose the .json file of a run") from error


def whole(value: object, name: str, low: int, high: int) -> int:
    """`value` as a whole number in [low, high], or a sentence saying what is wrong."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RecipeError(f"{name} must be a whole number from {low} to {high}, not {str(value)[:40]!r}") from error
    if not math.isfinite(number) or number != int(number) or not low <= number <= high:
        raise RecipeError(f"{name} must be a whole number from {low} to {high}, not {str(value)[:40]}")
    return int(number)


def real(value: object, name: str, low: float, high: float) -> float:
    """`value` as a finite number in [low, high], or a sentence saying what is wrong."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RecipeError(f"{name} must be a number from {low:g} to {high:g}, not {str(value)[:40]!r}") from error
    if not math.isfinite(number) or not low <= number <= high:
        raise RecipeError(f"{name} must be a number from {low:g} to {high:g}, not {str(value)[:40]}")
    return number


def check(recipe: Recipe, classes: int, K: int, cells: int) -> Recipe:
    """The recipe with every field validated and converted; raises RecipeError."""
    steps = whole(recipe.steps, "The number of steps", 1, MAX_STEPS)
    images = whole(recipe.images, "The number of images", 1, MAX_IMAGES)
    seed = whole(recipe.seed, "The seed", 0, 2**31 - 1)
    guidance = real(recipe.guidance, "Guidance", 0.0, MAX_GUIDANCE)
    label = recipe.label
    if not classes:
        label = "any"
    elif label not in ("any", "each"):
        label = whole(label, "The class", 0, classes - 1)
    if not 1 <= len(recipe.lanes) <= MAX_LANES:
        raise RecipeError(f"choose one to {MAX_LANES} lanes, not {len(recipe.lanes)}")
    if steps * images * len(recipe.lanes) > MAX_WORK:
        raise RecipeError(
            f"{steps} steps x {images} images x {len(recipe.lanes)} lanes is more than one run may take "
            f"({MAX_WORK:,} in all); lower one of them"
        )
    lanes = tuple(_check_lane(lane, K, cells) for lane in recipe.lanes)
    return dataclasses.replace(
        recipe, steps=steps, images=images, seed=seed, guidance=guidance, label=label, lanes=lanes
    )  # fmt: skip


def _check_lane(lane: Lane, K: int, cells: int) -> Lane:
    if lane.process not in REGISTRY:
        raise RecipeError(f"there is no process {str(lane.process)[:40]!r}; choose one of {', '.join(REGISTRY)}")
    process_ = process(lane.process, K, cells)
    if lane.method not in process_.methods:
        raise RecipeError(
            f"{lane.process} has no sampler {str(lane.method)[:40]!r}; choose one of {', '.join(process_.methods)}"
        )
    options = {}
    for name, value in (lane.options or {}).items():
        if name not in process_.options:
            raise RecipeError(f"{lane.process} has no option {str(name)[:40]!r}")
        option = process_.options[name]
        options[name] = real(value, name.capitalize(), option.minimum, option.maximum)
    return Lane(lane.process, lane.method, options)


class Models:
    """The denoisers in a folder of checkpoints, loaded when first used."""

    def __init__(self, root: str | Path, device: str = "cpu"):
        self.root, self.device = Path(root), device
        self._load = lru_cache(maxsize=8)(self._load_once)

    def names(self) -> list[str]:
        """Checkpoints whose configuration describes a denoiser, `digits` first."""
        found = []
        for folder in sorted(self.root.glob("*/config.json")):
            try:
                config = checkpoints.read_config(folder.parent)
            except checkpoints.CheckpointError:
                continue
            if config.get("architecture") == "evidence-unet":
                found.append(folder.parent.name)
        return sorted(found, key=lambda name: (name != "digits", name))

    def get(self, name: str) -> Checkpoint:
        if name not in self.names():
            known = ", ".join(self.names()) or f"none: {self.root} is empty, see README"
            raise RecipeError(f"there is no model {str(name)[:60]!r} here; available: {known}")
        return self._load(name)

    def _load_once(self, name: str) -> Checkpoint:
        checkpoint = checkpoints.load(self.root / name, self.device)
        for_inference(checkpoint.network)
        return checkpoint


@dataclass(frozen=True)
class View:
    """One step of one lane, ready to be shown. state, guess: (B, H, W) uint8 greys 0..254, MASK = masked."""

    step: int
    calls: int
    t: float
    entropy: float
    state: np.ndarray
    guess: np.ndarray


class Run:
    """A recipe being run. `advance` makes exactly one reverse step of every lane; `views` keeps all of them."""

    keep_simplex = 16_000_000  # bytes of trajectory kept for looking at single cells

    def __init__(self, recipe: Recipe, models: Models):
        checkpoint = models.get(recipe.checkpoint)
        self.config = checkpoint.config
        self.K, (self.H, self.W) = self.config["data"]["K"], self.config["data"].get("grid", (28, 28))
        classes = self.config["network"]["classes"]
        recipe = check(recipe, classes, self.K, self.H * self.W)
        if recipe.sha256 and recipe.sha256 != checkpoint.sha256:
            raise RecipeError(
                f"this recipe was made with other weights of {recipe.checkpoint} ({recipe.sha256[:12]}, here are "
                f"{checkpoint.sha256[:12]}): the picture would differ. Remove its sha256 to run it anyway"
            )
        self.recipe = dataclasses.replace(recipe, sha256=checkpoint.sha256)
        self.labels = self._labels(classes)
        self.processes = [process(lane.process, self.K, self.H * self.W) for lane in recipe.lanes]
        self.generators = [torch.Generator().manual_seed(recipe.seed) for _ in recipe.lanes]
        self._denoise = Denoiser(checkpoint.network, self.labels, recipe.guidance)
        self._frames = self._start()
        self._lock = threading.Lock()
        self.views: list[list[View]] = []
        self.trajectory: list[list[tuple[Tensor, Tensor]]] = []
        self.milliseconds: list[float] = []
        self.finished = False
        self.cells: list[Tensor] | None = None

    def _labels(self, classes: int) -> Tensor | None:
        n, label = self.recipe.images, self.recipe.label
        if label == "any":
            return None
        return torch.arange(n) % classes if label == "each" else torch.full((n,), label)

    def _start(self) -> Iterator[list[Frame]]:
        runs = []
        lanes = zip(self.recipe.lanes, self.processes, self.generators, self._steps(), strict=True)
        for lane, process_, generator, steps in lanes:
            times = time_grid(process_, steps, default_grid(lane.method))
            x = process_.prior((self.recipe.images, self.H, self.W), generator)
            runs.append(reverse(process_, x, times, lane.method, generator, **lane.options))
        return race(runs, self._denoise)

    def _steps(self) -> list[int]:
        """Reverse steps of every lane: half as many for methods of two calls where calls are to be equal."""
        halved = [self.recipe.equal_calls and lane.method in TWO_CALLS for lane in self.recipe.lanes]
        return [max(1, self.recipe.steps // 2) if half else self.recipe.steps for half in halved]

    @property
    def total(self) -> int:
        """Number of views of a finished run: the start and one after every step of the longest lane."""
        return max(self._steps()) + 1

    def advance(self) -> list[View] | None:
        """One reverse step of every lane, or None at the end. Safe to call from several threads, one at a time."""
        with self._lock:
            if self.finished:
                return None
            start = time.perf_counter()
            frames = next(self._frames)
            views = [self._view(frame, process_) for frame, process_ in zip(frames, self.processes, strict=True)]
            if all(frame.t <= 0 for frame in frames):
                self._finish(frames)
                views = [dataclasses.replace(v, guess=self._grey(c)) for v, c in zip(views, self.cells, strict=True)]
            self.views.append(views)
            self._remember(frames)
            self.milliseconds.append(1000 * (time.perf_counter() - start))
            return views

    def _finish(self, frames: list[Frame]) -> None:
        self.cells = [draw_clean(frame.p, g) for frame, g in zip(frames, self.generators, strict=True)]
        self.finished = True

    def _remember(self, frames: list[Frame]) -> None:
        size = sum(4 * f.p.numel() for f in frames) * self.total
        if size <= self.keep_simplex:
            pairs = zip(frames, self.processes, strict=True)
            self.trajectory.append([(process_.simplex(f.x).half(), f.p.half()) for f, process_ in pairs])

    def _view(self, frame: Frame, process_) -> View:
        state = self._grey(process_.simplex(frame.x))
        if process_.name == "d3pm-absorbing":
            state[(frame.x == self.K).numpy()] = MASK
        bits = float(entropy(frame.p.clamp(min=1e-12).log()).mean()) / math.log(2)
        return View(frame.step, frame.calls, frame.t, bits, state, self._grey(frame.p))

    def _grey(self, p: Tensor) -> np.ndarray:
        """Mean grey of categories p (B, K, H, W), or of hard categories (B, H, W), as codes 0..254."""
        if p.ndim == 3:
            mean = p.float() / (self.K - 1)
        elif self.K == 2:
            mean = p[:, 1]
        else:
            mean = torch.einsum("bkhw,k->bhw", p.float(), torch.linspace(0, 1, self.K))
        return (mean.float() * 254).round().clamp_(0, 254).to(torch.uint8).numpy()

    def exhaust(self) -> list[Tensor]:
        """Run to the end; the clean categories of every lane, (B, H, W)."""
        while self.advance() is not None:
            pass
        return self.cells
