"""Tab "Reconstruct", first part: a picture through a VQ-VAE and back."""

import html
import math
from contextlib import suppress

import gradio as gr
import numpy as np
from PIL import Image
from torch import Tensor

from dd import perceptual, reconstruct
from dd.checkpoints import Checkpoint
from dd.images import open_image, to_picture
from dd.models import Models
from dd.recipe import RecipeError
from dd.reconstruct import FRAMINGS, Quality, Rebuilt
from dd.ui.controls import REFUSALS, refuse
from dd.ui.engine import Engine
from dd.ui.session import EXPIRES
from dd.ui.transport import QUIET, renew
from dd.ui.upload import examples, png, unwritten, upload

INTRO = (
    "A VQ-VAE turns a picture into a small grid of *codes*, each one of a fixed list, and paints it again from the "
    "codes alone. Drop in a photo: on the left of the slider is yours, on the right what the codes remember. "
    "The codes are what diffusion over codes generates."
)
WHERE, DECODES_TO = "Where the clicked code is used", "What it decodes to"
NOTHING_YET = "Upload a picture, or choose one of the examples."
FORGOTTEN = "this picture was left alone for half an hour and forgotten; press Rebuild first"
SIZES = (32, 64, 128, 256, 384, 512)
MOST_BARS = 48
LEAST_EDGE = 512  # pixels that the longer side of a map has at least, so that the codes of a face can be told apart

# Gradio's slider listens to a mouse or a finger alone: its handle, once there is one, takes the keys of a slider.
KEYS = """() => {
  const take = (tries) => {
    const handle = document.querySelector("#rebuild-slider [data-testid=slider]");
    if (!handle && tries > 0) return setTimeout(take, 300, tries - 1);
    if (!handle || handle.tabIndex === 0) return;
    const label = "Where before ends and after begins";
    Object.assign(handle, { tabIndex: 0, role: "slider", ariaLabel: label, ariaValueNow: 50 });
    handle.addEventListener("keydown", (event) => {
      const share = { ArrowLeft: -0.05, ArrowRight: 0.05, Home: -1, End: 1 }[event.key];
      if (share === undefined) return;
      event.preventDefault();
      const box = handle.getBoundingClientRect(), x = box.left + box.width / 2, clientY = box.top + box.height / 2;
      const to = x + share * handle.parentElement.clientWidth;
      const drag = [[handle, "mousedown", x], [window, "mousemove", to], [window, "mouseup", to]];
      for (const [target, kind, clientX] of drag)
        target.dispatchEvent(new MouseEvent(kind, { bubbles: true, view: window, clientX, clientY }));
      const cut = document.querySelector("#rebuild-slider img.fixed").style.clipPath;
      handle.ariaValueNow = Math.round(parseFloat(cut.split(" ").pop()));
    });
  };
  take(20);
}"""


class Shown:
    """What a visitor is looking at: the VQ-VAE's name, the codes (h, w) and what they decode to.

    scale: of the maps, in pixels of the screen for one of the picture.
    """

    def __init__(self, name: str, codes: Tensor, rebuilt: Image.Image):
        self.name, self.codes, self.rebuilt = name, codes, rebuilt
        self.scale = max(1, LEAST_EDGE // max(rebuilt.size))

    def enlarged(self, image: Image.Image) -> str:
        return png(image.resize((self.scale * image.width, self.scale * image.height), Image.Resampling.NEAREST))


def build(models: Models, engine: Engine) -> None:
    names = models.names("vqvae")
    gr.Markdown(INTRO)
    shown = gr.State(None, time_to_live=EXPIRES)
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            picture = upload("Your picture", "rebuild-upload")
            examples(("cat.jpg", "coffee.jpg", "astronaut.jpg"), picture)
            model = gr.Dropdown(names, value=names[-1], label="VQ-VAE", info="What it was trained on.")
            how = gr.Radio(
                [(text, key) for key, text in FRAMINGS.items()], value="crop", label="Framing",
                info="Which part of your picture goes in.",
            )  # fmt: skip
            size = gr.Dropdown(
                list(SIZES),
                value=_size(models, names[-1]),
                label="Size",
                info="Pixels a side; the longer one, if the shape is kept.",
            )
            again = gr.Button("Rebuild", variant="primary", elem_id="rebuild-run")
        with gr.Column(scale=3, min_width=320):
            slider = gr.ImageSlider(
                label="Before and after",
                format="png",
                interactive=False,
                max_height=520,
                elem_id="rebuild-slider",
                buttons=["download", "fullscreen"],
            )
            figures = gr.Markdown(NOTHING_YET, elem_id="rebuild-figures", elem_classes="dd-table")
            with gr.Column(visible=False) as details:
                with gr.Row():
                    codes = result("Codes: click one", "rebuild-codes")
                    errors = result("Error: white is off by 1/4 or more", "rebuild-errors")
                bars = gr.HTML(elem_id="rebuild-usage")
                number = gr.Number(
                    None, label="Code", precision=0, elem_id="rebuild-code",
                    info="Click one in the map, or type its number and press Enter.",
                )  # fmt: skip
                with gr.Row():
                    where, patch = result(WHERE, "rebuild-where"), result(DECODES_TO, "rebuild-patch")

    def on_rebuild(path: str | None, name: str, how: str, size: int) -> tuple:
        if path is None:
            return nothing(NOTHING_YET)
        try:
            checkpoint = models.vqvae(name)
            vqvae = checkpoint.network
            image = reconstruct.frame(open_image(path), how, int(size), vqvae.colours)
            done = engine.aside(reconstruct.rebuild, vqvae, image)
            others = engine.aside(reconstruct.rivals, image, done.quality.bits_per_pixel)
            colours, now = reconstruct.code_colours(vqvae), Shown(name, done.codes, to_picture(done.rebuilt))
            return (
                (png(image), png(now.rebuilt)),
                f"{table(done, others)}\n\n{on_average(checkpoint)}",
                now.enlarged(reconstruct.code_map(done.codes, colours, vqvae.factor)),
                now.enlarged(reconstruct.error_map(done.original, done.rebuilt)),
                *no_code(),
                usage_bars(done, vqvae.K, colours),
                gr.Column(visible=True),
                now,
            )
        except (*REFUSALS, OSError) as error:
            sentence = html.escape(unwritten(error) if isinstance(error, OSError) else str(error), quote=False)
            gr.Warning(sentence, duration=12)
            return nothing(sentence)

    def on_press(path: str | None, *rest: object) -> tuple:
        if path is None:
            gr.Warning(NOTHING_YET, duration=6)
        return on_rebuild(path, *rest)

    def on_click(now: Shown | None, event: gr.SelectData) -> tuple:
        if now is None:
            raise refuse(RecipeError(FORGOTTEN))
        edge = models.vqvae(now.name).network.factor * now.scale
        col, row = (int(value) // edge for value in event.index)
        h, w = now.codes.shape
        k = int(now.codes[min(row, h - 1), min(col, w - 1)])
        return k, *on_number(now, k)

    def on_number(now: Shown | None, k: int | None) -> tuple:
        if now is None:
            raise refuse(RecipeError(FORGOTTEN))
        if k is None:
            return no_code()[1:]
        vqvae, codes = models.vqvae(now.name).network, now.codes
        if not 0 <= k < vqvae.K:
            raise refuse(RecipeError(f"the codes of {now.name} are 0 to {vqvae.K - 1}"))
        where = reconstruct.highlight(now.rebuilt, codes, k, vqvae.factor)
        patch = engine.do(reconstruct.patch_of, vqvae, k)
        try:
            return (
                gr.Image(now.enlarged(where), label=f"Code {k}: {int((codes == k).sum())} of {codes.numel()} cells"),
                gr.Image(png(patch.resize((280, 280), 0)), label=f"What code {k} decodes to"),
            )
        except OSError as error:
            raise refuse(RecipeError(unwritten(error))) from error

    controls = [picture, model, how, size]
    results = [slider, figures, codes, errors, number, where, patch, bars, details, shown]
    latest = {"trigger_mode": "always_last"}  # a change while a picture is being rebuilt is not lost
    run = {"show_progress": "minimal", "show_progress_on": slider, "api_visibility": "private", **latest}
    gr.on([picture.change, how.input, size.input], on_rebuild, controls, results, **run)
    again.click(on_press, controls, results, **run)
    model.input(lambda name: _size(models, name), model, size, queue=False, **QUIET, **latest).then(
        on_rebuild, controls, results, **run
    )
    slider.change(None, js=KEYS, api_visibility="private")
    codes.select(on_click, shown, [number, where, patch], **QUIET)
    number.submit(on_number, [shown, number], [where, patch], **QUIET)
    renew(shown, codes.select, number.submit)


def warm_up(models: Models, engine: Engine) -> None:
    """Load what the tab begins with while its visitor looks for a picture: the VQ-VAE and LPIPS take seconds."""
    with suppress(ValueError):  # what is wrong with a checkpoint is said when a picture is to be rebuilt
        for name in models.names("vqvae")[-1:]:
            engine.aside(models.vqvae, name)
            engine.aside(perceptual.why_unavailable)


def result(label: str, elem_id: str | None = None) -> gr.Image:
    return gr.Image(
        label=label,
        format="png",
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_id=elem_id,
        height=320,
        min_width=280,
    )


def no_code() -> tuple:
    """Number, places and patch while no code is chosen."""
    return None, gr.Image(None, label=WHERE), gr.Image(None, label=DECODES_TO)


def nothing(why: str) -> tuple:
    """The results while there is nothing to show, and why."""
    return None, why, None, None, *no_code(), "", gr.Column(visible=False), None


def _size(models: Models, name: str) -> int:
    """Faces and garments as they were learnt; photographs are shown larger."""
    config = models.config(name)
    learnt = config["data"].get("size", 64)
    return 256 if config["network"]["colours"] == 3 else learnt if learnt in SIZES else 64


def table(done: Rebuilt, others: list[Quality]) -> str:
    """What the codes cost and keep, beside the usual formats at no more than the same rate."""

    def row(q: Quality) -> str:
        psnr = "∞" if math.isinf(q.psnr) else f"{q.psnr:.1f}"
        lpips = "–" if q.lpips is None else f"{q.lpips:.3f}"
        kilobytes = q.bits_per_pixel * done.original[0, 0].numel() / 8000
        return f"| {q.name} | {q.bits_per_pixel:.2f} | {kilobytes:.1f} | {psnr} | {q.ssim:.3f} | {lpips} |"

    h, w = done.codes.shape
    head = "| | bits per pixel | kB | PSNR, dB | SSIM | LPIPS |\n|---|---|---|---|---|---|"
    note = (
        f"\n\n{h} x {w} codes · network {1000 * done.seconds:.0f} ms · JPEG and WebP at that rate, or at their lowest "
        "quality. PSNR and SSIM: more is closer to your picture. LPIPS: less is, as people see it."
    )
    missing = perceptual.why_unavailable()
    if missing:
        note += f" {missing}."
    elif done.quality.lpips is None:
        note += f" LPIPS needs {perceptual.SMALLEST} pixels a side."
    return "\n".join([head, row(done.quality), *map(row, others)]) + note


def on_average(checkpoint: Checkpoint) -> str:
    """A sentence on the codes, JPEG and WebP over pictures held out from the training; "" where it was not measured."""
    known = reconstruct.held_out_averages(checkpoint)
    if known is None:
        return ""
    ways = ", ".join(
        f"{q.name} at {q.bits_per_pixel:.2f} bits per pixel LPIPS {q.lpips:.3f} and {q.psnr:.1f} dB" for q in known.ways
    )
    return (
        f"On average over {known.images:,} pictures of {known.size} x {known.size} pixels that {checkpoint.name} has "
        f"not learnt from: {ways}."
    )


def usage_bars(done: Rebuilt, K: int, colours: np.ndarray) -> str:
    """The codes in use, most frequent first, each in its colour on the map: an SVG."""
    used = reconstruct.usage(done.codes, K)
    bars, W, H = used[:MOST_BARS], 640, 120
    width, top = W / MOST_BARS, used[0][1]
    drawn = "".join(
        f'<rect x="{i * width:.1f}" y="{H - H * n / top:.1f}" width="{width * 0.85:.1f}" height="{H * n / top:.1f}" '
        f'fill="rgb({",".join(map(str, colours[k]))})"><title>code {k}: {n}</title></rect>'
        for i, (k, n) in enumerate(bars)
    )
    text = f"{len(used)} of {K} codes are used in this picture; the {len(bars)} most frequent:"
    return f'<p>{text}</p><svg viewBox="0 0 {W} {H}" role="img" aria-label="{text}" style="width:100%">{drawn}</svg>'
