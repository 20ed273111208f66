"""Paths of single cells: which are kept, and what is said of the others."""

from pathlib import Path

import gradio as gr
import pytest

from dd.models import Models
from dd.recipe import Recipe, RecipeError
from dd.runs import Run
from dd.ui import explorer
from dd.ui.explorer import path, renewed, select
from dd.ui.session import Session


def test_a_large_run_keeps_the_paths_of_its_first_images(tiny_root: Path):
    run = Run(Recipe("tiny", steps=3, images=5), Models(tiny_root))
    run.keep_simplex = 2 * 4 * (2 * 28 * 28) * run.total  # of two images
    run.exhaust()
    assert len(path(run, 0, 1, 5, 5)["x"]) == len(path(run, 0, 1, 5, 5)["p"]) == 4
    with pytest.raises(ValueError, match="only the paths of the first 2 images are kept"):
        path(run, 0, 2, 5, 5)


def test_a_run_too_long_for_one_image_keeps_none(tiny_root: Path):
    run = Run(Recipe("tiny", steps=3, images=2), Models(tiny_root))
    run.keep_simplex = 100
    run.exhaust()
    with pytest.raises(ValueError, match="choose fewer steps"):
        path(run, 0, 0, 5, 5)


def test_the_image_clicked_last_is_the_one_taken_over(tiny_root: Path):
    session = Session()
    with pytest.raises(RecipeError, match="no finished run"):
        session.chosen()
    session.run = Run(Recipe("tiny", steps=2, images=3), Models(tiny_root))
    session.run.advance()
    with pytest.raises(RecipeError, match="no finished run"):
        session.chosen()
    cells = session.run.exhaust()[0]
    assert session.chosen() == ("tiny", tuple(map(tuple, cells[0].tolist())))
    select(session, 0, 1, 4, 4)
    select(session, 0, 2, 9, 9)
    assert session.chosen()[1] == tuple(map(tuple, cells[2].tolist()))
    select(session, 0, 2, 9, 9)
    assert [pin[1] for pin in session.pins] == [1]
    assert session.chosen()[1] == tuple(map(tuple, cells[2].tolist())), "no longer pinned, but clicked last"


def test_paths_of_a_run_that_was_replaced_or_cleared_meanwhile_are_not_sent(tiny_root: Path, monkeypatch):
    models, session = Models(tiny_root), Session()
    first, second = (Run(Recipe("tiny", steps=2, images=3, seed=seed), models) for seed in (0, 1))
    session.run = first
    first.exhaust()
    select(session, 0, 1, 4, 4)
    assert isinstance(renewed(session), str)
    drawing = explorer.drawn

    def meanwhile(change):
        def drawn(*args):
            change()
            return drawing(*args)

        monkeypatch.setattr(explorer, "drawn", drawn)

    meanwhile(lambda: session.pins.clear())  # as Reset does
    assert renewed(session) == gr.skip()
    session.pins = [(0, 1, 4, 4)]
    meanwhile(lambda: setattr(session, "run", second))  # as Run does
    assert renewed(session) == gr.skip()
    session.run, session.pins = first, []
    assert select(session, 0, 2, 5, 5) is None
    assert session.pins == []


def test_an_image_without_paths_can_be_taken_over(tiny_root: Path):
    session = Session()
    session.run = Run(Recipe("tiny", steps=2, images=3), Models(tiny_root))
    session.run.keep_simplex = 100
    cells = session.run.exhaust()[0]
    with pytest.raises(ValueError, match="choose fewer steps"):
        select(session, 0, 2, 4, 4)
    assert session.chosen()[1] == tuple(map(tuple, cells[2].tolist()))


def test_a_pinned_cell_clicked_again_is_taken_away_and_the_oldest_makes_room():
    pins = []
    for col in range(explorer.MOST_PINS + 1):
        pins = explorer.toggled(pins, (0, 0, 0, col))
    assert pins == [(0, 0, 0, col) for col in range(1, explorer.MOST_PINS + 1)]
    assert explorer.toggled(pins, pins[1]) == [pins[0], *pins[2:]]
