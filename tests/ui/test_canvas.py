"""The picture that is restored or painted on, without a browser."""

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from dd.models import Models
from dd.recipe import Recipe, RecipeError
from dd.runs import Run
from dd.ui.canvas import EDGE, MIDDLE, MIDDLE_SQUARE, REGIONS, Canvas, Chosen, known_cells, outside, painted_over
from dd.ui.engine import Engine
from dd.ui.session import Session
from tests.test_images import REFUSED

VALUES = ({}, 0.5, "dirichlet", "dirichlet", 4, 2, "any", 1.0, 0)  # of the controls after the picture


@pytest.fixture(params=[False, True], ids=["restore", "inpaint"])
def canvas(tiny_root, request) -> Canvas:
    return Canvas(Models(tiny_root), Engine(), request.param)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("size", [(28, 28), (16, 16), (7, 5)])
def test_what_is_painted_over_is_what_is_not_known(region, size):
    known = outside(region, *size)
    assert {cell for row in known for cell in row} == {0, 1}
    assert known_cells({"layers": [painted_over(known)]}, *size) == known


@pytest.mark.parametrize("canvas", [None, {}, {"layers": None}, {"layers": [Image.new("RGBA", (EDGE, EDGE))]}])
def test_a_canvas_without_paint_is_refused(canvas):
    with pytest.raises(RecipeError, match="nothing is painted over"):
        known_cells(canvas, 28, 28)


def test_a_touch_of_the_brush_is_not_a_cell():
    layer = np.zeros((EDGE, EDGE, 4), np.uint8)
    layer[:8, :8] = 255  # one cell of 28 x 28
    layer[8, 8] = 255  # a pixel of the next
    known = np.array(known_cells({"layers": [Image.fromarray(layer)]}, 28, 28))
    assert known[0, 0] == 0
    assert known.sum() == 28 * 28 - 1


@pytest.mark.parametrize("what", REFUSED)
def test_a_picture_that_cannot_be_read_gets_a_sentence_and_empties_the_canvas(canvas, tmp_path, what):
    (tmp_path / "text.png").write_bytes(REFUSED[what][0])
    chosen, shown, note = canvas.read(str(tmp_path / "text.png"), "tiny", Chosen("tiny", ((0,),)), *MIDDLE_SQUARE)
    assert (chosen.cells, shown) == (None, None)
    assert note.startswith("**")
    assert REFUSED[what][1] in note


@pytest.mark.parametrize(
    "picture",
    [Image.new("RGB", (1, 1)), Image.new("LA", (3, 400), (9, 0)), Image.new("CMYK", (40, 30)),
     Image.new("I;16", (40, 30), 40_000), Image.new("P", (30, 40))],
    ids=lambda picture: picture.mode,
)  # fmt: skip
def test_pictures_of_every_mode_become_cells(canvas, tmp_path, picture):
    path = tmp_path / ("picture.tiff" if picture.mode == "CMYK" else "picture.png")
    picture.save(path)
    chosen, shown, note = canvas.read(str(path), "tiny", None, *MIDDLE_SQUARE)
    assert (note, bool(shown)) == (MIDDLE, True)
    assert [len(row) for row in chosen.cells] == [28] * 28


def test_an_uploaded_picture_is_chosen_and_one_that_was_generated_survives_taking_an_upload_away(canvas, tmp_path):
    Image.new("L", (40, 30), 200).save(tmp_path / "grey.png")
    chosen, *_ = canvas.bring(str(tmp_path / "grey.png"), "tiny", None)
    assert chosen.uploaded
    assert len(chosen.cells) == 28
    generated, shown, note = canvas.make("tiny", "any", chosen)
    assert not generated.uploaded
    assert (note, bool(shown)) == (MIDDLE, True)
    cells = generated.cells
    assert canvas.frame(None, "tiny", generated, *MIDDLE_SQUARE)[0].cells == cells
    assert canvas.make("tiny", "any", Chosen("another")) == (gr.skip(),) * 3


def test_what_is_on_generate_is_taken_over_with_its_model(canvas):
    run = Run(Recipe("tiny", steps=4, images=2), canvas.models)
    run.exhaust()
    session = Session()
    session.run = run
    name, chosen, shown, note, *_ = canvas.take(session, Chosen("another", ((0,),)))
    assert (name, chosen.name, note) == ("tiny", "tiny", MIDDLE)
    assert chosen.cells == tuple(map(tuple, run.cells[0][0].tolist()))
    assert shown
    with pytest.raises(gr.Error):
        canvas.take(None, None)


def test_a_region_is_painted_over_and_noise_is_shown_only_of_a_picture(canvas):
    cells = ((0,) * 28,) * 28
    assert canvas.noised("tiny", None, *VALUES) is None
    with pytest.raises(gr.Error, match="no picture here"):
        canvas.paint("Left", None)
    if canvas.inpaint:
        painted = canvas.paint("Left", Chosen("tiny", cells))
        layers = [Image.open(layer) for layer in painted["layers"]]
        assert known_cells({"layers": layers}, 28, 28) == outside("Left", 28, 28)
        assert canvas.unpainted(Chosen("tiny", cells)) == painted | {"layers": []}
        assert canvas.unpainted(None) is None
    else:
        assert np.asarray(Image.open(canvas.noised("tiny", Chosen("tiny", cells), *VALUES))).std() > 0
        assert canvas.noised("tiny", Chosen("tiny", cells), {}, 0.5, "gaussian", *VALUES[3:]) == gr.skip()


def test_a_recipe_needs_a_picture_of_its_own_model(canvas):
    for chosen in (None, Chosen(), Chosen("another", ((0,) * 28,) * 28)):
        with pytest.raises(RecipeError, match="no picture here"):
            canvas.recipe("tiny", chosen, *VALUES)
    if not canvas.inpaint:
        assert canvas.recipe("tiny", Chosen("tiny", ((0,) * 28,) * 28), *VALUES).given.t == 0.5
