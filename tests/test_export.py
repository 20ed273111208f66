"""Files of a run."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageSequence

from dd import export, results
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


def test_the_recipe_of_a_run_has_what_is_stored_of_its_lanes_and_runs_again(models, tmp_path, monkeypatch):
    sha256 = models.get("tiny").sha256
    record = {"kind": "bound", "sha256": sha256, "process": "dirichlet", "split": "test", "images": 500}
    monkeypatch.setattr(results, "read", lambda: [record | {"nll_nats": 61.5, "nll_stderr": 0.25}])
    run = Run(dataclasses.replace(BASE, lanes=(Lane(), Lane("gaussian", "ddim")), equal_calls=True), models)
    run.exhaust()
    export.write(run, tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text()
    first, second = json.loads(text)["measured"]
    assert first["sha256"] == second["sha256"] == sha256
    assert first["stored"]["bound"] == {"nats": 61.5, "stderr": 0.25, "images": 500}
    assert second["stored"] == dict.fromkeys(("bound", "fid", "fid_floor", "samples", "accuracy"))
    again = Run(Recipe.from_json(text), models)
    assert again.recipe == run.recipe
    assert all(torch.equal(*pair) for pair in zip(again.exhaust(), run.cells, strict=True))


@pytest.fixture
def written(monkeypatch) -> list[tuple[float, float, str]]:
    """What is written in pictures: left and right edge in pixels, text."""
    found, draw = [], ImageDraw.ImageDraw.text

    def text(self, xy, text, fill, font):
        found.append((xy[0], xy[0] + font.getlength(text), text))
        return draw(self, xy, text, fill, font)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return found


FOUR = (Lane(), Lane("d3pm-absorbing", "ancestral"), Lane("d3pm-gaussian", "ancestral"), Lane("gaussian", "ddim"))


def test_an_animation_of_lanes_says_their_times_and_entropies(models, tmp_path, written):
    run = Run(dataclasses.replace(BASE, lanes=(Lane(), Lane("dirichlet", "heun")), equal_calls=True), models)
    run.exhaust()
    export.write(run, tmp_path / "a.webp")
    said = [text for _, _, text in written]
    for views in run.views:
        for view in views:
            assert f"t = {view.t:.2f}, entropy {view.entropy:.3f} bits" in said
    assert said.count("dirichlet, heun") == len(run.views) + 1  # once more to find the size
    assert len({frame.size for frame in frames(tmp_path / "a.webp")}) == 1
    written.clear()
    export.write(run, tmp_path / "a.png")
    assert [text for _, _, text in written] == ["dirichlet, dirichlet", "dirichlet, heun"]


def frames(path: Path) -> list[Image.Image]:
    return [frame.copy() for frame in ImageSequence.Iterator(Image.open(path))]


@pytest.mark.parametrize("edge", [560, 200, 120, 90])
def test_captions_stay_within_their_lanes(models, written, edge):
    run = Run(dataclasses.replace(BASE, lanes=FOUR, images=1), models)
    run.exhaust()
    scale = min(edge, export.MOST_WIDE // 4) // 28
    image = export.picture(run, 2, guess=False, edge=edge, numbers=True)
    for i, view in enumerate(run.views[2]):
        left = i * (28 + export.GAP) * scale
        own = [w for w in written if left <= w[0] and w[1] <= left + 28 * scale]
        said = " ".join(text for _, _, text in own)
        assert f"t = {view.t:.2f}" in said
        assert f"{view.entropy:.3f} bits" in said
        assert run.recipe.lanes[i].process[:4] in said
    lines = len(written) // 4
    assert image.height == 28 * scale + 2 * export.CAPTION + (lines - 1) * export.LINE
    assert lines == (2 if edge >= 200 else 3)


def test_a_lane_without_an_entropy_has_its_time_alone(models, written):
    run = Run(dataclasses.replace(BASE, lanes=FOUR[:2]), models)
    run.exhaust()
    run.views[2][1] = dataclasses.replace(run.views[2][1], entropy=None)
    export.picture(run, 2, guess=False, numbers=True)
    assert [text for _, _, text in written][3:] == [f"t = {run.views[2][1].t:.2f}"]


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
