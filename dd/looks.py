"""How points of the simplex look, as mean greys or decoded by a VQ-VAE from mean code vectors; and pictures as cells.

Pictures are uint8 greys 0..254; 255 (MASK) marks a masked cell.
"""

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dd.checkpoints import Checkpoint, CheckpointError
from dd.device import autocast, spread
from dd.images import crop, to_tensor
from dd.networks.vqvae import VqVae
from dd.processes import Process

MASK = 255


def middle(image: Image.Image, W: int, H: int, drawings: bool) -> Image.Image:
    """The middle of any picture as W x H greys; of a drawing light on dark, as the data are, with full contrast."""
    grey = crop(image.convert("L"), W, H)
    if not drawings:
        return grey
    grey = ImageOps.autocontrast(grey, cutoff=1)
    values = np.asarray(grey)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    return ImageOps.invert(grey) if border.mean() > values.mean() else grey


class GreyLevels:
    """Categories 0..K-1 are greys from black to white; a cell is a pixel. drawings: see `middle`."""

    factor, greys = 1, True

    def __init__(self, K: int, drawings: bool = True):
        self.levels, self.drawings = torch.linspace(0, 1, K), drawings

    def of_points(self, p: Tensor) -> np.ndarray:
        """Mean greys (B, H, W) of points p (B, K, H, W)."""
        return _greys(torch.einsum("bkhw,k->bhw", p.float(), self.levels) if p.shape[1] > 2 else p[:, 1].float())

    def of_state(self, process: Process, x: Tensor, t: float) -> np.ndarray:
        """Greys of states x at time t: the points of the simplex where they are."""
        return self.of_points(process.simplex(x))

    def of_cells(self, cells: Tensor) -> np.ndarray:
        """Greys of categories (B, H, W)."""
        return _greys(self.levels[cells])

    def read(self, image: Image.Image, H: int, W: int) -> Tensor:
        """Categories (H, W) of the middle of any picture."""
        values = np.asarray(middle(image, W, H, self.drawings))
        return torch.from_numpy(values.astype(np.int64)) * len(self.levels) // 256


def decoded(name: str, data: dict, vqvae: Checkpoint) -> "Decoded":
    """The look of a denoiser of codes; data: of its configuration, which names the VQ-VAE that made the codes."""
    if vqvae.sha256 != data["vqvae_sha256"]:
        raise CheckpointError(
            f"{name} was trained on the codes of another {data['vqvae']} ({data['vqvae_sha256'][:12]}, here is "
            f"{vqvae.sha256[:12]}): fetch the two together"
        )
    return Decoded(vqvae.network, "of" in data, data.get("border", 0))


class Decoded:
    """Categories are codes of a VQ-VAE with one colour; a cell is factor x factor pixels.

    drawings: see `middle`; border: black pixels that every picture of the data has on every side.
    """

    greys = False

    def __init__(self, vqvae: VqVae, drawings: bool = False, border: int = 0):
        self.drawings, self.border = drawings, border
        self.vqvae, self.factor = vqvae.to(memory_format=torch.channels_last), vqvae.factor
        self.device = next(vqvae.parameters()).device

    def of_points(self, p: Tensor) -> np.ndarray:
        """Greys (B, H factor, W factor) decoded from the mean code vectors of p (B, K, H, W)."""
        return _greys(spread(self._decode, p.float().to(self.device)))

    def of_state(self, process: Process, x: Tensor, t: float) -> np.ndarray:
        """What the evidence of states x at time t says of the codes; among many of them a state itself is far from its
        corner long after it is certain."""
        return self.of_points(torch.softmax(process.evidence(x, t), 1))

    @torch.inference_mode()
    def _decode(self, p: Tensor) -> Tensor:
        with autocast(self.device):
            return self.vqvae.decode_mixture(p)[:, 0]

    @torch.inference_mode()
    def of_cells(self, cells: Tensor) -> np.ndarray:
        """Greys decoded from codes (B, H, W)."""
        with autocast(self.device):
            return _greys(self.vqvae.decode(cells.to(self.device))[:, 0])

    @torch.inference_mode()
    def read(self, image: Image.Image, H: int, W: int) -> Tensor:
        """Codes (H, W) of the middle of any picture."""
        inner = middle(image, W * self.factor - 2 * self.border, H * self.factor - 2 * self.border, self.drawings)
        x = to_tensor(ImageOps.expand(inner, self.border)).to(self.device)
        return self.vqvae.encode(x)[0].cpu()


def masked(picture: np.ndarray, mask: Tensor, factor: int) -> np.ndarray:
    """The picture (B, h, w) with MASK wherever the mask of its cells (B, H, W) is set."""
    where = mask.numpy().repeat(factor, 1).repeat(factor, 2)
    return np.where(where, np.uint8(MASK), picture)


def _greys(x: Tensor) -> np.ndarray:
    return (x.float() * 254).round().clamp_(0, 254).to(torch.uint8).cpu().numpy()
