"""Measure a denoiser: likelihood bound, Frechet distance, precision and recall, class accuracy, time.

    python -m train.evaluate CHECKPOINT --process dirichlet --sampler dirichlet --steps 100 --images 2000 \
        --metrics nll,fid,time --data-root DATA --json

Choices are made on the held-out training images (the default); `--split test` is for the final figure. What was not
asked for is null. The likelihood is that of the network without a class label, in nats per image:

    nll_nats   the continuous-time bound, which depends on neither sampler nor steps
    vlb_nats   chains: the bound L_vb of sampling in that many steps on that schedule, every term
    ode_nats   the Dirichlet process' samplers "ode" and "heun": the bound of the flow itself, integrated finely
    fid        N samples against N images of the split; fid_floor: N training images against the same N images, the
               mean over several disjoint draws, since one alone is off by half its size at N = 2,000; fid_floor_sd:
               their standard deviation, which is also what a fid is off by (null for fewer than two draws)
    fid_mean   the part of fid that is a difference of means; the rest is of the covariances
    fid_split  of which split the real images are that the samples were set against

A denoiser of pictures in folders, as codes or as grey levels, is judged by what its samples show, against every
picture of a folder (fid_split "all"; train/decoded.py), in the classes that as many of those pictures have, which a
classifier recognises where one for these classes is shipped or given (accuracy; accuracy_rebuilt: of those pictures
themselves as their cells show them, most of which it may have learnt from); --split is then for the likelihood alone.
One of codes whose configuration says `of: fashion-mnist` is judged like pixels, by the classifier, when its samples are
decoded.

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

import torch
from torch import Tensor, nn

from dd import checkpoints
from dd.checkpoints import Checkpoint
from dd.device import best_device, device
from dd.processes import Process
from dd.processes.d3pm import D3PM
from dd.processes.dirichlet import Dirichlet
from dd.recipe import sampling_schedule, sampling_temperature
from dd.results import follows_flow
from dd.samplers import calls_per_step, schedules
from train import evaluate_vqvae
from train.bounds import (
    ODE_IMAGES,
    by_decade,
    chain_bound,
    continuous_bound,
    decades_table,
    flow_bound,
    likelihood,
    stderr,
)
from train.judges import classified, find_judge, sample_setting
from train.loading import DATA_SEED, EvaluationError, load_cells, load_denoiser, process_for, with_vqvae
from train.loop import sentences

METRICS = ("nll", "fid", "time")
KEYS = (
    "checkpoint", "process", "sampler", "steps", "images", "seed", "nll_nats", "nll_stderr", "bits_per_dim", "fid",
    "fid_floor", "precision", "recall", "accuracy", "seconds_per_image", "device", "sha256", "split", "guidance",
    "schedule", "temperature", "tilt", "calls", "cells", "data_seed", "vlb_nats", "vlb_stderr", "ode_nats",
    "ode_stderr", "ode_images", "fid_floor_sd", "fid_mean", "fid_rebuilt", "fid_ratio", "fid_split",
    "accuracy_rebuilt",
)  # fmt: skip


def evaluate(args: argparse.Namespace) -> dict:
    """One JSON-able record of what `args` (see parse) asks for."""
    device = args.device or best_device()
    checkpoint = load_denoiser(args.checkpoint, device)
    process = process_for(checkpoint, args.process)
    record = _settings(args, checkpoint, process) | {"device": str(device)}
    config = checkpoint.config
    if config["data"]["source"] == "codes":
        config = with_vqvae(args.checkpoint, config, args.vqvae)
    if not classified(config):
        record["split"] = args.split if "nll" in args.metrics else None
    standard = None
    if "fid" in args.metrics:  # first, since a missing classifier or data set shall not cost the sampling
        record["fid_split"] = args.split if classified(config) else "all"
        standard = find_judge(config, args, device).standard()
    if "nll" in args.metrics:
        x0 = load_cells(config, args.split, args.data_root, args.images, device)
        record |= _bounds(args, checkpoint.network, process, x0, record["sampler"], record["schedule"])
    if {"fid", "time"} & set(args.metrics):
        samples = sample_setting(checkpoint, process, record, labels=None if standard is None else standard.labels)
        if "time" in args.metrics:
            record["seconds_per_image"] = samples.seconds_per_image
        if standard is not None:
            record |= standard.figures(samples)
    return record


def _settings(args: argparse.Namespace, checkpoint: Checkpoint, process: Process) -> dict:
    """What is measured, every key of a record; EvaluationError where these do not go together."""
    config = checkpoint.config
    if "nll" in args.metrics and "bound" not in process.losses:
        raise EvaluationError(f"{args.process} has no likelihood bound; leave nll out of --metrics")
    sampler = args.sampler or process.methods[0]
    if sampler not in process.methods:
        raise EvaluationError(f"{args.process} has no sampler {sampler!r}; choose one of {', '.join(process.methods)}")
    if args.schedule not in (None, *schedules(process)):
        known = ", ".join(schedules(process))
        raise EvaluationError(f"{args.process} has no schedule {args.schedule!r}; choose one of {known}")
    if args.guidance != 1.0 and not checkpoints.classes(config):
        raise EvaluationError(f"{checkpoint.name} knows no classes, so it cannot be guided; leave out --guidance")
    temperature, tilt = sampling_temperature(config, process, args.temperature, args.tilt)
    for option, asked, given in (("temperature", args.temperature, temperature), ("tilt", args.tilt, tilt)):
        if asked not in (None, given):
            raise EvaluationError(f"{args.process} regresses intensities and has no temperature; leave out --{option}")
    return dict.fromkeys(KEYS) | {
        "checkpoint": checkpoint.name, "sha256": checkpoint.sha256, "process": args.process, "sampler": sampler,
        "steps": args.steps, "calls": args.steps * calls_per_step(sampler, args.guidance),
        "schedule": sampling_schedule(config, sampler, args.schedule),
        "guidance": args.guidance, "temperature": temperature, "tilt": tilt, "images": args.images, "seed": args.seed,
        "split": args.split, "cells": config["data"]["cells"], "data_seed": DATA_SEED,
    }  # fmt: skip


def _bounds(
    args: argparse.Namespace, network: nn.Module, process: Process, x0: Tensor, sampler: str, schedule: str
) -> dict:
    """The bounds of x0 (N, H, W) that the process, the sampler and `args` ask for, each with noise of its own, so that
    it is a function of the seed."""

    def noise() -> torch.Generator:
        return torch.Generator().manual_seed(args.seed)

    bound = continuous_bound(process, network, x0, noise(), args.repeats)
    record = likelihood(bound, x0[0].numel())
    if isinstance(process, D3PM):
        vlb = chain_bound(process, network, x0, args.steps, schedule, noise())
        record |= {"vlb_nats": vlb.mean, "vlb_stderr": stderr(vlb.total)}
    if isinstance(process, Dirichlet) and follows_flow(process, sampler):
        ode = flow_bound(process, network, x0[:ODE_IMAGES], noise())
        record |= {"ode_nats": ode.mean, "ode_stderr": stderr(ode.total), "ode_images": len(ode.total)}
    if args.by_decade:
        record["decades"] = by_decade(process, network, bound, x0, noise())
    return record


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a denoiser.")
    parser.add_argument("checkpoint", help="folder or hub repository of a denoiser")
    parser.add_argument("--process", default="dirichlet", help="noise process")
    parser.add_argument("--sampler", help="method of the reverse step (default: the process' first)")
    parser.add_argument("--steps", type=int, default=100, help="reverse steps")
    parser.add_argument("--schedule", help="where the steps of a sample go (default: as the checkpoint says)")
    parser.add_argument("--images", type=int, default=2000, help="samples, and real images, to measure by")
    parser.add_argument("--metrics", default="nll,fid,time", help=f"any of {','.join(METRICS)}")
    parser.add_argument("--guidance", type=float, default=1.0, help="1 is the plain class-conditional model")
    parser.add_argument("--temperature", type=float, help="of the samples (default: as the checkpoint says)")
    parser.add_argument("--tilt", type=float, help="of the temperature along t (default: as the checkpoint says)")
    parser.add_argument("--repeats", type=int, default=1, help="times drawn per image for the bound")
    parser.add_argument("--by-decade", action="store_true", help="also the path-KL per decade of the process' own time")
    parser.add_argument("--split", default="held-out", choices=("held-out", "test"), help="test: final figures only")
    parser.add_argument(
        "--classifier",
        help="folder of the judge, for pictures in folders of their class alone (default: the shipped one)",
    )
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
