"""Tab "Reconstruct", second and third part: noise a picture and restore it; paint over a part and have it generated."""

from functools import partial

import gradio as gr

from dd.models import Models
from dd.runs import Run
from dd.ui import transport
from dd.ui.canvas import EDGE, FRAMING, MIDDLE, MIDDLE_SQUARE, PAINT, REGIONS, Canvas, Chosen
from dd.ui.controls import (
    class_choices,
    class_dropdown,
    first_method,
    method_choices,
    model_dropdown,
    process_and_sampler,
    process_choices,
    seed_with_dice,
    temperature_slider,
    tempered,
)
from dd.ui.engine import Engine
from dd.ui.player import player
from dd.ui.session import EXPIRES
from dd.ui.transport import QUIET
from dd.ui.upload import upload

RESTORE = (
    "The cells of your picture are pushed to time t along the forward process, exactly as in training. Then the "
    "reverse process starts from that damaged state: the more was destroyed, the more is invented. (Photographs can be "
    "rebuilt from their codes, but there is no model yet of which codes go together, so they cannot be restored.)"
)
INPAINT = (
    "Paint over what shall be made anew. The cells you leave alone enter as *certain evidence*, at every time; the "
    "others are generated so that they fit. No other training was needed for this. (Of photographs there is no model "
    "that could: see Noise and restore.)"
)


def build(models: Models, engine: Engine, generated: gr.State, inpaint: bool) -> None:
    prefix = "inpaint" if inpaint else "restore"
    names = sorted(models.names(), key=lambda name: "vqvae" not in models.config(name)["data"])
    gr.Markdown(INPAINT if inpaint else RESTORE)
    picturing = Canvas(models, engine, inpaint)
    session, chosen = transport.session_state(), gr.State(None, time_to_live=EXPIRES)
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300, elem_classes="dd-picture"):
            model = model_dropdown(names)
            with gr.Row():
                made = gr.Button("Generate one", size="sm", min_width=120, elem_id=f"{prefix}-made")
                take = gr.Button("From Generate", size="sm", min_width=120, elem_id=f"{prefix}-take")
            with gr.Accordion("Bring a picture of your own", open=False):
                picture = upload("Your picture", f"{prefix}-upload", height=180)
                note = gr.Markdown(MIDDLE, elem_id=f"{prefix}-note")
                framing = [
                    gr.Slider(low, high, start, step=0.05, label=name, min_width=120)
                    for (name, low, high), start in zip(FRAMING, MIDDLE_SQUARE, strict=True)
                ]
            if inpaint:
                canvas = gr.ImageEditor(
                    label="Paint here", type="pil", sources=(), transforms=(), layers=False, image_mode="RGBA",
                    brush=gr.Brush(default_size=40, colors=[PAINT], default_color=PAINT, color_mode="fixed"),
                    canvas_size=(EDGE, EDGE), fixed_canvas=True, height=EDGE + 110, buttons=[], format="png",
                    elem_id="inpaint-canvas",
                )  # fmt: skip
                with gr.Row():
                    regions = [
                        gr.Button(region, size="sm", min_width=40, elem_id=f"inpaint-{region.lower()}")
                        for region in REGIONS
                    ]
            else:
                with gr.Row():
                    canvas, damaged = (
                        gr.Image(
                            label=label, interactive=False, height=170, min_width=130, format="png",
                            buttons=["download"], elem_id=f"restore-{elem_id}",
                        )
                        for label, elem_id in (("Picture", "canvas"), ("Noised to t", "damaged"))
                    )  # fmt: skip
            t = gr.Slider(
                0.05, 1, 1.0 if inpaint else 0.5, step=0.01, label="Noise to time t",
                info="How much of the cells' information is destroyed; 1 is all of it.",
            )  # fmt: skip
            with gr.Column(elem_classes="dd-settings"):
                process, sampler = process_and_sampler(models, model, inpaint)
                steps = gr.Slider(4, 250, 48, step=1, label="Steps", info="More steps, fewer mistakes, more time.")
                images = gr.Slider(1, 16, 9, step=1, label="Results", info="How many different ones, side by side.")
                label = class_dropdown(models, model, "any")
                temperature = temperature_slider(models, model)
                seed = seed_with_dice(prefix, "results")
        with gr.Column(scale=3, min_width=320):
            buttons = transport.buttons(prefix)
            stage = player("pair", "Choose a picture, then press Run.", f"{prefix}-player", cells=False)
            with gr.Row():
                transport.downloads(prefix, session, engine)
                load = transport.load_button(prefix)

    controls = [model, chosen, canvas, t, process, sampler, steps, images, label, temperature, seed]

    def fill(run: Run) -> list:
        loaded, lane, given = run.recipe, run.recipe.lanes[0], run.recipe.given
        name = loaded.checkpoint
        return [
            name, Chosen(name, given.cells), picturing.show(name, given.cells, given.known), given.t,
            gr.Dropdown(process_choices(models, name, inpaint), value=lane.process),
            gr.Dropdown(method_choices(lane.process), value=lane.method), loaded.steps, loaded.images,
            gr.Dropdown(class_choices(models, name), value=str(loaded.label)), loaded.temperature,
            loaded.seed,
        ]  # fmt: skip

    form = transport.Form("Inpaint" if inpaint else "Noise and restore", controls, picturing.recipe, fill)
    transport.connect(buttons, load, stage, session, form, models, engine)
    pictured = {"show_progress": "minimal", "show_progress_on": canvas, "api_visibility": "private"}
    read = [chosen, canvas, note]
    making = made.click(picturing.make, [model, label, chosen], read, **pictured)
    take.click(picturing.take, [generated, chosen], [model, *read, process, sampler, label, temperature], **pictured)
    uploaded = [picture, model, chosen]
    reading = picture.change(picturing.bring, uploaded, [*read, *framing], **pictured)
    framed = gr.on(
        [slider.input for slider in framing],
        picturing.frame,
        [*uploaded, *framing],
        read,
        trigger_mode="always_last",
        **pictured,
    )
    under_way = [making, reading, framed]
    model.input(
        picturing.change_model,
        [*uploaded, *framing],
        read,
        cancels=under_way,
        trigger_mode="always_last",
        **pictured,
    )
    process_chosen = process.input(first_method, process, sampler, queue=False, **QUIET)
    if inpaint:
        looks = [canvas.clear, *(button.click for button in regions)]
        for region, button in zip(REGIONS, regions, strict=True):
            button.click(partial(picturing.paint, region), chosen, canvas, **pictured)
        canvas.clear(picturing.unpainted, chosen, canvas, queue=False, **QUIET)
    else:
        looks = [canvas.change, t.change, sampler.input, images.change, seed.change]
        gr.on(looks, picturing.noised, controls, damaged, trigger_mode="always_last", **QUIET)
        process_chosen.then(picturing.noised, controls, damaged, **QUIET)  # when its sampler has come, too
    process.change(lambda name: gr.Slider(visible=tempered(name)), process, temperature, queue=False, **QUIET)
    transport.renew(chosen, buttons.run.click, buttons.step.click, *looks)
    transport.renew(generated, take.click)
