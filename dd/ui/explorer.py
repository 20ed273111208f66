"""Click a cell of a run: its path on the simplex, with the network's posterior as a second path."""

import json
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import torch
from torch import Tensor

from dd.recipe import RecipeError
from dd.runs import Run
from dd.ui.controls import REFUSALS, refuse, title
from dd.ui.session import Session
from dd.ui.transport import QUIET, renew

STATIC = Path(__file__).parent / "static"
MOST_PINS = 4
PLACE = ("lane", "image", "row", "col")  # of a click, in pixels of the picture
HINT = (
    "Click a cell in the picture to see its path on the simplex through the run. "
    "With the keyboard: Shift and arrows choose a cell, Enter clicks it."
)


def build(stage: gr.HTML, session: gr.State, player: str) -> gr.HTML:
    """The plots below a player, wired to its clicks; see `follow`."""
    inside = f"<p>{HINT}</p><div class='dd-legend'></div><div class='dd-plots'></div>"
    view = gr.HTML(
        value=None,
        html_template=f"<div class='dd-explorer'>{inside}</div>",
        css_template=(STATIC / "explorer.css").read_text(),
        js_on_load=(STATIC / "explorer.js").read_text(),
        hint=HINT,
        player=player,
        elem_id=f"{player}-explorer",
    )

    def on_select(session: Session | None, event: gr.EventData) -> str | None:
        try:
            return None if session is None else select(session, *(int(event._data[key]) for key in PLACE))
        except REFUSALS as error:
            raise refuse(error) from error

    stage.select(on_select, session, view, queue=False, **QUIET)
    renew(session, stage.select)
    return view


def follow(view: gr.HTML, session: gr.State, *ends: gr.events.Dependency) -> None:
    """After each of these events, which take steps or stop a run, the paths go on to the newest step."""
    for end in ends:
        end.then(renewed, session, view, queue=False, **QUIET)


def select(session: Session, lane: int, image: int, row: int, col: int) -> str | None:
    """A cell was clicked: the paths of all pinned cells. The image counts as clicked even if it has no paths."""
    run = session.run
    if run is None:
        return None
    session.look()
    session.clicked = image
    size = run.look.factor
    pins = toggled(session.pins, (lane, image, row // size * size, col // size * size))
    shown = drawn(run, session.number, pins)
    if session.run is not run:
        return None  # another one was begun meanwhile
    session.pins = pins
    return shown


def drawn(run: Run, number: int, pins: list[tuple[int, ...]]) -> str:
    """The pinned cells' paths as the page reads them. number: of the run, since the page takes no notice of a value
    that is the one before, of the same recipe run again."""
    paths = [path(run, *pin) for pin in pins]
    return json.dumps({"run": number, "K": run.K, "greys": run.look.greys, "pins": paths})


def renewed(session: Session | None) -> str | dict:
    """The paths of the cells that are pinned, as far as the run has come."""
    run = None if session is None else session.run
    if run is None or not session.pins:
        return gr.skip()
    shown = drawn(run, session.number, session.pins)
    return shown if session.run is run and session.pins else gr.skip()  # not of one that was cleared meanwhile


def toggled(pins: list[tuple[int, ...]], pin: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The pins after a click on one: taken away if it was there, otherwise added, the oldest making room."""
    return [old for old in pins if old != pin] if pin in pins else [*pins, pin][-MOST_PINS:]


def path(run: Run, lane: int, image: int, row: int, col: int) -> dict:
    """The states x and posteriors p of one cell at every step: lists of K numbers."""
    if not run.trajectory:
        raise RecipeError("this run is too long to keep a cell's path; choose fewer steps")
    if not run.tracks[lane].process.categorical:
        raise RecipeError("the DDPM's pixels are numbers, not points of the simplex: there is no path to show")
    kept = len(run.trajectory[0][lane][0])
    if image >= kept:
        which = "the first image" if kept == 1 else f"the first {kept} images"
        raise RecipeError(
            f"this run is so large that only the paths of {which} are kept; click there, or take fewer steps"
        )
    size = run.look.factor
    at = {"lane": lane, "image": image, "row": row // size * size, "col": col // size * size, "size": size}
    row, col = row // size, col // size
    cell = (image, slice(None), row, col)
    states, posteriors = zip(*((x[cell], p[cell]) for x, p in (lanes[lane] for lanes in run.trajectory)), strict=True)
    name = f"image {image + 1}, row {row + 1}, column {col + 1}"
    if len(run.recipe.lanes) > 1:
        name += f" · {title(run.recipe.lanes[lane])}"
    return {
        "name": name,
        "at": at,
        "x": _points(states),
        "p": _points(posteriors),
    }


def _points(steps: Sequence[Tensor]) -> list[list[float]]:
    return [[round(v, 4) for v in point] for point in torch.stack(steps).float().tolist()]
