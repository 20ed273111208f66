"""The training loop: what it saves, evaluates and counts, with a step that does nothing."""

import argparse
import json
import signal
import time

import pytest
from safetensors import SafetensorError

from dd.checkpoints import CheckpointError
from dd.perceptual import PerceptualError
from train.loop import Loop, add_arguments, sentences


def options(*more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["--steps", "5", "--log-every", "1", "--quiet", *more])


def begun(out, *more: str, load=lambda state: None, rate: float = 0.1) -> Loop:
    return Loop(options("--out", str(out), *more), {"name": "name", "rate": rate, "seed": 0}, 0, load)


def run(out, *more: str, step=lambda n, progress: {"loss": 1.0}, evaluate=dict, **kwargs) -> Loop:
    made = begun(out, *more, **kwargs)
    made.run(step, evaluate, lambda: {"weights": 7})
    return made


def test_a_run_takes_its_steps_saves_and_evaluates(tmp_path):
    steps = []
    run(tmp_path, step=lambda n, progress: steps.append((n, progress)) or {"loss": 1.0}, evaluate=lambda: {"nats": 3.0})
    assert steps == [(n, n / 5) for n in range(5)]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 6
    assert '"held_out/nats": 3.0' in lines[-1]
    loaded = []
    resumed = begun(tmp_path, "--resume", load=loaded.append)
    assert loaded[0]["weights"] == 7
    assert resumed.budget.progress == 1


def test_a_run_that_is_there_is_not_begun_again(tmp_path):
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="give --resume"):
        begun(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_run_is_not_gone_on_with(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="began with another rate"):
        begun(tmp_path, "--resume", rate=0.2)
    assert begun(tmp_path, "--resume").budget.step == 5


def test_what_a_run_without_a_state_has_logged_is_not_kept(tmp_path):
    made = begun(tmp_path)
    made.metrics.write(step=3, loss=1.0)
    run(tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5]


def test_signals_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    inside = []
    run(tmp_path, step=lambda n, progress: inside.append(signal.getsignal(signal.SIGTERM)) or {"loss": 1.0})
    assert before not in inside
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("budget", [["--steps", "0"], ["--minutes", "0"], ["--minutes", "-1"], ["--minutes", "nan"]])
def test_a_budget_is_above_zero(budget, capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(budget)
    assert "invalid positive" in capsys.readouterr().err


def test_an_evaluation_that_cannot_be_written_stops_nothing(tmp_path, capsys):
    def evaluate():
        raise OSError(28, "No space left on device")

    made = run(tmp_path, "--evaluate-every", "0", evaluate=evaluate)
    assert made.budget.step == 5
    assert "Free some space, then --resume" in capsys.readouterr().out


def test_evaluations_are_no_stepping_time(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def passing(seconds: float, value: dict):
        now[0] += seconds
        return value

    made = run(
        tmp_path, "--evaluate-every", "0",
        step=lambda n, progress: passing(1.0, {"loss": 1.0}), evaluate=lambda: passing(10.0, {}),
    )  # fmt: skip
    assert made.budget.seconds == 5
    assert now[0] == 5 + 6 * 10


def test_metrics_that_cannot_be_written_are_complained_of_once(tmp_path, capsys):
    made = begun(tmp_path)
    made.metrics.path.mkdir()
    made.run(lambda n, progress: {"loss": 1.0}, dict, dict)
    assert capsys.readouterr().out.count("could not write") == 1


def test_a_seed_that_is_none_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="must be 0 or more, not -1"):
        Loop(options("--out", str(tmp_path / "run")), {"name": "name", "seed": -1}, 0, lambda state: None)
    assert not (tmp_path / "run").exists()


def test_a_budget_is_asked_for(capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert "--minutes --steps is required" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(2, "No such file", "a.yaml"), CheckpointError("no folder"), PerceptualError("no folder"),
     SafetensorError("no folder")],
)  # fmt: skip
def test_what_a_user_can_mend_is_a_sentence(error):
    with pytest.raises(SystemExit, match=r"error: .*(a\.yaml|no folder)"), sentences():
        raise error
