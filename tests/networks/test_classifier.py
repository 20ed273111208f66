"""The classifier network and its training on data made on the spot: learning, exact resume, the card."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from dd import checkpoints, data
from dd.data import Labelled
from dd.networks.classifier import Classifier
from tests.train.workers import assert_two_workers_train_one_network
from train import classifier as script
from train import loop
from train.pictures import find, is_held_out

CONFIG = {
    "name": "toy-classifier",
    "architecture": "classifier",
    "network": {"K": 2, "classes": 2, "channels": [4, 8]},
    "data": {"source": "mnist", "K": 2, "cells": "threshold"},
    "augment": {"rotate": 5, "scale": 0.05, "shift": 1, "flip": False},
    "steps": 24,
    "batch": 16,
    "rate": 0.02,
    "weight_decay": 0.0,
    "seed": 0,
}


def bars(n: int, seed: int) -> Labelled:
    """Class 0: a horizontal bar, class 1: a vertical one."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (n,), generator=generator)
    images = torch.zeros(n, 8, 8, dtype=torch.uint8)
    for image, label in zip(images, labels, strict=True):
        (image if label == 0 else image.T)[int(torch.randint(2, 6, (1,), generator=generator))] = 255
    return Labelled(images, labels)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(script, "load", lambda source, split, root: bars(200, data.SPLITS.index(split)))
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


def run(config: Path, out: Path, *more: str) -> dict[str, Tensor]:
    script.main(["--config", str(config), "--out", str(out), "--quiet", "--device", "cpu", *more])
    return torch.load(out / "state.pt", weights_only=True)["network"]


def test_feature_layer_and_logits_have_the_documented_shapes():
    network = Classifier(16, classes=7, channels=(4, 8, 12)).eval()
    x = torch.randint(0, 16, (3, 28, 28), generator=torch.Generator().manual_seed(0))
    assert network.features(x).shape == (3, 12)
    assert network(x).shape == (3, 7)


def test_levels_enter_as_grey_so_k_does_not_change_black_and_white():
    network = Classifier(2, channels=(4, 8)).eval()
    x = torch.randint(0, 2, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    two = network(x)
    network.K = 16
    torch.testing.assert_close(network(15 * x), two)


def test_training_learns_and_writes_a_card_with_the_measured_figures(toy: Path, tmp_path: Path):
    run(toy, tmp_path / "run", "--steps", "60")
    folder = tmp_path / "run" / "checkpoint"
    script.main(["--measure", str(folder), "--split", "test"])
    config = json.loads((folder / "config.json").read_text())
    assert config["measured"]["held-out"]["accuracy"] > 0.9
    card = (folder / "README.md").read_text()
    assert f"| test | 200 | {config['measured']['test']['accuracy']:.2%} |" in card
    assert "CC BY-SA 3.0" in card
    n = torch.get_num_threads()
    assert config["trained"]["device"] == f"{n} CPU thread{'s' * (n > 1)}"
    assert f"minutes on {config['trained']['device']}." in card
    del config["trained"]["device"]
    assert "minutes.\n" in script.card(config, checkpoints.load(folder).network)
    assert isinstance(checkpoints.load(folder).network, Classifier)


def test_folders_are_classes_and_their_card_says_under_what_terms(tmp_path: Path):
    for part, n in (("train", 40), ("test", 10)):
        data_ = bars(n, len(part))
        for i, (image, label) in enumerate(zip(data_.images, data_.labels, strict=True)):
            folder = tmp_path / "bars" / part / ("flat", "upright")[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.numpy()).save(folder / f"{part}-{i}.png")
    told = {"source": "folder", "folder": "bars", "held_out": 0.2, "grid": [8, 8], "labels": ["flat", "upright"]}
    config = CONFIG | {"data": CONFIG["data"] | told, "card": {"data": "bars", "terms": "for nobody else"}}
    splits = [script.images_of(config["data"], split, tmp_path) for split in data.SPLITS]
    assert sum(len(images.labels) for images in splits[:2]) == 40
    assert len(splits[1].labels) == sum(is_held_out(path, 0.2) for path in find(tmp_path / "bars" / "train"))
    assert splits[2].labels.tolist() == sorted(bars(10, 4).labels.tolist())
    (tmp_path / "bars.yaml").write_text(yaml.safe_dump(config))
    run(tmp_path / "bars.yaml", tmp_path / "run", "--data-root", str(tmp_path), "--steps", "60")
    folder = tmp_path / "run" / "checkpoint"
    script.main(["--measure", str(folder), "--split", "test", "--data-root", str(tmp_path)])
    assert checkpoints.read_config(folder)["measured"]["test"]["accuracy"] > 0.8
    card = (folder / "README.md").read_text()
    assert "license: other" in card
    assert "20% of it" in card
    assert "for nobody else" in card
    config["data"]["labels"] = ["flat", "round"]
    (tmp_path / "bars.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit, match="a class 'upright'; known are flat, round"):
        run(tmp_path / "bars.yaml", tmp_path / "other", "--data-root", str(tmp_path))


def test_resumed_training_equals_uninterrupted_training(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = run(toy, tmp_path / "whole")

    class StopAfterTen(loop.StopFlag):
        steps = 0

        @property
        def raised(self) -> bool:
            self.steps += 1
            return self.steps > 10

    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopFlag", StopAfterTen)
        halfway = run(toy, tmp_path / "parts")
    assert not (tmp_path / "parts" / "checkpoint").exists()
    resumed = run(toy, tmp_path / "parts", "--resume")
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert not all(torch.equal(whole[k], halfway[k]) for k in whole)


def test_augmentation_moves_by_whole_pixels_and_keeps_the_levels():
    images = bars(64, 0).images
    how = {"rotate": 0, "scale": 0, "shift": 2, "flip": True}
    moved = script.augment(images, how, torch.Generator().manual_seed(0))
    assert set(moved.unique().tolist()) == {0, 255}
    assert not torch.equal(moved, images)
    still = {"rotate": 0, "scale": 0, "shift": 0, "flip": False}
    assert torch.equal(script.augment(images, still, torch.Generator().manual_seed(0)), images)


def test_measuring_something_else_says_so(tmp_path: Path, toy: Path):
    config = {"architecture": "evidence-unet", "network": {"K": 2, "channels": [8], "blocks": [1]}, "data": {}}
    checkpoints.save(tmp_path / "unet", checkpoints.build(config).state_dict(), config)
    with pytest.raises(SystemExit, match="not a classifier"):
        script.main(["--measure", str(tmp_path / "unet")])


@pytest.mark.slow
def test_two_workers_of_torchrun_train_one_classifier(mnist_root: Path, tmp_path: Path):
    config = CONFIG | {"network": {"K": 2, "channels": [4, 8]}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    fixed = ["--config", str(tmp_path / "toy.yaml"), "--data-root", str(mnist_root), "--out", str(tmp_path / "run")]
    more = [*fixed, "--steps", "4", "--log-every", "1", "--device", "cpu", "--quiet"]
    assert_two_workers_train_one_network("classifier", more, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record] == [1, 2, 3, 4]


def test_a_batch_that_the_workers_cannot_share_is_refused(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(script, "worker_count", lambda: (0, 3))
    with pytest.raises(SystemExit, match="a batch of 16 cannot be dealt out evenly to 3 workers"):
        run(toy, tmp_path / "run")
