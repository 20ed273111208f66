"""Samples and who judges them: a classifier of the project, or SqueezeNet for pictures in folders."""

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import mean, median_low, stdev
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from dd import checkpoints
from dd.checkpoints import Checkpoint, CheckpointError
from dd.data import LABELS, grid_of, to_cells
from dd.device import for_inference
from dd.metrics import accuracy, frechet_distance, frechet_parts, judge, precision_recall
from dd.networks.classifier import Classifier
from dd.perceptual import WEIGHTS
from dd.processes import Process
from dd.recipe import sampling_schedule, sampling_temperature
from dd.samplers import Denoiser, generate
from train import decoded
from train.bounds import BATCH
from train.loading import DATA_SEED, IN_FOLDERS, EvaluationError, load_cells

SHIPPED = Path(__file__).parent.parent / "checkpoints"
CLASSIFIERS = {"mnist": "digits-classifier", "fashion-mnist": "fashion-classifier"}
CLASSIFIERS_OF_FOLDERS = {("neutral", "smiling"): "faces-classifier"}  # by the folders' names
FLOOR_DRAWS = 5  # disjoint sets of N training images, as far as there are so many


@dataclass(frozen=True)
class Samples:
    """Categories (N, H, W), the labels asked for (N,) or None, and how long an image took: the (lower) median of full
    batches, of which the first also compiles the network."""

    cells: Tensor
    labels: Tensor | None
    seconds_per_image: float


def sample(
    checkpoint: Checkpoint,
    process: Process,
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

    schedule, temperature, tilt: None for the checkpoint's own. labels: (N,), where the
    network knows classes; drawn uniformly if none are given.
    """
    temperature, tilt = sampling_temperature(checkpoint.config, process, temperature, tilt)
    schedule = sampling_schedule(checkpoint.config, sampler, schedule)
    network = for_inference(deepcopy(checkpoint.network))
    generator = torch.Generator().manual_seed(seed)
    classes = checkpoints.classes(checkpoint.config)
    if not classes:
        labels = None
    elif labels is None:
        labels = torch.randint(classes, (images,), generator=generator)
    cells, seconds = [], []
    for i in tqdm(range(0, images, batch), desc=f"{process.name} {sampler} {steps}", leave=False, disable=None):
        n, start = min(batch, images - i), time.perf_counter()
        part = None if labels is None else labels[i : i + n]
        denoise = Denoiser(network, part, guidance, temperature=temperature, tilt=tilt)
        shape = (n, *grid_of(checkpoint.config["data"]))
        cells.append(generate(process, denoise, shape, steps, generator, sampler, schedule))
        if n == batch or not seconds:
            seconds.append((time.perf_counter() - start) / n)
    return Samples(torch.cat(cells), labels, median_low(seconds))


def sample_setting(checkpoint: Checkpoint, process: Process, setting: dict, **more: Any) -> Samples:
    """The samples of a stored cell's setting, or of a record's to be."""
    names = ("sampler", "steps", "images", "seed", "schedule", "guidance", "temperature", "tilt")
    return sample(checkpoint, process, **{name: setting.get(name) for name in names}, **more)


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
        source = SHIPPED / CLASSIFIERS.get(known, f"{known}-classifier")
    try:
        judge_ = _load_classifier(source, device)
    except CheckpointError as error:
        raise EvaluationError(
            f"FID needs a classifier ({error}). Train one with python -m train.classifier and give it with --classifier"
        ) from error
    K = judge_.network.K if config["data"]["source"] == "codes" else config["data"]["K"]
    if (judge_.config["data"]["source"], judge_.network.K) != (known, K):
        raise EvaluationError(
            f"the classifier {judge_.name} has seen {judge_.config['data']['source']} at K = {judge_.network.K}, the "
            f"samples are {known} at K = {K}; give a matching one with --classifier"
        )
    return judge_


def classifier_of_folders(data: dict, source: str | Path | None, device: torch.device) -> Checkpoint | None:
    """The classifier that tells the classes of a denoiser's `data`: that of `source`, or the shipped one for folders
    of these names; None for others."""
    classes = tuple(data.get("labels", ()))
    if source is None:
        if classes not in CLASSIFIERS_OF_FOLDERS:
            return None
        source = SHIPPED / CLASSIFIERS_OF_FOLDERS[classes]
    found = _load_classifier(source, device)
    if set(found.config["data"].get("labels", ())) != set(classes):
        raise EvaluationError(f"the classifier {found.name} does not know the classes {', '.join(classes)}")
    return found


def _load_classifier(source: str | Path, device: torch.device) -> Checkpoint:
    found = checkpoints.load(source, device)
    if not isinstance(found.network, Classifier):
        raise EvaluationError(f"--classifier {source} is not a classifier; give a folder made by train.classifier")
    return found


def reference(config: dict, classifier: Classifier, split: str, images: int, root: str | Path) -> Reference:
    device = next(classifier.parameters()).device
    features = judge(classifier, load_cells(config, split, root, images, device))[0]
    draws = load_cells(config, "train", root, images, device, FLOOR_DRAWS).split(images)
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


@dataclass(frozen=True)
class Standard:
    """Real images, and what is said of samples beside them. labels: the classes (N,) that the samples are to have, None
    for uniform draws."""

    figures: Callable[[Samples], dict[str, float | None]]
    labels: Tensor | None = None


@dataclass(frozen=True)
class Judge:
    """name: who judges, a part of a stored cell. `judge`: whose features the FID is in, the file of SqueezeNet or the
    hash of the classifier's weights; `class_judge`: the hash of the classifier that tells the classes of pictures in
    folders, where there is one. standard: loads the real images, once."""

    name: dict[str, str]
    standard: Callable[[], Standard]


def classified(config: dict) -> bool:
    """Whether samples are judged by a classifier, which knows the data set; SqueezeNet judges pictures in folders."""
    return config["data"].get("of", config["data"]["source"]) not in IN_FOLDERS


def find_judge(config: dict, args: argparse.Namespace, device: torch.device) -> Judge:
    """A classifier, or SqueezeNet for what the samples show (config of codes: see with_vqvae)."""
    if classified(config):
        classifier = find_classifier(config, args.classifier, device)
        if config["data"]["source"] == "codes":
            standard = partial(of_codes, config, classifier, args, device)
        else:
            standard = partial(of_pixels, config, classifier, args)
        return Judge({"judge": classifier.sha256}, cache(standard))
    classifier = classifier_of_folders(config["data"], args.classifier, device)
    class_judge = {"class_judge": classifier.sha256} if classifier else {}
    return Judge(
        {"judge": WEIGHTS} | class_judge, cache(partial(of_pictures, config["data"], classifier, args, device))
    )


def of_pixels(config: dict, classifier: Checkpoint, args: argparse.Namespace) -> Standard:
    """Samples as they are, in the features of the classifier."""
    reference_ = reference(config, classifier.network, args.split, args.images, args.data_root)
    return Standard(lambda samples: compare(samples, reference_))


def of_codes(config: dict, classifier: Checkpoint, args: argparse.Namespace, device: torch.device) -> Standard:
    """Decoded samples in the features of the classifier, beside decoded real images."""
    data, pixels, kind = config["data"], classifier.config["data"], decoded.cells_of(config["data"], device)
    if unknown := set(data["labels"]) - set(LABELS[pixels["source"]]):
        raise EvaluationError(f"{classifier.name} knows no class {unknown.pop()!r}, which {config['name']} has")
    reference_ = reference(classifier.config, classifier.network, args.split, args.images, args.data_root)
    rebuilt = Samples(load_cells(config, args.split, args.data_root, args.images, device), None, 0.0)
    fid_rebuilt = compare(as_pixels(rebuilt, kind, data, pixels), reference_)["fid"]

    def figures(samples: Samples) -> dict[str, float | None]:
        found = compare(as_pixels(samples, kind, data, pixels), reference_)
        return found | {"fid_rebuilt": fid_rebuilt, "fid_ratio": found["fid"] / fid_rebuilt}

    return Standard(figures)


def of_pictures(data: dict, classifier: Checkpoint | None, args: argparse.Namespace, device: torch.device) -> Standard:
    """What samples show, in SqueezeNet's features; their classes as the classifier sees them, where there is one."""
    kind = decoded.cells_of(data, device)
    gallery = decoded.gallery(kind, args.data_root, grid_of(data)[0] * kind.side, args.images, data.get("labels"))

    def right(cells: Tensor, labels: Tensor | None) -> float | None:
        """Share of cells that show what their labels say."""
        if classifier is None or labels is None:
            return None
        seen = as_pixels(Samples(cells, labels, 0.0), kind, data, classifier.config["data"])
        return accuracy(classifier.network, seen.cells, seen.labels)

    rebuilt_right = right(gallery.cells, gallery.labels)

    def figures(samples: Samples) -> dict[str, float | None]:
        found = decoded.compare(kind, samples.cells, gallery)
        return found | {"accuracy": right(samples.cells, samples.labels), "accuracy_rebuilt": rebuilt_right}

    return Standard(figures, gallery.labels)


def as_pixels(samples: Samples, kind: decoded.Cells, data: dict, pixels: dict) -> Samples:
    """Samples (of a denoiser's `data`) as cells of what a classifier has seen (pixels): no border, and of that size."""
    pictures = torch.cat([kind.show(part) for part in samples.cells.split(BATCH)])
    pictures = F.pad(pictures, (-data.get("border", 0),) * 4)
    if pictures.shape[-2:] != (size := grid_of(pixels)):
        pictures = F.interpolate(pictures, size, mode="bicubic", antialias=True).clamp(0, 1)
    greys = (255 * pictures[:, 0]).round()
    cells = to_cells(greys, pixels["K"], pixels["cells"], torch.Generator().manual_seed(DATA_SEED))
    known = pixels["labels"] if pixels["source"] == "folder" else LABELS[pixels["source"]]
    names = torch.tensor([known.index(name) for name in data["labels"]])
    return replace(samples, cells=cells, labels=None if samples.labels is None else names[samples.labels])
