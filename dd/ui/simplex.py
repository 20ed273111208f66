"""Tab "Simplex": one cell of three categories on the triangle. A run is computed here once and drawn in the browser."""

import base64
import json
from pathlib import Path

import gradio as gr
import numpy as np
import torch
from torch import Tensor

from dd.triangle.cells import Cell, SettingsError, Theory
from dd.triangle.simulation import (
    ALPHA,
    DIFFUSIONS,
    MAX_PARTICLES,
    MAX_STEPS,
    PROCESSES,
    Run,
    Settings,
    barycentric,
    plane,
    sampler_names,
    simulate,
)
from dd.ui.controls import QUIET, refuse
from dd.ui.engine import Engine

STATIC = Path(__file__).parent / "static"
NONE = "none"
NUMBERS = (
    "Steps",
    "Particles",
    *(f"alpha {i}" for i in range(1, 4)),
    *(f"Weight of category {i}" for i in range(1, 4)),
    "Seed",
)
WHOLE = ("Steps", "Particles", "Seed")
DIRECTIONS = ("Reverse: noise to data", "Forward: data to noise")
_KEYS = 41  # frames at which density and field are computed; the page interpolates between them
_DENSITY, _FIELD = (72, 66), (30, 27)  # grid points across and up
_LOG2_RANGE = 4.0

_HTML = """<div class="sx-root" data-playing="false">
<canvas tabindex="0" role="img" aria-label="The triangle of three categories"></canvas>
<div class="sx-bar">
<button type="button" data-sx="play" title="Play or pause the run" disabled>Play</button>
<button type="button" data-sx="back" title="One step back" disabled aria-label="One step back">&#8722;1</button>
<button type="button" data-sx="next" title="One step on" disabled aria-label="One step on">+1</button>
<input type="range" data-sx="seek" title="Any time of the run" min="0" max="1" value="0" step="any" disabled
aria-label="Time: scrub through the run">
<span class="sx-clock" data-sx="clock">Computing the first run…</span>
</div>
<div class="sx-options">
<label title="How fast time runs">Speed <select data-sx="speed" disabled><option value="0.25">&#188;&#215;</option>
<option value="0.5">&#189;&#215;</option><option value="1" selected>1&#215;</option><option value="2">2&#215;</option>
<option value="4">4&#215;</option></select></label>
<label title="Begin again at the end"><input type="checkbox" data-sx="loop" checked>Loop</label>
<label title="The way that each particle came"><input type="checkbox" data-sx="trails" checked>Trails</label>
<label title="The exact density at this time"><input type="checkbox" data-sx="heat" checked>Density</label>
<label title="Lines of equal density"><input type="checkbox" data-sx="contours" checked>Contours</label>
<label title="Where the drift pushes">Arrows <select data-sx="arrows" disabled><option value="none">none</option>
<option value="both">mutation + selection</option><option value="mutation">mutation</option>
<option value="selection">selection</option></select></label>
<label title="Where the probability flow would carry a point">
<input type="checkbox" data-sx="lines">ODE streamlines</label>
<button type="button" data-sx="png" title="The picture as it is now" disabled>PNG</button>
<button type="button" data-sx="webm" title="Record the run" disabled>WebM</button>
</div>
<div class="sx-legend"><span data-sx="shades">density: 1/16 <span class="sx-ramp" data-sx="ramp"></span>
16 &#215; uniform; contours at each factor of 2, bold at 1</span><span data-sx="words"></span></div>
<div class="sx-tables" data-sx="tables"></div>
<div class="sx-message" data-sx="message" role="status"></div>
</div>"""

_INTRO = """A cell with three categories is a point of this triangle: a clean cell is a corner, noise is a random walk,
and generating is walking back. For one cell the posterior over the corners has a closed form, so **reverse** shows the
true reverse process, with no network; only the sampler's steps are finite. Colours say which corner a particle came
from (forward) or ends in (reverse). t is the fraction of the cell's information that is destroyed, the same for all."""


def build(engine: Engine) -> None:
    """The tab's contents, inside an open gr.Blocks."""
    gr.Markdown(_INTRO)
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            view = gr.HTML(
                value=None,
                html_template=_HTML,
                css_template=(STATIC / "simplex.css").read_text(),
                js_on_load=(STATIC / "raster.js").read_text() + (STATIC / "simplex.js").read_text(),
                elem_id="sx-view",
            )
        with gr.Column(scale=1, min_width=260):
            names = list(PROCESSES)
            first = gr.Dropdown(names, value=names[0], label="Process", info="The noise shown.", elem_id="sx-first")
            second = gr.Dropdown(
                [NONE, *names], value=NONE, label="Beside it", info="Another one, with the same seed.",
                elem_id="sx-second",
            )  # fmt: skip
            direction = gr.Radio(
                list(DIRECTIONS), value=DIRECTIONS[0], label="Direction", info="Generating is the way back.",
                elem_id="sx-direction",
            )  # fmt: skip
            offered = sampler_choices(names[0], NONE, DIRECTIONS[0])
            sampler = gr.Dropdown(
                offered, value=offered[0][1], label="Sampler", info="How one step is taken.", elem_id="sx-sampler"
            )
            steps = gr.Slider(4, MAX_STEPS, value=96, step=1, label="Steps", info="More steps, finer paths.")
            particles = gr.Slider(
                1, MAX_PARTICLES, value=600, step=1, label="Particles", info="How many cells are simulated.",
                elem_id="sx-particles",
            )  # fmt: skip
            with gr.Accordion("Corners", open=False):
                alpha = [
                    gr.Slider(*ALPHA, value=1.0, step=0.1, label=f"alpha {i}", info=f"Pull of noise to corner {i}.")
                    for i in (1, 2, 3)
                ]
                weights = [
                    gr.Slider(0, 1, value=1.0, step=0.05, label=f"Weight of category {i}", info="Its share of data.")
                    for i in (1, 2, 3)
                ]
            seed = gr.Number(value=1, label="Seed", info="The same seed gives the same paths.")
            button = gr.Button("Run", variant="primary", elem_id="sx-run")
    inputs = [first, second, direction, sampler, steps, particles, *alpha, *weights, seed]

    def draw(*values: object) -> str:
        return engine.aside(show, *values)

    drawing = {"fn": draw, "inputs": inputs, "outputs": view, "show_progress": "minimal", "api_visibility": "private"}
    drawing["trigger_mode"] = "always_last"  # a choice made while a run is computed counts once that is done
    for event in (button.click, view.ready, sampler.input):
        event(**drawing)

    def on_choice(first: str, second: str, direction: str, sampler: str) -> list:
        choices = sampler_choices(first, second, direction)
        kept = sampler if sampler in [value for _, value in choices] else choices[0][1]
        return [gr.Dropdown(choices, value=kept), *[gr.Slider(visible=has_alpha(first, second)) for _ in alpha]]

    chosen = [first, second, direction]
    gr.on(
        [control.input for control in chosen],
        on_choice,
        [*chosen, sampler],
        [sampler, *alpha],
        queue=False,
        trigger_mode="always_last",
        **QUIET,
    ).then(**drawing)


def sampler_choices(first: str, second: str, direction: str) -> list[tuple[str, str]]:
    """What the sampler's menu offers for the processes shown."""
    names = sampler_names([name for name in (first, second) if name != NONE], direction == DIRECTIONS[0])
    return [(called[0].upper() + called[1:], sampler) for sampler, called in names.items()]


def has_alpha(first: str, second: str) -> bool:
    return first in DIFFUSIONS or second in DIFFUSIONS


def show(first: str, second: str, direction: str, sampler: str, steps: float, particles: float, *rest: float) -> str:
    """The message that the page draws, for the controls' values (alpha 3, weights 3, seed)."""
    try:
        settings = _settings(direction, sampler, steps, particles, *rest)
        names = [first] if second == NONE else [first, second]
        runs = [simulate(name, settings) for name in names]
    except SettingsError as error:
        raise refuse(error) from error
    return json.dumps({"times": [round(t, 6) for t in runs[0].times], "panels": [encode(run) for run in runs]})


def _settings(direction: str, sampler: str, steps: float, particles: float, *rest: float) -> Settings:
    for name, value in zip(NUMBERS, (steps, particles, *rest), strict=True):
        if not isinstance(value, int | float) or not np.isfinite(value):
            raise SettingsError(f"{name} needs a number.")
        if name in WHOLE and value != int(value):
            raise SettingsError(f"{name} must be a whole number, not {value:g}.")
    return Settings(
        alpha=tuple(float(a) for a in rest[:3]),
        weights=tuple(float(w) for w in rest[3:6]),
        backwards=direction == DIRECTIONS[0],
        sampler=sampler,
        steps=int(steps),
        particles=int(particles),
        seed=int(rest[6]),
    )


def encode(run: Run) -> dict:
    """One panel: paths as uint16 barycentric pairs, density as uint16, fields as int16, theory as numbers."""
    cell, frames = run.cell, len(run.times)
    keys = np.unique(np.linspace(0, frames - 1, min(_KEYS, frames)).round().astype(int)).tolist()
    lo, hi = cell.span
    paths = ((run.paths[..., :2] - lo) / (hi - lo)).clamp(0, 1).mul(65535).round()
    panel = {
        "title": cell.title,
        "note": cell.note,
        "jumps": cell.jumps,
        "box": cell.box,
        "span": cell.span,
        "n": run.paths.shape[1],
        "keys": keys,
        "grid": _DENSITY,
        "native": [round(cell.native_time(t), 4) for t in run.times],
        "unitName": cell.unit,
        "theory": [_theory(cell.theory(t)) for t in run.times],
        "paths": _base64(paths.numpy().astype("<u2")),
        "corner": _base64(run.corner.numpy().astype("u1")),
    }
    at = [run.times[key] for key in keys]
    points = _points(cell.box, *_DENSITY)
    if cell.log_density(points[:1], at[0]) is not None:
        log2 = torch.stack([cell.log_density(points, t) for t in at]) / np.log(2)
        height = ((log2 / _LOG2_RANGE).clamp(-1, 1) + 1) / 2 * 65535
        panel["density"] = _base64(height.round().numpy().astype("<u2"))
        panel["field"] = _field(cell, at)
    if cell.jumps:
        rates = [cell.rates(t) for t in run.times]
        panel["flows"] = {
            "mutation": _numbers(rates[0][0]),
            "selection": [_numbers(selection) for _, selection in rates],
        }
    return panel


def _numbers(rates: Tensor) -> list[list[float]]:
    return [[round(float(x), 4) for x in row] for row in rates]


def _theory(theory: Theory) -> dict:
    def as_list(v: Tensor | None) -> list[float] | None:
        return None if v is None else [round(float(x), 7) for x in v]

    H = None if theory.entropy is None else round(theory.entropy, 6)
    return {
        "mean": as_list(theory.mean),
        "var": as_list(theory.var),
        "entropy": H,
        "fractions": as_list(theory.fractions),
    }


def _field(cell: Cell, times: list[float]) -> dict:
    """Mutation once (it does not change) and selection at every key time, in the plane, scaled to int16."""
    points = _points(cell.box, *_FIELD)
    pairs = [cell.field(points, t) for t in times]
    mutation = plane(pairs[0][0])
    selection = torch.stack([plane(pair[1]) for pair in pairs])
    scales = selection.abs().amax((1, 2)).clamp(min=1e-9)
    mutation_scale = mutation.abs().max().clamp(min=1e-9)
    return {
        "nx": _FIELD[0],
        "ny": _FIELD[1],
        "scales": scales.tolist(),
        "mutationScale": float(mutation_scale),
        "selection": _base64((selection / scales[:, None, None] * 32767).round().numpy().astype("<i2")),
        "mutation": _base64((mutation / mutation_scale * 32767).round().numpy().astype("<i2")),
    }


def _points(box: tuple[float, float, float, float], nx: int, ny: int) -> Tensor:
    """Barycentric coordinates of a grid of the box, rows upwards: (ny nx, 3)."""
    x = torch.linspace(box[0], box[2], nx, dtype=torch.float64)
    y = torch.linspace(box[1], box[3], ny, dtype=torch.float64)
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    return barycentric(torch.stack([xx, yy], -1).reshape(-1, 2))


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
