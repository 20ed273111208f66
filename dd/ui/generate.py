"""Tab "Generate": one process, stepped backwards live."""

import gradio as gr

from dd.models import Models
from dd.processes import EVERY, traits
from dd.recipe import MAX_IMAGES, MAX_STEPS, Lane, Recipe, sampling_schedule
from dd.runs import Run
from dd.ui import explorer, transport
from dd.ui.controls import (
    OPTION_NAMES,
    QUIET,
    class_choices,
    class_dropdown,
    first_method,
    guidance_slider,
    kept,
    method_choices,
    model_dropdown,
    process_and_sampler,
    process_choices,
    recipe,
    schedule_choices,
    seed_with_dice,
    temperature_slider,
    tempered,
)
from dd.ui.engine import Engine
from dd.ui.player import player

INTRO = (
    "Every cell of the image, a pixel or for codes a small patch, starts as a random point of the probability simplex: "
    "pure noise. At each step the network says how likely each category of every cell is given all the others, and the "
    "reverse diffusion moves the cells a little: under the Dirichlet process by mutation, random drift and *selection "
    "towards what the network believes*. On the left are the states on their way to a corner, on the right the "
    "network's current guess of the clean image."
)
CODES = (
    "A picture is a grid of codes here, which a VQ-VAE paints: on the left what every cell's own noisy state says "
    "of its code."
)
STEPS_LEAST = 4


def build(models: Models, engine: Engine) -> gr.State:
    """The tab; its visitor's session is returned, so that other tabs can take over what was generated."""

    def own_schedule(model: str, sampler: str) -> str:
        return sampling_schedule(models.config(model), sampler)

    gr.Markdown(INTRO)
    session = transport.session_state()
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            model = model_dropdown(models.names())
            process, sampler = process_and_sampler(models, model)
            steps = gr.Slider(
                STEPS_LEAST, MAX_STEPS, 64, step=1, label="Steps", info="More steps, fewer mistakes, more time."
            )
            images = gr.Slider(1, MAX_IMAGES, 16, step=1, label="Images", info="How many are generated at once.")
            label = class_dropdown(models, model)
            guidance = guidance_slider(label)
            temperature = temperature_slider(models, model)
            seed = seed_with_dice("generate")
            with gr.Accordion("Options of process and sampler", open=False):
                schedule = gr.Dropdown(
                    schedule_choices("dirichlet"), value=own_schedule(model.value, "dirichlet"), label="Schedule",
                    info="Where the steps go in t, the share of information destroyed.",
                )  # fmt: skip
                options = _option_sliders()
        with gr.Column(scale=3, min_width=320, elem_classes="dd-stage"):
            buttons = transport.buttons("generate")
            stage = player("pair", "Press Run, or Step for one reverse step at a time.", "generate-player")
            note = gr.Markdown(CODES, visible="vqvae" in models.config(model.value)["data"])
            paths = explorer.build(stage, session, "generate-player")
            with gr.Row():
                transport.downloads("generate", session, engine)
                load = transport.load_button("generate")

    controls = [model, process, sampler, steps, images, label, guidance, temperature, seed, schedule, *options.values()]

    def to_recipe(
        model, process, sampler, steps, images, label, guidance, temperature, seed, schedule, *values: float
    ) -> Recipe:
        chosen = dict(zip(options, values, strict=True))
        known = {name: traits(process).options[name] for name in offered(process, sampler)}
        wanted = {name: chosen[name] for name, option in known.items() if chosen[name] != option.default}
        lane = Lane(process, sampler, wanted, schedule)
        return recipe(model, [lane], steps, images, label, guidance, temperature, seed)

    def visible(model: str, process: str, sampler: str) -> list:
        """What is shown only where it applies: the note on codes, the temperature, the options."""
        known = offered(process, sampler)
        note_ = gr.Markdown(visible="vqvae" in models.config(model)["data"])
        return [note_, gr.Slider(visible=tempered(process)), *(gr.Slider(visible=name in known) for name in options)]

    def begin(model: str, process: str, sampler: str) -> gr.Dropdown:
        """The schedules of a model, process and sampler just chosen."""
        return gr.Dropdown(schedule_choices(process), value=own_schedule(model, sampler))

    def on_process(model: str, process: str) -> list:
        first = method_choices(process)[0][1]
        return [first_method(process), begin(model, process, first), *visible(model, process, first)]

    def on_model(model: str, process: str, sampler: str) -> list:
        return on_sampler(model, *kept(models, model, process, sampler))

    def on_sampler(model: str, process: str, sampler: str) -> list:
        return [begin(model, process, sampler), *visible(model, process, sampler)]

    chosen, applies = [model, process, sampler], [note, temperature, *options.values()]
    model.input(on_model, chosen, [schedule, *applies], queue=False, **QUIET)
    process.input(on_process, [model, process], [sampler, schedule, *applies], queue=False, **QUIET)
    sampler.input(on_sampler, chosen, [schedule, *applies], queue=False, **QUIET)

    def fill(run: Run) -> list:
        loaded, lane = run.recipe, run.recipe.lanes[0]
        values = [
            loaded.checkpoint, gr.Dropdown(process_choices(models, loaded.checkpoint), value=lane.process),
            gr.Dropdown(method_choices(lane.process), value=lane.method), loaded.steps, loaded.images,
            gr.Dropdown(class_choices(models, loaded.checkpoint), value=str(loaded.label)), loaded.guidance,
            loaded.temperature, loaded.seed, gr.Dropdown(schedule_choices(lane.process), value=lane.schedule),
        ]  # fmt: skip
        known = run.tracks[0].process.options
        chosen = {name: lane.options.get(name, option.default) for name, option in known.items()}
        return values + [gr.Slider(value=chosen.get(name, slider.value)) for name, slider in options.items()]

    form = transport.Form("Generate", controls, to_recipe, fill)
    events = transport.connect(buttons, load, stage, session, form, models, engine)
    explorer.follow(paths, session, events.running, events.stepping, events.pausing, events.loaded)
    events.filled.success(visible, chosen, applies, queue=False, **QUIET)
    return session


def offered(process: str, sampler: str) -> list[str]:
    """The options of the process that this sampler takes."""
    known = traits(process).options if process in EVERY else {}
    return [name for name, option in known.items() if sampler in option.methods]


def _option_sliders() -> dict[str, gr.Slider]:
    """One slider for every option that any process has; only those of the chosen process and sampler are visible."""
    sliders = {}
    for name in EVERY:
        for key, option in traits(name).options.items():
            if key not in sliders:
                sliders[key] = gr.Slider(
                    option.minimum, option.maximum, option.default, step=0.05, visible=name == "dirichlet",
                    label=OPTION_NAMES.get(key, key), info=option.help,
                )  # fmt: skip
    return sliders
