"""The checkpoints of a folder."""

import threading

import pytest

from dd.checkpoints import CheckpointError
from dd.models import Models
from dd.recipe import Recipe, RecipeError
from dd.runs import Run
from tests.tiny import write_checkpoint

BASE = Recipe(checkpoint="tiny", steps=4, images=3)


def test_damaged_checkpoints_say_what_to_do(tmp_path):
    folder = write_checkpoint(tmp_path / "tiny")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        Run(BASE, Models(tmp_path))
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        Run(BASE, Models(tmp_path))
    (folder / "config.json").write_text("{")
    with pytest.raises(RecipeError, match="no model"), pytest.warns(UserWarning, match="left out: .*not valid JSON"):
        Run(BASE, Models(tmp_path))


def test_threads_that_ask_for_a_model_at_once_get_the_same(tiny_root):
    models, found = Models(tiny_root), []
    threads = [threading.Thread(target=lambda: found.append(models.get("tiny"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(checkpoint is found[0] for checkpoint in found)
