"""Folders of pictures as training data: any folder, recursively, or CelebA in torchvision's layout.

The held-out pictures are chosen by a hash of the file's name, so that a picture stays on its side of the split when
others are added, moved or renamed around it.
"""

import hashlib
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dd.data import DataError, Labelled
from dd.images import RESAMPLE, ImageError, crop, open_image, to_tensor

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif"})
CACHE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Split:
    """Files to learn from, files kept apart for choices, and for the final figures where the data name some."""

    train: list[Path]
    held_out: list[Path]
    test: list[Path] = field(default_factory=list)

    def part(self, name: str) -> list[Path]:
        """name: train, held-out or test."""
        return getattr(self, name.replace("-", "_"))


def find(folder: str | Path) -> list[Path]:
    """Every picture below a folder, in a fixed order."""
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise DataError(f"there are no pictures in {folder}; give a folder with JPEG, PNG or WebP files")
    return files


def is_held_out(path: Path, share: float) -> bool:
    """Whether this file's name falls into the held-out share of all names."""
    return int(hashlib.sha256(path.name.encode()).hexdigest()[:8], 16) < share * 2**32


def split(files: list[Path], share: float) -> Split:
    held_out = [path for path in files if is_held_out(path, share)]
    return Split([path for path in files if not is_held_out(path, share)], held_out)


def celeba(root: str | Path) -> Split:
    """CelebA as torchvision's `CelebA(root)` lays it out; its own partition, 0 = train, 1 = validation, 2 = test."""
    base = Path(root) / "celeba"
    partition = base / "list_eval_partition.txt"
    if not partition.is_file():
        raise DataError(
            f"there is no CelebA in {root}: torchvision keeps {partition} and {base}/img_align_celeba there"
        )
    rows = [line.split() for line in partition.read_text().splitlines() if line.strip()]
    return Split(*([base / "img_align_celeba" / name for name, its in rows if its == part] for part in "012"))


def load_split(data: dict, root: str | Path) -> Split:
    """The pictures of a configuration's `data`: {source: celeba} or {source: folder, folder, held_out}."""
    return split_below(root if data["source"] == "celeba" else Path(root) / data["folder"], data)


def split_below(folder: str | Path, data: dict) -> Split:
    """All pictures below a folder, split as for the training of a VQ-VAE with this `data`."""
    return celeba(folder) if data["source"] == "celeba" else split(find(folder), data["held_out"])


def files_of(root: str | Path, split_: str, data: dict) -> list[Path]:
    """The pictures of a split below `root`.

    train, held-out: below its folder `train` where it has one, split as `data` says. test: below its folder `test`;
    every picture, where there is neither. CelebA's are those of its own partition.
    """
    if data["source"] == "celeba":
        return celeba(root).part(split_)
    root, place = Path(root), "test" if split_ == "test" else "train"
    if (root / place).is_dir():
        root = root / place
    elif split_ == "test" and (root / "train").is_dir():
        raise ValueError(f"{root} has a folder train but none of the name test; its pictures are no test split")
    if split_ == "test":
        return find(root)
    return split_below(root, data).part(split_)


class Pictures:
    """Decoded pictures, kept in memory as far as CACHE_BYTES goes."""

    def __init__(self, files: list[Path], colours: int):
        self.files, self.mode = files, "L" if colours == 1 else "RGB"
        self._kept: dict[int, Image.Image] = {}
        self._room = CACHE_BYTES
        self._damaged: set[int] = set()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Image.Image:
        if i not in self._kept:
            image = self._open(self.files[i])
            size = image.width * image.height * len(self.mode)
            if size > self._room:
                return image
            self._kept[i], self._room = image, self._room - size
        return self._kept[i]

    def some(self, index: list[int]) -> "Pictures":
        """These pictures; what is decoded already is not decoded again."""
        chosen = Pictures([self.files[i] for i in index], len(self.mode))
        chosen._kept = {n: self._kept[i] for n, i in enumerate(index) if i in self._kept}
        chosen._room = self._room
        return chosen

    def _open(self, path: Path) -> Image.Image:
        try:
            return open_image(path).convert(self.mode)
        except ImageError as error:
            raise ImageError(f"{path}: {error} Repair or remove it.") from error

    def batch(self, n: int, size: int, smallest: int, generator: torch.Generator) -> Tensor:
        """n random crops (n, c, size, size), each of a random picture, at a random scale, mirrored or not.

        The scale puts the picture's short side log-uniformly between `smallest` and what it has.
        """
        which = torch.randint(len(self), (n,), generator=generator).tolist()
        u = torch.rand(n, 4, generator=generator, dtype=torch.float64).tolist()
        pictures = map(self._readable, which)
        return torch.cat([self._random_crop(p, size, smallest, *u_) for p, u_ in zip(pictures, u, strict=True)])

    def _readable(self, i: int) -> Image.Image:
        """Picture i, or where it cannot be read the next one that can; which cannot is said once."""
        for j in (*range(i, len(self)), *range(i)):
            try:
                return self[j]
            except ImageError as error:
                if j not in self._damaged:
                    print(f"left out: {error}", file=sys.stderr, flush=True)
                self._damaged.add(j)
        raise DataError("none of the pictures to learn from can be read")

    @staticmethod
    def _random_crop(image: Image.Image, size: int, smallest: int, *u: float) -> Tensor:
        short, low = min(image.size), max(size, smallest)
        target = short * (low / short) ** u[0] if short > low else max(short, size)
        side = size * short / target  # of the crop, in the picture's own pixels
        left, top = u[1] * (image.width - side), u[2] * (image.height - side)
        piece = image.resize((size, size), RESAMPLE, box=(left, top, left + side, top + side))
        x = to_tensor(piece)
        return x.flip(-1) if u[3] < 0.5 else x

    def whole(self, index: range | list[int], size: int) -> Tensor:
        """These pictures, the middle square at size x size: (n, c, size, size)."""
        return torch.cat([to_tensor(crop(self[i], size, size)) for i in index])


def readable(files: list[Path], colours: int) -> Pictures:
    """Those of the files that can be read; the others are named on the standard error output."""
    pictures, good = Pictures(files, colours), []
    for i in range(len(files)):
        try:
            pictures[i]
        except ImageError as error:
            print(f"left out: {error}", file=sys.stderr, flush=True)
        else:
            good.append(i)
    return pictures.some(good)


def labels(files: list[Path]) -> tuple[np.ndarray, list[str]]:
    """The parent folder of every file as its class: (N,) and the names."""
    names = sorted({path.parent.name for path in files})
    return np.array([names.index(path.parent.name) for path in files]), names


def greys(files: list[Path], size: int, mirror: bool = False) -> tuple[Labelled, list[str]]:
    """The middle squares as greys (N, size, size) uint8 with their classes, and the classes' names.

    mirror: every mirror image too, after all the others.
    """
    pictures = readable(files, 1)
    if not len(pictures):
        raise DataError("there are no pictures to learn from, or none held out; more of them, or another held_out")
    images = torch.cat([(255 * pictures.whole([i], size)[:, 0]).round().to(torch.uint8) for i in range(len(pictures))])
    classes, names = labels(pictures.files)
    classes = torch.from_numpy(classes)
    if mirror:
        images, classes = torch.cat([images, images.flip(-1)]), classes.repeat(2)
    return Labelled(images, classes), names
