"""Checkpoints in the hub's layout."""

import json

import pytest
import torch

from dd import checkpoints
from dd.checkpoints import CheckpointError
from tests.tiny import TINY, write_checkpoint


def test_what_is_saved_is_loaded(tmp_path):
    torch.manual_seed(0)
    network = checkpoints.build(TINY)
    checkpoints.save(tmp_path / "a", network.state_dict(), TINY, dtype=torch.float32)
    loaded = checkpoints.load(tmp_path / "a")
    assert loaded.config == TINY
    assert not loaded.network.training
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[key], value)


def test_half_precision_rounds_by_at_most_its_epsilon(tmp_path):
    network = checkpoints.build(TINY)
    checkpoints.save(tmp_path / "a", network.state_dict(), TINY)
    for key, value in checkpoints.load(tmp_path / "a").network.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, network.state_dict()[key], rtol=1e-3, atol=1e-6)


def test_interrupted_write_keeps_the_old_weights(tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path / "a")
    before = checkpoints.sha256(folder / "model.safetensors")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path / "a", seed=1)
    assert checkpoints.sha256(folder / "model.safetensors") == before
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_weights_that_do_not_fit_the_configuration(tmp_path):
    folder = write_checkpoint(tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    config["network"]["channels"] = [16, 16]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not fit"):
        checkpoints.load(folder)


def test_unknown_architecture_and_missing_folder(tmp_path):
    with pytest.raises(CheckpointError, match="unknown architecture"):
        checkpoints.build({"architecture": "crystal-ball", "network": {}})
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        checkpoints.load(tmp_path / "b" / "c" / "d")


def test_unreachable_hub_is_a_sentence(monkeypatch):
    def offline(*_, **__):
        raise OSError("offline")

    monkeypatch.setattr(checkpoints, "snapshot_download", offline)
    with pytest.raises(CheckpointError, match="hub repository that can be reached"):
        checkpoints.load("someone/something")


def test_hub_repository_is_loaded_from_its_snapshot(tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path / "snapshot")
    asked = []
    monkeypatch.setattr(checkpoints, "snapshot_download", lambda repo, **_: asked.append(repo) or str(folder))
    assert checkpoints.load("someone/digits").config["name"] == "tiny"
    assert asked == ["someone/digits"]
