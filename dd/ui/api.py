"""Named endpoints for gradio_client, notebooks and MCP: what the page does, without the page.

Gradio reads types and documentation off the functions: an endpoint that streams is a generator, and its return
annotation says what every item of the stream carries. Each reverse step is a task of its own in the engine's line, so
that a long run does not starve a short one and a cancelled job frees the core after the step it is in.
"""

import base64
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import torch
from gradio.utils import get_upload_folder
from PIL import Image

from dd import export
from dd.images import open_image, to_picture
from dd.likelihood import Bound, growing_bound, network_denoiser
from dd.models import Models
from dd.processes import EVERY, traits
from dd.recipe import MAX_LANES, Lane, Recipe, RecipeError, grid, whole
from dd.reconstruct import LARGEST, SMALLEST, frame, rebuild
from dd.runs import Run
from dd.ui.controls import REFUSALS, class_choices, recipe
from dd.ui.engine import Engine
from dd.ui.upload import png, unwritten

LIMITS = {"concurrency_id": "api", "concurrency_limit": 8}
MAX_DRAWS = 256
CHUNK = 16  # draws of a likelihood in one task of the engine
FRAME = 280  # pixels: the longest side aimed at of a step's picture; making a larger one would cost as much as the step


def build(models: Models, engine: Engine) -> None:
    """Add the endpoints to the page being built."""
    default = models.names()[0]

    def generate(
        checkpoint: str = default,
        process: str = "dirichlet",
        sampler: str = "default",
        steps: int = 64,
        images: int = 16,
        label: int | str = "each",
        guidance: float = 1.0,
        seed: int = 0,
        options: dict[str, float] | None = None,
        schedule: str = "default",
        frames: bool = False,
        temperature: float | None = None,
    ) -> tuple[gr.FileData, dict]:
        """Generate images by running a noise process backwards. The same arguments give the same picture.

        Args:
            checkpoint: name of the model, for example digits.
            process: dirichlet, d3pm-uniform, d3pm-absorbing, d3pm-gaussian, multinomial or gaussian; ddpm where the
                data have a network for it.
            sampler: of dirichlet: dirichlet, euler, ode, heun, langevin, bridge; of d3pm and multinomial: ancestral; of
                gaussian: ddpm, ddim, heun; of ddpm: ddpm, ddim, heun; default for the first of these.
            steps: reverse steps, 1 to 500; steps x images is at most 40,000.
            images: how many, 1 to 64.
            label: number or name of the class to draw, "each" for all classes in turn, "any" for none given.
            guidance: classifier-free guidance, 0 to 10; 1 is the plain conditional model.
            seed: 0 to 2147483647.
            options: of the process, for example {"eta": 0.5}; none by default.
            schedule: where the steps go: cosine, early, information, native, for gaussian also nichol, or default for
                the sampler's own.
            frames: whether the stream carries a picture of every step.
            temperature: of the network's beliefs, 0.1 to 2; 1 is as trained, none the one chosen for the model. Other
                ones than 1 have the model's own tilt along t.
        Returns:
            A PNG of all images and the JSON recipe that makes it again. Before them, a job streams for every step no
            picture and the state of the run: step, total, t (1 is noise, 0 is data), entropy (bits left per cell, a
            number a lane) and, with frames, png: the state beside the network's guess as a data URL.
        """
        lane = _answered(_lane, process, sampler, options, schedule)
        label = _answered(_class_of, models, checkpoint, label)
        made = _answered(recipe, checkpoint, [lane], steps, images, label, guidance, temperature, seed)
        yield from _stream(made, frames, models, engine)

    def compare(
        checkpoint: str = default,
        lanes: list[str] = ["dirichlet/dirichlet", "d3pm-absorbing/ancestral"],  # noqa: B006 (Gradio shows it)
        calls: int = 50,
        images: int = 9,
        label: int | str = "each",
        guidance: float = 1.0,
        seed: int = 0,
        schedule: str = "default",
        frames: bool = False,
        temperature: float | None = None,
    ) -> tuple[gr.FileData, dict]:
        """Run two to four processes side by side: same seed, same number of network calls, same network (but for ddpm).

        Args:
            checkpoint: name of the model, for example digits.
            lanes: PROCESS/SAMPLER of every lane, see /generate.
            calls: network calls of every lane, 1 to 500; samplers with two calls a step take half as many steps.
                Guidance comes on top.
            images: in every lane, 1 to 64; calls x images x lanes is at most 40,000.
            label: number or name of a class, "each" or "any".
            guidance: classifier-free guidance, 0 to 10.
            seed: 0 to 2147483647.
            schedule: of all lanes, see /generate.
            frames: whether the stream carries a picture of every step.
            temperature: see /generate.
        Returns:
            A PNG of all lanes beside each other and the JSON recipe. Before them, a job streams the same as
            /generate, with the lanes' states beside each other.
        """
        label = _answered(_class_of, models, checkpoint, label)
        made = _answered(
            _many_lanes, checkpoint, lanes, calls, images, label, guidance, temperature, seed, schedule
        )  # fmt: skip
        yield from _stream(made, frames, models, engine)

    def likelihood(
        cells: list[list[int]],
        checkpoint: str = default,
        process: str = "dirichlet",
        label: int | str = "any",
        draws: int = 64,
        seed: int = 0,
    ) -> dict:
        """Upper bound on -log p(image), in nats: how surprising the model finds this image under this process.

        Args:
            cells: the image, rows of categories 0..K-1, for example 28 rows of 28 zeros and ones.
            checkpoint: name of the model, for example digits.
            process: dirichlet, d3pm-uniform, d3pm-absorbing, d3pm-gaussian, multinomial or gaussian.
            label: number or name of the image's class, or "any".
            draws: noise levels to average over, 2 to 256; the standard error falls with their square root.
            seed: 0 to 2147483647.
        Returns:
            nats (the bound for the whole image), stderr (of its Monte-Carlo estimate), bits_per_cell, draws.
        """
        if label == "each":
            raise gr.Error('an image has one class or none: give its number, or "any"', print_exception=False)
        lane, label = Lane(str(process), "default"), _answered(_class_of, models, checkpoint, label)
        made = _answered(recipe, checkpoint, [lane], 1, 1, label, 1.0, 1.0, seed)
        draws = _answered(whole, draws, "The number of draws", 2, MAX_DRAWS)
        bounds, made_of = _answered(engine.do, _estimate, made, models, cells, draws), 0
        while made_of < draws:  # not until the end of `bounds`, for which a busy engine would have to be waited for
            bound = engine.do(next, bounds)
            made_of = len(bound.total)
            bits = bound.mean / math.log(2) / sum(map(len, cells))
            yield {"nats": bound.mean, "stderr": bound.stderr, "bits_per_cell": bits, "draws": made_of}

    def reconstruct(
        image: gr.FileData, vqvae: str = "photos-vqvae", framing: str = "crop", size: int = 256
    ) -> tuple[gr.FileData, dict]:
        """Rebuild a picture from the codes of a VQ-VAE.

        Args:
            image: the picture; with gradio_client: handle_file("photo.jpg").
            vqvae: name of the VQ-VAE, for example photos-vqvae.
            framing: crop (the middle square), fit (the whole picture on grey) or keep (its own shape).
            size: pixels a side, 16 to 768.
        Returns:
            A PNG of what the codes remember; and psnr, ssim, lpips (null without its weights), bits_per_pixel, seconds
            and codes, rows of numbers.
        """
        size = _answered(whole, size, "The size", SMALLEST, LARGEST)
        network = _answered(models.vqvae, vqvae).network
        picture = _answered(frame, _answered(open_image, _uploaded(image)), str(framing), size, network.colours)
        done = _answered(engine.aside, rebuild, network, picture)
        path = _written(to_picture(done.rebuilt), "rebuilt")
        figures = {k: getattr(done.quality, k) for k in ("psnr", "ssim", "lpips", "bits_per_pixel")}
        figures |= {"seconds": done.seconds, "codes": done.codes.tolist()}
        return gr.FileData(path=path, orig_name="rebuilt.png", mime_type="image/png"), figures

    for endpoint in (generate, compare, likelihood, *([reconstruct] if models.names("vqvae") else [])):
        gr.api(endpoint, api_name=endpoint.__name__, **LIMITS)


def _answered(task, *args: object):
    """The task's result, or its complaint as one sentence for the caller."""
    try:
        return task(*args)
    except REFUSALS as error:
        raise gr.Error(str(error), print_exception=False) from error


def _uploaded(file: object) -> str:
    """The path of a file that the caller has uploaded; no other file of this machine is opened."""
    path = file.get("path") if isinstance(file, dict) else getattr(file, "path", None)
    if not isinstance(path, str) or not Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise gr.Error('upload the picture first; with gradio_client: handle_file("photo.jpg")', print_exception=False)
    return path


def _written(picture: Image.Image, name: str) -> str:
    """The path of the picture as a PNG that the caller may download."""
    try:
        return png(picture, name)
    except OSError as error:
        raise gr.Error(unwritten(error), print_exception=False) from error


def _lane(process, sampler, options, schedule) -> Lane:
    options = {} if options is None else options
    if not isinstance(options, dict):
        raise RecipeError('options must map names to numbers, for example {"eta": 0.5}')
    return Lane(str(process), str(sampler), options, str(schedule))


def _many_lanes(checkpoint, lanes, calls, images, label, guidance, temperature, seed, schedule) -> Recipe:
    if not isinstance(lanes, list) or not 2 <= len(lanes) <= MAX_LANES:
        raise RecipeError(
            f'lanes must be a list of two to {MAX_LANES}, for example ["dirichlet/heun", "gaussian/ddim"]'
        )
    pairs = [str(lane).partition("/") for lane in lanes]
    made = [Lane(a, b, schedule=str(schedule)) for a, _, b in pairs]
    return recipe(checkpoint, made, calls, images, label, guidance, temperature, seed, equal_calls=True)


def _class_of(models: Models, checkpoint: object, label: object) -> int | str:
    """The class's number, given itself or the class's name; "any" and "each" as they are."""
    if label in ("any", "each") or checkpoint not in models.names():
        return label
    names = {name: value for name, value in class_choices(models, checkpoint) if value not in ("any", "each")}
    if not names:
        raise RecipeError(f'{checkpoint} knows no classes; leave the label "any"')
    found = names.get(label, label) if isinstance(label, str) else label
    try:
        return whole(found, "The class", 0, len(names) - 1)
    except RecipeError as error:
        known = ", ".join(f"{value} {name}" if name != value else name for name, value in names.items())
        raise RecipeError(f"there is no class {str(label)[:40]!r} of {checkpoint}; choose one of {known}") from error


def _stream(made: Recipe, frames: object, models: Models, engine: Engine) -> Iterator[tuple]:
    """(None, state of the run) after every step, (picture, recipe) at the end."""
    run = _answered(engine.do, Run, made, models)
    run.keep_simplex = 0  # nobody looks at single cells through the API
    while True:
        _answered(lambda: engine.step(run).result())
        if run.finished:
            break
        del run.views[:-1]  # nor at earlier steps
        yield None, {**_state(run), **({"png": _data_url(run)} if frames else {})}
    path = _written(export.picture(run), "picture")
    yield gr.FileData(path=path, orig_name="picture.png", mime_type="image/png"), json.loads(run.recipe.to_json())


def _state(run: Run) -> dict:
    views = run.views[-1]
    step = max(view.step for view in views)  # of the lane with the most
    return {"step": step, "total": run.total - 1, "t": views[0].t, "entropy": [view.entropy for view in views]}


def _data_url(run: Run) -> str:
    file = io.BytesIO()
    export.picture(run, guess=False, edge=FRAME).save(file, "png", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _estimate(made: Recipe, models: Models, cells: object, draws: int) -> Iterator[Bound]:
    """The bound of one image, CHUNK draws of the noise at a time."""
    run = Run(made, models)  # checks the recipe
    process = run.tracks[0].process
    if "bound" not in process.losses:
        bounded = (name for name in EVERY if "bound" in traits(name).losses)
        raise RecipeError(f"{process.name} has no likelihood bound; choose one of {', '.join(bounded)}")
    x0 = torch.tensor([grid(cells, "A cell's category", run.K, run.H, run.W)]).expand(draws, -1, -1)
    label = None if run.labels is None else run.labels.expand(draws)
    denoise = network_denoiser(models.get(run.recipe.checkpoint).network)
    generator = torch.Generator().manual_seed(run.recipe.seed)
    return growing_bound(process, denoise, x0, label, 1, generator, CHUNK)
