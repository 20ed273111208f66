"""Training: resumed equals uninterrupted, several workers, signals, full disks."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml

from dd import checkpoints
from dd.networks.unet import EvidenceUNet
from dd.processes import make_process
from tests.tiny import TINY, write_checkpoint, write_vqvae
from tests.train.workers import assert_two_workers_train_one_network
from train import denoiser, state
from train.codes import Codes

CONFIG = {
    **TINY, "drop_label": 0.2, "batch": 8, "rate": 1e-3, "weight_decay": 0.01, "clip": 100.0, "ema": 0.9, "seed": 0,
}  # fmt: skip
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


def arguments(config, data, out, *more):
    every = ["--log-every", "1", "--quiet", "--held-out", "8", "--device", "cpu"]
    return ["--config", str(config), "--data-root", str(data), "--out", str(out), *every, *more]


def losses(out):
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(r["step"], r["loss"]) for r in records if "loss" in r]


def test_a_configuration_chooses_losses_by_process(tmp_path, mnist_root, generator):
    """Of the same draws: the hybrid loss is the bound + the cross-entropy, the bound what is said nothing of."""
    network = EvidenceUNet(2, (8, 8), (1, 1), classes=0)
    parts = [(make_process("d3pm-uniform", 2, 64), 4), (make_process("gaussian", 2, 64), 4)]
    x0 = torch.randint(2, (8, 8, 8), generator=generator)
    kinds = ("bound", "hybrid", "cross-entropy")
    reports = [
        denoiser.mixture_loss(
            network, parts, x0, None, torch.Generator().manual_seed(1), torch.device("cpu"), {"d3pm-uniform": kind}
        )[1]
        for kind in kinds
    ]
    bound, hybrid, entropy = (report["d3pm-uniform"] for report in reports)
    assert hybrid == pytest.approx(bound + entropy, rel=1e-5)
    assert len({bound, hybrid, entropy}) == 3
    assert len({report["gaussian"] for report in reports}) == 1
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(CONFIG | {"losses": {"dirichlet": "beauty"}}))
    with pytest.raises(SystemExit, match="dirichlet has no loss 'beauty'; choose one of bound"):
        denoiser.main(arguments(wrong, mnist_root, tmp_path / "out", "--steps", "1"))


def test_a_configuration_chooses_the_lambda_of_hybrid_losses(generator):
    """Of the same network and draws: bound + lambda cross-entropy, lambda = 1 where nothing is said."""
    x0 = torch.randint(2, (8, 8, 8), generator=generator)

    def reported(kind, **more):
        config = CONFIG | {"losses": {"d3pm-uniform": kind}} | more
        trainer = denoiser.Trainer(config, [(make_process("d3pm-uniform", 2, 64), 8)], torch.device("cpu"), 1)
        return trainer.step(x0, None, 0.0, torch.Generator().manual_seed(1))["d3pm-uniform"]

    bound, entropy = reported("bound"), reported("cross-entropy")
    assert reported("hybrid") == pytest.approx(bound + entropy, rel=1e-5)
    assert reported("hybrid", hybrid=0.1) == pytest.approx(bound + 0.1 * entropy, rel=1e-5)
    assert reported("bound", hybrid=0.1) == bound


def test_the_command_line_chooses_the_mixture(config, mnist_root, tmp_path, capsys):
    more = ["--steps", "1", "--mixture", "d3pm-absorbing=6", "gaussian=2"]
    denoiser.main(arguments(config, mnist_root, tmp_path / "run", *more))
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert {"d3pm-absorbing", "gaussian"} <= set(first)
    assert "dirichlet" not in first
    trained = checkpoints.load(tmp_path / "run" / "checkpoint").config
    assert trained["mixture"] == {"d3pm-absorbing": 6, "gaussian": 2}
    for wrong in ("perlin=8", "gaussian", "gaussian=0"):
        with pytest.raises(SystemExit):
            denoiser.main(arguments(config, mnist_root, tmp_path / "other", "--steps", "1", "--mixture", wrong))
        assert "--mixture takes PROCESS=IMAGES with one of dirichlet" in capsys.readouterr().err


def test_resumed_run_equals_an_uninterrupted_one(config, mnist_root, tmp_path, monkeypatch):
    denoiser.main(arguments(config, mnist_root, tmp_path / "whole", "--steps", "6"))

    tick, flags = state.Budget.tick, []
    monkeypatch.setattr(state.StopFlag, "__init__", lambda self: flags.append(self) or setattr(self, "_raised", False))

    def stop_at_three(self):
        tick(self)
        flags[-1]._raised = self.step == 3

    monkeypatch.setattr(state.Budget, "tick", stop_at_three)
    denoiser.main(arguments(config, mnist_root, tmp_path / "parts", "--steps", "6"))
    assert len(losses(tmp_path / "parts")) == 3
    monkeypatch.setattr(state.Budget, "tick", tick)
    denoiser.main(arguments(config, mnist_root, tmp_path / "parts", "--steps", "6", "--resume"))

    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    one, two = (torch.load(tmp_path / run / "state.pt", weights_only=True) for run in ("whole", "parts"))
    for part in ("network", "ema"):
        for key in one[part]:
            assert torch.equal(one[part][key], two[part][key]), key


def test_loss_falls_and_a_checkpoint_is_exported(config, mnist_root, tmp_path):
    denoiser.main(arguments(config, mnist_root, tmp_path / "run", "--steps", "40"))
    curve = [loss for _, loss in losses(tmp_path / "run")]
    assert sum(curve[-10:]) < 0.7 * sum(curve[:10])
    assert checkpoints.load(tmp_path / "run" / "checkpoint").config["trained"]["steps"] == 40
    assert list((tmp_path / "run").glob("samples-*.png"))


def test_init_takes_over_the_weights(config, mnist_root, tmp_path, capsys):
    source = write_checkpoint(tmp_path / "source", seed=5)
    denoiser.main(arguments(config, mnist_root, tmp_path / "run", "--steps", "1", "--init", str(source)))
    trained = checkpoints.load(tmp_path / "run" / "checkpoint").config["trained"]
    assert trained["after"]["sha256"] == checkpoints.load(source).sha256
    taken, total = capsys.readouterr().out.split("--init: ")[1].split(" tensors")[0].split(" of ")
    assert taken == total


def begun_from(theirs: EvidenceUNet, ours: EvidenceUNet) -> torch.Tensor:
    """Evidence on which `ours`, begun from `theirs` with random weights, answers as `theirs` does."""
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.2)
    denoiser.copy_matching(ours, theirs)
    evidence = torch.randn(3, theirs.K, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(ours(evidence), theirs(evidence), rtol=1e-4, atol=1e-4)
    return evidence


def test_a_network_without_classes_starts_as_the_label_any():
    torch.manual_seed(0)
    conditional, unconditional = (EvidenceUNet(2, (16, 32), (1, 1), classes=n).eval() for n in (10, 0))
    evidence = begun_from(conditional, unconditional)
    with torch.no_grad():
        assert (conditional(evidence) - conditional(evidence, torch.arange(3))).abs().max() > 0.1


def test_more_blocks_start_as_the_network_without_them():
    torch.manual_seed(0)
    begun_from(EvidenceUNet(3, (16, 32), (1, 1)).eval(), EvidenceUNet(3, (16, 32), (1, 3)).eval())


def test_trains_the_noise_network_of_the_ddpm(config, mnist_root, tmp_path):
    raw = yaml.safe_load(config.read_text()) | {"architecture": "noise-unet", "mixture": {"ddpm": 8}}
    raw["network"].pop("K")
    config.write_text(yaml.safe_dump(raw))
    denoiser.main(arguments(config, mnist_root, tmp_path / "run", "--steps", "60"))
    curve = [loss for _, loss in losses(tmp_path / "run")]
    assert sum(curve[-10:]) < 0.6 * sum(curve[:10])
    assert list((tmp_path / "run").glob("samples-*.png"))


def test_trains_on_code_grids_and_names_their_vqvae(config, mnist_root, tmp_path):
    vqvae = checkpoints.load(write_vqvae(tmp_path / "toy-vqvae"))
    grids = torch.randint(8, (40, 8, 8))
    held_out = torch.arange(40) % 4 == 0
    codes = Codes(grids, torch.arange(40) % 2, held_out, 8, ["neutral", "smiling"], vqvae.sha256)
    codes.save(tmp_path / "codes.safetensors")
    raw = yaml.safe_load(config.read_text())
    raw["network"] |= {"K": 8, "classes": 2}
    raw["data"] = {"source": "codes", "K": 8, "cells": "codes", "vqvae": str(tmp_path / "toy-vqvae")}
    config.write_text(yaml.safe_dump(raw))
    more = ["--steps", "3", "--codes", str(tmp_path / "codes.safetensors")]
    denoiser.main(arguments(config, mnist_root, tmp_path / "run", *more))
    data = checkpoints.load(tmp_path / "run" / "checkpoint").config["data"]
    assert data["vqvae"] == "toy-vqvae"
    assert data["vqvae_sha256"] == vqvae.sha256
    assert data["grid"] == [8, 8]
    assert data["labels"] == ["neutral", "smiling"]
    write_vqvae(tmp_path / "toy-vqvae", seed=1)
    with pytest.raises(SystemExit, match="other weights"):
        denoiser.main(arguments(config, mnist_root, tmp_path / "run2", *more))


def test_resume_without_a_state_says_what_to_do(config, mnist_root, tmp_path):
    with pytest.raises(SystemExit, match="start without --resume"):
        denoiser.main(arguments(config, mnist_root, tmp_path / "run", "--steps", "1", "--resume"))
    (tmp_path / "run" / "state.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(SystemExit, match="damaged"):
        denoiser.main(arguments(config, mnist_root, tmp_path / "run", "--steps", "1", "--resume"))


def test_full_disk_keeps_the_previous_state(tmp_path, monkeypatch, capsys):
    path = tmp_path / "state.pt"
    assert state.save_state(path, {"step": 1})

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    assert not state.save_state(path, {"step": 2})
    assert "previous state is kept" in capsys.readouterr().out
    assert state.load_state(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_pause_does_not_eat_the_budget(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    budget = state.Budget(None, minutes=1)
    now[0] = 3600.0
    budget.tick()
    assert budget.seconds == budget.longest
    with pytest.raises(ValueError, match="either"):
        state.Budget(None, None)


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONPATH": str(REPOSITORY)}


@contextmanager
def training(config, data, out, *more):
    """A run in its own process that has written at least two records and a state."""
    command = [sys.executable, "-m", "train.denoiser", *arguments(config, data, out, "--steps", "100000", *more)]
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        metrics, deadline = out / "metrics.jsonl", time.monotonic() + 120
        while time.monotonic() < deadline and not (metrics.is_file() and metrics.read_text().count("\n") >= 9):
            assert process.poll() is None, "the training has exited"
            time.sleep(0.1)
        yield process
        process.kill()


def test_sigterm_saves_and_leaves(config, mnist_root, tmp_path):
    with training(config, mnist_root, tmp_path / "run") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert state.load_state(tmp_path / "run" / "state.pt")["step"] >= 2


def test_kill_at_any_moment_leaves_a_state_that_resumes(config, mnist_root, tmp_path):
    out = tmp_path / "run"
    with training(config, mnist_root, out, "--save-every", "0") as process:  # it is nearly always saving
        process.kill()
    step = state.load_state(out / "state.pt")["step"]
    assert step >= 2
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1000, "lo')  # what a kill within a write leaves
    more = ["--steps", str(step + 3), "--resume"]
    denoiser.main(arguments(config, mnist_root, out, *more))
    steps = [step for step, _ in losses(out)]
    assert steps == list(range(1, step + 4)), "a step is missing from the record, or there twice"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_disk_that_is_really_full_stops_nothing(config, mnist_root, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        denoiser.main(arguments(config, mnist_root, disk, "--steps", "1"))
        free = os.statvfs(disk)
        (disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - 32 * 1024))
        with training(config, mnist_root, disk, "--save-every", "0", "--evaluate-every", "0", "--resume") as process:
            process.terminate()
            said = process.communicate(timeout=60)[0]
            assert process.returncode == 0
        assert "the previous state is kept. Free some space" in said
        assert "could not write into" in said
        assert state.load_state(disk / "state.pt")["step"] == 1
        assert checkpoints.load(disk / "checkpoint").config["trained"]["steps"] == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_two_workers_of_torchrun_train_one_network(config, mnist_root, tmp_path):
    more = arguments(config, mnist_root, tmp_path / "run", "--steps", "4")
    assert_two_workers_train_one_network("denoiser", more, tmp_path)
    assert [step for step, _ in losses(tmp_path / "run")] == [1, 2, 3, 4]
