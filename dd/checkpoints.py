"""Checkpoints in the hub's layout: NAME/{model.safetensors, config.json, README.md}. No pickle.

config.json: {"architecture": ..., "network": {...constructor arguments}, "data": {...}, ...}. The same loader takes a
local folder or a hub repo id.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import nn

from dd.networks.classifier import Classifier
from dd.networks.unet import EvidenceUNet, NoiseUNet
from dd.networks.vqvae import VqVae

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "evidence-unet": EvidenceUNet, "noise-unet": NoiseUNet, "classifier": Classifier, "vqvae": VqVae,
}  # fmt: skip
FILES = ("model.safetensors", "config.json", "README.md")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A network in evaluation mode with its configuration and the hash of its weights."""

    name: str
    network: nn.Module
    config: dict[str, Any]
    sha256: str


def build(config: dict[str, Any]) -> nn.Module:
    """The untrained network that a configuration describes."""
    architecture = config.get("architecture")
    if architecture not in ARCHITECTURES:
        raise CheckpointError(f"unknown architecture {architecture!r}; known are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[architecture](**config["network"])


def resolve(source: str | Path) -> Path:
    """The local folder of a checkpoint: `source` itself, or the hub repository of that id, cached and verified."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if str(source).count("/") != 1 or folder.parent.is_dir():
        raise CheckpointError(f"there is no checkpoint folder {source}; give a folder with {', '.join(FILES[:2])}")
    from dd import hub  # which knows checkpoints itself

    try:
        return hub.snapshot(str(source))
    except hub.HubError as error:
        raise CheckpointError(f"{source} is no folder here, and of the hub: {error}") from error


def classes(config: dict[str, Any]) -> int:
    """How many a denoiser's network knows; 0: none, it takes no label."""
    return config["network"].get("classes", 0)


def temperature(config: dict[str, Any]) -> float:
    """The one that was chosen for a checkpoint's samples; 1 is the network as it was trained."""
    return config.get("temperature", 1.0)


def tilt(config: dict[str, Any], T: float) -> float:
    """The one that was chosen beside a checkpoint's temperature; 0 when T = 1 is asked for instead of that temperature:
    the network as it was trained."""
    return 0.0 if T == 1.0 != temperature(config) else config.get("tilt", 0.0)


def schedule(config: dict[str, Any]) -> str:
    """The one that was chosen for a checkpoint's samples (dd.samplers.time_grid)."""
    return config.get("schedule", "cosine")


def read_config(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "config.json").read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} has no config.json; is it a checkpoint folder?") from error
    except OSError as error:
        raise CheckpointError(_unreadable(folder / "config.json", error)) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder}/config.json is not valid JSON ({error}); fetch it again") from error


def load(source: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """The network of a local folder or hub repository, in float32 and evaluation mode.

    The weights are read once and whole: a disk that fails is an error with a sentence, where a memory map would kill
    the process, and the hash is that of the very bytes that were loaded.
    """
    folder = resolve(source)
    config = read_config(folder)
    weights = folder / "model.safetensors"
    try:
        content = weights.read_bytes()
        state = from_bytes(content)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} has no model.safetensors; train it or fetch it (see README)") from error
    except OSError as error:
        raise CheckpointError(_unreadable(weights, error)) from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{weights} is damaged or truncated ({error}); fetch it again, for example with git checkout"
        ) from error
    if broken := [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]:
        raise CheckpointError(
            f"{weights} has values in {broken[0]} that are no numbers; fetch it again, or train it anew"
        )
    network = build(config)
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{weights} does not fit {folder}/config.json: {str(error).splitlines()[0]}") from error
    return Checkpoint(folder.name, network.to(device).eval(), config, hashlib.sha256(content).hexdigest())


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} cannot be read ({error.strerror}); check the disk, then fetch the checkpoint again"


def save(
    folder: str | Path, state: dict[str, torch.Tensor], config: dict[str, Any], dtype: torch.dtype = torch.float16
) -> None:
    """Write weights (rounded to `dtype`) and configuration; each file is either the old one or the new one."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
    write_tensors(folder / "model.safetensors", tensors)
    write_config(folder, config)


def write_config(folder: Path, config: dict[str, Any]) -> None:
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to that takes the place of `path` when all went well; what a failure leaves of it is removed."""
    temporary = path.with_name(path.name + ".part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file with the user's usual rights, which save_file would keep from everybody else."""
    with replacing(path) as temporary:
        temporary.write_bytes(to_bytes(tensors, metadata))


def write_text(path: Path, text: str) -> None:
    """Write through a temporary file, so that the file is either the old one or the new one."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
