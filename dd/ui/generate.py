"""Tab "Generate": one process, stepped backwards live."""

from pathlib import Path

import gradio as gr

from dd.processes import EVERY
from dd.processes import process as named_process
from dd.runs import MAX_IMAGES, MAX_STEPS, Lane, Models, Recipe, RecipeError
from dd.ui import explorer, transport
from dd.ui.controls import (
    OPTION_NAMES,
    class_choices,
    class_dropdown,
    first_method,
    guidance_slider,
    method_choices,
    model_dropdown,
    process_and_sampler,
    recipe,
    refuse,
    seed_with_dice,
)
from dd.ui.engine import Engine
from dd.ui.player import CLEAR, player
from dd.ui.session import Session

INTRO = (
    "Every pixel starts as a random point on the probability simplex: pure noise. At each step the network says, for "
    "every pixel, how likely each grey is given all the others, and the reverse diffusion moves the pixel: under the "
    "Dirichlet process by mutation, random drift and *selection towards what the network believes*. "
    "On the left you see the states moving to a corner, on the right the network's current guess of the clean image. "
    "(Faces are grids of codes: a cell is a small patch, its categories are the codes of a VQ-VAE, which paints on the "
    "left what every cell's own noisy state says of its code.)"
)
STEPS_LEAST = 4


def build(models: Models, engine: Engine) -> gr.State:
    """The tab; its visitor's session is returned, so that other tabs can take over what was generated."""
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
            label, guidance = class_dropdown(models, model), guidance_slider()
            seed = seed_with_dice("generate")
            with gr.Accordion("Options of the process", open=False):
                options = _option_sliders()
        with gr.Column(scale=3, min_width=320, elem_classes="dd-stage"):
            buttons = transport.buttons("generate")
            stage = player("pair", "Press Run, or Step for one reverse step at a time.", "generate-player")
            explorer.build(stage, session, "generate-player")
            with gr.Row():
                transport.downloads("generate", session)
                load = gr.UploadButton("Load recipe", file_types=[".json"], size="sm", min_width=60)

    controls = [model, process, sampler, steps, images, label, guidance, seed, *options.values()]

    def to_recipe(model, process, sampler, steps, images, label, guidance, seed, *values: float) -> Recipe:
        chosen = dict(zip(options, values, strict=True))
        known = named_process(process, 2, 784).options if process in EVERY else {}
        wanted = {
            name: chosen[name]
            for name, option in known.items()
            if sampler in option.methods and chosen[name] != option.default
        }
        return recipe(model, [Lane(process, sampler, wanted)], steps, images, label, guidance, seed)

    transport.connect(buttons, stage, session, controls, to_recipe, models, engine)

    def visible(process: str, sampler: str) -> list:
        known = named_process(process, 2, 784).options
        return [gr.Slider(visible=name in known and sampler in known[name].methods) for name in options]

    def on_process(process: str) -> list:
        return [first_method(process), *visible(process, method_choices(process)[0][1])]

    sliders = list(options.values())
    process.input(on_process, process, [sampler, *sliders], queue=False, **transport.QUIET)
    sampler.input(visible, [process, sampler], sliders, queue=False, **transport.QUIET)

    def on_load(path: str) -> list:
        try:
            loaded = Recipe.from_json(Path(path).read_text(errors="replace"))
            fresh = Session()
            fresh.prepare(loaded, models, engine)
        except ValueError as error:
            raise refuse(error) from error
        loaded = fresh.run.recipe
        lane = loaded.lanes[0]
        if len(loaded.lanes) > 1:
            raise refuse(RecipeError(f"this recipe has {len(loaded.lanes)} lanes; load it on the tab Compare"))
        values = [
            loaded.checkpoint, lane.process, gr.Dropdown(method_choices(lane.process), value=lane.method),
            loaded.steps, loaded.images,
            gr.Dropdown(class_choices(models, loaded.checkpoint), value=str(loaded.label)),
            loaded.guidance, loaded.seed,
        ]  # fmt: skip
        known = fresh.run.processes[0].options
        for name in options:
            option = known.get(name)
            value = lane.options.get(name, option.default if option else options[name].value)
            values.append(gr.Slider(value=value, visible=option is not None and lane.method in option.methods))
        return [CLEAR, None, *values]

    load.upload(on_load, load, [stage, session, *controls], api_visibility="private").success(
        transport.runner(to_recipe, models, engine),
        [session, *controls],
        [stage, session],
        show_progress_on=buttons.place,
        **transport.LIVE,
    )
    return session


def _option_sliders() -> dict[str, gr.Slider]:
    """One slider for every option that any process has; only those of the chosen process and sampler are visible."""
    sliders = {}
    for name in EVERY:
        for key, option in named_process(name, 2, 784).options.items():
            if key not in sliders:
                sliders[key] = gr.Slider(
                    option.minimum, option.maximum, option.default, step=0.05, visible=name == "dirichlet",
                    label=OPTION_NAMES.get(key, key), info=option.help,
                )  # fmt: skip
    return sliders
