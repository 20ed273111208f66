"""The checkpoints of a folder by name, loaded when first used: what runs draw their networks from."""

import dataclasses
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from dd import checkpoints
from dd.checkpoints import Checkpoint
from dd.device import for_inference
from dd.looks import Decoded, GreyLevels, decoded
from dd.recipe import RecipeError


def _one_at_a_time(load: Callable[[str], Checkpoint]) -> Callable[[str], Checkpoint]:
    """`load`, which remembers; two threads that ask for the same at once get one and the same."""
    remembered, lock = lru_cache(maxsize=8)(load), threading.Lock()

    def loaded(name: str) -> Checkpoint:
        with lock:
            return remembered(name)

    return loaded


class Models:
    """The denoisers in a folder of checkpoints, loaded when first used."""

    def __init__(self, root: str | Path, device: torch.device | str = "cpu"):
        self.root, self.device = Path(root), device
        self._load = _one_at_a_time(self._load_once)
        self._load_vqvae = _one_at_a_time(self._load_vqvae_once)

    def names(self, architecture: str = "evidence-unet") -> list[str]:
        """Checkpoints of that architecture, `digits` first; by default the denoisers."""
        found = []
        for folder in sorted(self.root.glob("*/config.json")):
            try:
                config = checkpoints.read_config(folder.parent)
            except checkpoints.CheckpointError as error:
                warnings.warn(f"left out: {error}", stacklevel=1)  # of which Python shows the first
                continue
            if config.get("architecture") == architecture:
                found.append(folder.parent.name)
        return sorted(found, key=lambda name: (name != "digits", name))

    def config(self, name: str) -> dict[str, Any]:
        """The configuration alone, without loading the weights."""
        return checkpoints.read_config(self._folder(name))

    def sha256(self, name: str) -> str:
        """Of its weights, which are not loaded for it; empty where there are none that can be read."""
        try:
            return checkpoints.sha256(self._folder(name) / "model.safetensors")
        except OSError:
            return ""

    def get(self, name: str) -> Checkpoint:
        if name not in self.names():
            known = ", ".join(self.names()) or f"none: {self.root} is empty, see README"
            raise RecipeError(f"there is no model {str(name)[:60]!r} here; available: {known}")
        return self._load(name)

    def vqvae(self, name: str) -> Checkpoint:
        """A VQ-VAE, in float32: rounded latents would choose other codes."""
        if name not in self.names("vqvae"):
            known = ", ".join(self.names("vqvae")) or "none"
            raise RecipeError(f"there is no VQ-VAE {str(name)[:60]!r} here; available: {known}")
        return self._load_vqvae(name)

    def answering(self, name: str, architecture: str) -> Checkpoint:
        """The network of that architecture for the data of model `name`: itself, or another one's beside it."""
        if self.config(name)["architecture"] == architecture:
            return self.get(name)
        other = self.companion(name, architecture)
        if other is None:
            raise RecipeError(
                f"this process needs a network of its own ({architecture}), and {name} has none beside it; "
                "choose another process"
            )
        return self._load(other)

    def companion(self, name: str, architecture: str) -> str | None:
        """The checkpoint of that architecture that has learnt the same data as model `name`."""

        def learnt(model: str) -> list:
            return [self.config(model)["data"].get(key) for key in ("source", "folder", "K", "cells")]

        return next((other for other in self.names(architecture) if learnt(other) == learnt(name)), None)

    def look(self, name: str) -> GreyLevels | Decoded:
        """How the categories of this denoiser are shown."""
        data = self.get(name).config["data"]
        if "vqvae" not in data:
            return GreyLevels(data["K"], drawings=data["source"] != "folder")
        return decoded(name, data, self.vqvae(data["vqvae"]))

    def _folder(self, name: str) -> Path:
        if not isinstance(name, str):
            raise RecipeError(f"choose a model by its name, not {str(name)[:40]!r}")
        return self.root / name

    def _load_vqvae_once(self, name: str) -> Checkpoint:
        checkpoint = checkpoints.load(self.root / name, self.device)
        checkpoint.network.to(memory_format=torch.channels_last)
        return checkpoint

    def _load_once(self, name: str) -> Checkpoint:
        checkpoint = checkpoints.load(self.root / name, self.device)
        return dataclasses.replace(checkpoint, network=for_inference(checkpoint.network))
