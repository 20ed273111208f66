"""A recipe: everything a picture depends on, as a value that can be checked, saved and read again."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from dd import checkpoints
from dd.data import grid_of
from dd.processes import EVERY, NO_ORDER, Process, make_process, suits
from dd.samplers import default_schedule, schedules

MAX_STEPS, MAX_IMAGES, MAX_LANES = 500, 64, 4
MAX_WORK = 40_000  # steps x images x lanes of one run
MAX_GUIDANCE = 10.0
TEMPERATURES, TILTS = (0.1, 2.0), (-2.0, 2.0)  # least and most


class RecipeError(ValueError):
    """A recipe that cannot be run; the message says what was wrong and what to do."""


Cells = tuple[tuple[int, ...], ...]  # categories, or other whole numbers, of H rows of W cells


@dataclass(frozen=True)
class Lane:
    """A process, its sampler, options of its reverse step such as stretch or eta, and how its steps are spread.

    schedule: one of dd.samplers.schedules(process), or "default" for the sampler's own with that
    checkpoint, which `check` puts in its place, so that a saved recipe depends on no default.
    """

    process: str = "dirichlet"
    method: str = "dirichlet"
    options: dict[str, float] = field(default_factory=dict)
    schedule: str = "default"


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
            if not isinstance(raw, dict):
                raise TypeError("it is no JSON object")
            raw.pop("measured", None)
            lanes = tuple(Lane(**lane) for lane in raw.pop("lanes"))
            if raw.get("sha256"):  # a saved run names these, but for those of before checkpoints had them
                raw.setdefault("tilt", 0.0)
                lanes = tuple(_named_schedule(lane) for lane in lanes)
            given = raw.pop("given", None)
            return Recipe(lanes=lanes, given=None if given is None else Given(**given), **raw)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else error
            raise RecipeError(f"this is not a recipe saved here ({why}); choose the .json file of a run") from error


def _named_schedule(lane: Lane) -> Lane:
    """Runs saved long ago say "default". At that time it meant default_schedule(method) whatever the checkpoint, so
    that is written instead. (A tab that cannot set the schedule of a lane refuses such a recipe of `faces`, whose
    picture would be another.)"""
    return dataclasses.replace(lane, schedule=default_schedule(lane.method)) if lane.schedule == "default" else lane


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


def chosen_temperature(config: dict[str, Any], temperature: float | None, tilt: float | None) -> tuple[float, float]:
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


def temperature_of(temperature: float, tilt: float, process: Process) -> tuple[float, float]:
    """Temperature and tilt of a lane: a network that regresses intensities, the DDPM's, has none."""
    return (temperature, tilt) if process.categorical else (1.0, 0.0)


def sampling_temperature(
    config: dict[str, Any], process: Process, temperature: float | None = None, tilt: float | None = None
) -> tuple[float, float]:
    """The temperature and tilt that a process' samples are drawn at with this checkpoint."""
    return temperature_of(*chosen_temperature(config, temperature, tilt), process)


def sampling_schedule(config: dict[str, Any], sampler: str, schedule: str | None = None) -> str:
    """Where the steps of a sampler go: as asked for, or as its own schedule with that checkpoint has it."""
    return schedule or default_schedule(sampler, checkpoints.schedule(config))


def check(recipe: Recipe, config: dict[str, Any]) -> Recipe:
    """The recipe with every field validated and converted for a model of this configuration; raises RecipeError."""
    classes, data = checkpoints.classes(config), config["data"]
    K, (H, W) = data["K"], grid_of(data)
    steps = whole(recipe.steps, "The number of steps", 1, MAX_STEPS)
    images = whole(recipe.images, "The number of images", 1, MAX_IMAGES)
    seed = whole(recipe.seed, "The seed", 0, 2**31 - 1)
    guidance = real(recipe.guidance, "Guidance", 0.0, MAX_GUIDANCE)
    temperature, tilt = chosen_temperature(config, recipe.temperature, recipe.tilt)
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
    lanes = tuple(_check_lane(lane, K, H * W, config) for lane in recipe.lanes)
    if not any(make_process(lane.process, K, H * W).categorical for lane in lanes):
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


def _check_lane(lane: Lane, K: int, cells: int, config: dict[str, Any]) -> Lane:
    if not isinstance(lane.process, str) or lane.process not in EVERY:
        raise RecipeError(f"there is no process {str(lane.process)[:40]!r}; choose one of {', '.join(EVERY)}")
    if not suits(lane.process, config["data"]):  # before tables of that many categories are built
        raise RecipeError(NO_ORDER.format(lane.process))
    process = make_process(lane.process, K, cells)
    method = process.methods[0] if lane.method == "default" else lane.method
    if method not in process.methods:
        raise RecipeError(
            f"{lane.process} has no sampler {str(method)[:40]!r}; choose one of {', '.join(process.methods)}"
        )
    options = {}
    if not isinstance(lane.options, dict):
        raise RecipeError('the options of a lane must map names to numbers, for example {"eta": 0.5}')
    for name, value in lane.options.items():
        if name not in process.options:
            raise RecipeError(f"{lane.process} has no option {str(name)[:40]!r}")
        option = process.options[name]
        if method not in option.methods:
            raise RecipeError(f"{name} is an option of {', '.join(option.methods)}, not of {method}")
        options[name] = real(value, name.capitalize(), option.minimum, option.maximum)
    options = {name: value for name, value in options.items() if value != process.options[name].default}
    if lane.schedule not in ("default", *schedules(process)):
        known = ", ".join(schedules(process))
        raise RecipeError(f"{lane.process} has no schedule {str(lane.schedule)[:40]!r}; choose default, {known}")
    schedule = sampling_schedule(config, method, None if lane.schedule == "default" else lane.schedule)
    return Lane(lane.process, method, options, schedule)
