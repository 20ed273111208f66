"""A denoiser of pictures in folders, as codes or as grey levels, judged in SqueezeNet features of what its cells show.

fid           N samples, with the classes of N real pictures, against every real picture
fid_mean      the part of it that is a difference of means, |mu - mu_real|^2; the rest is of the covariances
fid_rebuilt   N of the real pictures as their cells show them, against every real picture; fid_rebuilt_mean likewise
fid_ratio     the one over the other: what the denoiser loses, measured by what the cells lose
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dd import checkpoints, perceptual
from dd.data import LABELS, Labelled, load, some, to_cells
from dd.looks import decoded
from dd.metrics import frechet_parts, precision_recall
from dd.networks.vqvae import VqVae
from train.pictures import files_of, find, labels, readable

BATCH = 64  # pictures decoded, or shown to SqueezeNet, at a time
SIDE = 64  # pixels that SqueezeNet sees at least: smaller pictures are enlarged


@dataclass(frozen=True)
class Cells:
    """What cells (B, h, w) show, 8-bit pictures (B, colours, H, W) in [0, 1], and the cells of pictures of that size,
    both on the CPU; side: pixels of a cell; device: where networks look at them."""

    show: Callable[[Tensor], Tensor]
    read: Callable[[Tensor], Tensor]
    colours: int
    side: int
    device: torch.device


def codes(vqvae: VqVae) -> Cells:
    device = vqvae.quantiser.codebook.device

    @torch.inference_mode()
    def show(cells: Tensor) -> Tensor:
        return (vqvae.decode(cells.to(device)).clamp(0, 1) * 255).round().cpu() / 255

    @torch.inference_mode()
    def read(pictures: Tensor) -> Tensor:
        return vqvae.encode(vqvae.pad(pictures.to(device))).cpu()

    return Cells(show, read, vqvae.colours, vqvae.factor, device)


def grey_levels(K: int, device: torch.device) -> Cells:
    def read(pictures: Tensor) -> Tensor:
        return to_cells((255 * pictures[:, 0]).round(), K, "levels", torch.Generator())

    return Cells(lambda cells: (255 * cells[:, None] / (K - 1)).round() / 255, read, 1, 1, device)


def cells_of(data: dict, device: torch.device) -> Cells:
    """Those of a denoiser's configuration (codes: see train.loading.with_vqvae)."""
    if data["source"] == "codes":
        return codes(checkpoints.load(data["vqvae_folder"], device).network)
    return grey_levels(data["K"], device)


def find_vqvae(source: str | Path, config: dict, folder: str | Path | None) -> Path:
    """The VQ-VAE whose codes the denoiser in `source` has learnt: in that folder, or beside the denoiser's own."""
    folder = Path(folder or checkpoints.resolve(source).parent / config["data"]["vqvae"])
    decoded(config["name"], config["data"], checkpoints.load(folder))  # complains of another one
    return folder


def grids(data: dict, split: str, root: str | Path, device: torch.device) -> Labelled:
    """The cells of the pictures below `root` (see train.pictures.files_of), of a denoiser's `data`; of a data set that
    torchvision keeps there, where `data` says of which. device: where a VQ-VAE encodes them."""
    kind = cells_of(data, device)
    if "of" in data:
        whole = load(data["of"], split, root)
        bordered = F.pad(whole.images[:, None] / 255, (data["border"],) * 4)
        classes = torch.tensor([data["labels"].index(name) for name in LABELS[data["of"]]])
        return Labelled(torch.cat([kind.read(part) for part in bordered.split(BATCH)]), classes[whole.labels])
    held_out = checkpoints.read_config(data["vqvae_folder"])["data"] if data["source"] == "codes" else data
    pictures = readable(files_of(root, split, held_out), kind.colours)
    if not len(pictures):
        raise ValueError(f"no picture below {root} is in the {split} split; give a folder with more of them")
    size = data["grid"][0] * kind.side
    parts = torch.arange(len(pictures)).split(BATCH)
    cells = torch.cat([kind.read(pictures.whole(part.tolist(), size)) for part in parts])
    return Labelled(cells, torch.from_numpy(labels(pictures.files)[0]))


def features(pictures: Tensor, device: torch.device) -> Tensor:
    """SqueezeNet features (N, D) of pictures (N, c, H, W), both on the CPU."""
    if min(pictures.shape[-2:]) < SIDE:
        pictures = F.interpolate(pictures, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    return perceptual.features(pictures.to(device)).cpu()


def features_of(kind: Cells, cells: Tensor) -> Tensor:
    """SqueezeNet features (N, D) of what cells (N, h, w) show."""
    return torch.cat([features(kind.show(part), kind.device) for part in cells.split(BATCH)])


@dataclass(frozen=True)
class Gallery:
    """Features of every real picture (M, D), N of them as cells (N, h, w), the features of what these show (N, D), and
    what that costs.

    labels: the class of each of the N: samples in their place shall be of the same. None where folders are no classes.
    """

    real: Tensor
    cells: Tensor
    rebuilt: Tensor
    fid_rebuilt: float
    fid_rebuilt_mean: float
    labels: Tensor | None


def gallery(kind: Cells, root: str | Path, size: int, images: int, names: list[str] | None = None) -> Gallery:
    """Every picture below `root`, and the same `images` of them at every call, rebuilt.

    names: of the classes, in order; folders of other names are no classes.
    """
    pictures = readable(find(root), kind.colours)
    if images > len(pictures):
        raise ValueError(f"there are {len(pictures):,} pictures below {root}; ask for at most that many samples")
    order = some(torch.arange(len(pictures)), images).tolist()
    parts = torch.arange(len(pictures)).split(BATCH)
    real = torch.cat([features(pictures.whole(part.tolist(), size), kind.device) for part in parts])
    chosen_parts = torch.tensor(order).split(BATCH)
    cells = torch.cat([kind.read(pictures.whole(part.tolist(), size)) for part in chosen_parts])
    rebuilt = features_of(kind, cells)
    classes, found = labels(pictures.files)
    chosen = torch.from_numpy(classes)[order] if found == names else None
    mean, covariance = frechet_parts(rebuilt, real)
    return Gallery(real, cells, rebuilt, mean + covariance, mean, chosen)


def compare(kind: Cells, cells: Tensor, gallery_: Gallery) -> dict[str, float | None]:
    """FIDs of sampled cells (N, h, w), of which that of rebuilt pictures is the floor; precision and recall against
    the N rebuilt ones."""
    made = features_of(kind, cells)
    mean, covariance = frechet_parts(made, gallery_.real)
    precision, recall = precision_recall(gallery_.rebuilt, made)
    return {
        "fid": mean + covariance, "fid_mean": mean, "fid_floor": gallery_.fid_rebuilt,
        "fid_rebuilt": gallery_.fid_rebuilt, "fid_rebuilt_mean": gallery_.fid_rebuilt_mean,
        "fid_ratio": (mean + covariance) / gallery_.fid_rebuilt, "precision": precision, "recall": recall,
    }  # fmt: skip
