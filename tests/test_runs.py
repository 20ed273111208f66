"""Recipes, runs and their files: what the page, the command line and the API share."""

import dataclasses
import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from dd import __main__ as cli
from dd import export
from dd.checkpoints import CheckpointError
from dd.looks import MASK, GreyLevels
from dd.processes import REGISTRY, process
from dd.runs import Given, Lane, Models, Recipe, RecipeError, Run
from dd.samplers import EVERYWHERE, time_grid
from dd.ui import explorer
from tests.tiny import write_checkpoint

BASE = Recipe(checkpoint="tiny", steps=4, images=3)


@pytest.fixture(scope="module")
def models(tiny_root):
    return Models(tiny_root)


def test_same_seed_same_picture_and_another_seed_another(models):
    first, again = Run(BASE, models).exhaust()[0], Run(BASE, models).exhaust()[0]
    other = Run(dataclasses.replace(BASE, seed=1), models).exhaust()[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", list(REGISTRY))
def test_every_process_and_sampler_runs_to_clean_categories(models, name):
    for method in process(name, 2, 784).methods:
        run = Run(dataclasses.replace(BASE, lanes=(Lane(name, method),)), models)
        cells = run.exhaust()[0]
        assert cells.shape == (3, 28, 28)
        assert set(cells.unique().tolist()) <= {0, 1}
        assert len(run.views) == run.total
        assert run.views[-1][0].t == 0


def test_one_advance_is_one_reverse_step(models):
    run = Run(BASE, models)
    times = [run.advance()[0].t for _ in range(5)]
    assert times[0] == 1
    assert times == sorted(times, reverse=True)
    assert run.finished
    assert run.advance() is None


def test_lanes_of_a_race_do_as_they_would_alone(models):
    lanes = (Lane("dirichlet", "dirichlet"), Lane("d3pm-absorbing", "ancestral"), Lane("gaussian", "ddim"))
    together = Run(dataclasses.replace(BASE, lanes=lanes), models).exhaust()
    for lane, cells in zip(lanes, together, strict=True):
        alone = Run(dataclasses.replace(BASE, lanes=(lane,)), models).exhaust()[0]
        assert (alone == cells).float().mean() > 0.99  # one batch or two round differently in bfloat16


def test_equal_calls_halves_the_steps_of_two_call_methods(models):
    lanes = (Lane("dirichlet", "euler"), Lane("dirichlet", "heun"))
    run = Run(dataclasses.replace(BASE, lanes=lanes, equal_calls=True), models)
    run.exhaust()
    assert [view.calls for view in run.views[-1]] == [4, 4]


def test_a_race_of_two_call_methods_alone_ends_when_they_do(models):
    lanes = (Lane("dirichlet", "heun"), Lane("dirichlet", "langevin"))
    run = Run(dataclasses.replace(BASE, lanes=lanes, equal_calls=True), models)
    run.exhaust()
    assert len(run.views) == run.total == 3


def test_the_last_state_is_the_clean_picture(models):
    lanes = (Lane("dirichlet", "dirichlet"), Lane("gaussian", "ddpm"))
    run = Run(dataclasses.replace(BASE, lanes=lanes), models)
    run.exhaust()
    for view, cells in zip(run.views[-1], run.cells, strict=True):
        assert np.array_equal(view.state, GreyLevels(2).of_cells(cells))
        assert np.array_equal(view.state, view.guess)
    assert any(not np.array_equal(view.state, view.guess) for view in run.views[-2])


def test_the_time_of_a_step_is_shared_out_among_its_lanes(models):
    lanes = (Lane("dirichlet", "euler"), Lane("dirichlet", "heun"))
    run = Run(dataclasses.replace(BASE, lanes=lanes, equal_calls=True), models)
    run.exhaust()
    for views, milliseconds in zip(run.views, run.milliseconds, strict=True):
        assert 0 < sum(view.milliseconds for view in views) <= milliseconds


def test_masked_cells_are_shown_as_masked(models):
    run = Run(dataclasses.replace(BASE, lanes=(Lane("d3pm-absorbing", "ancestral"),)), models)
    first = run.advance()[0]
    assert (first.state == MASK).all()
    run.exhaust()
    assert not (run.views[-1][0].state == MASK).any()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": float("nan")}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"steps": 501}, "steps"),
        ({"images": 0}, "images"),
        ({"images": 65}, "images"),
        ({"images": None}, "images"),
        ({"label": 11}, "class"),
        ({"label": -1}, "class"),
        ({"label": "eleven"}, "class"),
        ({"guidance": float("inf")}, "Guidance"),
        ({"guidance": -1}, "Guidance"),
        ({"temperature": 0}, "Temperature"),
        ({"temperature": float("nan")}, "Temperature"),
        ({"tilt": float("inf")}, "Tilt"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"checkpoint": "nowhere"}, "no model"),
        ({"checkpoint": "../tiny"}, "no model"),
        ({"lanes": ()}, "lanes"),
        ({"lanes": (Lane("perlin", "noise"),)}, "no process"),
        ({"lanes": (Lane("dirichlet", "guess"),)}, "no sampler"),
        ({"lanes": (Lane("dirichlet", "euler", {"speed": 2}),)}, "no option"),
        ({"lanes": (Lane("dirichlet", "euler", {"stretch": float("nan")}),)}, "Stretch"),
        ({"lanes": (Lane("dirichlet", "heun", {"stretch": 2.0}),)}, "stretch is an option of dirichlet, euler, ode"),
        ({"lanes": (Lane("gaussian", "heun", {"eta": 0.5}),)}, "eta is an option of"),
        ({"lanes": (Lane(["dirichlet"]),)}, "no process"),
        ({"lanes": (Lane(options="eta"),)}, "must map names to numbers"),
        ({"lanes": (Lane(options=[1]),)}, "must map names to numbers"),
        ({"equal_calls": "yes"}, "equal_calls must be true or false"),
        ({"lanes": (Lane(schedule="square"),)}, "no schedule"),
        ({"lanes": (Lane(schedule={}),)}, "no schedule"),
        ({"lanes": (Lane(schedule="nichol"),)}, "no schedule"),
        ({"steps": 500, "images": 64, "lanes": (Lane(),) * 4}, "lower one"),
        ({"sha256": "0" * 64}, "other weights"),
        ({"sha256": True}, "other weights"),
    ],
)
def test_bad_recipes_are_refused_with_a_sentence(models, changes, word):
    with pytest.raises(RecipeError, match=word):
        Run(dataclasses.replace(BASE, **changes), models)


def test_recipe_survives_json_and_makes_the_same_picture(models):
    lane = Lane("dirichlet", "euler", {"stretch": 1.5, "below": 0.5})
    run = Run(dataclasses.replace(BASE, lanes=(lane,), label=3, guidance=2.0), models)
    picture = run.exhaust()[0]
    loaded = Recipe.from_json(run.recipe.to_json())
    assert loaded == run.recipe
    assert torch.equal(Run(loaded, models).exhaust()[0], picture)


def test_no_temperature_means_the_checkpoint_s_own_and_another_one_another_picture(tmp_path):
    write_checkpoint(tmp_path / "cool", temperature=0.5)
    models = Models(tmp_path)
    own, cool, plain = (
        Run(dataclasses.replace(BASE, checkpoint="cool", temperature=value), models) for value in (None, 0.5, 1.0)
    )
    assert own.recipe == cool.recipe
    assert torch.equal(own.exhaust()[0], cool.exhaust()[0])
    assert not torch.equal(cool.cells[0], plain.exhaust()[0])


def test_the_tilt_is_the_checkpoint_s_own_where_none_is_named_but_for_a_network_as_it_was_trained(tmp_path):
    write_checkpoint(tmp_path / "cool", temperature=0.8, tilt=-0.4)
    models, recipe = Models(tmp_path), dataclasses.replace(BASE, checkpoint="cool", temperature=None, tilt=None)
    own, even = Run(recipe, models), Run(dataclasses.replace(recipe, tilt=0.0), models)
    assert (own.recipe.temperature, own.recipe.tilt) == (0.8, -0.4)
    assert not torch.equal(own.exhaust()[0], even.exhaust()[0])
    trained = Run(dataclasses.replace(recipe, temperature=1.0), models)
    assert (trained.recipe.temperature, trained.recipe.tilt) == (1.0, 0.0)
    with pytest.raises(RecipeError, match=r"must be from -1\.4 to 1\.4"):
        Run(dataclasses.replace(recipe, tilt=1.9), models)
    for temperature, tilt in ((0.3, 0.4), (0.6, 1.0), (1.9, -0.2)):
        asked = dataclasses.replace(recipe, temperature=temperature, tilt=tilt)
        assert Run(asked, models).recipe.tilt == tilt
    for temperature, tilt in ((0.1, 0.0), (0.25, -0.3), (2.0, 0.0)):  # the checkpoint's own gives way
        asked = dataclasses.replace(recipe, temperature=temperature)
        assert Run(asked, models).recipe.tilt == pytest.approx(tilt)


@pytest.mark.parametrize("lane", [Lane(), Lane("gaussian", "ddim"), Lane("d3pm-absorbing", "ancestral")])
def test_what_a_run_starts_from_can_be_seen_without_asking_the_network(models, lane):
    run = Run(dataclasses.replace(BASE, lanes=(lane,)), models)
    (noised,) = run.noised()
    assert run.views == []
    assert np.array_equal(noised, run.advance()[0].state)


def test_guidance_counts_both_calls_of_a_query(models):
    plain, guided = (Run(dataclasses.replace(BASE, label=3, guidance=w), models) for w in (1.0, 2.0))
    for run, each in ((plain, 1), (guided, 2)):
        run.exhaust()
        assert run.views[-1][0].calls == each * BASE.steps


def test_a_recipe_from_before_there_was_a_temperature_has_one_of_1(models):
    old = json.loads(BASE.to_json())
    del old["temperature"], old["tilt"]
    read = Recipe.from_json(json.dumps(old))
    assert (read.temperature, read.tilt) == (1.0, 0.0)


@pytest.mark.parametrize(("method", "own"), [("euler", "cosine"), ("heun", "native")])
def test_a_schedule_sets_the_times_and_the_sampler_s_own_counts_as_none(models, method, own):
    made = {}
    for schedule in ("default", *EVERYWHERE):
        run = Run(dataclasses.replace(BASE, lanes=(Lane("dirichlet", method, schedule=schedule),)), models)
        run.exhaust()
        assert run.recipe.lanes[0].schedule == ("default" if schedule == own else schedule)
        made[schedule] = [views[0].t for views in run.views]
        assert made[schedule] == time_grid(run.processes[0], BASE.steps, own if schedule == "default" else schedule)
    assert len({tuple(times) for times in made.values()}) == len(EVERYWHERE)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"lanes": 3}', '{"lanes": [{"speed": 1}]}', "\x00\x01", "[" * 9000]
)
def test_files_that_are_no_recipe_are_refused(text):
    with pytest.raises(RecipeError, match="not a recipe"):
        Recipe.from_json(text)


def test_time_dilation_of_one_is_exact_and_of_two_is_not(models):
    plain = Run(BASE, models).exhaust()[0]
    one = Run(dataclasses.replace(BASE, lanes=(Lane("dirichlet", "dirichlet", {"stretch": 1.0}),)), models).exhaust()[0]
    two = Run(dataclasses.replace(BASE, lanes=(Lane("dirichlet", "dirichlet", {"stretch": 2.0}),)), models).exhaust()[0]
    assert torch.equal(plain, one)
    assert not torch.equal(plain, two)


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


def test_command_line_samples_and_repeats_a_recipe(tiny_root, tmp_path, capsys):
    out = [str(tmp_path / name) for name in ("a.png", "a.json", "b.png")]
    base = ["sample", str(tiny_root / "tiny"), "--steps", "4", "--images", "2", "--quiet"]
    assert cli.main([*base, "--out", out[0], "--save-recipe", out[1]]) == 0
    assert cli.main([*base, "--recipe", out[1], "--out", out[2]]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    capsys.readouterr()
    assert cli.main([*base, "--steps", "0"]) == 2
    assert "number of steps" in capsys.readouterr().err
    assert cli.main([*base, "--option", "stretch"]) == 2
    assert "NAME=NUMBER" in capsys.readouterr().err
    assert cli.main(["sample", str(tmp_path / "missing"), "--quiet"]) == 2
    assert "no model" in capsys.readouterr().err
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    assert cli.main([*base, "--recipe", str(tmp_path / "binary.json")]) == 2
    assert "not a recipe" in capsys.readouterr().err
    assert cli.main([*base, "--out", "/proc/a.png"]) == 2
    assert "/proc/a.png cannot be used (No such file" in capsys.readouterr().err


def test_a_name_that_cannot_be_written_is_refused_before_the_run(tiny_root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "Run", None)  # it is not come to
    names = ["--out", str(tmp_path / "a.png"), "--gif", str(tmp_path / "a.jpg")]
    assert cli.main(["sample", str(tiny_root / "tiny"), *names]) == 2
    assert "must end in .png, .gif, .webp or .json" in capsys.readouterr().err


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


def test_damaged_checkpoints_say_what_to_do(tmp_path):
    folder = write_checkpoint(tmp_path / "tiny")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        Run(BASE, Models(tmp_path))
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        Run(BASE, Models(tmp_path))
    (folder / "config.json").write_text("{")
    with pytest.raises(RecipeError, match="no model"):
        Run(BASE, Models(tmp_path))


def stripes() -> tuple[tuple[int, ...], ...]:
    return tuple(tuple((row // 2) % 2 for _ in range(28)) for row in range(28))


@pytest.mark.parametrize("name", list(REGISTRY))
def test_known_cells_stay_and_the_others_are_generated(models, name):
    known = tuple(tuple(int(col < 14) for col in range(28)) for _ in range(28))
    lane = Lane(name, process(name, 2, 784).methods[0])
    given = Given(stripes(), known)
    results = [
        Run(dataclasses.replace(BASE, lanes=(lane,), given=given, seed=seed), models).exhaust()[0] for seed in (0, 1)
    ]
    wanted = torch.tensor(stripes())
    for cells in results:
        assert (cells[:, :, :14] == wanted[:, :14]).all()
    assert (results[0][:, :, 14:] != results[1][:, :, 14:]).any()


def test_a_little_noise_changes_little_and_much_noise_changes_much(models):
    wanted, changed = torch.tensor(stripes()), []
    for t in (0.01, 1.0):
        run = Run(dataclasses.replace(BASE, given=Given(stripes(), t=t)), models)
        changed.append((run.exhaust()[0] != wanted).float().mean())
        assert run.views[0][0].t == t
    assert changed[0] < 0.02
    assert changed[1] > 0.3


def test_a_recipe_with_a_given_image_survives_json(models):
    recipe = Run(dataclasses.replace(BASE, given=Given(stripes(), stripes(), 0.5)), models).recipe
    assert Recipe.from_json(recipe.to_json()) != BASE
    assert Run(Recipe.from_json(recipe.to_json()), models).recipe == recipe


@pytest.mark.parametrize(
    "given", [Given(((0, 1),)), Given(stripes(), t=float("nan")), Given(stripes(), t=2), Given("nonsense"),
              Given(((3,) * 28,) * 28), Given(stripes(), known=((0,),))],
)  # fmt: skip
def test_a_given_image_that_does_not_fit_is_refused(models, given):
    with pytest.raises(RecipeError, match="must be"):
        Run(dataclasses.replace(BASE, given=given), models)


def test_a_lane_of_another_network_runs_beside_the_others(tmp_path):
    write_checkpoint(tmp_path / "tiny")
    recipe = dataclasses.replace(BASE, lanes=(Lane("dirichlet", "dirichlet"), Lane("ddpm", "ddpm")))
    with pytest.raises(RecipeError, match="no noise-unet beside tiny"):
        Run(recipe, Models(tmp_path))
    network = {"channels": [8, 8], "blocks": [1, 1], "classes": 10}
    write_checkpoint(tmp_path / "noise", architecture="noise-unet", network=network)
    run = Run(recipe, Models(tmp_path))
    categories, pixels = run.exhaust()
    assert categories.shape == pixels.shape
    alone = Run(BASE, Models(tmp_path)).exhaust()[0]
    assert (alone == categories).float().mean() > 0.99
    assert run.views[-1][1].entropy is None
    assert run.views[-1][0].entropy is not None
    assert len(explorer.path(run, 0, 0, 3, 5)["x"]) == run.total
    cool = Run(dataclasses.replace(recipe, temperature=0.5), Models(tmp_path))
    assert torch.equal(cool.exhaust()[1], pixels)  # there is no temperature in it
    assert not torch.equal(cool.cells[0], categories)
    only = dataclasses.replace(recipe, lanes=recipe.lanes[1:], temperature=0.5)
    assert Run(only, Models(tmp_path)).recipe.temperature == 1.0
    with pytest.raises(ValueError, match="no path to show"):
        explorer.path(run, 1, 0, 3, 5)
    with pytest.raises(RecipeError, match="no certain cells"):
        Run(dataclasses.replace(recipe, given=Given(stripes(), stripes())), Models(tmp_path))


def test_a_pinned_cell_clicked_again_is_taken_away_and_the_oldest_makes_room():
    pins = []
    for col in range(explorer.MOST_PINS + 1):
        pins = explorer.toggled(pins, (0, 0, 0, col))
    assert pins == [(0, 0, 0, col) for col in range(1, explorer.MOST_PINS + 1)]
    assert explorer.toggled(pins, pins[1]) == [pins[0], *pins[2:]]


@pytest.mark.parametrize("method", process("dirichlet", 2, 784).methods)
def test_every_sampler_starts_from_a_given_image(models, method):
    """Noised to t = 0.5, in many short steps: the times begin there, and none is wasted on the way to it."""
    cells = tuple(tuple((i + j) % 2 for j in range(28)) for i in range(28))
    lane = Lane("dirichlet", method)
    run = Run(dataclasses.replace(BASE, images=1, lanes=(lane,), steps=60, given=Given(cells, t=0.5)), models)
    run.exhaust()
    times = [views[0].t for views in run.views]
    assert times[0] == pytest.approx(0.5)
    assert times == sorted(times, reverse=True)
    assert times[0] - times[1] > 0.5 / 60 / 10


def test_threads_that_ask_for_a_model_at_once_get_the_same(tiny_root):
    models, found = Models(tiny_root), []
    threads = [threading.Thread(target=lambda: found.append(models.get("tiny"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(checkpoint is found[0] for checkpoint in found)
