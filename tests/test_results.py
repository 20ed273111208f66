"""What was measured, read again and looked up."""

import json
from pathlib import Path

import pytest

from dd import results
from dd.processes import EVERY, traits


def test_the_look_up_prefers_the_test_split_then_more_images():
    same = {"kind": "bound", "sha256": "a", "process": "p"}
    records = [
        same | {"split": "test", "images": 10, "nll_nats": 1.0},
        same | {"split": "test", "images": 20, "nll_nats": 2.0},
        same | {"split": "held-out", "images": 50, "nll_nats": 3.0},
    ]
    assert results.find_bound(records, "a", "p")["nll_nats"] == 2.0


def test_the_calls_at_which_samples_of_these_weights_were_measured():
    samples = {"kind": "samples", "sha256": "a"}
    records = [samples | {"calls": 50}, samples | {"calls": 10}, samples | {"calls": 50}, {"kind": "time", "calls": 4}]
    records += [{"kind": "samples", "sha256": "b", "calls": 25}, {"kind": "samples", "sha256": "c", "calls": 7}]
    assert results.sampled_calls(records, {"a"}) == [10, 50]
    assert results.sampled_calls(records, {"a", "b"}) == [10, 25, 50]
    assert results.sampled_calls(records, set()) == []


def test_a_sampler_of_a_flow_has_the_flow_s_bound():
    record = {"sha256": "a", "process": "gaussian", "split": "test", "images": 1}
    every = [record | {"kind": kind} for kind in ("bound", "flow-bound")]
    kinds = [results.find_bound(every, "a", "gaussian", sampler)["kind"] for sampler in ("ddpm", "ddim", "heun")]
    assert kinds == ["bound", "flow-bound", "flow-bound"]
    made = {name: traits(name) for name in EVERY if "bound" in traits(name).losses}
    flows = {(name, method) for name, p in made.items() for method in p.methods if results.follows_flow(p, method)}
    assert flows == {("dirichlet", "ode"), ("dirichlet", "heun"), ("gaussian", "ddim"), ("gaussian", "heun")}


@pytest.mark.parametrize(
    ("figure", "written"),
    [(0.2944, "0.294"), (1.1, "1.10"), (86.31, "86.3"), (99.97, "100"), (1203.74, "1,204"), (11518.2, "11,518")],
)
def test_figures_are_short_and_never_scientific(figure, written):
    assert results.short(figure) == written


def test_no_file_is_no_results(tmp_path: Path):
    assert results.read(tmp_path / "none.jsonl") == []
    (tmp_path / "cut.jsonl").write_text(json.dumps({"a": 1}) + '\n{"b": ')
    assert results.read(tmp_path / "cut.jsonl") == [{"a": 1}]
