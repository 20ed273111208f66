"""Measure a denoiser: likelihood bound, Frechet distance, precision and recall, class accuracy, time.

    python -m train.evaluate CHECKPOINT --process dirichlet --sampler dirichlet --steps 100 --images 2000 \
        --metrics nll,fid,time --data-root DATA --json

Choices are made on the held-out training images (the default); `--split test` is for the final figure. What was not
asked for is null. The likelihood is that of the network without a class label, in nats per image:

    nll_nats   the continuous-time bound, which depends on neither sampler nor steps
    vlb_nats   chains: the bound L_vb of sampling in that many steps, every term
    ode_nats   the Dirichlet process' samplers "ode" and "heun": the bound of the flow itself, integrated finely
    fid        N samples against N images of the split; fid_floor: N training images against the same N images, the
               mean over several disjoint draws, since one alone is off by half its size at N = 2,000; fid_floor_sd:
               their standard deviation, which is also what a fid is off by (null for fewer than two draws)
    fid_mean   the part of fid that is a difference of means; the rest is of the covariances
    fid_split  of which split the real images are that the samples were set against

A denoiser of pictures in folders, as codes or as grey levels, is judged by what its samples show, against every
picture of a folder (fid_split "all"; train/decoded.py), in the classes that as many of those pictures have; --split is
then for the likelihood alone. One of codes whose configuration says `of: fashion-mnist` is judged like pixels, by the
classifier, when its samples are decoded.

    python -m train.evaluate checkpoints/faces --data DATA/faces64 --images 5000 --steps 50 --metrics fid --json

Does the bound leak? `--metrics nll --by-decade --images 10000 --split test` (without --json: a table) splits it by
decades of tau and sets the path-KL below each beside the cross-entropy left there, which that of the exact posterior
cannot exceed.

Which images, and for dynamic binarisation which of their binarisations, is one fixed draw with seed 0 (`data_seed`):
`--seed` is that of the noise and the samples alone, and N images are the first N of more.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from math import ceil, floor, log, log10
from pathlib import Path
from statistics import mean, median_low, stdev

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from dd import checkpoints
from dd.checkpoints import Checkpoint, CheckpointError
from dd.data import LABELS, Labelled, grid_of, load, to_cells
from dd.device import best_device, device, for_inference
from dd.likelihood import (
    Bound,
    cross_entropy,
    differentiable_denoiser,
    estimate_bound,
    exact_vlb,
    network_denoiser,
    ode_bound,
)
from dd.metrics import frechet_distance, frechet_parts, judge, precision_recall
from dd.networks.classifier import Classifier
from dd.networks.unet import UNet
from dd.perceptual import WEIGHTS
from dd.processes import NO_ORDER, REGISTRY, Process, process, suits
from dd.processes.d3pm import D3PM
from dd.processes.dirichlet import Dirichlet
from dd.recipe import sampling_temperature
from dd.results import FLOWS
from dd.samplers import Denoiser, calls_per_step, default_grid, generate, grids
from train import decoded, evaluate_vqvae
from train.loop import sentences

METRICS = ("nll", "fid", "time")
IN_FOLDERS = ("codes", "folder")  # sources whose pictures are files below --data
CLASSIFIERS = {"mnist": "digits-classifier", "fashion-mnist": "fashion-classifier"}
ODE_IMAGES = 500  # images of the ODE's bound, which costs a derivative a step
ODE_STEPS = 100  # of its integration; with few steps the integral is wrong by hundreds of nats, and no bound at all
DATA_SEED = 0  # of the order of a split and of its dynamic binarisation
FLOOR_DRAWS = 5  # disjoint sets of N training images, as far as there are so many
BATCH = 100  # images a network call; times are stratified within a batch
KEYS = (
    "checkpoint", "process", "sampler", "steps", "images", "seed", "nll_nats", "nll_stderr", "bits_per_dim", "fid",
    "fid_floor", "precision", "recall", "accuracy", "seconds_per_image", "device", "sha256", "split", "guidance",
    "schedule", "temperature", "tilt", "calls", "cells", "data_seed", "vlb_nats", "vlb_stderr", "ode_nats",
    "ode_stderr", "ode_images", "fid_floor_sd", "fid_mean", "fid_rebuilt", "fid_ratio", "fid_split",
)  # fmt: skip


class EvaluationError(ValueError):
    """Something that cannot be measured; the message says what to do."""


# -- data and denoiser -------------------------------------------------------------------------------------------------


def load_denoiser(source: str | Path, device: torch.device) -> Checkpoint:
    checkpoint = checkpoints.load(source, device)
    if not isinstance(checkpoint.network, UNet):
        raise EvaluationError(
            f"{source} holds a {checkpoint.config['architecture']}, not a denoiser; give the folder of one"
        )
    return checkpoint


def with_vqvae(source: str | Path, config: dict, folder: str | Path | None = None) -> dict:
    """The configuration of a denoiser of codes, and where their VQ-VAE is: that folder, or beside the denoiser."""
    return config | {"data": config["data"] | {"vqvae_folder": decoded.find_vqvae(source, config, folder)}}


def load_cells(config: dict, split: str, root: str | Path, images: int, draws: int = 1) -> Tensor:
    """The same `images` categories (images, H, W) of a split at every call, in random order of the split.

    draws: that many times as many images, or the largest multiple of `images` that the split has.
    """
    K, how = config["data"]["K"], config["data"]["cells"]
    data = _load(config["data"], split, root)
    if images > len(data.images):
        raise EvaluationError(f"the {split} split has {len(data.images):,} images; ask for at most that many")
    generator = torch.Generator().manual_seed(DATA_SEED)
    images *= min(draws, len(data.images) // images)
    order = torch.randperm(len(data.images), generator=generator)[:images]
    if config["data"]["source"] in IN_FOLDERS:
        return data.images[order]
    return to_cells(data.images[order], K, how, generator)


def _load(data: dict, split: str, root: str | Path) -> Labelled:
    source = data["source"]
    return decoded.grids(data, split, root) if source in IN_FOLDERS else load(source, split, root)


def find_process(name: str, config: dict) -> Process:
    H, W = grid_of(config["data"])
    if not suits(name, config["data"]):
        raise EvaluationError(NO_ORDER.format(name))
    return process(name, config["data"]["K"], H * W)


# -- samples -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Samples:
    """Categories (N, H, W), the labels asked for (N,) or None, and how long an image took: the (lower) median of full
    batches, of which the first also compiles the network."""

    cells: Tensor
    labels: Tensor | None
    seconds_per_image: float


def sample(
    checkpoint: Checkpoint,
    process_: Process,
    sampler: str,
    steps: int,
    images: int,
    seed: int,
    *,
    schedule: str | None = None,
    guidance: float = 1.0,
    temperature: float | None = None,
    tilt: float | None = None,
    labels: Tensor | None = None,
    batch: int = BATCH,
) -> Samples:
    """N samples in batches, with the network as the page has it.

    schedule: None for the sampler's own; temperature, tilt: None for the checkpoint's own. labels: (N,), where the
    network knows classes; drawn uniformly if none are given.
    """
    temperature, tilt = sampling_temperature(checkpoint.config, process_.name, temperature, tilt)
    network = for_inference(deepcopy(checkpoint.network))
    generator = torch.Generator().manual_seed(seed)
    classes = checkpoint.config["network"].get("classes", 0)
    if not classes:
        labels = None
    elif labels is None:
        labels = torch.randint(classes, (images,), generator=generator)
    cells, seconds = [], []
    for i in tqdm(range(0, images, batch), desc=f"{process_.name} {sampler} {steps}", leave=False, disable=None):
        n, start = min(batch, images - i), time.perf_counter()
        part = None if labels is None else labels[i : i + n]
        denoise = Denoiser(network, part, guidance, temperature=temperature, tilt=tilt)
        shape = (n, *grid_of(checkpoint.config["data"]))
        cells.append(generate(process_, denoise, shape, steps, generator, sampler, schedule))
        if n == batch or not seconds:
            seconds.append((time.perf_counter() - start) / n)
    return Samples(torch.cat(cells), labels, median_low(seconds))


@dataclass(frozen=True)
class Reference:
    """What samples are judged by: the classifier, the features of N real images, and their distance to N others, mean
    and standard deviation over several others."""

    classifier: Classifier
    features: Tensor
    fid_floor: float
    fid_floor_sd: float | None


def find_classifier(config: dict, source: str | Path | None, device: torch.device) -> Checkpoint:
    """The classifier of `source`, or the shipped one of that data set; of codes, of what they decode to."""
    known = config["data"].get("of", config["data"]["source"])
    if source is None:
        source = Path(__file__).parent.parent / "checkpoints" / CLASSIFIERS.get(known, f"{known}-classifier")
    try:
        judge_ = checkpoints.load(source, device)
    except CheckpointError as error:
        raise EvaluationError(
            f"FID needs a classifier ({error}). Train one with python -m train.classifier and give it with --classifier"
        ) from error
    if not isinstance(judge_.network, Classifier):
        raise EvaluationError(f"--classifier {source} is not a classifier; give a folder made by train.classifier")
    K = judge_.network.K if config["data"]["source"] == "codes" else config["data"]["K"]
    if (judge_.config["data"]["source"], judge_.network.K) != (known, K):
        raise EvaluationError(
            f"the classifier {judge_.name} has seen {judge_.config['data']['source']} at K = {judge_.network.K}, the "
            f"samples are {known} at K = {K}; give a matching one with --classifier"
        )
    return judge_


def reference(config: dict, classifier: Classifier, split: str, images: int, root: str | Path) -> Reference:
    features = judge(classifier, load_cells(config, split, root, images))[0]
    draws = load_cells(config, "train", root, images, FLOOR_DRAWS).split(images)
    floors = [frechet_distance(judge(classifier, draw)[0], features) for draw in draws]
    return Reference(classifier, features, mean(floors), stdev(floors) if len(floors) > 1 else None)


def compare(samples: Samples, reference_: Reference) -> dict[str, float | None]:
    """FID with its floor, precision and recall, and the share of samples that are what was asked for."""
    features, classes = judge(reference_.classifier, samples.cells)
    of_mean, of_covariance = frechet_parts(features, reference_.features)
    precision, recall = precision_recall(reference_.features, features)
    right = None if samples.labels is None else float((classes == samples.labels).double().mean())
    return {
        "fid": of_mean + of_covariance,
        "fid_mean": of_mean,
        "fid_floor": reference_.fid_floor,
        "fid_floor_sd": reference_.fid_floor_sd,
        "precision": precision,
        "recall": recall,
        "accuracy": right,
    }


# -- likelihood --------------------------------------------------------------------------------------------------------


def stderr(values: Tensor) -> float:
    """Standard error of the mean of values (N,), one an image, whose times are stratified within batches of BATCH.

    With ten full batches or more, from the spread of batch means, which knows of the stratification.
    """
    if len(values) >= 10 * BATCH:
        values = values[: len(values) // BATCH * BATCH].view(-1, BATCH).mean(1)
    return float(values.std() / len(values) ** 0.5)


def likelihood(bound: Bound, cells: int) -> dict[str, float]:
    """The bound as nats per image and as bits per dimension (cell)."""
    nats = bound.mean
    return {"nll_nats": nats, "nll_stderr": stderr(bound.total), "bits_per_dim": nats / cells / log(2)}


def own_time(process_: Process, t: Tensor | float) -> Tensor:
    """tau of the Dirichlet diffusion, noise-to-signal ratio of the Gaussian, step of a chain."""
    v = process_.clock.native(t)
    return v if isinstance(process_, D3PM) else v.exp()


def by_decade(process_: Process, network: nn.Module, bound: Bound, x0: Tensor, generator: torch.Generator) -> list:
    """The path-KL of each decade of the process' own time, beside the cross-entropy left at the decade's end.

    For the exact posterior the path-KL below any time is at most the cross-entropy -log p(x_0 | x_t) left at that time:
    denoising in many steps loses no information over doing so cell by cell in one. A larger one (by 3 standard errors:
    "leak") is an error in the numerics, or of a network that is worse below that time than at it.
    """
    tau = own_time(process_, bound.t)
    first, last = own_time(process_, torch.tensor([0.0, 1.0])).clamp(min=1.0 if isinstance(process_, D3PM) else 0.0)
    rows = []
    for decade in range(floor(log10(first)), ceil(log10(last))):
        low, high = 10.0**decade, min(10.0 ** (decade + 1), float(last))
        inside, below = (tau > low) & (tau <= high), tau <= high
        if decade == floor(log10(first)):
            inside = below
        part, path = (torch.where(mask, bound.path, 0.0).mean(1) for mask in (inside, below))
        left = cross_entropy_left(process_, network, x0, _clock_time(process_, high), generator)
        gap = path - left  # of each image: what makes it hard is in both
        rows.append(
            {
                "from": low, "to": high,
                "path_nats": float(part.mean()), "path_stderr": stderr(part),
                "path_below_nats": float(path.mean()), "path_below_stderr": stderr(path),
                "cross_entropy_left": float(left.mean()), "cross_entropy_stderr": stderr(left),
                "leak": float(gap.mean()) > 3 * stderr(gap),
            }
        )  # fmt: skip
    return rows


def decades_table(rows: list[dict]) -> str:
    """`by_decade` in Markdown, nats per image."""
    lines = ["| own time | path-KL in it | path-KL below its end | cross-entropy left there | leak |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        figures = (
            f"{row[value]:.3f} ± {row[error]:.3f}"
            for value, error in (
                ("path_nats", "path_stderr"),
                ("path_below_nats", "path_below_stderr"),
                ("cross_entropy_left", "cross_entropy_stderr"),
            )
        )
        span, leak = f"{row['from']:g} to {row['to']:.4g}", "yes" if row["leak"] else "no"
        lines.append(f"| {' | '.join((span, *figures, leak))} |")
    return "\n".join(lines)


def _clock_time(process_: Process, tau: float) -> float:
    return float(process_.clock.t(tau if isinstance(process_, D3PM) else log(tau)))


def cross_entropy_left(
    process_: Process, network: nn.Module, x0: Tensor, t: float, generator: torch.Generator
) -> Tensor:  # fmt: skip
    """-log p(x_0 | x_t) of each image, cell by cell: (N,) nats."""
    denoise, out = network_denoiser(network), []
    for part in x0.split(BATCH):
        l = process_.evidence(process_.perturb(part, t, generator), t)
        logits = (denoise(l, None) + l).double()
        out.append(cross_entropy(logits, part))
    return torch.cat(out)


def continuous_bound(
    process_: Process, network: nn.Module, x0: Tensor, generator: torch.Generator, repeats: int = 1
) -> Bound:
    """The continuous-time bound, without class label."""
    return estimate_bound(process_, network_denoiser(network), x0, None, repeats, generator, BATCH)


def chain_bound(chain: D3PM, network: nn.Module, x0: Tensor, steps: int, generator: torch.Generator) -> Bound:
    """L_vb of sampling the chain in that many steps, without class label: on the sampler's grid, or all T of them."""
    grid = "native" if steps == chain.T else default_grid(chain.methods[0])
    return exact_vlb(chain, network_denoiser(network), x0, None, steps, generator, grid, BATCH)


def flow_bound(process_: Dirichlet, network: nn.Module, x0: Tensor, generator: torch.Generator) -> Bound:
    """The bound of the Dirichlet probability-flow ODE, without class label."""
    return ode_bound(process_, differentiable_denoiser(network), x0, None, ODE_STEPS, generator, batch=BATCH)


# -- command line ------------------------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> dict:
    """One JSON-able record of what `args` (see parse) asks for."""

    def noise() -> torch.Generator:
        """Of every bound its own, so that each is a function of the seed."""
        return torch.Generator().manual_seed(args.seed)

    device = args.device or best_device()
    checkpoint = load_denoiser(args.checkpoint, device)
    config = checkpoint.config
    process_ = find_process(args.process, config)
    if process_.architecture != config["architecture"]:
        raise EvaluationError(
            f"{checkpoint.name} holds {config['architecture']}, but {args.process} needs an {process_.architecture}; "
            "give another checkpoint or another --process"
        )
    if "nll" in args.metrics and args.process not in REGISTRY:
        raise EvaluationError(f"{args.process} has no likelihood bound; leave nll out of --metrics")
    sampler = args.sampler or process_.methods[0]
    if sampler not in process_.methods:
        raise EvaluationError(f"{args.process} has no sampler {sampler!r}; choose one of {', '.join(process_.methods)}")
    if args.schedule not in (None, *grids(process_)):
        known = ", ".join(grids(process_))
        raise EvaluationError(f"{args.process} has no schedule {args.schedule!r}; choose one of {known}")
    if args.guidance != 1.0 and not config["network"].get("classes", 0):
        raise EvaluationError(f"{checkpoint.name} knows no classes, so it cannot be guided; leave out --guidance")
    temperature, tilt = sampling_temperature(config, args.process, args.temperature, args.tilt)
    if args.temperature not in (None, temperature):
        raise EvaluationError(f"{args.process} regresses intensities and has no temperature; leave out --temperature")
    if args.tilt not in (None, tilt):
        raise EvaluationError(f"{args.process} regresses intensities and has no temperature; leave out --tilt")
    record = dict.fromkeys(KEYS) | {
        "checkpoint": checkpoint.name, "sha256": checkpoint.sha256, "process": args.process, "sampler": sampler,
        "steps": args.steps, "calls": args.steps * calls_per_step(sampler, args.guidance),
        "schedule": args.schedule or default_grid(sampler),
        "guidance": args.guidance, "temperature": temperature, "tilt": tilt, "images": args.images, "seed": args.seed,
        "split": args.split, "device": str(device),
        "cells": config["data"]["cells"], "data_seed": DATA_SEED,
    }  # fmt: skip
    if config["data"]["source"] == "codes":
        config = with_vqvae(args.checkpoint, config, args.vqvae)
    if not classified(config):
        record["split"] = args.split if "nll" in args.metrics else None
    if "fid" in args.metrics:  # first, since a missing classifier or data set shall not cost the sampling
        record["fid_split"] = args.split if classified(config) else "all"
        judge_ = judge_of(config, args, device)
    if "nll" in args.metrics:
        x0 = load_cells(config, args.split, args.data_root, args.images)
        bound = continuous_bound(process_, checkpoint.network, x0, noise(), args.repeats)
        record |= likelihood(bound, x0[0].numel())
        if isinstance(process_, D3PM):
            vlb = chain_bound(process_, checkpoint.network, x0, args.steps, noise())
            record |= {"vlb_nats": vlb.mean, "vlb_stderr": stderr(vlb.total)}
        if isinstance(process_, Dirichlet) and sampler in FLOWS["dirichlet"]:
            ode = flow_bound(process_, checkpoint.network, x0[:ODE_IMAGES], noise())
            record |= {"ode_nats": ode.mean, "ode_stderr": stderr(ode.total), "ode_images": len(ode.total)}
        if args.by_decade:
            record["decades"] = by_decade(process_, checkpoint.network, bound, x0, noise())
    if {"fid", "time"} & set(args.metrics):
        labels = judge_.labels if "fid" in args.metrics else None
        samples = sample(
            checkpoint, process_, sampler, args.steps, args.images, args.seed,
            schedule=args.schedule, guidance=args.guidance, temperature=temperature, tilt=tilt, labels=labels,
        )  # fmt: skip
        if "time" in args.metrics:
            record["seconds_per_image"] = samples.seconds_per_image
        if "fid" in args.metrics:
            figures = judge_.figures(samples)
            record |= {"fid_floor": figures.get("fid_rebuilt")} | figures
    return record


@dataclass(frozen=True)
class Judge:
    """figures: what is said of samples. labels: the classes (N,) that they are to have, None for uniform draws."""

    figures: Callable[[Samples], dict[str, float | None]]
    labels: Tensor | None = None


def classified(config: dict) -> bool:
    """Whether samples are judged by a classifier, which knows the data set; SqueezeNet judges pictures in folders."""
    return config["data"].get("of", config["data"]["source"]) not in IN_FOLDERS


def judge_name(config: dict, args: argparse.Namespace) -> str:
    """Whose features the FID is in: the file of SqueezeNet, or the hash of the classifier's weights."""
    if not classified(config):
        return WEIGHTS
    return find_classifier(config, args.classifier, torch.device("cpu")).sha256


def judge_of(config: dict, args: argparse.Namespace, device: torch.device) -> Judge:
    """A classifier, or SqueezeNet for what the samples show (config of codes: see with_vqvae)."""
    data = config["data"]
    if classified(config):
        classifier = find_classifier(config, args.classifier, device)
        if data["source"] != "codes":
            reference_ = reference(config, classifier.network, args.split, args.images, args.data_root)
            return Judge(lambda samples: compare(samples, reference_))
        pixels, kind = classifier.config["data"], decoded.cells_of(data)
        if unknown := set(data["labels"]) - set(LABELS[pixels["source"]]):
            raise EvaluationError(f"{classifier.name} knows no class {unknown.pop()!r}, which {config['name']} has")
        reference_ = reference(classifier.config, classifier.network, args.split, args.images, args.data_root)
        rebuilt = Samples(load_cells(config, args.split, args.data_root, args.images), None, 0.0)
        fid_rebuilt = compare(as_pixels(rebuilt, kind, data, pixels), reference_)["fid"]

        def figures(samples: Samples) -> dict[str, float | None]:
            found = compare(as_pixels(samples, kind, data, pixels), reference_)
            return found | {"fid_rebuilt": fid_rebuilt, "fid_ratio": found["fid"] / fid_rebuilt}

        return Judge(figures)
    kind = decoded.cells_of(data)
    gallery = decoded.gallery(kind, args.data_root, grid_of(data)[0] * kind.side, args.images, data.get("labels"))
    return Judge(lambda samples: decoded.compare(kind, samples.cells, gallery), gallery.labels)


def as_pixels(samples: Samples, kind: decoded.Cells, data: dict, pixels: dict) -> Samples:
    """Samples of codes (data) as cells of the data set that the codes are of (pixels), without border."""
    pictures = torch.cat([kind.show(part)[:, 0] for part in samples.cells.split(BATCH)])
    greys = (255 * F.pad(pictures, (-data["border"],) * 4)).round()
    cells = to_cells(greys, pixels["K"], pixels["cells"], torch.Generator().manual_seed(DATA_SEED))
    names = torch.tensor([LABELS[pixels["source"]].index(name) for name in data["labels"]])
    return replace(samples, cells=cells, labels=None if samples.labels is None else names[samples.labels])


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a denoiser.")
    parser.add_argument("checkpoint", help="folder or hub repository of a denoiser")
    parser.add_argument("--process", default="dirichlet", help="noise process")
    parser.add_argument("--sampler", help="method of the reverse step (default: the process' first)")
    parser.add_argument("--steps", type=int, default=100, help="reverse steps")
    parser.add_argument("--schedule", help="where the steps of a sample go (default: as the sampler has it)")
    parser.add_argument("--images", type=int, default=2000, help="samples, and real images, to measure by")
    parser.add_argument("--metrics", default="nll,fid,time", help=f"any of {','.join(METRICS)}")
    parser.add_argument("--guidance", type=float, default=1.0, help="1 is the plain class-conditional model")
    parser.add_argument("--temperature", type=float, help="of the samples (default: as the checkpoint says)")
    parser.add_argument("--tilt", type=float, help="of the temperature along t (default: as the checkpoint says)")
    parser.add_argument("--repeats", type=int, default=1, help="times drawn per image for the bound")
    parser.add_argument("--by-decade", action="store_true", help="also the path-KL per decade of the process' own time")
    parser.add_argument("--split", default="held-out", choices=("held-out", "test"), help="test: final figures only")
    parser.add_argument("--classifier", help="folder of the judge (default: the shipped one)")
    parser.add_argument(
        "--data-root",
        "--data",
        default="data",
        help="where torchvision finds or puts the data; pictures, if it was those",
    )
    parser.add_argument("--vqvae", help="for codes: the folder of their VQ-VAE (default: beside the checkpoint)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=device, help="cpu, cuda, ... (default: the best there is)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    args.metrics = args.metrics.split(",")
    if unknown := set(args.metrics) - set(METRICS):
        parser.error(f"unknown metric {', '.join(sorted(unknown))}; choose from {', '.join(METRICS)}")
    if args.by_decade and "nll" not in args.metrics:
        parser.error("--by-decade splits the bound: add nll to --metrics")
    for name, low in (("steps", 1), ("images", 4), ("repeats", 1)):
        if getattr(args, name) < low:
            parser.error(f"--{name} must be at least {low}, got {getattr(args, name)}")
    return args


@sentences()
def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    if argv and not argv[0].startswith("-") and evaluate_vqvae.handles(argv[0]):
        return evaluate_vqvae.main(argv)
    args = parse(argv)
    record = evaluate(args)
    if args.json:
        print(json.dumps(record))
    else:
        decades = record.pop("decades", None)
        for key, value in record.items():
            print(f"{key:18s} {value}")
        if decades:
            print(f"\n{decades_table(decades)}")


if __name__ == "__main__":
    main()
