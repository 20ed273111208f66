"""A run: one recipe (what to generate and how), one or more lanes in lockstep, every step kept for scrubbing.

The page, the command line and the API all drive the same object, so that a recipe gives the same picture everywhere.
"""

import dataclasses
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from dd import checkpoints, results
from dd.checkpoints import Checkpoint
from dd.data import grid_of
from dd.looks import masked
from dd.models import Models
from dd.processes import Process, make_process
from dd.processes.clock import entropy
from dd.recipe import Lane, Recipe, RecipeError, check, temperature_of
from dd.samplers import ONE_CALL, Denoiser, Frame, race, reverse, steps_for, time_grid


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


@dataclass(frozen=True)
class Track:
    """What runs a lane of a recipe: its process, the network that answers it, its own random numbers.

    denoise: shared by lanes with the same network. steps: half as many for methods that call the network twice, where
    calls are to be equal.
    """

    lane: Lane
    process: Process
    checkpoint: Checkpoint
    denoise: Denoiser
    generator: torch.Generator
    steps: int


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
                f"{checkpoint.sha256[:12]}): the picture would differ. Remove its sha256 (and give its "
                "temperature and tilt, if it is an old one without them) to run it anyway"
            )
        self.recipe = dataclasses.replace(recipe, sha256=checkpoint.sha256)
        self.labels = self._labels(checkpoints.classes(self.config))
        self.look = models.look(recipe.checkpoint)
        given = recipe.given
        self.given = None if given is None else torch.tensor(given.cells).expand(recipe.images, -1, -1)
        self.known = None  # (B, H, W) categories, -1 where a cell is not known
        if given is not None and given.known is not None:
            self.known = torch.where(torch.tensor(given.known) > 0, self.given, -1)
        self.tracks = self._tracks(models)
        self._frames = self._start()
        self._lock = threading.Lock()
        self.views: list[list[View]] = []
        self.trajectory: list[list[tuple[Tensor, Tensor]]] = []
        self.milliseconds: list[float] = []
        self.finished = False
        self.broken = False  # a step has failed, and there is no going on from it
        self.cells: list[Tensor] | None = None

    def _tracks(self, models: Models) -> list[Track]:
        recipe, denoisers, tracks = self.recipe, {}, []
        for lane in recipe.lanes:
            process = make_process(lane.process, self.K, self.H * self.W)
            if self.known is not None and not process.categorical:
                raise RecipeError(f"{process.name} knows no certain cells; choose another process to inpaint")
            checkpoint = models.answering(recipe.checkpoint, process.architecture)
            if checkpoint.sha256 not in denoisers:
                denoisers[checkpoint.sha256] = Denoiser(
                    checkpoint.network, self.labels, recipe.guidance, self.known, *self._temperature(process)
                )
            generator = torch.Generator().manual_seed(recipe.seed)
            steps = steps_for(recipe.steps, lane.method) if recipe.equal_calls else recipe.steps
            tracks.append(Track(lane, process, checkpoint, denoisers[checkpoint.sha256], generator, steps))
        return tracks

    def _temperature(self, process: Process) -> tuple[float, float]:
        return temperature_of(self.recipe.temperature, self.recipe.tilt, process)

    def _labels(self, classes: int) -> Tensor | None:
        n, label = self.recipe.images, self.recipe.label
        if label == "any":
            return None
        return torch.arange(n) % classes if label == "each" else torch.full((n,), label)

    def _start(self) -> Iterator[list[Frame]]:
        runs, self._starts = [], []
        start = 1.0 if self.given is None else self.recipe.given.t
        for track in self.tracks:
            times = time_grid(track.process, track.steps, track.lane.schedule, start)
            if self.given is None:
                x = track.process.prior((self.recipe.images, self.H, self.W), track.generator)
            else:
                x = track.process.perturb(self.given, times[0], track.generator)
            runs.append(reverse(track.process, x, times, track.lane.method, track.generator, **track.lane.options))
            self._starts.append((track.process, x, times[0]))
        return race(runs, [track.denoise for track in self.tracks])

    def noised(self) -> list[np.ndarray]:
        """The states that the lanes of a new run start from as pictures (B, h, w), without a call of the network."""
        return [self._picture(*start) for start in self._starts]

    @property
    def total(self) -> int:
        """Number of views of a finished run: the start and one after every step of the longest lane."""
        return max(track.steps for track in self.tracks) + 1

    def measured(self) -> list[dict[str, Any]]:
        """Of every lane, step by step: t, network calls so far, entropy in bits a cell, milliseconds. Beside them the
        hash of the network that answered it, and what was measured of that setting before (`stored`)."""
        records = results.read()
        return [
            {
                "process": track.lane.process,
                "method": track.lane.method,
                "t": [round(view.t, 6) for view in views],
                "calls": [view.calls for view in views],
                "entropy": [None if view.entropy is None else round(view.entropy, 6) for view in views],
                "milliseconds": [round(view.milliseconds, 1) for view in views],
                "sha256": track.checkpoint.sha256,
                "stored": self.stored(i, records),
            }
            for i, (track, views) in enumerate(zip(self.tracks, zip(*self.views, strict=True), strict=True))
        ]

    def stored(self, i: int, records: list[dict[str, Any]]) -> dict[str, Any]:
        """What the records have of lane i, of these weights: its bound (nats per image, standard error, images; without
        a class and at temperature 1) and, of samples of all classes at exactly its setting, FID, the floor of that, how
        many there were, class accuracy. None: not measured."""
        made, track = self.recipe, self.tracks[i]
        lane, sha256 = track.lane, track.checkpoint.sha256
        bound = results.find_bound(records, sha256, lane.process, lane.method)
        if bound is not None:
            bound = {"nats": bound["nll_nats"], "stderr": bound["nll_stderr"], "images": bound["images"]}
        samples = None
        all_classes = made.label == "each" or not checkpoints.classes(self.config)
        if all_classes and not lane.options and made.given is None:
            temperature = self._temperature(track.process)
            setting = lane.process, lane.method, track.steps, lane.schedule, made.guidance, *temperature
            samples = results.find_samples(records, sha256, *setting)
        keys = {"fid": "fid", "fid_floor": "fid_floor", "samples": "images", "accuracy": "accuracy"}
        return {"bound": bound} | {name: (samples or {}).get(key) for name, key in keys.items()}

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
        views = [self._view(frame, track.process) for frame, track in zip(frames, self.tracks, strict=True)]
        if all(frame.t <= 0 for frame in frames):
            self._finish(frames)
            clean = [self.look.of_cells(cells) for cells in self.cells]
            views = [dataclasses.replace(v, state=c, guess=c) for v, c in zip(views, clean, strict=True)]
        self.views.append(views)
        self._remember(frames)
        self.milliseconds.append(1000 * (time.perf_counter() - start))
        return views

    def _finish(self, frames: list[Frame]) -> None:
        self.cells = [
            track.process.clean(frame.p, track.generator) for frame, track in zip(frames, self.tracks, strict=True)
        ]
        self._frames.close()
        self.finished = True

    def _remember(self, frames: list[Frame]) -> None:
        n = self.keep_simplex // (sum(4 * f.p[0].numel() for f in frames) * self.total)
        if n:
            states = [track.process.simplex(f.x[:n]) for f, track in zip(frames, self.tracks, strict=True)]
            if self.finished:  # as the pictures, at the categories that were drawn
                states = [one_hot(cells[:n], self.K).movedim(-1, 1) for cells in self.cells]
            self.trajectory.append([(x.half(), f.p[:n].half()) for x, f in zip(states, frames, strict=True)])

    def _view(self, frame: Frame, process: Process) -> View:
        start = time.perf_counter()
        state = self._picture(process, frame.x, frame.t)
        bits = None
        if process.categorical:
            bits = float(entropy(frame.p.clamp(min=1e-12).log()).mean()) / math.log(2)
        guess = self.look.of_points(frame.p)
        milliseconds = 1000 * (frame.seconds + time.perf_counter() - start)
        calls = frame.calls * (1 if self.recipe.guidance in ONE_CALL or self.labels is None else 2)
        return View(frame.step, calls, frame.t, milliseconds, bits, state, guess)

    def _picture(self, process: Process, x: Tensor, t: float) -> np.ndarray:
        """States x at time t, masked cells marked."""
        state = self.look.of_state(process, x, t)
        if process.mask is not None:
            state = masked(state, x == process.mask, self.look.factor)
        return state

    def exhaust(self) -> list[Tensor]:
        """Run to the end; the clean categories of every lane, (B, H, W)."""
        while self.advance() is not None:
            pass
        return self.cells
