"""Samples of a denoiser of codes above the training pictures that are nearest to them, so that copying would be seen.

    python -m train.neighbours checkpoints/faces --data DATA/faces64/train --out docs/faces-neighbours.png --json

Each column: a sample, then the NEAREST training pictures in SqueezeNet features, mirror images included, all as their
codes decode: that is what the denoiser has learnt from. Printed: the mean distance from a sample to its nearest, the
same for pictures that were kept apart from the training, and the largest share of codes that any sample, and any
picture kept apart, has in common with one of the training grids at the same cells. A copy has distance 0 and share 1.
"""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dd import checkpoints
from dd.data import grid_of, some
from dd.device import best_device, device
from dd.metrics import distances
from dd.render import tile, to_image
from train.codes import encode_folder
from train.decoded import Cells, codes, features_of, find_vqvae
from train.judges import sample
from train.loading import find_process, load_denoiser
from train.loop import sentences

NEAREST = 3  # rows below the samples


def nearest(a: Tensor, b: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Distances and indices (N, n) of the n points of b (M, D) nearest to each of a (N, D)."""
    found = distances(a, b).topk(n, largest=False)
    return found.values, found.indices


def most_in_common(a: Tensor, b: Tensor) -> float:
    """The largest share of cells in which a grid of a (N, h, w) and one of b (M, h, w) have the same code."""
    return max(float((one == b).double().mean((1, 2)).max()) for one in a)


def sheet(kind: Cells, samples: Tensor, training: Tensor, indices: Tensor) -> Image.Image:
    """The picture: samples (N, h, w) in the first row, their neighbours below."""
    rows = torch.cat([samples, training[indices.T.flatten()]])
    return to_image(tile(kind.show(rows)[:, 0], len(samples)), scale=2)


@sentences()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Samples of codes beside their nearest training pictures.")
    parser.add_argument("checkpoint", help="folder of a denoiser of codes")
    parser.add_argument("--data", required=True, help="folder of the pictures that it was trained on")
    parser.add_argument("--out", required=True, help="PNG to write")
    parser.add_argument("--vqvae", help="folder of the codes' VQ-VAE (default: beside the checkpoint)")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=device, help="cpu, cuda, ... (default: the best there is)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    figures = run(args)
    print(json.dumps(figures) if args.json else "\n".join(f"{k:>22}  {v}" for k, v in figures.items()))


def run(args: argparse.Namespace) -> dict:
    """Write the picture that `args` (see main) asks for, and return the figures."""
    device_ = args.device or best_device()
    checkpoint = load_denoiser(args.checkpoint, device_)
    config = checkpoint.config
    if config["data"]["source"] != "codes":
        raise checkpoints.CheckpointError(f"{checkpoint.name} generates pixels; give a denoiser of codes")
    folder = find_vqvae(args.checkpoint, config, args.vqvae)
    kind = codes(checkpoints.load(folder, device_).network)
    known = encode_folder(folder, args.data, grid_of(config["data"])[0] * kind.side, mirror=True, device=device_)
    training, apart = known.codes[~known.held_out], known.codes[known.held_out]
    process_ = find_process("dirichlet", config)
    made = sample(checkpoint, process_, process_.methods[0], args.steps, args.images, args.seed).cells
    features = features_of(kind, training)
    distances, indices = nearest(features_of(kind, made), features, NEAREST)
    between, _ = nearest(features_of(kind, apart), features, 1)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    sheet(kind, made, training, indices).save(args.out)
    return {
        "images": args.images, "training_grids": len(training),
        "distance": float(distances[:, 0].mean()), "distance_kept_apart": float(between.mean()),
        "codes_in_common": most_in_common(made, training),
        "codes_in_common_kept_apart": most_in_common(some(apart, args.images), training),
    }  # fmt: skip


if __name__ == "__main__":
    main()
