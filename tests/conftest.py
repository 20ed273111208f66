"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tests.tiny import write_checkpoint, write_mnist, write_vqvae


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints: a small untrained denoiser, "tiny", and a small untrained VQ-VAE, "tiny-vqvae"."""
    root = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(root / "tiny")
    write_vqvae(root / "tiny-vqvae")
    return root


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data set in MNIST's files."""
    return write_mnist(tmp_path_factory.mktemp("data"))
