"""Runs: what the page, the command line and the API share."""

import dataclasses

import numpy as np
import pytest
import torch

from dd.looks import MASK, GreyLevels
from dd.models import Models
from dd.processes import REGISTRY, make_process
from dd.recipe import Given, Lane, Recipe, RecipeError
from dd.runs import Run
from dd.samplers import EVERYWHERE, time_grid
from dd.ui import explorer
from tests.tiny import stripes, write_checkpoint

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
    for method in make_process(name, 2, 784).methods:
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


def test_what_was_measured_is_what_was_shown(models):
    lanes = (Lane("dirichlet", "euler"), Lane("gaussian", "heun"))
    run = Run(dataclasses.replace(BASE, lanes=lanes, label=3, guidance=2.0, equal_calls=True), models)
    run.exhaust()
    for i, (lane, found) in enumerate(zip(lanes, run.measured(), strict=True)):
        views = [views[i] for views in run.views]
        assert (found["process"], found["method"]) == (lane.process, lane.method)
        assert found["calls"] == [view.calls for view in views]
        assert found["t"] == pytest.approx([view.t for view in views], abs=1e-6)
        assert found["entropy"] == pytest.approx([view.entropy for view in views], abs=1e-6)
        assert found["milliseconds"] == pytest.approx([view.milliseconds for view in views], abs=0.1)
        assert found["calls"][-1] == 8
        assert found["entropy"][0] > found["entropy"][-1]


NOT_MEASURED = dict.fromkeys(("bound", "fid", "fid_floor", "samples", "accuracy"))


def of_weights(models: Models) -> list[dict]:
    """A bound, and samples of one setting: two lanes of which one has two calls a step."""
    of = {"sha256": models.get("tiny").sha256, "process": "dirichlet", "split": "test", "images": 9}
    samples = {"kind": "samples", "guidance": 1.0, "temperature": 1.0, "tilt": 0.0, "fid": 1.25, "fid_floor": 0.5}
    return [
        of | {"kind": "bound", "nll_nats": 61.5, "nll_stderr": 0.25},
        of | samples | {"sampler": "heun", "steps": 2, "schedule": "native"},
        of | samples | {"sampler": "dirichlet", "steps": 4, "schedule": "cosine", "accuracy": 0.75},
    ]


def test_what_is_stored_of_a_lane_is_of_its_weights_and_setting(models):
    records, lanes = of_weights(models), (Lane(), Lane("dirichlet", "heun"), Lane("gaussian", "ddim"))
    run = Run(dataclasses.replace(BASE, lanes=lanes, equal_calls=True), models)
    bound = {"nats": 61.5, "stderr": 0.25, "images": 9}
    sampled = {"fid": 1.25, "fid_floor": 0.5, "samples": 9}
    assert run.stored(0, records) == {"bound": bound, **sampled, "accuracy": 0.75}
    assert run.stored(1, records) == {"bound": None, **sampled, "accuracy": None}  # of its flow no bound
    assert run.stored(2, records) == NOT_MEASURED
    others = [record | {"sha256": "0" * 64} for record in records]
    assert run.stored(0, others) == NOT_MEASURED


@pytest.mark.parametrize(
    "changes",
    [{"steps": 5}, {"label": 3}, {"given": Given(stripes(), t=0.5)}, {"lanes": (Lane(options={"stretch": 2.0}),)}],
)
def test_samples_of_another_setting_are_not_stored_of_this_one(models, changes):
    found = Run(dataclasses.replace(BASE, **changes), models).stored(0, of_weights(models))
    assert found == NOT_MEASURED | {"bound": {"nats": 61.5, "stderr": 0.25, "images": 9}}


def test_calls_are_halved_only_where_they_are_to_be_equal(models):
    lane = dataclasses.replace(BASE, lanes=(Lane("dirichlet", "heun"),))
    for equal, fid in ((True, 1.25), (False, None)):
        run = Run(dataclasses.replace(lane, equal_calls=equal), models)
        assert run.stored(0, of_weights(models))["fid"] == fid


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


@pytest.mark.parametrize(("method", "own"), [("euler", "cosine"), ("heun", "native")])
def test_a_schedule_sets_the_times_and_none_is_the_sampler_s_own(models, method, own):
    made = {}
    for schedule in ("default", *EVERYWHERE):
        run = Run(dataclasses.replace(BASE, lanes=(Lane("dirichlet", method, schedule=schedule),)), models)
        run.exhaust()
        named = own if schedule == "default" else schedule
        assert run.recipe.lanes[0].schedule == named
        made[schedule] = [views[0].t for views in run.views]
        assert made[schedule] == time_grid(run.tracks[0].process, BASE.steps, named)
    assert len({tuple(times) for times in made.values()}) == len(EVERYWHERE)


def test_a_checkpoint_may_have_a_schedule_of_its_own(tmp_path):
    write_checkpoint(tmp_path / "tiny", schedule="early")
    lanes = Lane("dirichlet", "ode"), Lane("dirichlet", "heun"), Lane("d3pm-uniform", "ancestral", schedule="cosine")
    run = Run(dataclasses.replace(BASE, lanes=lanes), Models(tmp_path))
    assert [lane.schedule for lane in run.recipe.lanes] == ["early", "native", "cosine"]


def test_time_dilation_of_one_is_exact_and_of_two_is_not(models):
    plain = Run(BASE, models).exhaust()[0]
    one = Run(dataclasses.replace(BASE, lanes=(Lane("dirichlet", "dirichlet", {"stretch": 1.0}),)), models).exhaust()[0]
    two = Run(dataclasses.replace(BASE, lanes=(Lane("dirichlet", "dirichlet", {"stretch": 2.0}),)), models).exhaust()[0]
    assert torch.equal(plain, one)
    assert not torch.equal(plain, two)


@pytest.mark.parametrize("name", list(REGISTRY))
def test_known_cells_stay_and_the_others_are_generated(models, name):
    known = tuple(tuple(int(col < 14) for col in range(28)) for _ in range(28))
    lane = Lane(name, make_process(name, 2, 784).methods[0])
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


def test_a_lane_of_another_network_runs_beside_the_others(tmp_path):
    write_checkpoint(tmp_path / "tiny")
    recipe = dataclasses.replace(BASE, lanes=(Lane("dirichlet", "dirichlet"), Lane("ddpm", "ddpm")))
    with pytest.raises(RecipeError, match=r"needs a network of its own \(noise-unet\), and tiny has none"):
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


@pytest.mark.parametrize("name", list(REGISTRY))
def test_a_given_image_is_noised_to_the_very_time_that_the_steps_begin_at(models, name, monkeypatch):
    """In float32, k / 2000 is another step of a chain than in float64, a quarter of the time."""
    lane, told = Lane(name, make_process(name, 2, 784).methods[0]), []
    made = type(make_process(name, 2, 784))
    monkeypatch.setattr(made, "perturb", lambda self, x0, t, g: told.append(t) or self.prior(x0.shape, g))
    run = Run(dataclasses.replace(BASE, lanes=(lane,), given=Given(stripes(), t=0.9995)), models)
    assert told == [run.advance()[0].t] == [0.9995]


@pytest.mark.parametrize("method", make_process("dirichlet", 2, 784).methods)
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
