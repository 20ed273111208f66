"""train.results, its page (train.tables) and dd.results: cells are measured once, a stopped run goes on, look-ups say
what was measured."""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dd import checkpoints, results
from dd.perceptual import WEIGHTS
from dd.processes import make_process
from dd.samplers import steps_for
from tests.tiny import write_checkpoint
from train import bounds, judges, tables
from train import results as script

BUDGETS = 2


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "ODE_STEPS", 3)
        yield


def furnished(root: Path, mnist_root: Path) -> Path:
    (root / "data").symlink_to(mnist_root)
    write_checkpoint(root / "toy")
    write_checkpoint(root / "judge", architecture="classifier", network={"K": 2, "channels": [4, 8]})
    return root


@pytest.fixture
def folder(tmp_path: Path, mnist_root: Path) -> Path:
    return furnished(tmp_path, mnist_root)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, mnist_root: Path) -> Path:
    """A folder where all kinds were measured, with every sampler, into a page that had something else on it."""
    root = furnished(tmp_path_factory.mktemp("whole"), mnist_root)
    (root / "docs").mkdir()
    page = f"# Results\n\nBefore.\n\n{tables.BEGIN}\nstale\n{tables.END}\n\nAfter.\n"
    (root / "docs" / "results.md").write_text(page)
    run(root)
    return root


THREE = ("--samplers", "dirichlet", "heun", "ancestral")
FEW = ("--kinds", "bound", "samples", *THREE)


def run(folder: Path, *more: str) -> list[dict]:
    """Two processes at 2 and 4 calls, on six images."""
    argv = ["--checkpoints", str(folder / "toy"), "--classifier", str(folder / "judge"), "--device", "cpu"]
    argv += ["--data-root", str(folder / "data"), "--out", str(folder / "docs")]
    argv += ["--processes", "dirichlet", "d3pm-absorbing"]
    argv += ["--calls", "4", "2", "--images", "6", "--bound-images", "6", "--steps-bound-images", "4"]
    script.main([*argv, "--flow-images", "4", *more])
    return results.read(folder / "docs" / "results.jsonl")


def test_every_cell_is_measured_once_and_looked_up(whole: Path, capsys: pytest.CaptureFixture):
    folder, records = whole, results.read(whole / "docs" / "results.jsonl")
    samplers = len(make_process("dirichlet", 2, 784).methods) + len(make_process("d3pm-absorbing", 2, 784).methods)
    assert Counter(r["kind"] for r in records) == {
        "bound": 2, "flow-bound": 1, "steps-bound": BUDGETS + 1, "samples": BUDGETS * samplers,
        "time": BUDGETS * samplers,
    }  # fmt: skip
    assert run(folder) == records  # nothing new, nothing twice
    sha256 = records[0]["sha256"]
    heun = results.find_samples(records, sha256, "dirichlet", "heun", steps=2, schedule="native")
    assert (heun["calls"], heun["budget"]) == (4, 4)
    assert results.find_samples(records, sha256, "dirichlet", "euler", steps=2, schedule="cosine")["calls"] == 2
    assert results.find_samples(records, sha256, "dirichlet", "euler", steps=3, schedule="cosine") is None
    assert results.find_samples(records, sha256, "dirichlet", "euler", steps=2, schedule="cosine", guidance=2.0) is None
    assert results.find_samples(records, "0" * 64, "dirichlet", "euler", steps=2, schedule="cosine") is None
    assert results.find_bound(records, sha256, "d3pm-absorbing")["nll_nats"] > 0
    assert results.find_bound(records, sha256, "gaussian") is None
    needed = {"checkpoint", "sha256", "process", "sampler", "calls", "steps", "guidance", "images", "seed", "fid",
              "fid_floor", "precision", "recall", "accuracy", "machine", "split"}  # fmt: skip
    assert needed <= set(heun)
    assert all(heun[k] is not None for k in needed)


def test_a_run_out_of_minutes_goes_on_where_it_stopped(folder: Path, capsys: pytest.CaptureFixture):
    assert run(folder, *FEW, "--minutes", "0") == []
    assert "run the same command again" in capsys.readouterr().out
    whole = run(folder, *FEW)
    path = folder / "docs" / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5]) + lines[5][:40])  # killed while writing the sixth
    assert run(folder, *FEW) == whole


def test_other_weights_are_other_cells_and_the_page_shows_the_latest(folder: Path, capsys: pytest.CaptureFixture):
    old = run(folder, *FEW)
    write_checkpoint(folder / "toy", seed=1)
    records = run(folder, *FEW)
    assert len(records) == 2 * len(old)
    page = (folder / "docs" / "results.md").read_text()
    assert records[-1]["sha256"][:12] in page
    assert old[0]["sha256"][:12] not in page


def test_the_page_has_every_figure_and_leaves_the_rest_alone(whole: Path, capsys: pytest.CaptureFixture):
    docs = whole / "docs"
    records = results.read(docs / "results.jsonl")
    page = (docs / "results.md").read_text()
    assert page.startswith("# Results\n\nBefore.\n")
    assert page.endswith("\n\nAfter.\n")
    assert "stale" not in page
    for sampler, schedule in (("dirichlet", "cosine"), ("heun", "native")):
        row = {r["budget"]: r for r in records if r.get("sampler") == sampler and r["kind"] == "samples"}
        for key, title in tables.FIGURES.items():
            table = page.split(f"\n{title} by network calls:\n")[1].split("\n\n")[0]
            assert (
                f"| dirichlet | {sampler} | {schedule} | {results.short(row[2][key])} | {results.short(row[4][key])} |"
                in table
            )
    only = [r for r in records if r["kind"] == "samples" and r["budget"] == 4]
    figures = " | ".join(results.short(only[0][key]) for key in tables.FIGURES)
    assert f"| dirichlet | {only[0]['sampler']} | cosine | 4 | {figures} |" in tables.markdown(only)
    bound = next(r for r in records if r["kind"] == "bound")
    assert f"{bound['nll_nats']:.2f} ± {bound['nll_stderr']:.2f}" in page
    chain = {r["steps"]: r for r in records if r["kind"] == "steps-bound" and r["process"] == "d3pm-absorbing"}
    cells = " | ".join(f"{chain[n]['nll_nats']:.2f} ± {chain[n]['nll_stderr']:.2f}" for n in (2, 4, 1000))
    assert f"| d3pm-absorbing | {cells} |" in page
    assert (docs / "fid-toy.png").read_bytes()[:4] == b"\x89PNG"
    assert "dirichlet · heun" in (docs / "fid-toy.svg").read_text()
    seconds = {r["budget"]: r["seconds_per_image"] for r in records if r["kind"] == "time" and r["sampler"] == "heun"}
    assert f"| dirichlet | heun | native | {seconds[2]:.3g} | {seconds[4]:.3g} |" in page
    run(whole)
    assert (docs / "results.md").read_text() == page


@pytest.mark.parametrize(
    ("sampler", "guidance", "steps"), [("ode", 1.0, 25), ("heun", 1.0, 12), ("heun", 2.0, 6), ("ode", 2.0, 12)]
)
def test_steps_are_what_the_calls_pay_for(sampler: str, guidance: float, steps: int):
    assert steps_for(25, sampler, guidance) == steps


def test_a_missing_classifier_is_a_sentence(folder: Path):
    with pytest.raises(SystemExit, match="FID needs a classifier"):
        run(folder, "--classifier", str(folder / "nowhere"))


def test_another_judge_is_another_cell(folder: Path, capsys: pytest.CaptureFixture):
    old = run(folder, *FEW)
    write_checkpoint(folder / "judge", seed=1, architecture="classifier", network={"K": 2, "channels": [4, 8]})
    new = run(folder, *FEW)[len(old) :]
    assert {r["kind"] for r in new} == {"samples"}
    assert len(new) == sum(r["kind"] == "samples" for r in old)
    assert {r["judge"] for r in new}.isdisjoint(r.get("judge") for r in old)


def test_who_says_what_faces_are_is_a_part_of_their_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pixels = {"source": "folder", "K": 16, "cells": "levels", "grid": [16, 16], "labels": ["neutral", "smiling"]}
    network = {"K": 16, "classes": 2, "channels": [4, 8]}
    judge = write_checkpoint(tmp_path / "judge", architecture="classifier", network=network, data=pixels)
    cpu = torch.device("cpu")
    named = judges.find_judge({"data": pixels}, argparse.Namespace(classifier=judge), cpu).name
    assert named == {"judge": WEIGHTS, "class_judge": checkpoints.sha256(judge / "model.safetensors")}
    monkeypatch.setattr(judges, "CLASSIFIERS_OF_FOLDERS", {})
    assert judges.find_judge({"data": pixels}, argparse.Namespace(classifier=None), cpu).name == {"judge": WEIGHTS}


def test_times_are_of_one_machine_each(folder: Path, monkeypatch: pytest.MonkeyPatch):
    few = ("--kinds", "time", "--samplers", "ancestral")
    here = run(folder, *few, "--calls", "2")
    assert run(folder, *few, "--calls", "2") == here
    monkeypatch.setattr(script, "machine", lambda device: "another")
    records = run(folder, *few, "--calls", "2", "3")
    there = [r for r in records if r["machine"] == "another"]
    assert len(there) == 2 * len(here) == len(records) - len(here)
    assert tables.of_one_machine(records) == there
    assert tables.of_one_machine(here) == here
    page = (folder / "docs" / "results.md").read_text()
    assert page.count("Seconds per image by network calls") == 2


def test_only_the_kinds_that_are_asked_for_are_measured(folder: Path, capsys: pytest.CaptureFixture):
    records = run(folder, "--kinds", "time", "--samplers", "heun", "--classifier", str(folder / "nowhere"))
    assert {r["kind"] for r in records} == {"time"}


def test_another_schedule_is_another_cell(folder: Path, capsys: pytest.CaptureFixture):
    few = ("--kinds", "samples", "--samplers", "ancestral", "--calls", "2")
    (own,) = run(folder, *few)
    records = run(folder, *few, "--schedule", "early")
    assert records[0] == own
    (other,) = records[1:]
    assert (own["schedule"], other["schedule"]) == ("cosine", "early")
    assert own["fid"] != other["fid"]
    lines = (folder / "docs" / "results.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| d3pm-absorbing | ancestral | ")]
    assert [line.split(" | ")[2] for line in rows] == ["cosine", "early"]
    assert not (folder / "docs" / "fid-toy.svg").exists()  # of one number of calls
    chains = ("--kinds", "samples", "steps-bound", "--samplers", "ancestral", "--calls", "2")
    assert run(folder, *chains, "--schedule", "nichol") == records  # which the chain has not


def test_a_network_is_only_asked_what_it_answers(folder: Path):
    with pytest.raises(SystemExit, match="none of the checkpoints answers ddpm"):
        run(folder, "--processes", "ddpm")


def test_a_sampler_that_nothing_has_is_refused_with_a_sentence(folder: Path):
    with pytest.raises(SystemExit, match=r"no sampler 'leap'.*choose from"):
        run(folder, "--samplers", "leap")
