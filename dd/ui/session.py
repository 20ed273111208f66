"""What one visitor's tab holds on the server: the run in progress. Never shared, gone when it expires."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dd import export
from dd.runs import Models, Recipe, RecipeError, Run
from dd.ui.controls import title
from dd.ui.engine import Engine
from dd.ui.player import message

EXPIRES = 1800  # seconds without a visit
_numbers = itertools.count(1)


class Session:
    """One run, the recipe it came from, and how many of its steps have been shown."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self.recipe: Recipe | None = None
        self.number = 0
        self.shown = 0
        self.pins: list[tuple[int, int, int, int]] = []
        self.folder: tempfile.TemporaryDirectory | None = None

    def prepare(self, recipe: Recipe, models: Models, engine: Engine) -> None:
        """Continue a paused run of this very recipe, or start a new one."""
        if self.run is not None and recipe == self.recipe and self.shown < self.run.total and not self._over():
            return
        self.run = engine.do(Run, recipe, models)
        self.recipe, self.number, self.shown, self.pins = recipe, next(_numbers), 0, []

    def step(self, engine: Engine) -> str | None:
        """One reverse step of every lane as a message for the player; None when the run is over."""
        if self.shown == len(self.run.views):
            engine.step(self.run).result()
        return self._message()

    def steps(self, engine: Engine) -> Iterator[str]:
        """All steps that are left. The next one is computed while this one travels to the page."""
        run = self.run
        pending = engine.step(run) if self.shown == len(run.views) else None
        while run is self.run:
            if pending is not None:
                pending.result()
            pending = None if run.finished else engine.step(run)
            text = self._message()
            if text is None:
                return
            yield text

    def _over(self) -> bool:
        return self.run.finished and self.shown == len(self.run.views)

    def _message(self) -> str | None:
        if self.shown == len(self.run.views):
            return None
        self.shown += 1
        return message(self.run, self.number, self.shown - 1, [title(lane) for lane in self.run.recipe.lanes])

    def file(self, kind: str) -> str:
        """The run so far as a file: png, gif, webp or json."""
        if self.run is None or not self.run.views:
            raise RecipeError("there is nothing to download yet; press Run first")
        recipe = self.run.recipe
        name = f"{recipe.checkpoint}-{recipe.lanes[0].process}-{recipe.steps}-steps-seed-{recipe.seed}.{kind}"
        if self.folder is None:
            self.folder = tempfile.TemporaryDirectory(prefix="dd-")  # gone with the session
        path = Path(self.folder.name) / name
        export.write(self.run, path)
        return str(path)
