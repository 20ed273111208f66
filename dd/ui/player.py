"""The player component: a canvas per panel, fed one reverse step at a time, scrubbed in the browser."""

import base64
import json
from pathlib import Path

import gradio as gr

from dd.runs import Run

STATIC = Path(__file__).parent / "static"
CSS = (STATIC / "player.css").read_text()  # the page's: Gradio would write a component's anew with every step

_PANELS = (
    "<div class='dd-panels dd-{layout}{cells}'>{panels}</div>"
    "<div class='dd-bar'><button type='button' class='dd-replay' title='Play what has been computed' disabled>"
    "Replay</button>{toggle}<input type='range' min='0' max='1' value='0' step='1' disabled title='Any step again' "
    "aria-label='Timeline of the run'></div>"
    "<div class='dd-status' role='status' aria-live='off'></div>{curve}"
)
_PANEL = (
    "<figure class='dd-panel'><figcaption>{}</figcaption><div class='dd-screen'><canvas></canvas></div>"
    "{numbers}</figure>"
)
_TOGGLE = (
    "<button type='button' class='dd-toggle' title='States of the cells, or what the network believes'>"
    "Show guesses</button>"
)
_NUMBERS = "<div class='dd-numbers'>&nbsp;</div>"
CLEAR = json.dumps({"clear": True})


PAIR = ["State of the cells", "The network's guess"]


def player(layout: str, hint: str, elem_id: str, titles: list[str] = PAIR, cells: bool = True) -> gr.HTML:
    """layout "pair": one lane, its state beside the network's guess. "lanes": up to four lanes and their entropies.

    titles: of the panels before anything has run. cells: whether they can be clicked (dd.ui.explorer).
    """
    lanes = layout == "lanes"
    named = [f"{i}. {title}" for i, title in enumerate(titles, 1)] if lanes else titles  # as their curves' dots are
    html = _PANELS.format(
        layout=layout,
        cells=" dd-cells" if cells else "",
        panels="".join(_PANEL.format(title, numbers=_NUMBERS if lanes else "") for title in named),
        toggle=_TOGGLE if lanes else "",
        curve="<svg class='dd-curve' role='img' aria-label='Entropy of every lane against t'></svg>" if lanes else "",
    )
    return gr.HTML(
        value=None,
        html_template=html,
        js_on_load=(STATIC / "player.js").read_text(),
        layout=layout,
        name=elem_id,
        cells=cells,
        hint=hint,
        elem_id=elem_id,
    )


def message(run: Run, number: int, step: int, titles: list[str]) -> str:
    """One step of a run as the player reads it."""
    views = run.views[step]
    n, h, w = views[0].state.shape
    return json.dumps(
        {
            "run": number,
            "step": step,
            "total": run.total,
            "n": n,
            "h": h,
            "w": w,
            "size": run.look.factor,
            "ms": run.milliseconds[step],
            "shares": [round(view.milliseconds, 1) for view in views],
            "done": run.finished and step == len(run.views) - 1,
            "lanes": [
                {
                    "title": title,
                    "t": round(view.t, 5),
                    "calls": view.calls,
                    "entropy": None if view.entropy is None else round(view.entropy, 6),
                    "state": base64.b64encode(view.state).decode(),
                    "guess": base64.b64encode(view.guess).decode(),
                }
                for title, view in zip(titles, views, strict=True)
            ],
        }
    )
