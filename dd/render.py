"""Grids of categorical cells as pictures."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def tile(images: Tensor, columns: int, gap: int = 2, background: float = 0.5) -> Tensor:
    """Images (B, H, W) or (B, H, W, colours) side by side: one (h, w) or (h, w, colours) picture.

    gap: pixels between them, of the value `background`, which is mid-grey for images in [0, 1].
    """
    B, H, W, *colours = images.shape
    rows = -(-B // columns)
    out = images.new_full((rows * (H + gap) - gap, columns * (W + gap) - gap, *colours), background)
    for i, image in enumerate(images):
        r, c = divmod(i, columns)
        out[r * (H + gap) : r * (H + gap) + H, c * (W + gap) : c * (W + gap) + W] = image
    return out


def to_image(grey: Tensor, scale: int = 1) -> Image.Image:
    """(h, w) in [0, 1] as an 8-bit grey picture, enlarged without smoothing."""
    array = (grey.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return Image.fromarray(np.kron(array, np.ones((scale, scale), np.uint8)))
