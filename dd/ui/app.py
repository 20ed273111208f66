"""The page: one tab a file."""

import inspect
import json
import math

import gradio as gr
from gradio.utils import get_function_description

from dd.models import Models
from dd.recipe import Recipe
from dd.runs import Run
from dd.ui import about, api, compare, generate, player, rebuild, reconstruct, simplex
from dd.ui.controls import QUIET
from dd.ui.engine import Engine

TITLE = "Dirichlet Diffusion"
SUBTITLE = "Diffusion on the probability simplex, live, with exact mathematics."
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")  # nothing to fetch
THEME = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=("ui-monospace", "monospace"))
THREADS = 64  # for what Gradio runs: all concurrency limits together, and as many for what does not queue
ASIDE = 8  # uploads, downloads and the like at a time, whoever asks
HOW_TO_GET_ONE = "Restore the folder from the repository, or train one: the README says how."
TITLES = {
    "run": "Take all steps that are left",
    "pause": "Stop after the step on its way; Run goes on from there",
    "step": "Take exactly one reverse step",
    "reset": "Clear the run and start over",
    "png": "The picture as it is now",
    "gif": "The run as an animation",
    "webp": "The run as an animation, without loss",
    "json": "Settings, seed, what was measured on the way and before; Load recipe runs it again",
    "dice": "Draw another seed",
    "made": "Let the network make a picture to start from",
    "take": "Start from the picture clicked last on the tab Generate",
    "middle": "Paint over the middle, and nothing else",
    "left": "Paint over the left half, and nothing else",
    "right": "Paint over the right half, and nothing else",
    "top": "Paint over the upper half, and nothing else",
    "bottom": "Paint over the lower half, and nothing else",
    "rebuild-run": "Rebuild the picture from its codes",
    "sx-run": "Simulate with these settings",
}  # of buttons, by their id or its last part
# Gradio's dropdowns take the Tab that leaves them for typing, and stay open over the controls below for good.
JS = """() => {
  window.addEventListener("keydown", (event) => {
    if (event.key === "Tab" && event.target.getAttribute("role") === "combobox") event.stopPropagation();
  }, true);
  const titles = TITLES;
  for (const kind of ["pointerover", "focusin"]) window.addEventListener(kind, (event) => {
    const button = event.target.closest("button[id]");
    if (button) button.title = titles[button.id] ?? titles[button.id.split("-").pop()] ?? "";
  }, true);
}""".replace("TITLES", json.dumps(TITLES))
CSS = (
    """
.gradio-container { max-width: min(1280px, 100%) !important; margin: 0 auto !important; }
.gradio-container :is(.main, .wrap, .contain, .tabitem, .column, .block, .prose) { max-width: 100%; min-width: 0; }
:root { --dd-colour-0: #1A80D8; --dd-colour-1: #D55E00; --dd-colour-2: #0B4D38; --dd-colour-3: #7B1A78; }
.dark { --dd-colour-0: #4A90E2; --dd-colour-1: #E8742A; --dd-colour-2: #B5F0D3; --dd-colour-3: #AE4F86; }
.gradio-container .main { padding-inline: clamp(12px, 2.5vw, 32px) !important; }
.dd-head p { margin-top: -4px; }
.gradio-container .pending { opacity: 0.6 !important; }
.gradio-container input:is([role="listbox"], [role="combobox"]) { text-overflow: ellipsis; padding-right: 20px; }
[id^="inpaint-"]:is(button) { padding-inline: 4px !important; }
.katex-display, :is(.dd-table, .dd-card) table { display: block; overflow-x: auto; overflow-y: hidden;
  max-width: min(100%, calc(100vw - 64px)); }
:is(.dd-table, .dd-card) :is(table, tr, th, td) { border-color: var(--border-color-primary) !important; }
:is(.dd-table, .dd-card) table { border: 0 !important; }
.dd-table td { white-space: nowrap; }
.dd-table table { font-variant-numeric: tabular-nums; }
#inpaint-canvas { max-width: 300px; }
.row:has(> #inpaint-middle) { gap: 8px; }
#inpaint-canvas .toolbar-wrap { left: 0 !important; }
#inpaint-canvas .empty > div { font-size: 0; }
#inpaint-canvas .empty > div::after { content: "Generate or bring a picture first"; font-size: 14px; }
[id$="-place"] { margin: -8px 0; overflow: hidden; }
[id$="-place"] :is(.error, .clear-status) { display: none !important; }
[id$="-place"] p { margin: 0; font-size: 12px; line-height: 20px; color: var(--body-text-color-subdued); }
[id$="-place"]:has(.progress-text) p { visibility: hidden; }
[id$="-place"] .progress-text { position: static !important; transform: none !important; padding: 0; line-height: 20px;
  color: var(--body-text-color-subdued); }
.dd-table th { word-break: normal; overflow-wrap: normal; }
.dd-table td:first-child { white-space: normal; min-width: 9em; }
.dd-card :is(th, td) { min-width: 7em; }
footer .divider { display: none !important; }
input[type="range"]:focus-visible { outline: 2px solid var(--color-accent) !important; outline-offset: 4px; }
.dark input[type="range"] { --neutral-200: #475569; color-scheme: dark; }
@media (max-width: 700px) {
  .dd-table :is(th, td) { padding: 4px 6px !important; font-size: 13px; }
  .dd-table td:first-child { min-width: 6.5em; word-break: normal; overflow-wrap: normal; }
  :is(#rebuild-figures, #compare-table) :is(th, td) { padding: 4px 3px !important; font-size: 12px; }
  #rebuild-figures td:first-child { min-width: 4.5em; }
  #compare-table table { max-width: 100%; }
  #compare-table td { white-space: normal; }
  #compare-table td:first-child { min-width: 5em; }
  #compare-table :is(th, td):nth-child(2) { display: none; }
  .dd-stage { order: -1; }
  .dd-picture { display: contents !important; }
  .dd-picture > * { flex: 1 1 100%; }
  .dd-settings { order: 1; }
  .tab-container button { padding: 0 5px !important; font-size: 14px !important; }
}
"""
    + player.CSS
)


def warm_up(models: Models) -> None:
    """Load the first model and build its tables now, so that the first visitor's first step is as fast as the next."""
    Run(Recipe(models.names()[0], steps=2, images=16), models).exhaust()


def build(models: Models, max_seconds: float = math.inf) -> gr.Blocks:
    """The whole app; nothing is loaded or computed before it is asked for. max_seconds: of computing a run may take."""
    engine = Engine(max_seconds)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as demo:
        gr.Markdown(f"# {TITLE}\n{SUBTITLE}", elem_classes="dd-head")
        if not models.names():
            gr.Markdown(f"There is no trained denoiser in the folder `{models.root.name}`. {HOW_TO_GET_ONE}")
            return demo
        with gr.Tab("Generate", id="generate"):
            generated = generate.build(models, engine)
        with gr.Tab("Compare", id="compare"):
            compare.build(models, engine)
        with gr.Tab("Reconstruct", id="reconstruct") as tab:
            reconstruct.build(models, engine, generated)
        tab.select(lambda: rebuild.warm_up(models, engine), queue=False, **QUIET)
        with gr.Tab("Simplex", id="simplex"):
            simplex.build(engine)
        with gr.Tab("About", id="about"):
            about.build(models)
        api.build(models, engine)
        _document(demo)
        engine.submit(warm_up, models)
    _share(demo)
    _remember_signatures(demo)
    return demo


def _share(demo: gr.Blocks) -> None:
    """One limit for all events that have none of their own: together they could take every thread there is."""
    for event in demo.fns.values():
        if event.concurrency_limit == "default":
            event.concurrency_id, event.concurrency_limit = "aside", ASIDE


def _document(demo: gr.Blocks) -> None:
    """What the docstrings say of every argument, beside its type on the API page; Gradio shows it in MCP alone."""
    for event in demo.fns.values():
        if event.api_visibility == "public":
            _, notes, _ = get_function_description(event.fn)
            for argument, note in zip(event.inputs, notes.values(), strict=True):
                argument._api_info = {**argument._api_info, "additional_description": note}


def _remember_signatures(demo: gr.Blocks) -> None:
    """Gradio reads the signatures of all components' constructors anew for every visitor: two thirds of the 36 ms for
    which a new visitor would hold up the web server. inspect.signature returns __signature__ where there is one."""
    for kind in {type(block) for block in demo.blocks.values()}:
        kind.__init__.__signature__ = inspect.signature(kind.__init__)
