"""Tab "Compare": up to four processes side by side, same network, same seed, same number of network calls."""

import gradio as gr

from dd.results import find_bound, find_samples, read
from dd.runs import MAX_LANES, Lane, Models, Recipe, RecipeError
from dd.samplers import TWO_CALLS
from dd.ui import explorer, transport
from dd.ui.controls import (
    class_dropdown,
    guidance_slider,
    method_choices,
    model_dropdown,
    process_choices,
    recipe,
    seed_with_dice,
    title,
)
from dd.ui.engine import Engine
from dd.ui.player import player
from dd.ui.session import Session

INTRO = (
    "Up to four processes generate side by side from the same seed, with the same network and the same number of "
    "network calls: what differs is the noise and how it is run backwards. At every step the lanes share one call of "
    "the network. Afterwards a table shows what was measured before for exactly these settings."
)
DEFAULT = ["dirichlet/dirichlet", "d3pm-absorbing/ancestral", "d3pm-uniform/ancestral", "gaussian/ddpm"]
HEADERS = ["Lane", "Calls", "Bound, nats per image", "FID", "FID floor", "Accuracy", "s per image"]


def lane_choices(models: Models, model: str) -> list[tuple[str, str]]:
    names = [name for _, name in process_choices(models, model)]
    lanes = [Lane(name, method) for name in names for _, method in method_choices(name)]
    return [(title(lane), f"{lane.process}/{lane.method}") for lane in lanes]


def build(models: Models, engine: Engine) -> None:
    gr.Markdown(INTRO)
    session = transport.session_state()
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            model = model_dropdown(models.names())
            lanes = gr.Dropdown(
                lane_choices(models, model.value), value=DEFAULT, multiselect=True, max_choices=MAX_LANES,
                label="Lanes", info="Two to four, each a process and a sampler.",
            )  # fmt: skip
            calls = gr.Slider(
                4, 250, 50, step=1, label="Network calls",
                info="For every lane; samplers with two calls a step take half as many steps.",
            )  # fmt: skip
            images = gr.Slider(1, 36, 9, step=1, label="Images", info="In every lane.")
            label, guidance = class_dropdown(models, model), guidance_slider()
            seed = seed_with_dice("compare", "race")
        with gr.Column(scale=3, min_width=320, elem_classes="dd-stage"):
            buttons = transport.buttons("compare")
            stage = player("lanes", "Press Run to start all lanes together.", "compare-player")
            explorer.build(stage, session, "compare-player")
            with gr.Row():
                transport.downloads("compare", session)
            table = gr.Markdown(elem_id="compare-table", elem_classes="dd-table")

    controls = [model, lanes, calls, images, label, guidance, seed]

    def to_recipe(model, lanes, calls, images, label, guidance, seed) -> Recipe:
        if len(lanes or []) < 2:
            raise RecipeError("choose at least two lanes to compare")
        pairs = [Lane(*str(lane).split("/", 1)) for lane in lanes]
        return recipe(model, pairs, calls, images, label, guidance, seed, equal_calls=True)

    def measured(session: Session | None) -> str:
        if session is None or session.run is None:
            return ""
        rows = [HEADERS, ["---"] * len(HEADERS)]
        rows += [_row(session.run.recipe, i, network.sha256) for i, network in enumerate(session.run.networks)]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)

    model.input(
        lambda name: gr.Dropdown(lane_choices(models, name), value=DEFAULT),
        model,
        lanes,
        queue=False,
        **transport.QUIET,
    )
    running = transport.connect(buttons, stage, session, controls, to_recipe, models, engine)
    running.then(measured, session, table, **transport.QUIET)


def _row(made: Recipe, i: int, sha256: str) -> list[str]:
    """The stored measurements of a lane at exactly its settings; "not measured" where there are none."""
    lane = made.lanes[i]
    calls = made.steps if lane.method not in TWO_CALLS else 2 * max(1, made.steps // 2)
    steps = calls // 2 if lane.method in TWO_CALLS else calls
    records = read()
    stored = find_samples(records, sha256, lane.process, lane.method, steps, made.guidance) or {}
    bound = find_bound(records, sha256, lane.process) or {}

    def show(key: str, form: str) -> str:
        value = (bound if key == "nll_nats" else stored).get(key)
        return "not measured" if value is None else format(value, form)

    return [
        title(lane), str(calls), show("nll_nats", ".2f"), show("fid", ".2f"), show("fid_floor", ".2f"),
        show("accuracy", ".1%"), show("seconds_per_image", ".3f"),
    ]  # fmt: skip
