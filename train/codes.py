"""Encode a folder of pictures to grids of codes, and say how predictable the codes are.

    python -m train.codes CHECKPOINT --data DIR --size 64 --out codes.safetensors [--mirror] [--fit-steps 500] [--json]

The file holds `codes` (N, h, w), `labels` (N,), the parent folder of each picture, and `held_out` (N,), the pictures
that the VQ-VAE's training kept apart. The entropies are cross-entropies of held-out grids under counts of the other
grids, nats a code: upper bounds, so a low one is really low.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from dd import checkpoints
from dd.data import Labelled
from dd.device import best_device, device
from dd.networks.vqvae import CausalContext
from train import decoded
from train.loop import sentences
from train.pictures import Pictures, labels, readable, split_below

SMOOTHING = 16.0  # observations that the shorter context counts for
BATCH = 64


@dataclass(frozen=True)
class Codes:
    """codes (N, h, w) in 0..K-1, labels (N,) with their names, held_out (N,) bool, the VQ-VAE's weights' hash."""

    codes: Tensor
    labels: Tensor
    held_out: Tensor
    K: int
    names: list[str]
    sha256: str

    def save(self, path: str | Path) -> None:
        small = torch.uint8 if self.K <= 256 else torch.int16
        tensors = {"codes": self.codes.to(small), "labels": self.labels.to(torch.int16), "held_out": self.held_out}
        metadata = {"K": str(self.K), "names": json.dumps(self.names), "vqvae_sha256": self.sha256}
        checkpoints.write_tensors(Path(path), {k: v.contiguous() for k, v in tensors.items()}, metadata)


def load_codes(path: str | Path) -> Codes:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        codes, labels_, held_out = (file.get_tensor(k) for k in ("codes", "labels", "held_out"))
    names = json.loads(metadata["names"])
    return Codes(codes.long(), labels_.long(), held_out, int(metadata["K"]), names, metadata["vqvae_sha256"])


def load_grids(path: str | Path, split: str) -> Labelled:
    """The grids and labels of a split, "train" or "held-out", as data to train a denoiser on."""
    if not Path(path).is_file():
        raise ValueError(f"there is no {path}; make it with python -m train.codes (its docstring says how)")
    codes = load_codes(path)
    chosen = codes.held_out if split == "held-out" else ~codes.held_out
    return Labelled(codes.codes[chosen], codes.labels[chosen])


def encode(cells: decoded.Cells, pictures: Pictures, size: int, mirror: bool = False) -> Tensor:
    """Codes of the middle squares at size x size: (N, h, w); mirror: of their mirror images."""
    parts = torch.arange(len(pictures)).split(BATCH)
    squares = (pictures.whole(part.tolist(), size) for part in parts)
    return torch.cat([cells.read(x.flip(-1) if mirror else x) for x in squares])


def encode_folder(
    checkpoint: str | Path, data: str | Path, size: int, mirror: bool = False, device: torch.device | None = None
) -> Codes:
    """Every picture below `data`; with `mirror` every mirror image too, after all the others."""
    loaded = checkpoints.load(checkpoint, device or best_device())
    parts = split_below(data, loaded.config["data"])
    files = sorted(parts.train + parts.held_out)
    pictures = readable(files, loaded.network.colours)
    cells = decoded.codes(loaded.network)
    grids = [encode(cells, pictures, size)] + [encode(cells, pictures, size, True)] * mirror
    classes, names = labels(pictures.files)
    apart = set(parts.held_out)
    held_out = torch.tensor([path in apart for path in pictures.files])
    n = len(grids)
    all_labels = torch.from_numpy(classes).repeat(n)
    return Codes(torch.cat(grids), all_labels, held_out.repeat(n), loaded.network.K, names, loaded.sha256)


def entropies(train: Tensor, test: Tensor, K: int) -> dict[str, float]:
    """Held-out cross-entropies of a code (nats) given nothing, its position, its left, or its left and upper neighbour.

    p(k | context) = (n(context, k) + c p(k | shorter context)) / (n(context) + c),    c = SMOOTHING,
    over the cells that have both neighbours. train, test: grids (N, h, w).
    """
    a, b = _views(train, K), _views(test, K)
    uniform = torch.full(b["code"].shape, 1 / K, dtype=torch.float64)
    p = {"marginal": _smoothed(a, b, "nothing", uniform, K)}
    p["position"] = _smoothed(a, b, "position", p["marginal"], K)
    p["left"] = _smoothed(a, b, "left", p["marginal"], K)
    p["left_up"] = _smoothed(a, b, "left_up", p["left"], K)
    out = {"log_K": math.log(K)} | {k: float(-v.log().mean()) for k, v in p.items()}
    return out | {"used": float(len(train.unique()) / K)}


def _views(grids: Tensor, K: int) -> dict[str, Tensor]:
    """Codes that have both neighbours, and their contexts, each as one whole number."""
    code, left, up = grids[:, 1:, 1:], grids[:, 1:, :-1], grids[:, :-1, 1:]
    position = torch.arange(code[0].numel()).view(code[0].shape).expand_as(code)
    views = {"code": code, "nothing": torch.zeros_like(code), "position": position, "left": left}
    return {k: v.flatten() for k, v in (views | {"left_up": left * K + up}).items()}


def _smoothed(a: dict[str, Tensor], b: dict[str, Tensor], context: str, shorter: Tensor, K: int) -> Tensor:
    """p(code | context) of every cell in b, from the counts in a."""
    joint = _count(a[context] * K + a["code"], b[context] * K + b["code"])
    return (joint + SMOOTHING * shorter) / (_count(a[context], b[context]) + SMOOTHING)


def _count(keys: Tensor, wanted: Tensor) -> Tensor:
    """How often each wanted key is among the keys."""
    values, counts = keys.unique(return_counts=True)
    i = torch.searchsorted(values, wanted).clamp(max=len(values) - 1)
    return torch.where(values[i] == wanted, counts[i], 0).double()


def fit_context(train: Tensor, test: Tensor, codebook: Tensor, steps: int) -> float:
    """Held-out nats a code (all cells) of a small causal network after `steps` steps on 64 grids each."""
    K, d = codebook.shape
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = CausalContext(K, d)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        k = train[torch.randint(len(train), (BATCH,), generator=generator)]
        optimiser.zero_grad()
        F.nll_loss(network(codebook[k].movedim(-1, 1)), k).backward()
        optimiser.step()
    with torch.inference_mode():
        losses = [F.nll_loss(network(codebook[k].movedim(-1, 1)), k, reduction="sum") for k in test.split(BATCH)]
    return float(sum(losses) / test.numel())


@sentences()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Encode pictures to code grids and measure their entropies.")
    parser.add_argument("checkpoint")
    parser.add_argument("--data", required=True, help="folder of pictures; their parent folders are the classes")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--out", help="safetensors file to write")
    parser.add_argument("--mirror", action="store_true", help="encode every picture's mirror image too")
    parser.add_argument(
        "--fit-steps", type=int, default=0, help="also train a small causal network this long on the codes"
    )
    parser.add_argument("--device", type=device, help="of the VQ-VAE: cpu, cuda, ... (default: the best there is)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    codes = encode_folder(args.checkpoint, args.data, args.size, args.mirror, args.device)
    if args.out:
        codes.save(args.out)
    result: dict = {"grids": len(codes.codes), "grid": list(codes.codes.shape[1:]), "K": codes.K, "names": codes.names}
    train, test = codes.codes[~codes.held_out], codes.codes[codes.held_out]
    if len(train) and len(test):
        result |= {"held_out_grids": len(test)} | entropies(train, test, codes.K)
        if args.fit_steps:
            codebook = checkpoints.load(args.checkpoint).network.quantiser.codebook
            result["causal_network"] = fit_context(train, test, codebook, args.fit_steps)
    print(json.dumps(result) if args.json else "\n".join(f"{k:>15}  {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
