"""Files of a run."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dd import export
from dd.models import Models
from dd.recipe import Lane, Recipe, RecipeError
from dd.runs import Run

BASE = Recipe(checkpoint="tiny", steps=4, images=3)


@pytest.fixture(scope="module")
def models(tiny_root):
    return Models(tiny_root)


def test_files_of_a_run(models, tmp_path):
    run = Run(BASE, models)
    run.exhaust()
    for name in ("a.png", "a.gif", "a.webp", "a.json"):
        export.write(run, tmp_path / name)
    assert Image.open(tmp_path / "a.png").size[0] >= 28 * 2
    for name in ("a.gif", "a.webp"):
        picture = Image.open(tmp_path / name)
        assert picture.n_frames == 5
        assert picture.info.get("loop") == 0
    assert json.loads((tmp_path / "a.json").read_text())["sha256"] == run.recipe.sha256
    lanes = dataclasses.replace(BASE, lanes=(Lane(), Lane("gaussian", "ddim"), Lane("d3pm-absorbing", "ancestral")))
    race = Run(lanes, models)
    race.exhaust()
    export.write(race, tmp_path / "lanes.gif")
    animated = Image.open(tmp_path / "lanes.gif")
    assert animated.n_frames == 5
    assert animated.width > 2.5 * animated.height
    final = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert set(np.unique(final)) <= {0, 255}
    with pytest.raises(RecipeError, match="must end in"):
        export.write(run, tmp_path / "a.exe")


def test_lanes_are_named_in_their_files(models):
    """A lane's name is written above its own picture."""
    lanes = (Lane(), Lane("gaussian", "ddim"))
    run = Run(dataclasses.replace(BASE, lanes=lanes), models)
    run.exhaust()
    image = np.asarray(export.picture(run).convert("L"))
    heading = image[: 2 * export.CAPTION]
    for half in np.array_split(heading, 2, axis=1):
        assert (half < 128).any(), "no name"
    assert not np.array_equal(*(half[:, :120] for half in np.array_split(heading, 2, axis=1)))


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.webp", "a.json"])
def test_a_file_that_cannot_be_finished_leaves_the_old_one(models, tmp_path, monkeypatch, name):
    run = Run(BASE, models)
    run.exhaust()
    (tmp_path / name).write_bytes(b"old")

    def half(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", lambda self, path, *_, **__: half(path))
    monkeypatch.setattr(Path, "write_text", lambda path, _: half(path))
    with pytest.raises(OSError, match="No space"):
        export.write(run, tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_an_animation_of_many_large_frames_is_made_smaller(models, tmp_path, monkeypatch):
    run = Run(dataclasses.replace(BASE, steps=4, images=4), models)
    run.exhaust()
    export.write(run, tmp_path / "whole.gif")
    whole = Image.open(tmp_path / "whole.gif")
    monkeypatch.setattr(export, "MOST_PIXELS", whole.n_frames * whole.width * whole.height // 3)
    for kind in ("gif", "webp"):
        export.write(run, tmp_path / f"less.{kind}")
        less = Image.open(tmp_path / f"less.{kind}")
        assert less.n_frames == whole.n_frames
        assert less.n_frames * less.width * less.height <= export.MOST_PIXELS
