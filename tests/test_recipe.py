"""Recipes: checked, saved and read again."""

import dataclasses
import json

import pytest
import torch

from dd.models import Models
from dd.recipe import Given, Lane, Recipe, RecipeError
from dd.runs import Run
from tests.tiny import stripes, write_checkpoint

BASE = Recipe(checkpoint="tiny", steps=4, images=3)


@pytest.fixture(scope="module")
def models(tiny_root):
    return Models(tiny_root)


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


def test_a_run_saved_before_there_was_a_temperature_has_one_of_1(tmp_path):
    write_checkpoint(tmp_path / "tiny", temperature=0.8, tilt=0.4)
    models = Models(tmp_path)
    old = json.loads(Run(BASE, models).recipe.to_json())
    del old["temperature"], old["tilt"]
    read = Recipe.from_json(json.dumps(old))
    assert (read.temperature, read.tilt) == (1.0, 0.0)
    written = {"checkpoint": "tiny", "lanes": [{}], "temperature": None}  # by hand: nothing of it was saved
    made = Run(Recipe.from_json(json.dumps(written)), models).recipe
    assert (made.temperature, made.tilt) == (0.8, 0.4)


def test_a_run_saved_before_checkpoints_had_schedules_keeps_the_one_it_had(tmp_path):
    write_checkpoint(tmp_path / "tiny", schedule="early")
    models = Models(tmp_path)
    saved = json.loads(Run(dataclasses.replace(BASE, lanes=(Lane(), Lane(method="heun"))), models).recipe.to_json())
    assert [lane["schedule"] for lane in saved["lanes"]] == ["early", "native"]
    for lane in saved["lanes"]:
        lane["schedule"] = "default"
    assert [lane.schedule for lane in Recipe.from_json(json.dumps(saved)).lanes] == ["cosine", "native"]
    del saved["sha256"]
    assert [lane.schedule for lane in Recipe.from_json(json.dumps(saved)).lanes] == ["default", "default"]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"lanes": 3}', '{"lanes": [{"speed": 1}]}', "\x00\x01", "[" * 9000, "1" * 5000],
    ids=range(9),
)
def test_files_that_are_no_recipe_are_refused(text):
    with pytest.raises(RecipeError, match="not a recipe"):
        Recipe.from_json(text)


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


@pytest.mark.parametrize("text", ["[1, 2]", "3", '"recipe"', "null"])
def test_a_file_that_holds_no_object_is_no_recipe(text):
    with pytest.raises(RecipeError, match="it is no JSON object"):
        Recipe.from_json(text)
