"""A picture rebuilt from VQ-VAE codes: what it costs, what it loses, and which codes say what."""

import io
import time
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dd import perceptual
from dd.checkpoints import Checkpoint
from dd.device import autocast
from dd.images import ImageError, at_rate, crop, fit, to_picture, to_tensor
from dd.networks.vqvae import VqVae

SMALLEST, LARGEST = 16, 768  # pixels a side
WHITE = 0.25  # error from which the map of errors is white
CODES = "VQ-VAE codes"
FIGURES = ("bits_per_pixel", "psnr", "ssim", "lpips")
PREFIXES = {CODES: "", "JPEG": "jpeg_", "WebP": "webp_"}  # of measured figures, by the way to store a picture
FRAMINGS = {"crop": "the middle square", "fit": "the whole picture on grey", "keep": "the whole picture, its own shape"}


@dataclass(frozen=True)
class Quality:
    """What one way to store a picture costs, and how close to it what comes back is; lpips None if unavailable."""

    name: str
    bits_per_pixel: float
    psnr: float
    ssim: float
    lpips: float | None


@dataclass(frozen=True)
class Averages:
    """Over so many pictures of size x size pixels that a VQ-VAE has not learnt from: of its codes, of JPEG and WebP."""

    images: int
    size: int
    ways: list[Quality]


@dataclass(frozen=True)
class Rebuilt:
    """original, rebuilt (1, c, H, W) in [0, 1]; codes (h, w) of the padded picture; seconds of the network alone."""

    original: Tensor
    rebuilt: Tensor
    codes: Tensor
    quality: Quality
    seconds: float


def frame(image: Image.Image, how: str, size: int, colours: int) -> Image.Image:
    """The picture as the model gets it: "crop" and "fit" make squares, "keep" makes the longer side `size`."""
    if not SMALLEST <= size <= LARGEST:
        raise ImageError(f"The size must be from {SMALLEST} to {LARGEST} pixels, not {size}.")
    if how == "crop":
        image = crop(image, size, size)
    elif how == "fit":
        image = fit(image, size, size)
    elif how == "keep":
        scale = size / max(image.size)
        width, height = (max(SMALLEST, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    else:
        raise ImageError(f"Choose one of {', '.join(FRAMINGS)} for the framing, not {how!r}.")
    return image.convert("L" if colours == 1 else "RGB")


@torch.inference_mode()
def rebuild(network: VqVae, image: Image.Image) -> Rebuilt:
    """Encode, quantise, decode. The figures are those of the 8-bit picture that comes back."""
    x, device = to_tensor(image), next(network.parameters()).device
    start = time.perf_counter()
    with autocast(device):
        x_hat, codes = (y.cpu() for y in network.reconstruct(x.to(device)))
    seconds = time.perf_counter() - start
    rebuilt = (x_hat.float() * 255).round() / 255
    rate = network.bits_per_pixel() * codes.numel() * network.factor**2 / x[0, 0].numel()  # with the padding's codes
    return Rebuilt(x, rebuilt, codes[0], _quality(CODES, rate, rebuilt, x), seconds)


def rivals(image: Image.Image, bits_per_pixel: float) -> list[Quality]:
    """PNG, which loses nothing, and JPEG and WebP at no more than this rate, or the least they can do."""
    x = to_tensor(image)
    png = io.BytesIO()
    image.save(png, "png", optimize=True)
    out = [Quality("PNG", 8 * png.tell() / (image.width * image.height), float("inf"), 1.0, 0.0)]
    for codec, name in (("JPEG", "JPEG"), ("WEBP", "WebP")):
        coded, rate = at_rate(image, codec, bits_per_pixel)
        out.append(_quality(name, rate, to_tensor(coded), x))
    return out


def held_out_averages(checkpoint: Checkpoint) -> Averages | None:
    """What `python -m train.evaluate_vqvae --part held-out --card` has left in the configuration; None where it has
    measured other weights, or not everything."""
    found = checkpoint.config.get("measured", {}).get("held-out", {})
    known = [found.get(prefix + figure) for prefix in PREFIXES.values() for figure in FIGURES]
    if found.get("sha256") != checkpoint.sha256 or None in known:
        return None
    n = len(FIGURES)
    ways = [Quality(name, *known[n * i : n * (i + 1)]) for i, name in enumerate(PREFIXES)]
    return Averages(found["images"], found["size"], ways)


def _quality(name: str, bits_per_pixel: float, x_hat: Tensor, x: Tensor) -> Quality:
    large = min(x.shape[-2:]) >= perceptual.SMALLEST and perceptual.why_unavailable() is None
    lpips = float(perceptual.lpips_distance(x_hat, x)) if large else None
    return Quality(name, bits_per_pixel, float(perceptual.psnr(x_hat, x)), float(perceptual.ssim(x_hat, x)), lpips)


def error_map(original: Tensor, rebuilt: Tensor) -> Image.Image:
    """Mean absolute error of every pixel, from black (none) over red and yellow to white (WHITE and more)."""
    error = (original - rebuilt).abs().mean(1)[0] / WHITE
    return to_picture(torch.stack([(3 * error - i).clamp(0, 1) for i in range(3)]))


def code_colours(network: VqVae) -> np.ndarray:
    """A colour for every code, (K, 3) uint8: its vector along the three widest directions of the codebook."""
    e = network.quantiser.codebook.float().cpu()
    e = e - e.mean(0)
    axes = torch.linalg.svd(e, full_matrices=False).Vh[:3]
    axes = axes * axes.sum(1, keepdim=True).sign()  # singular vectors have no sign of their own
    y = e @ axes.T
    rank = y.argsort(0).argsort(0) / max(1, len(y) - 1)
    return (40 + 200 * rank).round().to(torch.uint8).numpy()


def code_map(codes: Tensor, colours: np.ndarray, factor: int) -> Image.Image:
    """Codes (h, w) as a coloured map, a square of factor x factor pixels each."""
    return Image.fromarray(colours[codes.numpy()].repeat(factor, 0).repeat(factor, 1))


def highlight(rebuilt: Image.Image, codes: Tensor, k: int, factor: int) -> Image.Image:
    """The rebuilt picture, dim except where code k is used."""
    colour = np.asarray(rebuilt.convert("RGB"))
    where = (codes == k).numpy().repeat(factor, 0).repeat(factor, 1)[: rebuilt.height, : rebuilt.width]
    return Image.fromarray(np.where(where[..., None], colour, colour // 4))


@torch.inference_mode()
def patch_of(network: VqVae, k: int) -> Image.Image:
    """What code k decodes to, surrounded by itself: the middle 5 x 5 cells of a field of 9 x 9 k."""
    device = next(network.parameters()).device
    x = network.decode(torch.full((1, 9, 9), k, device=device)).clamp(0, 1).cpu()
    edge = 2 * network.factor
    return to_picture(x[..., edge:-edge, edge:-edge])


def usage(codes: Tensor, K: int) -> list[tuple[int, int]]:
    """(code, count) of the codes in use, the most frequent first."""
    counts = torch.bincount(codes.flatten(), minlength=K)
    order = counts.argsort(descending=True, stable=True)
    return [(int(k), int(counts[k])) for k in order if counts[k] > 0]
