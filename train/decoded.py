"""A denoiser of codes, judged by the pictures that its samples decode to, in SqueezeNet features.

fid           N decoded samples, with the classes of N real pictures, against every real picture
fid_rebuilt   N of the real pictures, through the VQ-VAE and back, against every real picture
fid_ratio     the one over the other: what the denoiser loses, measured by what the codes lose
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dd import checkpoints, perceptual
from dd.checkpoints import Checkpoint
from dd.data import Labelled, some
from dd.looks import decoded
from dd.metrics import frechet_distance, precision_recall
from dd.networks.vqvae import VqVae
from train.codes import encode
from train.pictures import find, labels, readable, split_below

BATCH = 64  # pictures decoded, or shown to SqueezeNet, at a time


def find_vqvae(source: str | Path, config: dict, folder: str | Path | None) -> Path:
    """The VQ-VAE whose codes the denoiser in `source` has learnt: in that folder, or beside the denoiser's own."""
    folder = Path(folder or checkpoints.resolve(source).parent / config["data"]["vqvae"])
    decoded(config["name"], config["data"], checkpoints.load(folder))  # complains of another one
    return folder


def encode_split(vqvae: Checkpoint, size: int, split: str, root: str | Path) -> Labelled:
    """The code grids of the pictures below `root`.

    train, held-out: below its folder `train` where it has one, split by their names as for the VQ-VAE. test: below its
    folder `test`; every picture, where there is neither.
    """
    root, place = Path(root), "test" if split == "test" else "train"
    if (root / place).is_dir():
        root = root / place
    elif split == "test" and (root / "train").is_dir():
        raise ValueError(f"{root} has a folder train but none of the name test; its pictures are no test split")
    parts = None if split == "test" else split_below(root, vqvae.config["data"])
    files = find(root) if parts is None else parts.held_out if split == "held-out" else parts.train
    pictures = readable(files, vqvae.network.colours)
    return Labelled(encode(vqvae.network, pictures, size), torch.from_numpy(labels(pictures.files)[0]))


@torch.inference_mode()
def decode(vqvae: VqVae, cells: Tensor) -> Tensor:
    """8-bit pictures (B, colours, H, W) in [0, 1] of codes (B, h, w)."""
    return (vqvae.decode(cells).clamp(0, 1) * 255).round() / 255


def features_of_codes(vqvae: VqVae, cells: Tensor) -> Tensor:
    """SqueezeNet features (N, D) of the pictures that codes (N, h, w) decode to."""
    return torch.cat([perceptual.features(decode(vqvae, part)) for part in cells.split(BATCH)])


@dataclass(frozen=True)
class Gallery:
    """Features of every real picture (M, D), those of N of them after the VQ-VAE (N, D), and what that costs.

    labels: the class of each of the N: samples in their place shall be of the same. None where folders are no classes.
    """

    real: Tensor
    rebuilt: Tensor
    fid_rebuilt: float
    labels: Tensor | None


def gallery(vqvae: VqVae, root: str | Path, size: int, images: int, names: list[str] | None = None) -> Gallery:
    """Every picture below `root`, and the same `images` of them at every call, rebuilt.

    names: of the classes, in order; folders of other names are no classes.
    """
    pictures = readable(find(root), vqvae.colours)
    if images > len(pictures):
        raise ValueError(f"there are {len(pictures):,} pictures below {root}; ask for at most that many samples")
    order = some(torch.arange(len(pictures)), images).tolist()
    parts = torch.arange(len(pictures)).split(BATCH)
    real = torch.cat([perceptual.features(pictures.whole(part.tolist(), size)) for part in parts])
    rebuilt = features_of_codes(vqvae, encode(vqvae, pictures.some(order), size))
    classes, found = labels(pictures.files)
    chosen = torch.from_numpy(classes)[order] if found == names else None
    return Gallery(real, rebuilt, frechet_distance(rebuilt, real), chosen)


def compare(vqvae: VqVae, cells: Tensor, gallery_: Gallery) -> dict[str, float]:
    """FIDs of sampled codes (N, h, w); precision and recall against the N rebuilt pictures."""
    made = features_of_codes(vqvae, cells)
    fid = frechet_distance(made, gallery_.real)
    precision, recall = precision_recall(gallery_.rebuilt, made)
    ratio = fid / gallery_.fid_rebuilt
    return {
        "fid": fid, "fid_rebuilt": gallery_.fid_rebuilt, "fid_ratio": ratio, "precision": precision, "recall": recall,
    }  # fmt: skip
