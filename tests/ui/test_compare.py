"""Tab "Compare": what the table says of a run."""

import json
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from dd import results
from dd.models import Models
from dd.recipe import Lane, Recipe, RecipeError
from dd.runs import Run
from dd.ui import compare

LANES = (Lane("dirichlet", "dirichlet"), Lane("dirichlet", "heun"))
BOUND = {"kind": "bound", "split": "test", "images": 10_000, "nll_nats": 61.5, "nll_stderr": 0.284}
FLOW = BOUND | {"kind": "flow-bound", "images": 500, "nll_nats": 62.25, "nll_stderr": 0.65}
CELL = {
    "kind": "samples",
    "split": "test",
    "images": 9,
    "guidance": 1.0,
    "temperature": 1.0,
    "tilt": 0.0,
    "fid": 1.25,
    "fid_floor": 0.5,
}
CELL |= {"accuracy": 0.75}


@pytest.fixture
def models(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    """A model of which the bound and two settings are measured: one call a step, four steps; two calls, two steps."""
    models = Models(tiny_root)
    of = {"sha256": models.get("tiny").sha256, "process": "dirichlet"}
    cells = [
        CELL | {"sampler": "dirichlet", "steps": 4, "calls": 4, "schedule": "cosine"},
        CELL | {"sampler": "heun", "steps": 2, "calls": 4, "schedule": "native", "fid": 2.5},
    ]
    file = tmp_path / "results.jsonl"
    file.write_text("\n".join(json.dumps(record | of) for record in [BOUND, FLOW, *cells]))
    records = results.read(file)
    monkeypatch.setattr(results, "read", lambda: records)
    return models


def rows(models: Models, **changes: object) -> list[list[str]]:
    run = Run(
        Recipe(**{"checkpoint": "tiny", "lanes": LANES, "steps": 4, "images": 2, "equal_calls": True} | changes), models
    )
    run.exhaust()
    return [compare._row(run, i, results.read()) for i in range(len(LANES))]


def test_a_lane_s_row_has_its_time_here_and_what_is_stored_of_its_setting(models: Models):
    first, second = rows(models)
    assert first[1] == second[1] == "4"
    assert float(first[2]) > 0
    assert first[3:] == ["61.50 ± 0.28 (10,000)", "1.25 (0.50; 9)", "75.0%"]
    assert second[3:] == ["62.25 ± 0.65 (500)", "2.50 (0.50; 9)", "75.0%"]


OTHER_LANES = [
    tuple(replace(lane, schedule="information") for lane in LANES),
    (replace(LANES[0], options={"stretch": 2.0}), *LANES[1:]),
]


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 5},
        {"guidance": 2.0},
        {"temperature": 0.8},
        {"temperature": 1.0, "tilt": 0.2},
        {"label": "any"},
        {"label": 3},
        *({"lanes": l} for l in OTHER_LANES),
    ],
)
def test_what_was_measured_at_another_setting_is_not_measured_here(models: Models, changes: dict):
    row = rows(models, **changes)[0]
    assert row[1] == str(changes.get("steps", 4) * (2 if "guidance" in changes else 1))
    assert row[3:] == ["61.50 ± 0.28 (10,000)", "not measured", "not measured"]


def test_the_table_says_how_many_images_a_bound_is_of(models: Models):
    assert "Bound, nats per image (images)" in compare.HEADERS
    assert len(compare.HEADERS) == len(rows(models)[0])


SKIPPED = gr.skip()


@pytest.mark.parametrize(
    ("measured", "set_to", "becomes"),
    [
        ((10, 50), 100, 50),
        ((10, 50), 60, 50),
        ((50, 100, 250), 60, 100),
        ((10, 50), 10, SKIPPED),
        ((10, 50), 50.0, SKIPPED),
        ((50, 250), 250, SKIPPED),
        ((250,), 100, SKIPPED),
        ((), 100, SKIPPED),
    ],
)
def test_other_data_begin_at_calls_that_were_measured(
    models: Models, monkeypatch: pytest.MonkeyPatch, measured: tuple[int, ...], set_to: float, becomes: object
):
    of = {"kind": "samples", "sha256": models.get("tiny").sha256}
    others = {"kind": "samples", "sha256": "0" * 64, "calls": set_to}, {"kind": "bound", "sha256": of["sha256"]}
    monkeypatch.setattr(results, "read", lambda: [*others, *(of | {"calls": n} for n in measured)])
    assert compare._calls(models, "tiny", set_to) == becomes


def test_a_model_whose_weights_cannot_be_read_leaves_the_calls(models: Models):
    assert compare._calls(models, "nowhere", 7) == SKIPPED


@pytest.mark.parametrize("odd", [None, ["tiny"], 7])
def test_what_is_no_model_s_name_is_refused_with_a_sentence(models: Models, odd: object):
    with pytest.raises(RecipeError, match="by its name"):
        compare._calls(models, odd, 7)
