"""Data sets as grids of categorical cells.

MNIST and Fashion-MNIST through torchvision (downloaded on request); grey values become categories by one of

    threshold  K = 2, a pixel is 1 where its grey is above 0.5
    dynamic    K = 2, a pixel of grey g is 1 with probability g, drawn afresh every time it is seen
    levels     K equal bins of grey
    codes      the images are grids of VQ-VAE codes already (train/codes.py).

The last 5,000 training images are held out for every choice ("held-out"); "test" is for final figures only.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

HELD_OUT = 5000
SPLITS = ("train", "held-out", "test")
BINARISATIONS = ("threshold", "dynamic", "levels", "codes")
MNIST_LABELS = tuple("0123456789")
FASHION_LABELS = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "trainer", "bag", "ankle boot",
)  # fmt: skip
LABELS = {"mnist": MNIST_LABELS, "fashion-mnist": FASHION_LABELS}


class DataError(ValueError):
    """Data that are not there or cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Labelled:
    """Images (N, H, W) of grey values or of codes, whole numbers, with labels (N,)."""

    images: Tensor
    labels: Tensor


def load(name: str, split: str, root: str | Path = "data", *, download: bool = True) -> Labelled:
    """name: "mnist" or "fashion-mnist"; split: train, held-out or test.

    Where no copy is there, it is downloaded, or, with download False (docs/train-small.ipynb), a DataError raised.
    """
    from torchvision import datasets  # takes a second to import, which the app need not wait for

    sources = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}
    if name not in sources:
        raise ValueError(f"unknown data set {name!r}; choose one of {', '.join(sources)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    try:
        source = sources[name](str(root), train=split != "test", download=False)
    except RuntimeError as missing:
        if not download:
            raise DataError(f"no {name} under {root}; give its folder, or let it be downloaded") from missing
        try:
            source = sources[name](str(root), train=split != "test", download=True)
        except (RuntimeError, OSError) as error:
            raise DataError(
                f"no {name} under {root}, and it cannot be downloaded ({error}); give its folder with --data-root"
            ) from error
    images, labels = source.data, source.targets
    if split != "test":
        part = slice(-HELD_OUT, None) if split == "held-out" else slice(None, -HELD_OUT)
        images, labels = images[part], labels[part]
    return Labelled(images, labels)


def to_cells(images: Tensor, K: int, how: str, generator: torch.Generator) -> Tensor:
    """Grey images (B, H, W) uint8 to categories (B, H, W) in 0..K-1."""
    if how == "threshold":
        return (images > 127).long()
    if how == "dynamic":
        return (torch.rand(images.shape, generator=generator) < images / 255).long()
    if how == "levels":
        return (images.long() * K) // 256
    if how == "codes":
        return images.long()
    raise ValueError(f"unknown binarisation {how!r}; choose one of {', '.join(BINARISATIONS)}")


def grid_of(data: dict) -> tuple[int, int]:
    """Rows and columns of cells of an image, of a configuration's `data`; where it says nothing, 28 x 28."""
    return tuple(data.get("grid", (28, 28)))


def some(x: Tensor, n: int) -> Tensor:
    """n of the rows of x, or all if there are fewer: the same ones every time, from all over."""
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:n]]


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The permutation of n items in that epoch, a function of its arguments alone."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def batch_at(data: Labelled, batch: int, seed: int, step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
    """The images and labels of worker `rank` of `world` at a training step: its share of a batch; epochs are
    permutations."""
    if len(data.images) < batch:
        raise DataError(f"{len(data.images)} images are fewer than a batch of {batch}; lower it, or add some")
    size = batch // world
    per_epoch = len(data.images) // batch
    order = epoch_order(len(data.images), seed, step // per_epoch)
    start = step % per_epoch * batch + rank * size
    index = order[start : start + size]
    return data.images[index], data.labels[index]
