"""What a VQ-VAE checkpoint does to pictures: PSNR, SSIM, LPIPS, FID, codebook usage, bits per pixel.

Of colour pictures also what JPEG and WebP cost and keep at about the same rate.

python -m train.evaluate CHECKPOINT --data DIR --size 128 --json         (dispatches here)
python -m train.evaluate_vqvae CHECKPOINT --data DIR --size 128 [--part held-out] [--card] --json
"""

import argparse
import json
import math
import sys
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor

from dd import checkpoints, perceptual, reconstruct
from dd.checkpoints import CheckpointError
from dd.data import DataError
from dd.device import best_device, device
from dd.images import crop
from dd.metrics import distances, frechet_distance
from dd.networks.vqvae import VqVae
from train.cards import fill_metrics, record_metrics
from train.loop import sentences
from train.pictures import Pictures, find, readable, split_below

BATCH_PIXELS = 2**19  # rebuilt at a time


def handles(checkpoint: str | Path) -> bool:
    """Whether this checkpoint is for this module to measure."""
    return checkpoints.read_config(checkpoints.resolve(checkpoint)).get("architecture") == "vqvae"


def evaluate(
    checkpoint: str | Path,
    data: str | Path,
    size: int,
    part: str = "all",
    limit: int | None = None,
    device: torch.device | None = None,
) -> dict[str, float | int | str]:
    """Rebuild the pictures below `data`, middle squares at size x size, and say how well.

    part: "all", or by the checkpoint's own split those it learnt from ("train") or not ("held-out"; of CelebA "test").
    """
    if not handles(checkpoint):
        raise CheckpointError(f"{checkpoint} is not a VQ-VAE; see python -m train.evaluate for denoisers")
    loaded = checkpoints.load(checkpoint, device or best_device())
    if part == "all":
        files = find(data)
    else:
        files = split_below(data, loaded.config["data"]).part(part)
        if not files:
            raise DataError(f"no picture of {data} is in the part {part!r}")
    pictures = readable(files[:limit], loaded.network.colours)
    facts = {"checkpoint": loaded.name, "sha256": loaded.sha256, "size": size, "part": part}
    figures = measure(loaded.network, pictures, size, deep=True)
    if loaded.network.colours == 3:  # of the small grey ones a file's header alone is more than the codes
        figures |= usual_formats(pictures, size, figures["bits_per_pixel"])
    return facts | figures


@torch.inference_mode()
def measure(network: VqVae, pictures: Pictures, size: int, deep: bool = False) -> dict[str, float | None]:
    """Means over pictures of the 8-bit reconstructions' PSNR, SSIM and LPIPS; share of codes in use; bits per pixel.

    deep: also, in SqueezeNet features, the FID between originals and reconstructions, and `retrieved`: for which share
    of the reconstructions the nearest original is their own; `retrieved_by_place`: the same with features averaged over
    each of nine parts of the picture instead of all of it. Figures that need SqueezeNet are None without its weights.
    """
    device = next(network.parameters()).device
    missing = perceptual.why_unavailable()
    if missing:
        print(missing, file=sys.stderr, flush=True)
    used = torch.zeros(network.K, dtype=torch.long)
    figures: dict[str, list[Tensor]] = {"psnr": [], "ssim": [], "lpips": []}
    real, rebuilt, real_places, rebuilt_places = [], [], [], []
    per_batch = max(1, BATCH_PIXELS // size**2)
    for start in range(0, len(pictures), per_batch):
        x = pictures.whole(range(start, min(start + per_batch, len(pictures))), size).to(device)
        x_hat, codes = network.reconstruct(x)
        x_hat = (x_hat * 255).round() / 255
        used += torch.bincount(codes.flatten().cpu(), minlength=network.K)
        figures["psnr"].append(perceptual.psnr(x_hat, x))
        figures["ssim"].append(perceptual.ssim(x_hat, x))
        if not missing:
            figures["lpips"].append(perceptual.lpips_distance(x_hat, x))
        if deep and not missing:
            for y, means, places in ((x, real, real_places), (x_hat, rebuilt, rebuilt_places)):
                found = perceptual.feature_map(y)
                means.append(found.mean((2, 3)).cpu())  # distances are in float64, which Apple's GPUs lack
                places.append(F.adaptive_avg_pool2d(found, 3).flatten(1).cpu())
    out: dict[str, float | None] = {k: float(torch.cat(v).mean()) if v else None for k, v in figures.items()}
    p = used / used.sum()
    out |= {
        "usage": float((used > 0).float().mean()),
        "code_entropy_bits": float(-torch.xlogy(p, p).sum() / math.log(2)),
    }
    out |= {"bits_per_pixel": network.bits_per_pixel(), "images": len(pictures)}
    if deep and len(pictures) > 1:
        out |= dict.fromkeys(("fid", "retrieved", "retrieved_by_place"))
    if real and len(pictures) > 1:
        out["fid"] = frechet_distance(torch.cat(real), torch.cat(rebuilt))
        out["retrieved"] = retrieved(torch.cat(real), torch.cat(rebuilt))
        out["retrieved_by_place"] = retrieved(torch.cat(real_places), torch.cat(rebuilt_places))
    return out


def usual_formats(pictures: Pictures, size: int, bits_per_pixel: float) -> dict[str, float | None]:
    """Means over pictures of the bits per pixel, PSNR, SSIM and LPIPS of JPEG and WebP within a rate, as the tab
    Reconstruct has them of one picture; LPIPS is None without SqueezeNet's weights."""
    squares = (crop(pictures[i], size, size) for i in range(len(pictures)))
    found = [quality for square in squares for quality in reconstruct.rivals(square, bits_per_pixel)]
    out = {}
    for name in ("JPEG", "WebP"):
        for figure in reconstruct.FIGURES:
            values = [getattr(quality, figure) for quality in found if quality.name == name]
            out[reconstruct.PREFIXES[name] + figure] = None if None in values else mean(values)
    return out


def retrieved(originals: Tensor, rebuilt: Tensor) -> float:
    """Share of rebuilt pictures (N, D) whose nearest original (N, D) is their own."""
    nearest = torch.cat([distances(part, originals).argmin(1) for part in rebuilt.split(1000)])
    return float((nearest == torch.arange(len(nearest))).float().mean())


@sentences()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure a VQ-VAE on any folder of pictures.")
    parser.add_argument("checkpoint")
    parser.add_argument("--data", required=True, help="folder of pictures, searched recursively")
    parser.add_argument("--size", type=int, default=128, help="middle squares of this many pixels a side")
    parser.add_argument(
        "--part", default="all", choices=("all", "held-out", "train", "test"), help="by the checkpoint's split"
    )
    parser.add_argument("--limit", type=int, help="at most this many pictures")
    parser.add_argument("--device", type=device, help="cpu, cuda, ... (default: the best there is)")
    parser.add_argument("--card", action="store_true", help="write the figures into the checkpoint's model card")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    result = evaluate(args.checkpoint, args.data, args.size, args.part, args.limit, args.device)
    print(json.dumps(result) if args.json else "\n".join(f"{k:>18}  {v}" for k, v in result.items()))
    if args.card:
        what = f"--data DIR/{Path(args.data).name} --size {args.size} --part {args.part}"
        fill_metrics(Path(args.checkpoint), result, f"python -m train.evaluate_vqvae CHECKPOINT {what} --card")
        kept = {k: v for k, v in result.items() if k not in ("checkpoint", "part")}
        record_metrics(Path(args.checkpoint), args.part, kept)


if __name__ == "__main__":
    main()
