"""Tab "Generate": one process, stepped backwards live."""

import random
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from dd.runs import MAX_IMAGES, MAX_STEPS, Lane, Models, Recipe, RecipeError
from dd.ui.controls import class_choices, method_choices, process_choices, recipe, refuse
from dd.ui.engine import Engine
from dd.ui.player import CLEAR, player
from dd.ui.session import EXPIRES, Session

INTRO = (
    "Every pixel starts as a random point on the probability simplex: pure noise. At each step the network says, for "
    "every pixel, how likely ink is there given all the others, and the reverse Wright-Fisher diffusion moves it "
    "by mutation, random drift and *selection towards what the network believes*. "
    "On the left you see the states moving to a corner, on the right the network's current guess of the clean image."
)
STEPS_LEAST = 4


def build(models: Models, engine: Engine) -> None:
    names = models.names()
    if not names:
        gr.Markdown(f"There are no models in `{models.root.name}`. Train one or fetch one; the README says how.")
        return
    session = gr.State(None, time_to_live=EXPIRES)
    gr.Markdown(INTRO)
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            with gr.Row():
                run = gr.Button("Run", variant="primary", min_width=60, elem_id="generate-run")
                pause = gr.Button("Pause", min_width=60, elem_id="generate-pause")
                step = gr.Button("Step", min_width=60, elem_id="generate-step")
                reset = gr.Button("Reset", min_width=60, elem_id="generate-reset")
            model = gr.Dropdown(names, value=names[0], label="Data", info="What the network was trained on.")
            process = gr.Dropdown(
                process_choices(), value="dirichlet", label="Process", info="The noise that is run backwards."
            )
            sampler = gr.Dropdown(
                method_choices("dirichlet"), value="dirichlet", label="Sampler", info="How one reverse step is taken."
            )
            steps = gr.Slider(
                STEPS_LEAST, MAX_STEPS, 64, step=1, label="Steps", info="More steps, fewer mistakes, more time."
            )
            images = gr.Slider(1, MAX_IMAGES, 16, step=1, label="Images", info="How many are generated at once.")
            label = gr.Dropdown(
                class_choices(models, names[0]), value=_first_class(models, names[0]), label="Class",
                info="What to draw; 'any' leaves it to the noise.",
            )  # fmt: skip
            guidance = gr.Slider(
                0, 5, 1.0, step=0.1, label="Guidance",
                info="How strongly the class is insisted on; other than 1 costs twice the network.",
            )  # fmt: skip
            with gr.Row(equal_height=True):
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, info="The same seed gives the same picture.")
                dice = gr.Button("🎲 New seed", min_width=80, elem_id="generate-dice")
            with gr.Accordion("Time dilation and other options", open=False):
                stretch = gr.Slider(
                    0.25, 4, 1.0, step=0.05, label="Time dilation c",
                    info="Multiplies the length of every step below the time chosen next; 1 is exact.",
                )  # fmt: skip
                below = gr.Slider(
                    0, 1, 1.0, step=0.05, label="Dilate below t", info="0 is data, 1 is noise; 1 dilates every step."
                )
                eta = gr.Slider(
                    0, 1, 1.0, step=0.05, label="eta", visible=False,
                    info="Noise of a DDIM step: 0 is the ODE, 1 the ancestral sampler.",
                )  # fmt: skip
        with gr.Column(scale=3, min_width=320):
            stage = player("pair", "Press Run, or Step for one reverse step at a time.", "generate-player")
            with gr.Row():
                downloads = {
                    kind: gr.Button(text, size="sm", min_width=60, elem_id=f"generate-{kind}")
                    for kind, text in (("png", "PNG"), ("gif", "GIF"), ("webp", "WebP"), ("json", "Recipe (JSON)"))
                }
                load = gr.UploadButton("Load recipe", file_types=[".json"], size="sm", min_width=60)
            fetch = gr.DownloadButton("file", visible="hidden", elem_id="generate-file")

    controls = [model, process, sampler, steps, images, label, guidance, seed, stretch, below, eta]

    def to_recipe(model, process, sampler, steps, images, label, guidance, seed, stretch, below, eta) -> Recipe:
        options = {}
        if process == "dirichlet" and stretch != 1 and sampler in ("dirichlet", "euler", "ode"):
            options = {"stretch": stretch, "below": below}
        if process == "gaussian" and sampler == "ddpm" and eta != 1:
            options = {"eta": eta}
        return recipe(model, [Lane(process, sampler, options)], steps, images, label, guidance, seed)

    def on_run(session: Session | None, *values) -> Iterator[tuple]:
        session = session or Session()
        try:
            session.prepare(to_recipe(*values), models, engine)
            for text in session.steps(engine):
                yield text, session
        except ValueError as error:
            raise refuse(error) from error

    def on_step(session: Session | None, *values) -> tuple:
        session = session or Session()
        try:
            session.prepare(to_recipe(*values), models, engine)
            return session.step(engine) or gr.skip(), session
        except ValueError as error:
            raise refuse(error) from error

    quick = {"show_progress": "hidden", "api_visibility": "private"}
    live = {"concurrency_id": "live", "concurrency_limit": 8, **quick}
    running = run.click(on_run, [session, *controls], [stage, session], **live)
    stepping = step.click(on_step, [session, *controls], [stage, session], cancels=[running], **live)
    pause.click(None, cancels=[running, stepping], **quick)
    reset.click(lambda: (CLEAR, None), None, [stage, session], cancels=[running, stepping], queue=False, **quick)
    dice.click(lambda: random.randrange(2**31), None, seed, queue=False, **quick)

    def on_model(name: str):
        return gr.Dropdown(class_choices(models, name), value=_first_class(models, name))

    def on_process(name: str):
        methods = method_choices(name)
        dilates = name == "dirichlet"
        return (
            gr.Dropdown(methods, value=methods[0][1]),
            gr.Slider(visible=dilates),
            gr.Slider(visible=dilates),
            gr.Slider(visible=name == "gaussian"),
        )

    model.input(on_model, model, label, queue=False, **quick)
    process.input(on_process, process, [sampler, stretch, below, eta], queue=False, **quick)

    def on_file(kind: str):
        def make(session: Session | None):
            try:
                return (session or Session()).file(kind)
            except ValueError as error:
                raise refuse(error) from error

        return make

    for kind, button in downloads.items():
        made = button.click(on_file(kind), session, fetch, show_progress="minimal", api_visibility="private")
        made.success(None, js="() => document.querySelector('#generate-file').click()", api_visibility="private")

    def on_load(path: str):
        try:
            loaded = Recipe.from_json(Path(path).read_text(errors="replace"))
            lane = loaded.lanes[0]
            methods = method_choices(lane.process) if lane.process in dict(map(reversed, process_choices())) else []
            if lane.method not in dict(map(reversed, methods)):
                raise RecipeError(f"this recipe asks for {lane.process}/{lane.method}, which is not available here")
            session = Session()
            session.prepare(loaded, models, engine)
            options = lane.options
            values = [
                loaded.checkpoint, lane.process, gr.Dropdown(methods, value=lane.method), loaded.steps, loaded.images,
                gr.Dropdown(class_choices(models, loaded.checkpoint), value=str(session.run.recipe.label)),
                loaded.guidance, loaded.seed, options.get("stretch", 1.0), options.get("below", 1.0),
                options.get("eta", 1.0),
            ]  # fmt: skip
        except ValueError as error:
            raise refuse(error) from error
        return [CLEAR, *values]

    load.upload(on_load, load, [stage, *controls], api_visibility="private").success(
        on_run, [session, *controls], [stage, session], **live
    )


def _first_class(models: Models, name: str) -> str:
    return class_choices(models, name)[0][1]
