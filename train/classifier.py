"""Train and measure the classifier that judges samples (class accuracy, features of the Frechet distance).

    python -m train.classifier --config train/configs/digits-classifier.yaml --data-root DATA [--resume]
    python -m train.classifier --measure checkpoints/digits-classifier --data-root DATA --split test

The first command trains on the training split, prints the accuracy on the held-out images as it goes (choices are
made by that), and leaves a checkpoint in --out. The second measures a checkpoint and writes the figure into its card.
Every random number of a step is a function of (seed, step, worker), so a resumed run continues exactly. Of several
workers (torchrun, accelerate launch) the first one's batch statistics are kept.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from dd import checkpoints
from dd.data import HELD_OUT, DataError, Labelled, batch_at, load, to_cells
from dd.device import autocast, best_device, device_name
from dd.metrics import accuracy
from dd.networks.classifier import Classifier
from train.cards import record_metrics
from train.loop import Loop, add_arguments, sentences
from train.pictures import files_of, greys
from train.state import average_gradients, cosine_rate, first_alone, step_generator, worker_count

LICENCES = {
    "mnist": ("MNIST (LeCun, Cortes, Burges)", "CC BY-SA 3.0"),
    "fashion-mnist": ("Fashion-MNIST (Xiao, Rasul, Vollgraf 2017)", "MIT"),
}


def images_of(data: dict, split: str, root: str | Path) -> Labelled:
    """Grey images of a split: of a data set that torchvision knows, or of folders named for the classes below
    root/folder/{train,test}, of whose training pictures a share is held out."""
    if data["source"] != "folder":
        return load(data["source"], split, root)
    folder = Path(root) / data["folder"]
    images, names = greys(files_of(folder, split, data), data["grid"][0])
    if unknown := set(names) - set(data["labels"]):
        raise DataError(f"{folder} has a class {unknown.pop()!r}; known are {', '.join(data['labels'])}")
    labels = torch.tensor([data["labels"].index(name) for name in names])
    return Labelled(images.images, labels[images.labels])


def augment(images: Tensor, how: dict, generator: torch.Generator) -> Tensor:
    """Small random affine maps of grey images (B, H, W) uint8, bilinear.

    how: rotate (degrees at most), scale (relative change at most), shift (whole pixels at most), flip (left-right).
    """
    B, H, W = images.shape

    def uniform(limit: float) -> Tensor:
        return limit * (2 * torch.rand(B, generator=generator) - 1)

    angle, size = torch.deg2rad(uniform(how["rotate"])), 1 + uniform(how["scale"])
    mirror = torch.where(torch.rand(B, generator=generator) < 0.5, -1.0, 1.0) if how["flip"] else torch.ones(B)
    cos, sin = size * angle.cos(), size * angle.sin()
    dx, dy = 2 * uniform(how["shift"] + 0.5).round() / W, 2 * uniform(how["shift"] + 0.5).round() / H
    theta = torch.stack([torch.stack([mirror * cos, -sin, dx], 1), torch.stack([mirror * sin, cos, dy], 1)], 1)
    grid = F.affine_grid(theta, [B, 1, H, W], align_corners=False)
    moved = F.grid_sample(images[:, None].float(), grid, align_corners=False)
    return moved[:, 0].round().to(torch.uint8)


def train(args: argparse.Namespace) -> None:
    config = yaml.safe_load(Path(args.config).read_text())
    if args.steps is None and args.minutes is None:
        args.steps = config["steps"]
    rank, world = worker_count()
    if config["batch"] % world:
        raise ValueError(f"a batch of {config['batch']} cannot be dealt out evenly to {world} workers")
    device = args.device or best_device()
    with first_alone():
        data = images_of(config["data"], "train", args.data_root)

    torch.manual_seed(config["seed"])
    network = checkpoints.build(config).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config["rate"], weight_decay=config["weight_decay"], fused=True
    )

    def state() -> dict:
        return {"network": network.state_dict(), "optimiser": optimiser.state_dict()}

    def resume(state: dict) -> None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])

    loop = Loop(args, config, rank, resume)

    def step(n: int, progress: float) -> dict:
        for group in optimiser.param_groups:
            group["lr"] = cosine_rate(config["rate"], progress, warmup=0.1)
        generator = step_generator(config["seed"], n, rank)
        images, labels = batch_at(data, config["batch"], config["seed"], n, rank, world)
        images = augment(images, config["augment"], generator)
        x = to_cells(images, config["data"]["K"], config["data"]["cells"], generator)
        with autocast(device):
            logits = network(x.to(device))
        loss = F.cross_entropy(logits.float(), labels.to(device))
        optimiser.zero_grad()
        loss.backward()
        average_gradients(network.parameters())
        optimiser.step()
        return {"loss": loss.detach()}

    def evaluate() -> dict:
        """The checkpoint is written; its held-out accuracy."""
        trained = {"seed": config["seed"], "steps": loop.budget.step, "minutes": loop.minutes}
        trained |= {"device": device_name(device)}
        public = {k: config[k] for k in ("name", "architecture", "network", "data", "card") if k in config}
        checkpoints.save(loop.out / "checkpoint", network.state_dict(), public | {"trained": trained})
        return {"accuracy": measure(loop.out / "checkpoint", "held-out", args.data_root, device)["accuracy"]}

    network.train()
    loop.run(step, evaluate, state)


def cells_of(data: Labelled, config: dict) -> tuple[Tensor, Tensor]:
    """A whole split as categories and labels; drawing, where the binarisation draws, is seeded."""
    K, how = config["data"]["K"], config["data"]["cells"]
    return to_cells(data.images, K, how, torch.Generator().manual_seed(0)), data.labels


def measure(folder: str | Path, split: str, root: str | Path, device: torch.device) -> dict:
    """Accuracy of a checkpoint on a split, printed, and written into its config.json and model card."""
    if not Path(folder).is_dir():
        raise checkpoints.CheckpointError(f"there is no folder {folder}, and the figures are to be written into it")
    checkpoint = checkpoints.load(folder, device)
    if not isinstance(checkpoint.network, Classifier):
        raise checkpoints.CheckpointError(f"{folder} is not a classifier; give a folder that this script made")
    cells, labels = cells_of(images_of(checkpoint.config["data"], split, root), checkpoint.config)
    share = accuracy(checkpoint.network, cells, labels)
    record = {"split": split, "images": len(labels), "accuracy": round(share, 4), "sha256": checkpoint.sha256}
    print(json.dumps(record), flush=True)
    folder = Path(folder)
    config = record_metrics(folder, split, {k: record[k] for k in ("images", "accuracy", "sha256")})
    checkpoints.write_text(folder / "README.md", card(config, checkpoint.network))
    return record


def card(config: dict, network: Classifier) -> str:
    """The model card, from what is recorded in config.json alone."""
    name, trained = config["name"], config["trained"]
    about = _of_folder(config) if config["data"]["source"] == "folder" else _of_data_set(config)
    rows = "".join(f"| {split} | {m['images']:,} | {m['accuracy']:.2%} |\n" for split, m in config["measured"].items())
    where = f" on {trained['device']}" if "device" in trained else ""  # of earlier ones it was not recorded
    size = sum(p.numel() for p in network.parameters())
    return f"""---
{about["head"]}
library_name: pytorch
---
# {name}

A residual CNN of {size / 1e6:.2f} M parameters (`dd.networks.classifier.Classifier`, weights in float16).
{about["use"]}

* Data: {about["data"]}. Light augmentation.
  {about["parts"]}
* Trained by `python -m train.classifier --config train/configs/{name}.yaml --data-root DATA`,
  seed {trained["seed"]}: {trained["steps"]:,} steps, {trained["minutes"]} minutes{where}.
* {about["terms"]}.

| split | images | accuracy |
|---|---|---|
{rows}
Measured by `python -m train.classifier --measure checkpoints/{name} --data-root DATA --split test` (or `held-out`).
"""


def _of_data_set(config: dict) -> dict[str, str]:
    """What a card says of a judge of samples, which has seen what samples are: cells of a data set."""
    data, width = config["data"], config["network"]["channels"][-1]
    name, licence = LICENCES[data["source"]]
    seen = "thresholded at 0.5" if data["cells"] == "threshold" else f"as {data['K']} grey levels"
    return {
        "head": f"license: mit\ndatasets: [{data['source']}]",
        "use": f"""\
It judges samples of this project: class accuracy, and {width} features (mean over the grid of the last level, behind a
ReLU) for the Frechet distance and precision/recall. Distances in its features compare only with each other.""",
        "data": f"{name}, licence {licence}, {seen}, as the samples are",
        "parts": f"""Trained on the first {60000 - HELD_OUT:,} training images; the last {HELD_OUT:,} are held out for
  choices, the test split for this card.""",
        "terms": "Licence of the weights: MIT, as the project; the data keep theirs",
    }


def _of_folder(config: dict) -> dict[str, str]:
    """What a card says of a judge of classes that folders are named for."""
    data = config["data"]
    H, W = data["grid"]
    return {
        "head": "license: other",
        "use": f"""\
It says of what class pictures are: {", ".join(data["labels"])}. Pictures of another size are brought to {W} x {H}.""",
        "data": f"{config['card']['data']}, at {W} x {H} in {data['K']} grey levels",
        "parts": f"""Trained on the folder train but for {data["held_out"]:.0%} of it, held out for choices by a hash of
  the file's name; the folder test is for this card.""",
        "terms": f"Terms: {config['card']['terms']}; the weights were learnt from these and are for use under the same",
    }


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train or measure the classifier that judges samples.")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--config", help="train: YAML file, see train/configs")
    task.add_argument("--measure", metavar="CHECKPOINT", help="measure this checkpoint instead of training")
    parser.add_argument("--split", default="held-out", choices=("held-out", "test"), help="what --measure looks at")
    parser.add_argument(
        "--data-root",
        default="data",
        help="where torchvision finds or puts the data; what a configuration's folder is relative to",
    )
    add_arguments(parser, budget_required=False)
    return parser.parse_args(argv)


@sentences()
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if args.config:
        train(args)
    else:
        measure(args.measure, args.split, args.data_root, args.device or best_device())


if __name__ == "__main__":
    main()
