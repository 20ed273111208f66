"""Small stand-ins: a data set in torchvision's raw layout and an untrained network in the hub's layout."""

import struct
from pathlib import Path

import torch
from torchvision.models import squeezenet1_1

from dd import checkpoints, perceptual

TINY = {
    "name": "tiny",
    "architecture": "evidence-unet",
    "network": {"K": 2, "channels": [8, 8], "blocks": [1, 1], "classes": 10},
    "data": {"source": "mnist", "K": 2, "cells": "threshold"},
    "mixture": {"dirichlet": 4, "d3pm-absorbing": 4},
}

VQVAE = {"K": 8, "colours": 1, "d": 4, "channels": [8, 8], "encoder": [1, 1], "decoder": [1, 1]}


def write_mnist(root: Path, train: int = 5100, test: int = 64, name: str = "MNIST") -> Path:
    """Grey rectangles whose place depends on the label, as raw/{train,t10k}-{images,labels} files."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for prefix, n in (("train", train), ("t10k", test)):
        labels = torch.arange(n) % 10
        images = torch.zeros(n, 28, 28, dtype=torch.uint8)
        for i, label in enumerate(labels.tolist()):
            images[i, 2 * label : 2 * label + 8, 4:24] = 255
            images[i, 2 * label, 4:24] = 100
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 2051, n, 28, 28) + images.numpy().tobytes()
        )
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + bytes(labels.to(torch.uint8)))
    return root


def write_checkpoint(folder: Path, seed: int = 0, **changes: object) -> Path:
    """An untrained network with random weights, saved like a trained one."""
    config = {**TINY, **changes}
    torch.manual_seed(seed)
    network = checkpoints.build(config)
    torch.nn.init.normal_(network.leave.weight, std=0.1)
    checkpoints.save(folder, network.state_dict(), config)
    return folder


def write_vqvae(folder: Path, seed: int = 0, **changes: object) -> Path:
    """An untrained VQ-VAE of grey pictures, saved like a trained one."""
    data = {"source": "folder", "held_out": 0.3}
    config = {"name": folder.name, "architecture": "vqvae", "network": VQVAE | changes, "data": data}
    torch.manual_seed(seed)
    checkpoints.save(folder, checkpoints.build(config).state_dict(), config)
    return folder


FACES = {"K": 8, "channels": [8, 8], "blocks": [1, 1], "classes": 2}


def write_faces(root: Path) -> Path:
    """Untrained stand-ins of `faces` and `faces-vqvae` in root: grids of 8 x 8 codes, pictures of 32 x 32."""
    vqvae = checkpoints.load(write_vqvae(root / "faces-vqvae"))
    data = {"source": "codes", "K": 8, "cells": "codes", "grid": [8, 8], "labels": ["neutral", "smiling"]}
    data |= {"vqvae": vqvae.name, "vqvae_sha256": vqvae.sha256}
    return write_checkpoint(root / "faces", name="faces", network=FACES, data=data, temperature=0.7)


def stripes() -> tuple[tuple[int, ...], ...]:
    return tuple(tuple((row // 2) % 2 for _ in range(28)) for row in range(28))


def write_squeezenet(path: Path, seed: int = 0) -> Path:
    """Random weights as torchvision keeps those of ImageNet."""
    path.parent.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.save(squeezenet1_1(weights=None).state_dict(), path)
    return path


def forget_squeezenet() -> None:
    """What was loaded from one hub folder is not what another one has."""
    for loaded in (perceptual._lpips, perceptual._squeezenet, perceptual._why_unavailable):
        loaded.cache_clear()
