"""What one visitor's tab holds on the server: the run in progress. Never shared, gone when it expires."""

import itertools
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from dd import export
from dd.models import Models
from dd.recipe import Cells, Recipe, RecipeError
from dd.runs import Run
from dd.ui.controls import title
from dd.ui.engine import Engine
from dd.ui.player import message

EXPIRES = 1800  # seconds without a visit
MOST_KEPT = 1_000_000_000  # bytes of all visitors' runs together
STATES = 12  # tensors of a state's size that a step leaves for the next: x, evidence, f, p, what was looked up at x
FORGOTTEN = "this run was forgotten to make room for other visitors'; press Run to start it again"
_numbers = itertools.count(1)


class Session:
    """One run, the recipe it came from, and how many of its steps have been shown."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self.recipe: Recipe | None = None
        self.number = 0
        self.shown = 0
        self.playing: object | None = None  # a token of whoever plays the run; the one before stops
        self.pins: list[tuple[int, int, int, int]] = []
        self.clicked = 0  # the image whose cell was clicked last
        self.folder: tempfile.TemporaryDirectory | None = None
        self.used = 0.0  # when the run was last looked at

    def prepare(self, recipe: Recipe, models: Models, engine: Engine) -> None:
        """Continue a paused run of this very recipe, or start a new one."""
        self.look()
        run = self.run
        going = run is not None and not run.broken and self.shown < run.total and not self._over(run)
        if going and recipe == self.recipe:
            return
        self.run = engine.do(Run, recipe, models)
        self.recipe, self.number, self.shown, self.pins, self.clicked = recipe, next(_numbers), 0, [], 0
        SHELF.make_room(self)

    def step(self, engine: Engine) -> str | None:
        """One reverse step of every lane as a message for the player; None when the run is over."""
        run = self.run
        if run is None:
            raise RecipeError(FORGOTTEN)
        if self.shown == len(run.views):
            engine.step(run).result()
        return self._message(run)

    def steps(self, engine: Engine) -> Iterator[str]:
        """All steps that are left, or until halt(). The next one is computed while this one travels to the page."""
        run, playing = self.run, object()
        self.playing = playing
        pending = engine.step(run) if self.shown == len(run.views) else None
        try:
            while run is self.run and playing is self.playing:
                if pending is not None:
                    pending.result()
                pending = None if run.finished else engine.step(run)
                text = self._message(run)
                if text is None:
                    return
                yield text
        finally:
            if pending is not None:
                pending.cancel()  # nobody waits for it any more; if it runs already, it is the last
        if self.run is None:
            raise RecipeError(FORGOTTEN)

    def halt(self) -> None:
        """Play no further than the step that is on its way."""
        self.playing = None

    def look(self) -> None:
        """The run is being looked at: others' are forgotten before it."""
        self.used = time.monotonic()

    def forget(self) -> None:
        """Give the run's memory back; the tab is as if nothing had been run."""
        self.run = self.recipe = None

    def _over(self, run: Run) -> bool:
        return run.finished and self.shown == len(run.views)

    def _message(self, run: Run) -> str | None:
        self.look()
        if self.shown == len(run.views):
            return None
        self.shown += 1
        return message(run, self.number, self.shown - 1, [title(lane) for lane in run.recipe.lanes])

    def chosen(self) -> tuple[str, Cells]:
        """The model's name, and the cells of the image clicked last, or of the first one."""
        run = self.run
        if run is None or not run.finished:
            raise RecipeError("there is no finished run on the tab Generate yet; press Run there, then come back")
        return run.recipe.checkpoint, tuple(map(tuple, run.cells[0][self.clicked].tolist()))

    def file(self, kind: str) -> str:
        """The run so far as a file: png, gif, webp or json."""
        self.look()
        run = self.run
        if run is None or not run.views:
            raise RecipeError("there is nothing to download yet; press Run first")
        recipe = run.recipe
        lanes = recipe.lanes[0].process if len(recipe.lanes) == 1 else f"{len(recipe.lanes)}-lanes"
        name = f"{recipe.checkpoint}-{lanes}-{recipe.steps}-steps-seed-{recipe.seed}"
        if not run.finished:
            name += f"-step-{len(run.views) - 1}"
        if self.folder is None:
            self.folder = tempfile.TemporaryDirectory(prefix="dd-")  # gone with the session
        path = Path(self.folder.name) / f"{name}.{kind}"
        export.write(run, path)
        return str(path)


class Shelf:
    """All sessions that hold a run. Their memory is bounded: the runs that were not looked at for longest go first."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self.most = most
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._lock = threading.Lock()

    def make_room(self, newest: Session) -> None:
        """Forget the oldest runs until all of them fit, the newest one's included, which is never forgotten."""
        newest.look()
        with self._lock:
            self._sessions.add(newest)
            held = [session for session in self._sessions if session.run is not None]
            total = sum(weight(session.run) for session in held)
            for session in sorted((s for s in held if s is not newest), key=lambda s: s.used):
                if total <= self.most:
                    return
                total -= weight(session.run)
                session.forget()


def weight(run: Run) -> int:
    """Bytes of a run: what its pictures and paths will take at most when it has finished, and until then its states."""
    images = run.recipe.images * len(run.recipe.lanes)
    state = 4 * images * run.K * run.H * run.W
    pictures = 2 * images * run.total * run.H * run.W * run.look.factor**2
    paths = state * run.total
    return pictures + min(paths, run.keep_simplex) + (0 if run.finished else STATES * state)


SHELF = Shelf()
