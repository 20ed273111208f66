"""Tab "Reconstruct", second and third part: noise a picture and restore it; paint over a part and have it generated."""

import html
import random
from dataclasses import replace
from functools import partial

import gradio as gr
import numpy as np
import torch
from PIL import Image

from dd import checkpoints
from dd.data import grid_of
from dd.export import tiled
from dd.images import open_image, square
from dd.models import Models
from dd.processes import OWN_NETWORK
from dd.recipe import Cells, Given, Lane, Recipe, RecipeError, real
from dd.runs import Run
from dd.ui import transport
from dd.ui.controls import (
    class_choices,
    class_dropdown,
    first_method,
    method_choices,
    model_dropdown,
    process_and_sampler,
    process_choices,
    recipe,
    refuse,
    seed_with_dice,
    temperature_slider,
)
from dd.ui.engine import Engine
from dd.ui.player import player
from dd.ui.session import EXPIRES, Session
from dd.ui.transport import QUIET
from dd.ui.upload import upload

EDGE = 224  # pixels of the picture that is painted on; a multiple of 28 and of 16
RESTORE = (
    "The cells of your picture are pushed to time t along the forward process, exactly as in training. Then the "
    "reverse process starts from that damaged state: the more was destroyed, the more is invented. (Photographs can be "
    "rebuilt from their codes, but there is no model yet of which codes go together, so they cannot be restored.)"
)
INPAINT = (
    "Paint over what shall be made anew. The cells you leave alone enter as *certain evidence*, at every time; the "
    "others are generated so that they fit. No other training was needed for this."
)
NOTHING_YET = (
    "there is no picture yet, or it was left alone for half an hour and forgotten: bring one of your own, or press "
    "'Generate one' and wait for it"
)
MIDDLE = (
    "Its middle square is taken; the sliders take another. A face should fill it, a digit or garment stand out from "
    "the ground."
)
FRAMING = (("Zoom", 0.5, 8.0), ("From the left", 0.0, 1.0), ("From the top", 0.0, 1.0))  # which square of an upload
MIDDLE_SQUARE = (1.0, 0.5, 0.5)  # with which it begins
REGIONS = ("Middle", "Left", "Right", "Top", "Bottom")  # that a button paints over
PAINT = "#d98c00"
PAINTED = 0.25  # share of a cell under the brush from which it counts as painted over


class Chosen:
    """The picture of a visitor's tab, changed in place: who renews the state cannot bring an older one back.

    name: of the model that it is for; cells: None while there is none; uploaded: whether the visitor brought it.
    """

    def __init__(self, name: str | None = None, cells: Cells | None = None):
        self.name, self.cells, self.uploaded = name, cells, False

    def set(self, name: str, cells: Cells | None, uploaded: bool = False) -> "Chosen":
        self.name, self.cells, self.uploaded = name, cells, uploaded
        return self


def build(models: Models, engine: Engine, generated: gr.State, inpaint: bool) -> None:
    prefix = "inpaint" if inpaint else "restore"
    names = sorted(models.names(), key=lambda name: "vqvae" not in models.config(name)["data"])
    gr.Markdown(INPAINT if inpaint else RESTORE)
    session, chosen = transport.session_state(), gr.State(None, time_to_live=EXPIRES)
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
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
                load = transport.load_button()

    def show(name: str, cells: Cells, known: Cells | None = None) -> Image.Image | dict:
        """The picture as the canvas takes it, for inpainting with what is not known painted over."""
        look = models.look(name)
        grey = look.of_cells(torch.tensor([cells]))[0]
        smooth = Image.Resampling.NEAREST if look.factor == 1 else Image.Resampling.BICUBIC
        large = Image.fromarray(grey).resize((EDGE, EDGE), smooth).convert("RGB")
        layers = [] if known is None else [painted_over(known)]
        return {"background": large, "layers": layers, "composite": large} if inpaint else large

    def on_made(name: str, wanted: str, chosen: Chosen | None) -> tuple:
        classes = models.config(name)["network"]["classes"]
        label = wanted if wanted not in ("any", "each") else random.randrange(classes) if classes else "any"
        try:
            one = recipe(name, [Lane()], 32, 1, label, 1.0, None, random.randrange(2**31))
            run = engine.do(Run, one, models)
            while not run.finished:
                engine.step(run).result()
        except ValueError as error:
            raise refuse(error) from error
        chosen = chosen or Chosen(name)
        if chosen.name != name:  # another model was chosen meanwhile
            return gr.skip(), gr.skip(), gr.skip()
        return shown(chosen, name, run.cells[0][0])

    def on_take(session: Session | None, chosen: Chosen | None) -> tuple:
        try:
            name, cells = (session or Session()).chosen()
        except ValueError as error:
            raise refuse(error) from error
        processes = gr.Dropdown(process_choices(models, name, inpaint), value="dirichlet")
        classes = gr.Dropdown(class_choices(models, name), value="any")
        own = checkpoints.temperature(models.config(name))
        taken = (chosen or Chosen()).set(name, cells), show(name, cells), MIDDLE
        return name, *taken, processes, first_method("dirichlet"), classes, own

    def on_picture(path: str | None, name: str, chosen: Chosen | None) -> tuple:
        """Another picture, or none, is framed as at first."""
        return *on_framing(path, name, chosen, *MIDDLE_SQUARE), *MIDDLE_SQUARE

    def on_framing(path: str | None, name: str, chosen: Chosen | None, *framing: float) -> tuple:
        """A picture that is taken away leaves one that came from elsewhere alone."""
        if path is None and chosen is not None and not chosen.uploaded:
            return chosen, gr.skip(), MIDDLE
        return on_model(path, name, chosen, *framing)

    def on_model(path: str | None, name: str, chosen: Chosen | None, *framing: float) -> tuple:
        chosen = (chosen or Chosen()).set(name, None)
        if path is None:
            return chosen, None, MIDDLE
        try:
            H, W = grid_of(models.config(name)["data"])
            where = [real(value, *limits) for value, limits in zip(framing, FRAMING, strict=True)]
            cells = engine.do(models.look(name).read, square(open_image(path), *where), H, W)
        except ValueError as error:
            sentence = html.escape(str(error), quote=False)
            gr.Warning(sentence, duration=12)
            return chosen, None, f"**{sentence}**"
        return shown(chosen, name, cells, uploaded=True)

    def shown(chosen: Chosen, name: str, cells: torch.Tensor, uploaded: bool = False) -> tuple:
        """A picture (H, W) of that model, chosen from now on, as the canvas shows it, and the note on uploads."""
        rows = tuple(map(tuple, cells.tolist()))
        return chosen.set(name, rows, uploaded), show(name, rows), MIDDLE

    def on_region(region: str, chosen: Chosen | None) -> dict:
        if chosen is None or chosen.cells is None:
            raise refuse(RecipeError(NOTHING_YET))
        cells = chosen.cells
        return show(chosen.name, cells, outside(region, len(cells), len(cells[0])))

    def on_noise(name: str, chosen: Chosen | None, *values: object) -> Image.Image | dict | None:
        """What the run will start from: its first picture, noised."""
        if chosen is None or chosen.cells is None:
            return None
        try:
            noised = engine.do(lambda: Run(to_recipe(name, chosen, *values), models).noised()[0])
        except ValueError:  # a process just chosen, whose sampler is still to come
            return gr.skip()
        return Image.fromarray(tiled(noised[:1])).resize((EDGE, EDGE), Image.Resampling.NEAREST)

    def to_recipe(name, chosen, canvas, t, process, sampler, steps, images, label, temperature, seed) -> Recipe:
        if chosen is None or chosen.cells is None or chosen.name != name:
            raise RecipeError(NOTHING_YET)
        cells = chosen.cells
        known = known_cells(canvas, len(cells), len(cells[0])) if inpaint else None
        made = recipe(name, [Lane(process, sampler)], steps, images, label, 1.0, temperature, seed)
        return replace(made, given=Given(cells, known, t))

    controls = [model, chosen, canvas, t, process, sampler, steps, images, label, temperature, seed]

    def fill(run: Run) -> list:
        loaded, lane, given = run.recipe, run.recipe.lanes[0], run.recipe.given
        name = loaded.checkpoint
        return [
            name, Chosen(name, given.cells), show(name, given.cells, given.known), given.t,
            gr.Dropdown(process_choices(models, name, inpaint), value=lane.process),
            gr.Dropdown(method_choices(lane.process), value=lane.method), loaded.steps, loaded.images,
            gr.Dropdown(class_choices(models, name), value=str(loaded.label)), loaded.temperature,
            loaded.seed,
        ]  # fmt: skip

    form = transport.Form("Inpaint" if inpaint else "Noise and restore", controls, to_recipe, fill)
    transport.connect(buttons, load, stage, session, form, models, engine)
    pictured = {"show_progress": "minimal", "show_progress_on": canvas, "api_visibility": "private"}
    read = [chosen, canvas, note]
    making = made.click(on_made, [model, label, chosen], read, **pictured)
    take.click(on_take, [generated, chosen], [model, *read, process, sampler, label, temperature], **pictured)
    uploaded = [picture, model, chosen]
    reading = picture.change(on_picture, uploaded, [*read, *framing], **pictured)
    framed = gr.on(
        [slider.input for slider in framing],
        on_framing,
        [*uploaded, *framing],
        read,
        trigger_mode="always_last",
        **pictured,
    )
    model.input(on_model, [*uploaded, *framing], read, cancels=[making, reading, framed], queue=False, **pictured)
    process_chosen = process.input(first_method, process, sampler, queue=False, **QUIET)
    if inpaint:
        looks = [button.click for button in regions]
        for region, button in zip(REGIONS, regions, strict=True):
            button.click(partial(on_region, region), chosen, canvas, **pictured)
    else:
        looks = [canvas.change, t.change, sampler.input, images.change, seed.change]
        gr.on(looks, on_noise, controls, damaged, trigger_mode="always_last", **QUIET)
        process_chosen.then(on_noise, controls, damaged, **QUIET)  # when its sampler has come, too
    process.change(lambda name: gr.Slider(visible=name not in OWN_NETWORK), process, temperature, queue=False, **QUIET)
    transport.renew(chosen, buttons.run.click, buttons.step.click, *looks)
    transport.renew(generated, take.click)


def painted_over(known: Cells) -> Image.Image:
    """Paint on every cell that is not known: a layer of the canvas."""
    mask = Image.fromarray(np.uint8(255) * (np.array(known, np.uint8) == 0)).resize(
        (EDGE, EDGE), Image.Resampling.NEAREST
    )
    layer = Image.new("RGBA", (EDGE, EDGE), PAINT)
    layer.putalpha(mask)
    return layer


def outside(region: str, H: int, W: int) -> Cells:
    """1 outside the region, 0 in it."""
    rows, cols = np.indices((H, W))
    inside = {
        "Middle": (abs(2 * rows + 1 - H) < H / 2) & (abs(2 * cols + 1 - W) < W / 2),
        "Left": cols < W // 2, "Right": cols >= W // 2, "Top": rows < H // 2, "Bottom": rows >= H // 2,
    }[region]  # fmt: skip
    return tuple(map(tuple, (~inside).astype(int).tolist()))


def known_cells(canvas: dict | None, H: int, W: int) -> Cells:
    """1 where a cell was left alone, 0 where it was painted over."""
    layers = (canvas or {}).get("layers") or []
    painted = np.zeros((H, W), bool)
    for layer in layers:
        alpha = layer.convert("RGBA").getchannel("A").resize((W, H), Image.Resampling.BOX)
        painted |= np.asarray(alpha) >= PAINTED * 255
    if not painted.any():
        raise RecipeError("nothing is painted over yet: brush over the part of the picture that shall be made anew")
    return tuple(tuple(int(not cell) for cell in row) for row in painted)
