"""Checkpoints in the hub's layout."""

import json
import re
from pathlib import Path

import pytest
import torch

from dd import checkpoints, hub
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

    def full_disk(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path / "a", seed=1)
    assert checkpoints.sha256(folder / "model.safetensors") == before
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_weights_may_be_read_by_who_may_read_the_rest(tmp_path):
    folder = write_checkpoint(tmp_path / "a")
    rights = {path.name: path.stat().st_mode for path in folder.iterdir()}
    assert rights["model.safetensors"] == rights["config.json"]


def test_weights_that_do_not_fit_the_configuration(tmp_path):
    folder = write_checkpoint(tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    config["network"]["channels"] = [16, 16]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not fit"):
        checkpoints.load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    folder = write_checkpoint(tmp_path / "a")
    state = checkpoints.load(folder).network.state_dict()
    name = [name for name, tensor in state.items() if tensor.is_floating_point()][1]
    state[name].view(-1)[0] = value
    checkpoints.save(folder, state, checkpoints.read_config(folder))
    with pytest.raises(CheckpointError, match=f"values in {re.escape(name)} that are no numbers"):
        checkpoints.load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_disk_that_fails_while_it_is_read_gets_a_sentence(tmp_path, name):
    """The kernel's own I/O error: what /proc/self/mem answers at address 0."""
    folder = write_checkpoint(tmp_path / "a")
    (folder / name).unlink()
    (folder / name).symlink_to("/proc/self/mem")
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read \(Input/output error\); check the disk"):
        checkpoints.load(folder)


def test_no_pickle_is_loaded_anywhere():
    """Every torch.load of ours says weights_only=True, and nothing else of ours unpickles."""
    root, exempt = Path(__file__).parents[1], {"test_checkpoints.py", "test_perceptual.py"}
    files = [p for part in ("dd", "train", "bench", "tests") for p in (root / part).rglob("*.py")]
    for path in [root / "app.py", *(path for path in files if path.name not in exempt)]:
        text = path.read_text()
        assert not re.search(r"pickle\.loads?\(|joblib|allow_pickle=True|weights_only=False|yaml\.load\(", text), path
        assert "pretrained=True" not in text, path
        begun = re.findall(r"(?:torch\.load|load_state_dict_from_url)\(", text)
        calls = re.findall(r"(?:torch\.load|load_state_dict_from_url)\((?:[^()]|\([^()]*\))*\)", text)
        assert len(calls) == len(begun), path
        assert all("weights_only=True" in call for call in calls), path


def test_unknown_architecture_and_missing_folder(tmp_path):
    with pytest.raises(CheckpointError, match="unknown architecture"):
        checkpoints.build({"architecture": "crystal-ball", "network": {}})
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        checkpoints.load(tmp_path / "b" / "c" / "d")


def test_unreachable_hub_is_a_sentence(monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="no folder here, and of the hub: HF_HUB_OFFLINE is set"):
        checkpoints.load("someone/something")


def test_hub_repository_is_loaded_from_its_snapshot(tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path / "snapshot")
    asked = []
    monkeypatch.setattr(hub, "snapshot_download", lambda repo, **_: asked.append(repo) or str(folder))
    assert checkpoints.load("someone/digits").config["name"] == "tiny"
    assert asked == ["someone/digits"]
