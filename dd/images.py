"""Pictures that people bring: opened safely, whatever they are, and brought to a size.

Every upload either becomes an 8-bit RGB picture or raises `ImageError` with one sentence. The dimensions are checked
before any pixel is decoded, so that the memory is bounded whatever a file claims.
"""

import io
import threading
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
MAX_SIDE = 2048  # larger pictures are reduced while they are read
LARGE = 4_000_000  # pixels; larger pictures are decoded one after the other, so that their memory does not add up
ROWS = 256  # of a 16-bit or float picture, converted at a time
RESAMPLE = Image.Resampling.BICUBIC
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation

_one_at_a_time = threading.Lock()
Source = str | Path | bytes | BinaryIO


class ImageError(ValueError):
    """A picture that cannot be used; the message is one sentence for whoever brought it."""


def open_image(source: Source, max_side: int = MAX_SIDE) -> Image.Image:
    """The first frame of a picture as upright 8-bit RGB, over white, sides at most `max_side`."""
    data = _read(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures and odd metadata; both are handled here
            image = _identify(data)
            with _one_at_a_time if image.width * image.height > LARGE else nullcontext():
                image.draft("RGB" if image.mode == "RGB" else None, (max_side, max_side))  # JPEG: decode it smaller
                image.load()
                return _upright_rgb(image, max_side)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("This picture needs more memory than there is; make it smaller and try again.") from error
    except Exception as error:  # decoders fail in many ways: OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(f"This picture is damaged or incomplete and cannot be read ({_first_line(error)}).") from error


def _read(source: Source) -> bytes:
    """The file's bytes, at most MAX_BYTES of them."""
    try:
        if isinstance(source, bytes):
            data = source
        elif isinstance(source, str | Path):
            with Path(source).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        else:
            data = source.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(
            f"This file cannot be opened ({error.strerror or 'it cannot be read'}); bring it again."
        ) from error
    if not data:
        raise ImageError("This file is empty.")
    if len(data) > MAX_BYTES:
        raise ImageError(f"This file is larger than {MAX_BYTES // 2**20} MB; save the picture smaller and try again.")
    return data


def _identify(data: bytes) -> Image.Image:
    """Header only: a known raster format of an admissible size."""
    try:
        Image.init()  # registers every plugin, once
        image = Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise ImageError(_too_large()) from error
    except UnidentifiedImageError as error:
        head = data[:1024].lstrip().lower()
        if b"<svg" in head or (head.startswith(b"<?xml") and b"svg" in data[:8192].lower()):
            raise ImageError("SVG files are drawings, not pixels; export this one as PNG and try again.") from error
        raise ImageError(
            "This file is not a picture that can be read here (JPEG, PNG, WebP, GIF, BMP, TIFF)."
        ) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(_too_large(width, height))
    return image


def _upright_rgb(image: Image.Image, max_side: int) -> Image.Image:
    """Reduce early, so that the conversions work on a small picture."""
    orientation = image.getexif().get(0x0112, 1)
    image = _eight_bit(image)
    if max(image.size) > max_side:
        image.thumbnail((max_side, max_side), RESAMPLE)
    if image.mode in ("RGBA", "LA"):
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    image = image.convert("RGB")
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _eight_bit(image: Image.Image) -> Image.Image:
    """Modes that Pillow would clip, or could not average, as 8-bit ones."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image)
        top = _white(image.mode, float(np.nanmax(values, initial=0, where=np.isfinite(values))))
        strips = (values[i : i + ROWS].astype(np.float32) * (255 / top) for i in range(0, len(values), ROWS))
        return Image.fromarray(np.concatenate([_rounded(strip) for strip in strips]))
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("L", "RGB") and "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("RGBA") if image.mode in ("RGBa", "La", "RGBX") else image


def _rounded(grey: np.ndarray) -> np.ndarray:
    """Floats, whatever they are, as 0..255."""
    return np.clip(np.nan_to_num(grey, nan=0, posinf=255, neginf=0) + 0.5, 0, 255).astype(np.uint8)


def _white(mode: str, largest: float) -> float:
    """The value that means white: 65535 for 16 bits; for floats 1 or 255, for 32-bit integers 255 or 65535 or more."""
    if mode.startswith("I;16"):
        return 65535.0
    steps = (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
    return next((step for step in steps if largest <= step), largest)


def crop(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of the picture, as much as fills width x height."""
    return ImageOps.fit(image, (width, height), RESAMPLE)


def square(image: Image.Image, zoom: float = 1.0, across: float = 0.5, down: float = 0.5) -> Image.Image:
    """A square of an RGB picture, its side the picture's shorter one over `zoom`.

    across, down: where it lies between left and right, top and bottom; 1/2 is the middle. Where it is larger than the
    picture, the rest has the median colour of the picture's edges.
    """
    side = max(1, round(min(image.size) / zoom))
    left, top = round((image.width - side) * across), round((image.height - side) * down)
    pixels = np.asarray(image)
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    taken = Image.new(image.mode, (side, side), tuple(np.median(edges, 0).astype(int).tolist()))
    taken.paste(image, (-left, -top))
    return taken


def fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """The whole picture, as large as goes into width x height, on plain grey."""
    scale = min(width / image.width, height / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", (width, height), (128, 128, 128))
    canvas.paste(image.convert("RGB").resize(inner, RESAMPLE), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas


def to_tensor(image: Image.Image) -> Tensor:
    """(1, c, H, W) in [0, 1]; c = 1 for grey pictures, else 3."""
    array = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    return torch.from_numpy(array.reshape(*array.shape[:2], -1).copy()).permute(2, 0, 1)[None].float() / 255


def to_picture(x: Tensor) -> Image.Image:
    """(c, H, W) or (1, c, H, W) in [0, 1] as an 8-bit picture."""
    x = x[0] if x.ndim == 4 else x
    array = (x.clamp(0, 1) * 255).round().to(torch.uint8).cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def at_rate(image: Image.Image, codec: str, bits_per_pixel: float) -> tuple[Image.Image, float]:
    """The best picture that `codec` ("JPEG" or "WEBP") makes of this one within a rate, and its bits per pixel.

    The whole file counts, headers included. Where even quality 1 is larger, it is quality 1.
    """
    found, low, high = None, 1, 95
    while low <= high:
        quality = (low + high) // 2
        file = io.BytesIO()
        image.save(file, codec, quality=quality, **({"optimize": True} if codec == "JPEG" else {"method": 4}))
        rate = 8 * file.tell() / (image.width * image.height)
        if rate <= bits_per_pixel or quality == 1:
            found, low = (Image.open(file).convert(image.mode), rate), quality + 1
        else:
            high = quality - 1
    return found


def _too_large(width: int | None = None, height: int | None = None) -> str:
    size = f"has {width:,} x {height:,} pixels" if width else "has too many pixels"
    return f"This picture {size}; at most {MAX_PIXELS // 10**6} million can be read here."


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
