"""train.evaluate on a tiny network and tiny data: what it prints, that figures are right, that errors are sentences."""

import json
from math import log
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from dd.likelihood import Bound, estimate_bound, exact_vlb, network_denoiser
from dd.processes import make_process
from tests.tiny import TINY, write_checkpoint
from train import bounds, evaluate, judges, loading

ISSUE_KEYS = (
    "checkpoint", "process", "sampler", "steps", "images", "seed", "nll_nats", "nll_stderr", "bits_per_dim", "fid",
    "fid_floor", "precision", "recall", "accuracy", "seconds_per_image", "device",
)  # fmt: skip


CLASSIFIER = {"architecture": "classifier", "network": {"K": 2, "channels": [4, 8]}}
TEST_IMAGES, CPU = 64, torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, mnist_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bounds, "ODE_STEPS", 3)
    (tmp_path / "data").symlink_to(mnist_root)
    write_checkpoint(tmp_path / "toy")
    write_checkpoint(tmp_path / "judge", **CLASSIFIER)
    return tmp_path


def run(folder: Path, capsys: pytest.CaptureFixture, *more: str, checkpoint: str = "toy") -> dict:
    argv = [str(folder / checkpoint), "--data-root", str(folder / "data"), "--classifier", str(folder / "judge")]
    evaluate.main([*argv, "--steps", "3", "--images", "12", "--device", "cpu", "--json", *more])
    return json.loads(capsys.readouterr().out)


def test_prints_every_key_and_null_for_what_was_not_asked(folder: Path, capsys: pytest.CaptureFixture):
    record = run(folder, capsys, "--metrics", "time")
    assert set(ISSUE_KEYS) <= set(record)
    assert record["seconds_per_image"] > 0
    assert [k for k in ISSUE_KEYS if record[k] is None] == [
        "nll_nats", "nll_stderr", "bits_per_dim", "fid", "fid_floor", "precision", "recall", "accuracy",
    ]  # fmt: skip
    assert (record["checkpoint"], record["process"], record["sampler"], record["steps"]) == (
        "toy", "dirichlet", "dirichlet", 3,
    )  # fmt: skip


def test_everything_at_once_with_guidance_by_heun(folder: Path, capsys: pytest.CaptureFixture):
    record = run(folder, capsys, "--sampler", "heun", "--guidance", "2", "--split", "test", "--by-decade")
    assert record["calls"] == 3 * 2 * 2
    assert all(record[k] is not None for k in (*ISSUE_KEYS, "ode_nats", "ode_stderr"))
    assert record["vlb_nats"] is None
    assert record["bits_per_dim"] == pytest.approx(record["nll_nats"] / 784 / log(2))
    assert 0 <= record["precision"] <= 1
    assert record["fid"] > 0
    assert record["fid_floor"] > 0
    total = sum(row["path_nats"] for row in record["decades"])
    assert 0 < record["nll_nats"] - total < 0.2  # the prior and the reconstruction
    assert record["decades"][-1]["path_below_nats"] == pytest.approx(total)


def test_same_seed_same_figures_and_another_seed_others(folder: Path, capsys: pytest.CaptureFixture):
    asked = ("--metrics", "nll,fid", "--process", "d3pm-absorbing")
    first, again = run(folder, capsys, *asked), run(folder, capsys, *asked)
    other = run(folder, capsys, *asked, "--seed", "1")
    assert first == again
    assert first["fid"] != other["fid"]
    assert first["nll_nats"] != other["nll_nats"]
    assert first["fid_floor"] == other["fid_floor"]


def test_l_vb_is_of_the_schedule_that_the_record_names(folder: Path, capsys: pytest.CaptureFixture):
    asked = ("--metrics", "nll", "--process", "d3pm-absorbing")
    early, cosine = (run(folder, capsys, *asked, "--schedule", name) for name in ("early", "cosine"))
    assert (early["schedule"], cosine["schedule"]) == ("early", "cosine")
    assert early["nll_nats"] == cosine["nll_nats"]
    assert run(folder, capsys, *asked)["vlb_nats"] == cosine["vlb_nats"]
    checkpoint = loading.load_denoiser(folder / "toy", CPU)
    x0 = loading.load_cells(checkpoint.config, "held-out", folder / "data", 12, CPU)
    for record in (early, cosine):
        chain, noise = make_process("d3pm-absorbing", 2, 784), torch.Generator().manual_seed(0)
        vlb = exact_vlb(chain, network_denoiser(checkpoint.network), x0, None, 3, noise, record["schedule"])
        assert record["vlb_nats"] == vlb.mean
    assert early["vlb_nats"] != cosine["vlb_nats"]


def test_without_classes_there_is_no_accuracy_and_no_guidance(folder: Path, capsys: pytest.CaptureFixture):
    write_checkpoint(folder / "any", network=TINY["network"] | {"classes": 0})
    assert run(folder, capsys, "--metrics", "fid", checkpoint="any")["accuracy"] is None
    with pytest.raises(SystemExit, match="cannot be guided"):
        run(folder, capsys, "--guidance", "2", checkpoint="any")


def test_real_images_in_place_of_samples_are_at_the_floor(folder: Path):
    """The floor is the mean over disjoint draws of training images; accuracy counts labels that are met."""
    checkpoint = loading.load_denoiser(folder / "toy", CPU)
    classifier = judges.find_classifier(checkpoint.config, folder / "judge", CPU).network
    judge_ = judges.reference(checkpoint.config, classifier, "test", 40, folder / "data")
    draws = loading.load_cells(checkpoint.config, "train", folder / "data", 40, CPU, 5).split(40)
    assert len(draws) == 2  # of the 100 training images
    labels = [classifier(draw).argmax(1) for draw in draws]
    labels[0][:10] = (labels[0][:10] + 1) % 10
    figures = [
        judges.compare(judges.Samples(*pair, 0.0), judge_) for pair in zip(draws, labels, strict=True)
    ]  # fmt: skip
    assert figures[0]["fid"] != figures[1]["fid"]
    assert (figures[0]["fid"] + figures[1]["fid"]) / 2 == pytest.approx(judge_.fid_floor)
    assert abs(figures[0]["fid"] - figures[1]["fid"]) / 2**0.5 == pytest.approx(judge_.fid_floor_sd)
    assert (figures[0]["accuracy"], figures[1]["accuracy"]) == pytest.approx((30 / 40, 1.0))


def test_splits_are_disjoint_and_the_same_at_every_call(folder: Path):
    config = loading.load_denoiser(folder / "toy", CPU).config
    test = loading.load_cells(config, "test", folder / "data", TEST_IMAGES, CPU)
    assert torch.equal(test, loading.load_cells(config, "test", folder / "data", TEST_IMAGES, CPU))
    assert not torch.equal(test, loading.load_cells(config, "held-out", folder / "data", TEST_IMAGES, CPU))


def test_dynamic_binarisation_is_one_stated_draw(folder: Path, capsys: pytest.CaptureFixture):
    """The same binarised images whatever the seed of the noise, and fewer of them are the first of more."""
    config = {"data": TINY["data"] | {"cells": "dynamic"}}
    first, again = (loading.load_cells(config, "test", folder / "data", n, CPU) for n in (TEST_IMAGES, 32))
    assert torch.equal(first[:32], again)
    assert not torch.equal(first, loading.load_cells(TINY, "test", folder / "data", TEST_IMAGES, CPU))
    write_checkpoint(folder / "dynamic", **config)
    record = run(folder, capsys, "--metrics", "nll", "--seed", "3", checkpoint="dynamic")
    assert (record["cells"], record["data_seed"], record["seed"]) == ("dynamic", 0, 3)


def test_a_network_that_knows_the_truth_leaves_no_leak_and_a_broken_bound_does():
    """Independent fair cells: f = 0 is exact, the bound is cells log 2, and the path-KL stays below what is left."""
    process = make_process("dirichlet", 2, 16)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(0, 2, (3000, 4, 4), generator=generator)
    knows = torch.nn.Module()
    knows.classes, knows.forward = 0, lambda l, label=None: torch.zeros_like(l)
    knows.register_parameter("p", torch.nn.Parameter(torch.zeros(1)))
    bound = estimate_bound(process, lambda l, label: torch.zeros_like(l), x0, None, 1, generator, bounds.BATCH)
    rows = bounds.by_decade(process, knows, bound, x0, generator)
    assert bound.mean == pytest.approx(16 * log(2), abs=4 * bounds.stderr(bound.total) + 0.05)
    assert not any(row["leak"] for row in rows)
    for row in rows:  # with the exact posterior the two are equal, not only ordered
        noise = (row["path_below_stderr"] ** 2 + row["cross_entropy_stderr"] ** 2) ** 0.5
        assert abs(row["path_below_nats"] - row["cross_entropy_left"]) < 4 * noise + 0.05
    table = bounds.decades_table(rows).splitlines()
    assert len(table) == 2 + len(rows)
    assert table[-1].endswith("| no |")
    early = bound.path + 5.0 * (bounds.own_time(process, bound.t) < 1)
    assert any(row["leak"] for row in bounds.by_decade(process, knows, Bound(bound.t, early, 0.0), x0, generator))


def test_a_chain_has_its_bound_at_that_many_steps(folder: Path, capsys: pytest.CaptureFixture):
    """Masked cells of an untrained network: few steps are no tighter than the whole chain, give or take the noise."""
    record = run(folder, capsys, "--metrics", "nll", "--process", "d3pm-absorbing")
    assert record["ode_nats"] is None
    assert record["vlb_nats"] > 0
    assert record["vlb_nats"] > record["nll_nats"] - 5 * (record["nll_stderr"] + record["vlb_stderr"])


def test_decades_of_a_chain_are_decades_of_steps(folder: Path, capsys: pytest.CaptureFixture):
    rows = run(folder, capsys, "--metrics", "nll", "--process", "d3pm-absorbing", "--by-decade")["decades"]
    assert [(row["from"], row["to"]) for row in rows] == [(1, 10), (10, 100), (100, 1000)]


def test_standard_error_knows_of_the_stratification():
    """Each batch holds the same 100 strata: the mean is sharp although single values vary."""
    generator = torch.Generator().manual_seed(0)
    values = torch.arange(100).double().repeat(20) + torch.randn(2000, generator=generator)
    assert bounds.stderr(values) == pytest.approx(1 / 2000**0.5, rel=0.5)
    assert bounds.stderr(values[:500]) > 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--process", "brownian"), "unknown process 'brownian'; choose one of dirichlet"),
        (("--sampler", "ddim"), "no sampler 'ddim'; choose one of dirichlet, euler"),
        (("--images", "65", "--metrics", "nll", "--split", "test"), "the test split has 64 images"),
        (("--classifier", "nowhere", "--metrics", "fid"), "train.classifier"),
        (("--classifier", "{toy}", "--metrics", "fid"), "not a classifier"),
        (("--classifier", "{other}", "--metrics", "fid"), "K = 16"),
        (("--data-root", "{empty}", "--metrics", "fid"), "--data-root"),
    ],
)
def test_what_cannot_be_measured_gets_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], message: str
):
    def no_network(self) -> None:
        raise OSError("no network")

    monkeypatch.setattr(datasets.MNIST, "download", no_network)
    levels = {"network": {"K": 16, "channels": [4, 8]}, "data": TINY["data"] | {"K": 16}}
    write_checkpoint(folder / "other", **(CLASSIFIER | levels))
    places = {name: folder / name for name in ("toy", "other", "empty")}
    with pytest.raises(SystemExit) as stopped:
        run(folder, capsys, *(word.format(**places) for word in more))
    assert message in str(stopped.value.code)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--steps", "0"), "--steps must be at least 1"),
        (("--metrics", "beauty"), "unknown metric beauty"),
        (("--metrics", "time", "--by-decade"), "add nll"),
    ],
)
def test_bad_arguments_get_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture, more: tuple[str, ...], message: str
):  # fmt: skip
    with pytest.raises(SystemExit):
        run(folder, capsys, *more)
    assert message in capsys.readouterr().err


def test_a_classifier_is_not_a_denoiser(folder: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit, match="not a denoiser"):
        run(folder, capsys, checkpoint="judge")


def test_a_noise_network_is_measured_by_its_samples_only(folder: Path, capsys: pytest.CaptureFixture):
    network = {"channels": [8, 8], "blocks": [1, 1], "classes": 10}
    write_checkpoint(folder / "noise", architecture="noise-unet", network=network)
    record = run(folder, capsys, "--process", "ddpm", "--metrics", "fid,time", checkpoint="noise")
    assert (record["sampler"], record["temperature"]) == ("ddpm", 1.0)
    assert record["fid"] > 0
    for arguments, sentence in (
        (["--process", "ddpm", "--metrics", "nll"], "no likelihood bound"),
        (["--process", "ddpm", "--metrics", "fid", "--temperature", "0.8"], "has no temperature"),
        (["--process", "ddpm", "--metrics", "fid", "--tilt", "0.2"], "leave out --tilt"),
        (["--process", "dirichlet"], "needs an evidence-unet"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            run(folder, capsys, *arguments, checkpoint="noise")
