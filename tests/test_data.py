"""Images as categorical cells."""

import pytest
import torch

from dd.data import HELD_OUT, DataError, epoch_order, load, to_cells


def test_splits_do_not_overlap_and_are_all_there(mnist_root):
    train, held_out, test = (load("mnist", split, mnist_root) for split in ("train", "held-out", "test"))
    assert (len(train.images), len(held_out.images), len(test.images)) == (100, HELD_OUT, 64)
    assert len(train.labels) == 100


def test_unknown_names_are_refused(mnist_root):
    with pytest.raises(ValueError, match="unknown data set"):
        load("mnits", "train", mnist_root)
    with pytest.raises(ValueError, match="unknown split"):
        load("mnist", "validation", mnist_root)
    with pytest.raises(ValueError, match="unknown binarisation"):
        to_cells(torch.zeros(1, 2, 2, dtype=torch.uint8), 2, "dither", torch.Generator())


def test_threshold_dynamic_and_levels(generator):
    grey = torch.arange(256, dtype=torch.uint8).repeat(4000, 1).view(4000, 16, 16)
    assert torch.equal(to_cells(grey[:1], 2, "threshold", generator)[0], (grey[0].float() / 255 > 0.5).long())
    mean = to_cells(grey, 2, "dynamic", generator).float().mean(0)
    torch.testing.assert_close(mean, grey[0] / 255, atol=5 * 0.5 / 4000**0.5, rtol=0)
    levels = to_cells(grey[:1], 16, "levels", generator)
    assert torch.equal(levels.flatten().bincount(), torch.full((16,), 16))
    assert torch.equal(levels.flatten(), torch.arange(16).repeat_interleave(16))


def test_epochs_are_permutations_fixed_by_seed_and_number():
    assert torch.equal(epoch_order(50, 3, 1), epoch_order(50, 3, 1))
    assert not torch.equal(epoch_order(50, 3, 1), epoch_order(50, 3, 2))
    assert torch.equal(epoch_order(50, 3, 1).sort().values, torch.arange(50))


def test_what_is_not_there_is_downloaded(tmp_path, monkeypatch):
    """torchvision raises RuntimeError where there is no copy; the second time it may fetch one."""
    asked = []

    class MNIST:
        data, targets = torch.zeros(60_000, 28, 28, dtype=torch.uint8), torch.zeros(60_000, dtype=torch.long)

        def __init__(self, root: str, train: bool, download: bool):
            asked.append((root, train, download))
            if not download:
                raise RuntimeError("Dataset not found.")

    monkeypatch.setattr("torchvision.datasets.MNIST", MNIST)
    with pytest.raises(DataError, match="no mnist under"):
        load("mnist", "train", tmp_path, download=False)
    assert asked == [(str(tmp_path), True, False)]
    asked.clear()
    assert len(load("mnist", "train", tmp_path).images) == 60_000 - HELD_OUT
    assert asked == [(str(tmp_path), True, False), (str(tmp_path), True, True)]
