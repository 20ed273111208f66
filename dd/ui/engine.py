"""One thread takes the steps of all runs, whoever asks; a second one takes what is no step and takes seconds.

Every reverse step is one task in a first-in, first-out line. A visitor has at most one step in the line, so runs
interleave fairly whatever their length, and a cancelled run frees the cores after the step it is in. A simulation of
the tab Simplex, or a picture to be rebuilt, is a single task: the second thread takes these one after the other, so
that steps share the cores with one of them and never wait for its end. Neither thread has a pool of torch's own
(several pools spin each other to a standstill on two cores): batches are dealt out to the cores by dd.device.spread,
everything else takes one.
"""

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from dd.recipe import RecipeError
from dd.runs import Run, View

T = TypeVar("T")


class Engine:
    """max_seconds: of computing that one run may take."""

    def __init__(self, max_seconds: float = math.inf) -> None:
        self.max_seconds = max_seconds
        self._line, self._aside = (
            ThreadPoolExecutor(1, name, initializer=torch.set_num_threads, initargs=(1,))
            for name in ("dd-engine", "dd-aside")
        )

    def submit(self, task: Callable[..., T], *args: object, **kwargs: object) -> "Future[T]":
        """Put the task in the line; the future's result is the task's."""
        return self._line.submit(task, *args, **kwargs)

    def do(self, task: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Run the task when its turn comes and wait for it; its exceptions are raised here."""
        return self.submit(task, *args, **kwargs).result()

    def aside(self, task: Callable[..., T], *args: object) -> T:
        """Run a task of seconds beside the line and wait for it; its exceptions are raised here."""
        return self._aside.submit(task, *args).result()

    def step(self, run: Run) -> "Future[list[View] | None]":
        """Put one reverse step of the run in the line, unless the run has had its share."""
        if not run.finished and sum(run.milliseconds) > 1000 * self.max_seconds:
            raise RecipeError(
                f"this run has computed for {self.max_seconds:g} s, the most one run may take here; "
                "choose fewer steps, images or lanes"
            )
        return self.submit(run.advance)
