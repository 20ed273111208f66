"""A run: one recipe (what to generate and how), one or more lanes in lockstep, every step kept for scrubbing.

The page, the command line and the API all drive the same object, so that a recipe gives the same picture everywhere.
"""

import dataclasses
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dd import checkpoints
from dd.checkpoints import Checkpoint
from dd.data import grid_of
from dd.device import for_inference
from dd.looks import Decoded, GreyLevels, decoded, masked
from dd.processes import EVERY, NO_ORDER, OWN_NETWORK, REGISTRY, Process, process, suits
from dd.processes.clock import entropy
from dd.samplers import ONE_CALL, Denoiser, Frame, default_grid, grids, race, reverse, steps_for, time_grid

MAX_STEPS, MAX_IMAGES, MAX_LANES = 500, 64, 4
MAX_WORK = 40_000  # steps x images x lanes of one run
MAX_GUIDANCE = 10.0
TEMPERATURES, TILTS = (0.1, 2.0), (-2.0, 2.0)  # least and most


class RecipeError(ValueError):
    """A recipe that cannot be run; the message says what was wrong and what to do."""


def felt(temperature: float, tilt: float, process_name: str) -> tuple[float, float]:
    """Temperature and tilt of a lane: a network that regresses intensities, the DDPM's, has none."""
    return (1.0, 0.0) if process_name in OWN_NETWORK else (temperature, tilt)


Cells = tuple[tuple[int, ...], ...]  # categories, or other whole numbers, of H rows of W cells


@dataclass(frozen=True)
class Lane:
    """A process, its sampler, options of its reverse step such as stretch or eta, and how its steps are spread.

    schedule: one of dd.samplers.grids(process), or "default" for the sampler's own.
    """

    process: str = "dirichlet"
    method: str = "dirichlet"
    options: dict[str, float] = field(default_factory=dict)
    schedule: str = "default"

    @property
    def grid(self) -> str:
        return default_grid(self.method) if self.schedule == "default" else self.schedule


@dataclass(frozen=True)
class Given:
    """An image that a run starts from, for all of its images alike.

    cells: categories (H, W). known: 1 where a cell is certain (inpainting), 0 elsewhere. t: how far the image is noised
    before it is run backwards; at 1 nothing of the unknown cells is left.
    """

    cells: Cells
    known: Cells | None = None
    t: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """Everything a picture depends on. label: a class index, "any" (no class given) or "each" (0, 1, 2, ... in turn).
    temperature, tilt: see dd.samplers.Denoiser; None for what was chosen for the checkpoint.

    equal_calls: methods that call the network twice a step take half the steps, so that lanes cost the same.
    sha256: of the weights that made the picture, filled in when a run is saved.
    """

    checkpoint: str = "digits"
    lanes: tuple[Lane, ...] = (Lane(),)
    steps: int = 64
    images: int = 16
    label: int | str = "each"
    guidance: float = 1.0
    temperature: float | None = 1.0
    tilt: float | None = None
    seed: int = 0
    equal_calls: bool = False
    sha256: str = ""
    given: Given | None = None

    def to_json(self, measured: list[dict[str, Any]] | None = None) -> str:
        """measured: of the run that it made (Run.measured), for who reads the file; a recipe depends on none of it."""
        text = json.dumps(dataclasses.asdict(self), indent=2)
        if measured is not None:
            text = text[: -len("\n}")] + f',\n  "measured": {json.dumps(measured)}\n}}'
        return text + "\n"

    @staticmethod
    def from_json(text: str) -> "Recipe":
        try:
            raw = json.loads(text)
            raw.pop("measured", None)
            raw.setdefault("tilt", 0.0)  # of before there was one
            lanes = tuple(Lane(**lane) for lane in raw.pop("lanes"))
            given = raw.pop("given", None)
            return Recipe(lanes=lanes, given=None if given is None else Given(**given), **raw)
        except (json.JSONDecodeError, TypeError, KeyError, AttributeError, RecursionError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else error
            raise RecipeError(f"this is not a recipe saved here ({why}); choose the .json file of a run") from error


def whole(value: object, name: str, low: int, high: int) -> int:
    """`value` as a whole number in [low, high], or a sentence saying what is wrong."""
    if value is None:
        raise RecipeError(f"{name} is missing; give a whole number from {low} to {high}")
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


def warmth(config: dict[str, Any], temperature: float | None, tilt: float | None) -> tuple[float, float]:
    """Temperature T and tilt k (dd.samplers.Denoiser), those of a checkpoint's configuration for None.

    T - |k|/2 and T + |k|/2 stay within TEMPERATURES: the checkpoint's own tilt gives way to the temperature asked for,
    another one is a RecipeError.
    """
    low, high = TEMPERATURES
    T = real(checkpoints.temperature(config) if temperature is None else temperature, "Temperature", low, high)
    room = 2 * min(T - low, high - T)
    if tilt is None:
        return T, max(-room, min(room, checkpoints.tilt(config, T)))
    k = real(tilt, "Tilt", *TILTS)
    if abs(k) > room + 1e-9:
        raise RecipeError(f"at a temperature of {T:g} the tilt must be from {-room:g} to {room:g}, not {k:g}")
    return T, k


def check(recipe: Recipe, config: dict[str, Any]) -> Recipe:
    """The recipe with every field validated and converted for a model of this configuration; raises RecipeError."""
    classes, data = config["network"]["classes"], config["data"]
    K, (H, W) = data["K"], grid_of(data)
    steps = whole(recipe.steps, "The number of steps", 1, MAX_STEPS)
    images = whole(recipe.images, "The number of images", 1, MAX_IMAGES)
    seed = whole(recipe.seed, "The seed", 0, 2**31 - 1)
    guidance = real(recipe.guidance, "Guidance", 0.0, MAX_GUIDANCE)
    temperature, tilt = warmth(config, recipe.temperature, recipe.tilt)
    label = recipe.label
    if not classes:
        label = "any"
    elif label not in ("any", "each"):
        label = whole(label, "The class", 0, classes - 1)
    if not isinstance(recipe.equal_calls, bool):
        raise RecipeError(f"equal_calls must be true or false, not {str(recipe.equal_calls)[:40]!r}")
    if not 1 <= len(recipe.lanes) <= MAX_LANES:
        raise RecipeError(f"choose one to {MAX_LANES} lanes, not {len(recipe.lanes)}")
    if steps * images * len(recipe.lanes) > MAX_WORK:
        raise RecipeError(
            f"{steps} steps x {images} images x {len(recipe.lanes)} lanes is more than one run may take "
            f"({MAX_WORK:,} in all); lower one of them"
        )
    lanes = tuple(_check_lane(lane, K, H * W) for lane in recipe.lanes)
    for lane in lanes:
        if not suits(lane.process, data):
            raise RecipeError(NO_ORDER.format(lane.process))
    if all(lane.process in OWN_NETWORK for lane in lanes):
        temperature, tilt = 1.0, 0.0
    given = None if recipe.given is None else _check_given(recipe.given, K, H, W)
    return dataclasses.replace(
        recipe, steps=steps, images=images, seed=seed, guidance=guidance, temperature=temperature, tilt=tilt,
        label=label, lanes=lanes, given=given,
    )  # fmt: skip


def _check_given(given: Given, K: int, H: int, W: int) -> Given:
    cells = grid(given.cells, "A cell's category", K, H, W)
    known = None if given.known is None else grid(given.known, "What is known of a cell", 2, H, W)
    return Given(cells, known, real(given.t, "The time to noise to", 0.001, 1.0))


def grid(rows: object, name: str, K: int, H: int, W: int) -> Cells:
    """`rows` as H rows of W whole numbers in 0..K-1, or a sentence saying what is wrong."""
    if not isinstance(rows, list | tuple) or len(rows) != H:
        raise RecipeError(f"the image must be {H} rows of {W} categories from 0 to {K - 1}")
    if any(not isinstance(row, list | tuple) or len(row) != W for row in rows):
        raise RecipeError(f"the image must be {H} rows of {W} categories from 0 to {K - 1}")
    return tuple(tuple(whole(cell, name, 0, K - 1) for cell in row) for row in rows)


def _check_lane(lane: Lane, K: int, cells: int) -> Lane:
    if not isinstance(lane.process, str) or lane.process not in EVERY:
        raise RecipeError(f"there is no process {str(lane.process)[:40]!r}; choose one of {', '.join(EVERY)}")
    process_ = process(lane.process, K, cells)
    if lane.method not in process_.methods:
        raise RecipeError(
            f"{lane.process} has no sampler {str(lane.method)[:40]!r}; choose one of {', '.join(process_.methods)}"
        )
    options = {}
    if not isinstance(lane.options, dict):
        raise RecipeError('the options of a lane must map names to numbers, for example {"eta": 0.5}')
    for name, value in lane.options.items():
        if name not in process_.options:
            raise RecipeError(f"{lane.process} has no option {str(name)[:40]!r}")
        option = process_.options[name]
        if lane.method not in option.methods:
            raise RecipeError(f"{name} is an option of {', '.join(option.methods)}, not of {lane.method}")
        options[name] = real(value, name.capitalize(), option.minimum, option.maximum)
    options = {name: value for name, value in options.items() if value != process_.options[name].default}
    if lane.schedule not in ("default", *grids(process_)):
        known = ", ".join(grids(process_))
        raise RecipeError(f"{lane.process} has no schedule {str(lane.schedule)[:40]!r}; choose default, {known}")
    schedule = "default" if lane.grid == default_grid(lane.method) else lane.schedule
    return Lane(lane.process, lane.method, options, schedule)


def _one_at_a_time(load: Callable[[str], Checkpoint]) -> Callable[[str], Checkpoint]:
    """`load`, which remembers; two threads that ask for the same at once get one and the same."""
    remembered, lock = lru_cache(maxsize=8)(load), threading.Lock()

    def loaded(name: str) -> Checkpoint:
        with lock:
            return remembered(name)

    return loaded


class Models:
    """The denoisers in a folder of checkpoints, loaded when first used."""

    def __init__(self, root: str | Path, device: torch.device | str = "cpu"):
        self.root, self.device = Path(root), device
        self._load = _one_at_a_time(self._load_once)
        self._load_vqvae = _one_at_a_time(self._load_vqvae_once)

    def names(self, architecture: str = "evidence-unet") -> list[str]:
        """Checkpoints of that architecture, `digits` first; by default the denoisers."""
        found = []
        for folder in sorted(self.root.glob("*/config.json")):
            try:
                config = checkpoints.read_config(folder.parent)
            except checkpoints.CheckpointError:
                continue
            if config.get("architecture") == architecture:
                found.append(folder.parent.name)
        return sorted(found, key=lambda name: (name != "digits", name))

    def config(self, name: str) -> dict[str, Any]:
        """The configuration alone, without loading the weights."""
        if not isinstance(name, str):
            raise RecipeError(f"choose a model by its name, not {str(name)[:40]!r}")
        return checkpoints.read_config(self.root / name)

    def get(self, name: str) -> Checkpoint:
        if name not in self.names():
            known = ", ".join(self.names()) or f"none: {self.root} is empty, see README"
            raise RecipeError(f"there is no model {str(name)[:60]!r} here; available: {known}")
        return self._load(name)

    def vqvae(self, name: str) -> Checkpoint:
        """A VQ-VAE, in float32: rounded latents would choose other codes."""
        if name not in self.names("vqvae"):
            known = ", ".join(self.names("vqvae")) or "none"
            raise RecipeError(f"there is no VQ-VAE {str(name)[:60]!r} here; available: {known}")
        return self._load_vqvae(name)

    def answering(self, name: str, architecture: str) -> Checkpoint:
        """The network of that architecture for the data of model `name`: itself, or another one's beside it."""
        if self.config(name)["architecture"] == architecture:
            return self.get(name)
        other = self.companion(name, architecture)
        if other is None:
            raise RecipeError(f"there is no {architecture} beside {name}; train one, or choose another process")
        return self._load(other)

    def companion(self, name: str, architecture: str) -> str | None:
        """The checkpoint of that architecture that has learnt the same data as model `name`."""

        def learnt(model: str) -> list:
            return [self.config(model)["data"].get(key) for key in ("source", "folder", "K", "cells")]

        return next((other for other in self.names(architecture) if learnt(other) == learnt(name)), None)

    def look(self, name: str) -> GreyLevels | Decoded:
        """How the categories of this denoiser are shown."""
        data = self.get(name).config["data"]
        if "vqvae" not in data:
            return GreyLevels(data["K"], drawings=data["source"] != "folder")
        return decoded(name, data, self.vqvae(data["vqvae"]))

    def _load_vqvae_once(self, name: str) -> Checkpoint:
        checkpoint = checkpoints.load(self.root / name, self.device)
        checkpoint.network.to(memory_format=torch.channels_last)
        return checkpoint

    def _load_once(self, name: str) -> Checkpoint:
        checkpoint = checkpoints.load(self.root / name, self.device)
        return dataclasses.replace(checkpoint, network=for_inference(checkpoint.network))


@dataclass(frozen=True)
class View:
    """One step of one lane, ready to be shown. state, guess: (B, h, w) pictures as dd.looks makes them. calls: of the
    network so far, of which guidance makes two a query."""

    step: int
    calls: int
    t: float
    milliseconds: float  # what the step took of the run's time, with its share of the calls in common
    entropy: float | None  # bits per cell of the posterior, where there is one
    state: np.ndarray
    guess: np.ndarray


class Run:
    """A recipe being run. `advance` makes exactly one reverse step of every lane; `views` keeps all of them.

    The last step draws the clean categories: state and guess of its views are that picture.
    """

    keep_simplex = 20_000_000  # bytes of trajectory kept for looking at single cells, of the first images

    def __init__(self, recipe: Recipe, models: Models):
        checkpoint = models.get(recipe.checkpoint)
        self.config = checkpoint.config
        self.K, (self.H, self.W) = self.config["data"]["K"], grid_of(self.config["data"])
        recipe = check(recipe, self.config)
        if recipe.sha256 and recipe.sha256 != checkpoint.sha256:
            raise RecipeError(
                f"this recipe was made with other weights of {recipe.checkpoint} ({str(recipe.sha256)[:12]}, here are "
                f"{checkpoint.sha256[:12]}): the picture would differ. Remove its sha256 to run it anyway"
            )
        self.recipe = dataclasses.replace(recipe, sha256=checkpoint.sha256)
        self.labels = self._labels(self.config["network"]["classes"])
        self.generators = [torch.Generator().manual_seed(recipe.seed) for _ in recipe.lanes]
        self.look = models.look(recipe.checkpoint)
        given = recipe.given
        self.given = None if given is None else torch.tensor(given.cells).expand(recipe.images, -1, -1)
        known = None
        if given is not None and given.known is not None:
            known = torch.where(torch.tensor(given.known) > 0, self.given, -1)
        self.processes = [process(lane.process, self.K, self.H * self.W) for lane in recipe.lanes]
        self.networks = [models.answering(recipe.checkpoint, p.architecture) for p in self.processes]
        if known is not None and any(p.name in OWN_NETWORK for p in self.processes):
            raise RecipeError("the DDPM on pixels knows no certain cells; choose another process to inpaint")
        pairs = zip(self.networks, self.processes, strict=True)
        shared = {c.sha256: self._denoiser(c, p, known) for c, p in pairs}
        self._denoise = [shared[c.sha256] for c in self.networks]
        self._frames = self._start()
        self._lock = threading.Lock()
        self.views: list[list[View]] = []
        self.trajectory: list[list[tuple[Tensor, Tensor]]] = []
        self.milliseconds: list[float] = []
        self.finished = False
        self.broken = False  # a step has failed, and there is no going on from it
        self.cells: list[Tensor] | None = None

    def _denoiser(self, checkpoint: Checkpoint, process_: Process, known: Tensor | None) -> Denoiser:
        recipe = self.recipe
        temperature, tilt = felt(recipe.temperature, recipe.tilt, process_.name)
        return Denoiser(checkpoint.network, self.labels, recipe.guidance, known, temperature, tilt)

    def _labels(self, classes: int) -> Tensor | None:
        n, label = self.recipe.images, self.recipe.label
        if label == "any":
            return None
        return torch.arange(n) % classes if label == "each" else torch.full((n,), label)

    def _start(self) -> Iterator[list[Frame]]:
        runs, self._starts = [], []
        lanes = zip(self.recipe.lanes, self.processes, self.generators, self._steps(), strict=True)
        for lane, process_, generator, steps in lanes:
            start = 1.0 if self.given is None else self.recipe.given.t
            times = time_grid(process_, steps, lane.grid, start)
            if self.given is None:
                x = process_.prior((self.recipe.images, self.H, self.W), generator)
            else:
                x = process_.perturb(self.given, torch.full((len(self.given),), times[0]), generator)
            runs.append(reverse(process_, x, times, lane.method, generator, **lane.options))
            self._starts.append((process_, x, times[0]))
        return race(runs, self._denoise)

    def noised(self) -> list[np.ndarray]:
        """The states that the lanes of a new run start from as pictures (B, h, w), without a call of the network."""
        return [self._picture(*start) for start in self._starts]

    def _steps(self) -> list[int]:
        """Reverse steps of every lane: half as many for methods of two calls where calls are to be equal."""
        steps, lanes = self.recipe.steps, self.recipe.lanes
        return [steps_for(steps, lane.method) if self.recipe.equal_calls else steps for lane in lanes]

    @property
    def total(self) -> int:
        """Number of views of a finished run: the start and one after every step of the longest lane."""
        return max(self._steps()) + 1

    def measured(self) -> list[dict[str, Any]]:
        """Of every lane, step by step: t, network calls so far, entropy in bits a cell, milliseconds."""
        out = []
        for lane, views in zip(self.recipe.lanes, zip(*self.views, strict=True), strict=True):
            steps = {
                "t": [round(view.t, 6) for view in views],
                "calls": [view.calls for view in views],
                "entropy": [None if view.entropy is None else round(view.entropy, 6) for view in views],
                "milliseconds": [round(view.milliseconds, 1) for view in views],
            }
            out.append({"process": lane.process, "method": lane.method} | steps)
        return out

    def advance(self) -> list[View] | None:
        """One reverse step of every lane, or None at the end. Safe to call from several threads, one at a time."""
        with self._lock:
            if self.finished:
                return None
            try:
                return self._advance()
            except Exception:
                self.broken = True
                raise

    def _advance(self) -> list[View]:
        start = time.perf_counter()
        frames = next(self._frames)
        self._starts = []  # a state holds what was looked up at it
        views = [self._view(frame, process_) for frame, process_ in zip(frames, self.processes, strict=True)]
        if all(frame.t <= 0 for frame in frames):
            self._finish(frames)
            clean = [self.look.of_cells(cells) for cells in self.cells]
            views = [dataclasses.replace(v, state=c, guess=c) for v, c in zip(views, clean, strict=True)]
        self.views.append(views)
        self._remember(frames)
        self.milliseconds.append(1000 * (time.perf_counter() - start))
        return views

    def _finish(self, frames: list[Frame]) -> None:
        lanes = zip(frames, self.processes, self.generators, strict=True)
        self.cells = [process_.clean(frame.p, generator) for frame, process_, generator in lanes]
        self._frames.close()
        self.finished = True

    def _remember(self, frames: list[Frame]) -> None:
        n = self.keep_simplex // (sum(4 * f.p[0].numel() for f in frames) * self.total)
        if n:
            pairs = zip(frames, self.processes, strict=True)
            self.trajectory.append([(process_.simplex(f.x[:n]).half(), f.p[:n].half()) for f, process_ in pairs])

    def _view(self, frame: Frame, process_) -> View:
        start = time.perf_counter()
        state = self._picture(process_, frame.x, frame.t)
        bits = None
        if process_.name in REGISTRY:
            bits = float(entropy(frame.p.clamp(min=1e-12).log()).mean()) / math.log(2)
        guess = self.look.of_points(frame.p)
        milliseconds = 1000 * (frame.seconds + time.perf_counter() - start)
        calls = frame.calls * (1 if self.recipe.guidance in ONE_CALL or self.labels is None else 2)
        return View(frame.step, calls, frame.t, milliseconds, bits, state, guess)

    def _picture(self, process_: Process, x: Tensor, t: float) -> np.ndarray:
        """States x at time t, masked cells marked."""
        state = self.look.of_state(process_, x, t)
        if process_.name == "d3pm-absorbing":
            state = masked(state, x == self.K, self.look.factor)
        return state

    def exhaust(self) -> list[Tensor]:
        """Run to the end; the clean categories of every lane, (B, H, W)."""
        while self.advance() is not None:
            pass
        return self.cells
