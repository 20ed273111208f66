"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tests.tiny import write_checkpoint, write_mnist


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints with one small untrained denoiser, "tiny"."""
    root = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(root / "tiny")
    return root


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data set in MNIST's files."""
    return write_mnist(tmp_path_factory.mktemp("data"))
