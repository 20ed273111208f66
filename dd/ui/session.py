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
    """One run and the recipe it came from."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self.recipe: Recipe | None = None
        self.number = 0

    def prepare(self, recipe: Recipe, models: Models, engine: Engine) -> None:
        """Continue a paused run of this very recipe, or start a new one."""
        if self.run is not None and not self.run.finished and recipe == self.recipe:
            return
        self.run = engine.do(Run, recipe, models)
        self.recipe, self.number = recipe, next(_numbers)

    def step(self, engine: Engine) -> str | None:
        """One reverse step of every lane as a message for the player; None when the run is over."""
        run, number = self.run, self.number
        views = engine.do(run.advance)
        if views is None or run is not self.run:
            return None
        return message(run, number, [title(lane) for lane in run.recipe.lanes], views)

    def steps(self, engine: Engine) -> Iterator[str]:
        run = self.run
        while run is self.run and (text := self.step(engine)) is not None:
            yield text

    def file(self, kind: str) -> str:
        """The run so far as a file: png, gif, webp or json."""
        if self.run is None or not self.run.views:
            raise RecipeError("there is nothing to download yet; press Run first")
        recipe = self.run.recipe
        name = f"{recipe.checkpoint}-{recipe.lanes[0].process}-{recipe.steps}-steps-seed-{recipe.seed}.{kind}"
        path = Path(tempfile.mkdtemp(prefix="dd-")) / name
        export.write(self.run, path)
        return str(path)
