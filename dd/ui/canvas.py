"""The picture that "Noise and restore" and "Inpaint" start from: brought, generated or taken over, on its canvas."""

import html
import random
from dataclasses import replace

import gradio as gr
import numpy as np
import torch
from PIL import Image

from dd import checkpoints
from dd.data import grid_of
from dd.export import tiled
from dd.images import open_image, square
from dd.models import Models
from dd.recipe import Cells, Given, Lane, Recipe, RecipeError, real
from dd.runs import Run
from dd.ui.controls import REFUSALS, class_choices, first_method, process_choices, recipe, refuse
from dd.ui.engine import Engine
from dd.ui.session import Session
from dd.ui.upload import png, unwritten

EDGE = 224  # pixels of the picture that is painted on; a multiple of 28 and of 16
NOTHING_YET = (
    "there is no picture here: bring one of your own, or press 'Generate one' and wait for it (after half an hour "
    "without use a picture is forgotten)"
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
    """The picture of a visitor's tab, changed in place, so that an event that returns the state cannot undo what a
    later one chose.

    name: of the model that it is for; cells: None while there is none; uploaded: whether the visitor brought it.
    """

    def __init__(self, name: str | None = None, cells: Cells | None = None):
        self.name, self.cells, self.uploaded = name, cells, False

    def set(self, name: str, cells: Cells | None, uploaded: bool = False) -> "Chosen":
        self.name, self.cells, self.uploaded = name, cells, uploaded
        return self


class Canvas:
    """How a visitor's picture comes onto the canvas, and how a recipe begins from it.

    inpaint: the canvas is one to paint on. Most of what the page calls begins with the same three: (Chosen, the picture
    as the canvas takes it, the note on uploads).
    """

    def __init__(self, models: Models, engine: Engine, inpaint: bool):
        self.models, self.engine, self.inpaint = models, engine, inpaint

    def show(self, name: str, cells: Cells, known: Cells | None = None) -> str | dict:
        """The picture as the canvas takes it, by its file, for inpainting with what is not known painted over."""
        look = self.models.look(name)
        grey = look.of_cells(torch.tensor([cells]))[0]
        smooth = Image.Resampling.NEAREST if look.factor == 1 else Image.Resampling.BICUBIC
        large = file_of(Image.fromarray(grey).resize((EDGE, EDGE), smooth).convert("RGB"))
        layers = [] if known is None else [file_of(painted_over(known))]
        return {"background": large, "layers": layers, "composite": large} if self.inpaint else large

    def put(self, chosen: Chosen, name: str, cells: torch.Tensor, uploaded: bool = False) -> tuple:
        """A picture (H, W) of that model, chosen from now on."""
        rows = tuple(map(tuple, cells.tolist()))
        return chosen.set(name, rows, uploaded), self.show(name, rows), MIDDLE

    def make(self, name: str, wanted: str, chosen: Chosen | None) -> tuple:
        """A generated one of the class asked for, of any where none is."""
        classes = checkpoints.classes(self.models.config(name))
        label = wanted if wanted not in ("any", "each") else random.randrange(classes) if classes else "any"
        try:
            one = recipe(name, [Lane()], 32, 1, label, 1.0, None, random.randrange(2**31))
            run = self.engine.do(Run, one, self.models)
            while not run.finished:
                self.engine.step(run).result()
        except REFUSALS as error:
            raise refuse(error) from error
        chosen = chosen or Chosen(name)
        if chosen.name != name:  # another model was chosen meanwhile
            return gr.skip(), gr.skip(), gr.skip()
        return self.put(chosen, name, run.cells[0][0])

    def take(self, session: Session | None, chosen: Chosen | None) -> tuple:
        """What is on Generate: its model, the three, and what that model has for the other controls."""
        try:
            name, cells = (session or Session()).chosen()
        except REFUSALS as error:
            raise refuse(error) from error
        processes = gr.Dropdown(process_choices(self.models, name, self.inpaint), value="dirichlet")
        classes = gr.Dropdown(class_choices(self.models, name), value="any")
        own = checkpoints.temperature(self.models.config(name))
        taken = (chosen or Chosen()).set(name, cells), self.show(name, cells), MIDDLE
        return name, *taken, processes, first_method("dirichlet"), classes, own

    def bring(self, path: str | None, name: str, chosen: Chosen | None) -> tuple:
        """Another picture of the visitor's, or none, is framed as at first: the three, and the frame."""
        return *self.frame(path, name, chosen, *MIDDLE_SQUARE), *MIDDLE_SQUARE

    def frame(self, path: str | None, name: str, chosen: Chosen | None, *framing: float) -> tuple:
        """The upload, framed anew. When the upload was removed, a picture that did not come from it stays."""
        if path is None and chosen is not None and not chosen.uploaded:
            return chosen, gr.skip(), MIDDLE
        return self.read(path, name, chosen, *framing)

    def read(self, path: str | None, name: str, chosen: Chosen | None, *framing: float) -> tuple:
        """The visitor's picture as that model has it; without one the canvas is empty."""
        chosen = (chosen or Chosen()).set(name, None)
        if path is None:
            return chosen, None, MIDDLE
        try:
            H, W = grid_of(self.models.config(name)["data"])
            where = [real(value, *limits) for value, limits in zip(framing, FRAMING, strict=True)]
            cells = self.engine.do(self.models.look(name).read, square(open_image(path), *where), H, W)
        except REFUSALS as error:
            sentence = html.escape(str(error), quote=False)
            gr.Warning(sentence, duration=12)
            return chosen, None, f"**{sentence}**"
        return self.put(chosen, name, cells, uploaded=True)

    def change_model(self, path: str | None, name: str, chosen: Chosen | None, *framing: float) -> tuple:
        """The upload as another model has it; a picture that was none cannot be one of that model's."""
        if path is None and chosen is not None and chosen.cells is not None:
            gr.Info(f"The picture was one of {chosen.name}: bring or generate one for {name}.", duration=6)
        return self.read(path, name, chosen, *framing)

    def paint(self, region: str, chosen: Chosen | None) -> dict:
        """The picture with a region painted over, nothing else of it."""
        if chosen is None or chosen.cells is None:
            raise refuse(RecipeError(NOTHING_YET))
        cells = chosen.cells
        return self.show(chosen.name, cells, outside(region, len(cells), len(cells[0])))

    def unpainted(self, chosen: Chosen | None) -> dict | None:
        """The picture without any paint: the canvas' own button takes the picture away with it."""
        return None if chosen is None or chosen.cells is None else self.show(chosen.name, chosen.cells)

    def noised(self, name: str, chosen: Chosen | None, *values: object) -> str | dict | None:
        """What the run will start from: its first picture, noised."""
        if chosen is None or chosen.cells is None:
            return None
        try:
            noised = self.engine.do(lambda: Run(self.recipe(name, chosen, *values), self.models).noised()[0])
        except RecipeError:  # a process just chosen, whose sampler is still to come
            return gr.skip()
        return file_of(Image.fromarray(tiled(noised[:1])).resize((EDGE, EDGE), Image.Resampling.NEAREST))

    def recipe(self, name, chosen, canvas, t, process, sampler, steps, images, label, temperature, seed) -> Recipe:
        if chosen is None or chosen.cells is None or chosen.name != name:
            raise RecipeError(NOTHING_YET)
        cells = chosen.cells
        known = known_cells(canvas, len(cells), len(cells[0])) if self.inpaint else None
        made = recipe(name, [Lane(process, sampler)], steps, images, label, 1.0, temperature, seed)
        return replace(made, given=Given(cells, known, t))


def file_of(picture: Image.Image) -> str:
    """Its path. (A picture itself Gradio would write in place, under the eyes of who fetches the same one.)"""
    try:
        return png(picture)
    except OSError as error:
        raise refuse(RecipeError(unwritten(error))) from error


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
        regions = f"{', '.join(REGIONS[:-1])} or {REGIONS[-1]}"
        raise RecipeError(
            "nothing is painted over yet: brush over the part of the picture that shall be made anew, "
            f"or press {regions}"
        )
    return tuple(tuple(int(not cell) for cell in row) for row in painted)
