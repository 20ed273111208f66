"""What a measurement is of: a denoiser, the cells of a split, a process that suits them."""

from pathlib import Path

import torch
from torch import Tensor

from dd import checkpoints
from dd.checkpoints import Checkpoint
from dd.data import Labelled, grid_of, load, to_cells
from dd.networks.unet import UNet
from dd.processes import NO_ORDER, Process, make_process, suits
from train import decoded

IN_FOLDERS = ("codes", "folder")  # sources whose pictures are files below --data
DATA_SEED = 0  # of the order of a split and of its dynamic binarisation


class EvaluationError(ValueError):
    """Something that cannot be measured; the message says what to do."""


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


def load_cells(config: dict, split: str, root: str | Path, images: int, device: torch.device, draws: int = 1) -> Tensor:
    """The same `images` categories (images, H, W) of a split at every call, in random order of the split, on the CPU.

    device: where pictures become codes, if categories are that.
    draws: that many times as many images, or the largest multiple of `images` that the split has.
    """
    K, how = config["data"]["K"], config["data"]["cells"]
    data = _load(config["data"], split, root, device)
    if images > len(data.images):
        raise EvaluationError(f"the {split} split has {len(data.images):,} images; ask for at most that many")
    generator = torch.Generator().manual_seed(DATA_SEED)
    images *= min(draws, len(data.images) // images)
    order = torch.randperm(len(data.images), generator=generator)[:images]
    if config["data"]["source"] in IN_FOLDERS:
        return data.images[order]
    return to_cells(data.images[order], K, how, generator)


def _load(data: dict, split: str, root: str | Path, device: torch.device) -> Labelled:
    source = data["source"]
    return decoded.grids(data, split, root, device) if source in IN_FOLDERS else load(source, split, root)


def process_for(checkpoint: Checkpoint, name: str) -> Process:
    """The process of that name, if the checkpoint's network answers it."""
    process, architecture = find_process(name, checkpoint.config), checkpoint.config["architecture"]
    if process.architecture != architecture:
        raise EvaluationError(
            f"{checkpoint.name} holds {architecture}, but {name} needs an {process.architecture}; "
            "give another checkpoint or another --process"
        )
    return process


def find_process(name: str, config: dict) -> Process:
    H, W = grid_of(config["data"])
    if not suits(name, config["data"]):
        raise EvaluationError(NO_ORDER.format(name))
    return make_process(name, config["data"]["K"], H * W)
