"""What the tab "About" says of results: what was measured of these weights, and nothing else."""

import json
from pathlib import Path

from dd import checkpoints, results
from dd.models import Models
from dd.ui import about
from tests.tiny import write_checkpoint

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


def test_results_are_those_of_these_very_weights(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "tiny")
    models = Models(tmp_path)
    sha256 = checkpoints.load(tmp_path / "tiny").sha256
    cell = {"process": "dirichlet", "split": "test", "images": 9, "sha256": sha256}
    bound = cell | {"kind": "bound", "nll_nats": 61.5, "nll_stderr": 0.25}
    samples = cell | {
        "kind": "samples",
        "sampler": "dirichlet",
        "steps": 50,
        "calls": 50,
        "guidance": 1.0,
        "temperature": 1.0,
    }
    samples |= {"schedule": "cosine", "tilt": 0.0}
    samples |= {"fid": 1.25, "fid_floor": 0.75, "accuracy": 0.955}
    other = bound | {"sha256": "0" * 64, "process": "d3pm-absorbing"}
    monkeypatch.setattr(about, "read", lambda: [bound, samples, other])
    text = about.results(models)
    assert "61.50 ± 0.25" in text
    assert "| – | – | 1.25 | – | 0.750 (9) | 95.5% |" in text
    assert "absorbing" not in text
    more = samples | {"steps": 100, "calls": 100, "fid": 11518.2, "accuracy": 0.5}
    monkeypatch.setattr(about, "read", lambda: [samples, more])
    assert "| – | – | – | 1.25 | 11,518 | 0.750 (9) | 50.0% |" in about.results(models)
    monkeypatch.setattr(about, "read", list)
    assert "Nothing is measured yet" in about.results(models)


def test_missing_weights_do_not_stop_the_page(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "tiny")
    (tmp_path / "tiny" / "model.safetensors").unlink()
    monkeypatch.setattr(about, "read", list)
    assert "Nothing is measured yet" in about.results(Models(tmp_path))


def test_the_shipped_results_are_whole_and_of_the_shipped_weights():
    lines = results.RESULTS.read_text().splitlines()
    assert [json.loads(line) for line in lines] == results.read()
    shipped = {path.parent.name: checkpoints.sha256(path) for path in CHECKPOINTS.glob("*/model.safetensors")}
    assert lines
    assert all(record["sha256"] == shipped[record["checkpoint"]] for record in results.read())
