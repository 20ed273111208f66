"""Samples of a denoiser above the training pictures that are nearest to them, so that copying would be seen.

    python -m train.neighbours checkpoints/faces --data DATA/faces64/train --out docs/faces-neighbours.png --json
    python -m train.neighbours checkpoints/faces --process d3pm-uniform --data DATA/faces64/train --out OUT.png --json

Of denoisers of pictures in folders, as codes or as grey levels. Each column: a sample, then the NEAREST training
pictures in SqueezeNet features, mirror images included, all as their cells show them: that is what the denoiser has
learnt from. Printed: mean and minimum of the distance from a sample to its nearest, the same for every picture that was
kept apart from the training (mirrored too, so the minimum is one of many more), and the largest share of cells that any
sample, and any of as many pictures kept apart, has in common with one of the training grids at the same places. A copy
has distance 0 and share 1.
"""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dd import checkpoints
from dd.checkpoints import Checkpoint
from dd.data import grid_of, some
from dd.device import best_device, device
from dd.metrics import distances
from dd.render import tile, to_image
from train.codes import encode
from train.decoded import Cells, cells_of, features_of
from train.judges import sample
from train.loading import IN_FOLDERS, EvaluationError, load_denoiser, process_for, with_vqvae
from train.loop import sentences
from train.pictures import readable, split_below

NEAREST = 3  # rows below the samples


def nearest(a: Tensor, b: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Distances and indices (N, n) of the n points of b (M, D) nearest to each of a (N, D)."""
    found = distances(a, b).topk(n, largest=False)
    return found.values, found.indices


def most_in_common(a: Tensor, b: Tensor) -> float:
    """The largest share of cells in which a grid of a (N, h, w) and one of b (M, h, w) agree."""
    return max(float((one == b).double().mean((1, 2)).max()) for one in a)


def sheet(kind: Cells, samples: Tensor, training: Tensor, indices: Tensor) -> Image.Image:
    """The picture: samples (N, h, w) in the first row, their neighbours below."""
    rows = torch.cat([samples, training[indices.T.flatten()]])
    return to_image(tile(kind.show(rows)[:, 0], len(samples)), scale=2)


def learnt_and_apart(data: dict, kind: Cells, folder: str | Path) -> tuple[Tensor, Tensor]:
    """Cells (N, h, w) of the pictures below `folder` that a denoiser with this `data` has learnt from, and of those
    that were kept apart, each followed by all their mirror images."""
    held_out = checkpoints.read_config(data["vqvae_folder"])["data"] if data["source"] == "codes" else data
    parts, size = split_below(folder, held_out), grid_of(data)[0] * kind.side

    def both_ways(files: list[Path]) -> Tensor:
        pictures = readable(files, kind.colours)
        if not len(pictures):
            raise EvaluationError(f"no picture below {folder} is on one side of the split; give a folder with more")
        return torch.cat([encode(kind, pictures, size, mirror) for mirror in (False, True)])

    return both_ways(parts.train), both_ways(parts.held_out)


def load_in_folders(args: argparse.Namespace, device_: torch.device) -> tuple[Checkpoint, dict]:
    """The denoiser and its `data`, with the place of the VQ-VAE where it has one."""
    checkpoint = load_denoiser(args.checkpoint, device_)
    config = checkpoint.config
    if config["data"]["source"] not in IN_FOLDERS:
        raise EvaluationError(f"{checkpoint.name} has not learnt from pictures in folders; give a denoiser that has")
    if config["data"]["source"] == "codes":
        config = with_vqvae(args.checkpoint, config, args.vqvae)
    return checkpoint, config["data"]


@sentences()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Samples beside their nearest training pictures.")
    parser.add_argument("checkpoint", help="folder of a denoiser of pictures in folders, as codes or as grey levels")
    parser.add_argument("--process", default="dirichlet", help="noise process")
    parser.add_argument("--data", required=True, help="folder of the pictures that it was trained on")
    parser.add_argument("--out", required=True, help="PNG to write")
    parser.add_argument("--vqvae", help="for codes: the folder of their VQ-VAE (default: beside the checkpoint)")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=device, help="cpu, cuda, ... (default: the best there is)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    figures = run(args)
    print(json.dumps(figures) if args.json else "\n".join(f"{k:>26}  {v}" for k, v in figures.items()))


def run(args: argparse.Namespace) -> dict:
    """Write the picture that `args` (see main) asks for, and return the figures."""
    device_ = args.device or best_device()
    checkpoint, data = load_in_folders(args, device_)
    process = process_for(checkpoint, args.process)
    kind = cells_of(data, device_)
    training, apart = learnt_and_apart(data, kind, args.data)
    made = sample(checkpoint, process, process.methods[0], args.steps, args.images, args.seed).cells
    features = features_of(kind, training)
    between, indices = nearest(features_of(kind, made), features, NEAREST)
    between_apart, _ = nearest(features_of(kind, apart), features, 1)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    sheet(kind, made, training, indices).save(args.out)
    return {
        "process": args.process, "images": args.images, "training_grids": len(training),
        "grids_kept_apart": len(apart),
        "distance": float(between[:, 0].mean()), "distance_least": float(between[:, 0].min()),
        "distance_kept_apart": float(between_apart.mean()),
        "distance_kept_apart_least": float(between_apart.min()),
        "cells_in_common": most_in_common(made, training),
        "cells_in_common_kept_apart": most_in_common(some(apart, args.images), training),
    }  # fmt: skip


if __name__ == "__main__":
    main()
