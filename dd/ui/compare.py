"""Tab "Compare": up to four processes side by side, same network, same seed, same number of network calls."""

from dataclasses import replace

import gradio as gr

from dd import results
from dd.models import Models
from dd.recipe import MAX_LANES, Lane, Recipe, RecipeError, sampling_schedule
from dd.runs import Run
from dd.samplers import EVERYWHERE
from dd.ui import explorer, transport
from dd.ui.controls import (
    QUIET,
    SCHEDULE_NAMES,
    class_choices,
    class_dropdown,
    guidance_slider,
    method_choices,
    model_dropdown,
    process_choices,
    recipe,
    seed_with_dice,
    temperature_slider,
    tempered,
    title,
)
from dd.ui.engine import Engine
from dd.ui.player import player
from dd.ui.session import Session

INTRO = (
    "Up to four processes generate side by side from the same seed, with the same network and the same number of "
    "network calls: what differs is the noise and how it is run backwards. At every step the lanes share one call of "
    "the network; the DDPM on pixels, where there is one, has its own. Afterwards a table shows what was measured "
    "before for exactly these settings. What belongs to one process alone (eta, time dilation) is on Generate."
)
DEFAULT = ["dirichlet/dirichlet", "d3pm-absorbing/ancestral", "d3pm-uniform/ancestral", "gaussian/ddpm"]
CALLS = 100  # of the network, to begin with; of other data at most as many, if those that are set were not measured
# Calls are left out on a phone (#compare-table in dd/ui/app.py): they stand under every lane too.
HEADERS = ["Lane", "Calls", "Seconds", "Bound, nats per image (images)", "FID (floor; samples)", "Class accuracy"]
NOTE = (
    "Seconds are this run's, every lane with its share of the network's time. The rest was measured before, of these "
    "weights: the bound on -log p without a class and at temperature 1, which belongs to the process or, for samplers "
    "that follow it, to its probability flow; and at exactly this setting, of samples of all classes, their distance "
    "to real images (FID; the floor is that between two sets of real ones, and only FIDs of as many samples compare). "
    "Less of either is better."
)


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
                4, 250, CALLS, step=1, label="Network calls",
                info="For every lane; samplers with two calls a step take half as many steps. Guidance comes on top.",
            )  # fmt: skip
            # First of what new data set off, which Gradio takes in turn: calls that are set meanwhile shall stay.
            model.input(lambda *chosen: _calls(models, *chosen), [model, calls], calls, queue=False, **QUIET)
            images = gr.Slider(1, 36, 9, step=1, label="Images", info="In every lane.")
            label = class_dropdown(models, model)
            guidance = guidance_slider(label)
            temperature = temperature_slider(models, model)
            schedule = gr.Dropdown(
                [("each sampler's own", "default"), *((SCHEDULE_NAMES[kind], kind) for kind in EVERYWHERE)],
                value="default", label="Schedule",
                info="Where the steps of all lanes go.",
            )  # fmt: skip
            seed = seed_with_dice("compare", "race")
        with gr.Column(scale=3, min_width=320, elem_classes="dd-stage"):
            buttons = transport.buttons("compare")
            titles = [title(_lane(pair)) for pair in DEFAULT]
            stage = player("lanes", "Press Run to start all lanes together.", "compare-player", titles)
            paths = explorer.build(stage, session, "compare-player")
            with gr.Row():
                transport.downloads("compare", session, engine)
                load = transport.load_button("compare")
            table = gr.Markdown(elem_id="compare-table", elem_classes="dd-table")

    controls = [model, lanes, calls, images, label, guidance, temperature, schedule, seed]

    def to_recipe(model, lanes, calls, images, label, guidance, temperature, schedule, seed) -> Recipe:
        if len(lanes or []) < 2:
            raise RecipeError("choose at least two lanes to compare")
        made = [replace(_lane(pair), schedule=schedule) for pair in lanes]
        return recipe(model, made, calls, images, label, guidance, temperature, seed, equal_calls=True)

    def fill(run: Run) -> list:
        loaded = run.recipe
        pairs = [f"{lane.process}/{lane.method}" for lane in loaded.lanes]
        own = [sampling_schedule(run.config, lane.method) for lane in loaded.lanes]
        schedules = [lane.schedule for lane, usual in zip(loaded.lanes, own, strict=True) if lane.schedule != usual]
        return [
            loaded.checkpoint, gr.Dropdown(lane_choices(models, loaded.checkpoint), value=pairs), loaded.steps,
            loaded.images, gr.Dropdown(class_choices(models, loaded.checkpoint), value=str(loaded.label)),
            loaded.guidance, loaded.temperature, schedules[0] if schedules else "default", loaded.seed,
        ]  # fmt: skip

    def measured(session: Session | None) -> str:
        """The table of a finished run."""
        if session is None or session.run is None or not session.run.finished:
            return ""
        records = results.read()
        lanes = (_row(session.run, i, records) for i in range(len(session.run.tracks)))
        rows = [HEADERS, ["---"] * len(HEADERS), *lanes]
        note = f"{NOTE} {_where_measured(session.run, records)}"
        return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{note}"

    model.input(lambda *chosen: _lanes(models, *chosen), [model, lanes], lanes, queue=False, **QUIET)
    lanes.change(lambda pairs: gr.Slider(visible=_has_temperature(pairs)), lanes, temperature, queue=False, **QUIET)
    form = transport.Form("Compare", controls, to_recipe, fill)
    # At once, in the page; before `connect`, since Gradio takes the events of one click in turn.
    gr.on([buttons.run.click, load.upload], None, None, table, js="() => ''", **QUIET)
    events = transport.connect(buttons, load, stage, session, form, models, engine)
    explorer.follow(paths, session, events.running, events.stepping, events.pausing, events.loaded)
    for event in (events.running, events.stepping, events.resetting, events.loaded):
        event.then(measured, session, table, **QUIET)


def _where_measured(run: Run, records: list[dict]) -> str:
    """At what numbers of calls there are samples to compare with."""
    calls = results.sampled_calls(records, {track.checkpoint.sha256 for track in run.tracks})
    if not calls:
        return f"No samples of {run.recipe.checkpoint} are in this table; its model card (About) has what was measured."
    return f"Samples of {run.recipe.checkpoint} were measured at {', '.join(map(str, calls))} calls, not of every lane."


def _lane(pair: str) -> Lane:
    """Of "process/sampler", as the list of lanes has it."""
    return Lane(*str(pair).split("/", 1))


def _lanes(models: Models, model: str, pairs: list[str] | None) -> gr.Dropdown:
    """The lanes of a model just chosen: those that were chosen before, as far as it has them, if that is a race."""
    choices = lane_choices(models, model)
    known = [pair for pair in pairs or [] if pair in [value for _, value in choices]]
    return gr.Dropdown(choices, value=known if len(known) > 1 else DEFAULT)


def _calls(models: Models, model: str, calls: float) -> int | dict:
    """The network calls for a model just chosen: as they are if it has samples of so many or of no number up to CALLS,
    else the most of those that it has, so that the table has figures."""
    measured = results.sampled_calls(results.read(), {models.sha256(model)})
    most = max((n for n in measured if n <= CALLS), default=None)
    return gr.skip() if most is None or calls in measured else most


def _has_temperature(pairs: list[str] | None) -> bool:
    """Whether any of the lanes has one: a network that regresses intensities has none."""
    return not pairs or any(tempered(_lane(pair).process) for pair in pairs)


def _row(run: Run, i: int, records: list[dict]) -> list[str]:
    """How long a lane took, and what is stored of exactly its settings; "not measured" where there is nothing."""
    stored, seconds = run.stored(i, records), sum(views[i].milliseconds for views in run.views) / 1000

    def show(known: dict, *keys: str, form: str) -> str:
        values = [known.get(key) for key in keys]
        return "not measured" if None in values else form.format(*values)

    return [
        title(run.recipe.lanes[i]), str(run.views[-1][i].calls), f"{seconds:.2f}",
        show(stored["bound"] or {}, "nats", "stderr", "images", form="{:.2f} ± {:.2f} ({:,})"),
        show(stored, "fid", "fid_floor", "samples", form="{:,.2f} ({:,.2f}; {:,})"),
        show(stored, "accuracy", form="{:.1%}"),
    ]  # fmt: skip
