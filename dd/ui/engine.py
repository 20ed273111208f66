"""One thread does all the computing, whoever asks.

Every reverse step is one task in a first-in, first-out line. A visitor has at most one step in the line, so runs
interleave fairly whatever their length, a cancelled run frees the core after the step it is in, and torch keeps a
single pool of threads (several pools spin each other to a standstill on two cores).
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Engine:
    def __init__(self) -> None:
        self._line = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dd-engine")

    def submit(self, task: Callable[..., T], *args: object, **kwargs: object) -> "Future[T]":
        """Put the task in the line; the future's result is the task's."""
        return self._line.submit(task, *args, **kwargs)

    def do(self, task: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Run the task when its turn comes and wait for it; its exceptions are raised here."""
        return self.submit(task, *args, **kwargs).result()
