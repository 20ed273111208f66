"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from dd import perceptual
from tests.tiny import forget_squeezenet, write_checkpoint, write_mnist, write_squeezenet, write_vqvae


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


@pytest.fixture
def squeezenet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """SqueezeNet's weights where torch's hub folder has them, else random ones: no figure to speak of, but one."""
    if perceptual.weights_path().is_file():
        yield
        return
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    write_squeezenet(perceptual.weights_path())
    forget_squeezenet()
    yield
    forget_squeezenet()
