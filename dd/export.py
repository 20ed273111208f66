"""A finished (or paused) run as files: PNG, GIF, animated WebP and the JSON recipe that makes it again."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from dd.checkpoints import replacing, write_text
from dd.looks import MASK
from dd.recipe import RecipeError
from dd.render import tile
from dd.runs import Run, View

KINDS = (".png", ".gif", ".webp", ".json")
_MASK_COLOUR = (217, 140, 0)
MOST_FRAMES = 120
EDGE = 560  # longest side aimed at, in pixels
MOST_PIXELS = 40_000_000  # of all frames of an animation, which are in memory together
MOST_WIDE = 1600  # pixels of all lanes side by side
CAPTION = 14  # pixels of a lane's name
LINE = 18  # pixels from a line of a caption to the next
WIDEST = "t = 0.00, entropy 00.000 bits"  # that the numbers of a frame get
MARGIN = 4  # pixels of a lane to the left and right of its caption
GAP = 6  # pixels of a picture between lanes
MILLISECONDS = 60  # a frame of an animation


def picture(run: Run, step: int = -1, guess: bool = True, edge: int = EDGE, numbers: bool = False) -> Image.Image:
    """Every lane at that step side by side, about `edge` pixels each, below its name; of a single one state and guess.

    numbers: with the time and entropy of each of several lanes.
    """
    views = run.views[step]
    parts = [view.guess if guess else view.state for view in views]
    if len(views) == 1 and not guess:
        parts = [views[0].state, views[0].guess]
    tiles = [tiled(part) for part in parts]
    gap = np.full((tiles[0].shape[0], GAP, 3), 128, np.uint8)
    row = np.concatenate([x for tile in tiles for x in (tile, gap)][:-1], axis=1)
    scale = max(1, min(edge, MOST_WIDE // len(tiles)) // max(tiles[0].shape[:2]))
    image = Image.fromarray(np.kron(row, np.ones((scale, scale, 1), np.uint8)))
    if len(views) == 1:
        return image
    captions = [[f"{lane.process}, {lane.method}"] for lane in run.recipe.lanes]
    width = scale * tiles[0].shape[1]
    if numbers:
        captions = [[*names, *_numbers(view, width)] for names, view in zip(captions, views, strict=True)]
    return _captioned(image, width, captions)


def _numbers(view: View, width: int) -> list[str]:
    """Time and entropy of a lane, which a DDPM has not: in one line, or in two short ones if `width` pixels ask for it.
    That is the same in every frame, so that all are as high."""
    t, bits = f"t = {view.t:.2f}", "" if view.entropy is None else f"{view.entropy:.3f} bits"
    if _font().getlength(WIDEST) <= width - 2 * MARGIN:
        return [f"{t}, entropy {bits}" if bits else t]
    return [t, bits]


def _captioned(row: Image.Image, width: int, captions: list[list[str]]) -> Image.Image:
    """The lanes side by side, each `width` pixels wide, with the lines of its caption above it."""
    top = 2 * CAPTION + LINE * (max(map(len, captions)) - 1)
    out = Image.new("RGB", (row.width, row.height + top), "white")
    out.paste(row, (0, top))
    draw, apart = ImageDraw.Draw(out), (row.width - width) / (len(captions) - 1)
    for i, lines in enumerate(captions):
        for j, line in enumerate(lines):
            place = i * apart + MARGIN, CAPTION / 2 + j * LINE
            draw.text(place, _shortened(line, width - 2 * MARGIN), "black", _font())
    return out


def _shortened(text: str, width: int) -> str:
    """As much of the text as `width` pixels hold, with an ellipsis for the rest."""
    if _font().getlength(text) <= width:
        return text
    kept = next((n for n in range(len(text), 0, -1) if _font().getlength(text[:n] + "…") <= width), 0)
    return text[:kept] + "…"


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(CAPTION)


def tiled(codes: np.ndarray) -> np.ndarray:
    """Grey codes (B, H, W) as one RGB picture (h, w, 3); MASK in its own colour."""
    grey = np.round(np.minimum(codes, 254).astype(np.float32) * (255 / 254)).astype(np.uint8)[..., None].repeat(3, -1)
    grey[codes == MASK] = _MASK_COLOUR
    return tile(torch.from_numpy(grey), columns=int(np.ceil(np.sqrt(len(codes)))), background=0).numpy()


def animation(run: Run, path: Path) -> None:
    """States (one lane: beside the guess; several: below t and entropy) over time; .gif or .webp by the name. Long runs
    are thinned."""
    steps = np.unique(np.linspace(0, len(run.views) - 1, min(MOST_FRAMES, len(run.views))).round().astype(int))
    first = picture(run, 0, guess=False, numbers=True)
    edge = int(EDGE * min(1.0, (MOST_PIXELS / (len(steps) * first.width * first.height)) ** 0.5))
    frames = (picture(run, int(step), guess=False, edge=edge, numbers=True) for step in steps)
    images = list(frames) if path.suffix == ".webp" else [frame.quantize(64) for frame in frames]
    durations = [MILLISECONDS] * (len(images) - 1) + [1500]
    extra = {"lossless": True, "method": 0} if path.suffix == ".webp" else {"disposal": 1}
    kind = path.suffix.removeprefix(".")
    with replacing(path) as part:
        images[0].save(part, kind, save_all=True, append_images=images[1:], duration=durations, loop=0, **extra)


def check_name(path: Path) -> None:
    """RecipeError where `write` knows no such kind of file."""
    if path.suffix not in KINDS:
        raise RecipeError(f"cannot write {path.name}: the name must end in {', '.join(KINDS[:-1])} or {KINDS[-1]}")


def write(run: Run, path: Path) -> None:
    """The run so far as the kind of file its name asks for, one of KINDS; the file is the old one or the new one."""
    check_name(path)
    if path.suffix in (".gif", ".webp"):
        animation(run, path)
    elif path.suffix == ".json":
        write_text(path, run.recipe.to_json(run.measured()))
    else:
        with replacing(path) as part:
            picture(run).save(part, "png")
