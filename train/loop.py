"""The loop of every training script: budget, metrics, saved states, evaluations, signals, resumption."""

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from tqdm import tqdm
from yaml import YAMLError

from dd.device import device
from dd.perceptual import PerceptualError
from train.state import Budget, JsonLines, StopFlag, every, load_state, save_state


def add_arguments(parser: argparse.ArgumentParser, budget_required: bool = True) -> None:
    """The options that every training script has."""
    budget = parser.add_mutually_exclusive_group(required=budget_required)
    budget.add_argument("--minutes", type=positive(float), help="stepping time in all, resumed parts included")
    budget.add_argument("--steps", type=positive(int), help="steps in all, instead of --minutes")
    parser.add_argument("--out", help="run folder (default runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out exactly")
    parser.add_argument("--device", type=device, help="cpu, cuda, ... (default: the best there is)")
    parser.add_argument("--save-every", type=float, default=3, help="minutes between saved states")
    parser.add_argument("--evaluate-every", type=float, default=10, help="minutes between held-out figures")
    parser.add_argument("--log-every", type=positive(int), default=20, help="steps between metric records")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def positive(kind: type[float]) -> Callable[[str], float]:
    """For argparse: a number of that kind above 0."""

    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise ValueError
        return value

    number.__name__ = f"positive {kind.__name__}"  # argparse: "invalid positive int value: '0'"
    return number


@contextmanager
def sentences() -> Iterator[None]:
    """What the user can mend ends the program with a sentence, not with a traceback."""
    try:
        yield
    except (ValueError, PerceptualError, SafetensorError, OSError, YAMLError) as error:
        sys.exit(f"error: {error}")


class Loop:
    """A run in its folder.

    step(n, progress): takes step n, returns what is to be logged of it. evaluate(): returns held-out figures and writes
    what it likes into `out`. state(): what a resumed run starts from. Only the first worker (rank 0) writes.
    """

    def __init__(self, args: argparse.Namespace, config: dict, rank: int, load: Callable[[dict], None]):
        """config: of the run, which has a name; one with another is not gone on with. load: takes over a saved state;
        called for --resume, without which a run that is there is not touched."""
        if config["seed"] < 0:
            raise ValueError(f"the seed of a training must be 0 or more, not {config['seed']}")
        self.out, self.config = Path(args.out or Path("runs") / config["name"]), config
        self.out.mkdir(parents=True, exist_ok=True)
        self.args, self.rank = args, rank
        self.budget = Budget(args.steps, args.minutes)
        self.metrics, self.state_path = JsonLines(self.out / "metrics.jsonl"), self.out / "state.pt"
        if args.resume:
            state = load_state(self.state_path)
            if differing := [key for key in config if state["config"].get(key) != config[key]]:
                others = ", ".join(differing)
                raise ValueError(f"the run in {self.out} began with another {others}; give that, or another --out")
            load(state)
            self.budget.step, self.budget.seconds = state["step"], state["seconds"]
            if rank == 0:
                self.metrics.truncate_after(self.budget.step)
        elif self.state_path.exists():
            raise ValueError(f"{self.out} holds a run already: give --resume to go on with it, or another --out")
        elif rank == 0:
            self.metrics.truncate_after(-1)  # of a run that ended before its first state

    @property
    def minutes(self) -> float:
        return round(self.budget.seconds / 60, 1)

    def run(self, step: Callable[[int, float], dict], evaluate: Callable[[], dict], state: Callable[[], dict]) -> None:
        """Until the budget is spent or a signal comes; then the state is saved, and evaluated if no signal came."""
        budget = self.budget

        def save() -> None:
            if self.rank == 0:
                save_state(
                    self.state_path,
                    state() | {"config": self.config, "step": budget.step, "seconds": budget.seconds},
                )

        def look() -> None:
            if self.rank == 0:
                self._evaluate(evaluate)

        with StopFlag() as stop:
            self._step_on(step, stop, save, look)
            save()
            if not stop.raised:
                look()

    def _step_on(
        self, step: Callable[[int, float], dict], stop: StopFlag, save: Callable[[], None], look: Callable[[], None]
    ) -> None:
        args, budget = self.args, self.budget
        maybe_save, maybe_look = every(60 * args.save_every, save), every(60 * args.evaluate_every, look)
        bar = tqdm(disable=self.rank > 0 or args.quiet, initial=budget.step, total=args.steps, unit="step")
        while budget.progress < 1 and not stop.raised:
            budget.start()  # here, where the workers have met: waiting for the first one is no stepping
            report = step(budget.step, budget.progress)
            budget.tick()
            bar.update()
            if self.rank == 0 and budget.step % args.log_every == 0:
                self._log(report)
                name, value = next(iter(report.items()))
                bar.set_postfix({name: f"{float(value):.4g}", "progress": f"{budget.progress:.0%}"})
            maybe_save()
            maybe_look()
        bar.close()

    def _log(self, record: dict[str, Any]) -> None:
        self.metrics.write(step=self.budget.step, seconds=round(self.budget.seconds, 1), **record)

    def _evaluate(self, evaluate: Callable[[], dict]) -> None:
        try:
            figures = evaluate()
        except OSError as error:  # a full disk
            print(f"warning: could not write into {self.out} ({error}). Free some space, then --resume.", flush=True)
            return
        if figures:
            self._log({f"held_out/{name}": value for name, value in figures.items()})
            print({k: v if v is None else round(v, 4) for k, v in figures.items()}, flush=True)
