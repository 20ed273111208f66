"""Pictures through a VQ-VAE, and what is said about them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dd import checkpoints, perceptual, reconstruct
from dd.images import ImageError
from dd.networks.vqvae import VqVae
from dd.ui import rebuild

ROOT = Path(__file__).parents[1]
SHAPE = {"d": 4, "channels": [8, 8], "encoder": [1, 1], "decoder": [1, 1]}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return VqVae(16, 3, **SHAPE).eval()


def picture(width: int = 60, height: int = 40, mode: str = "RGB") -> Image.Image:
    x = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None].repeat(height, 0).repeat(3, -1)
    return Image.fromarray(x).convert(mode)


@pytest.mark.parametrize(("how", "size"), [("crop", (48, 48)), ("fit", (48, 48)), ("keep", (48, 32))])
def test_framing(how, size):
    assert reconstruct.frame(picture(), how, 48, 3).size == size
    assert reconstruct.frame(picture(), how, 48, 1).mode == "L"


@pytest.mark.parametrize(("how", "size"), [("crop", 4), ("crop", 100_000), ("stretch", 64)])
def test_framing_that_cannot_be_is_refused(how, size):
    with pytest.raises(ImageError):
        reconstruct.frame(picture(), how, size, 3)


def test_a_line_of_pixels_is_kept_as_a_narrow_picture():
    assert reconstruct.frame(picture(1000, 1), "keep", 64, 3).size == (64, reconstruct.SMALLEST)


def test_rebuilt_picture_has_the_size_of_the_original_and_figures_of_its_own(network):
    image = picture(50, 30)
    done = reconstruct.rebuild(network, image)
    assert done.rebuilt.shape == done.original.shape == (1, 3, 30, 50)
    assert done.codes.shape == (8, 13)
    assert done.quality.bits_per_pixel == pytest.approx(8 * 13 * 4 / (50 * 30))  # of K = 16, the padding's codes too
    mse = float((done.rebuilt - done.original).square().mean())
    assert done.quality.psnr == pytest.approx(-10 * np.log10(mse), abs=1e-3)


def test_rivals_lose_nothing_or_keep_to_the_rate():
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (64, 64, 3), np.uint8))
    png, jpeg, webp = reconstruct.rivals(image, 3.0)
    assert png.psnr == float("inf")
    assert png.bits_per_pixel > 8
    assert max(jpeg.bits_per_pixel, webp.bits_per_pixel) <= 3.0


def test_error_map_is_black_where_nothing_is_lost_and_white_where_much_is():
    x, x_hat = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    x_hat[..., 0, 0] = 0.3
    error = np.asarray(reconstruct.error_map(x, x_hat))
    assert error[0, 0].tolist() == [255] * 3
    assert error[1:].max() == 0


def test_map_usage_and_highlight_speak_of_the_same_cells(network):
    codes = torch.tensor([[3, 3, 5], [3, 0, 5]])
    colours = reconstruct.code_colours(network)
    drawn = np.asarray(reconstruct.code_map(codes, colours, 4))
    assert drawn.shape == (8, 12, 3)
    assert (drawn[5, 1] == colours[3]).all()
    assert reconstruct.usage(codes, 16) == [(3, 3), (5, 2), (0, 1)]
    bright = np.asarray(reconstruct.highlight(Image.new("L", (12, 7), 255), codes, 5, 4))[..., 0]
    assert (bright == 255).sum() == 4 * 7
    assert len({tuple(colour) for colour in colours}) == 16


def test_a_codes_patch_is_what_it_decodes_to_among_itself(network):
    a, b = (np.asarray(reconstruct.patch_of(network, k)) for k in (3, 5))
    assert a.shape == (20, 20, 3)
    assert not np.array_equal(a, b)


class Elsewhere(torch.nn.Module):
    """A network on another device, which answers nothing but what is there."""

    K, factor, colours = 16, 4, 3

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))

    def reconstruct(self, x):
        assert x.device.type == "meta"
        return torch.zeros(x.shape), torch.zeros(1, 4, 4, dtype=torch.long)

    def bits_per_pixel(self):
        return 0.25


def test_codes_are_chosen_in_float32_where_bfloat16_is_fast(network, monkeypatch):
    """And they are those that a training's own measurements see."""
    monkeypatch.setattr(reconstruct, "autocast", lambda device: torch.autocast("cpu", torch.bfloat16))
    image = picture(64, 64)
    codes = network.encode(reconstruct.to_tensor(image))[0]
    assert torch.equal(reconstruct.rebuild(network, image).codes, codes)


def test_a_network_on_another_device_gets_the_picture_there():
    done = reconstruct.rebuild(Elsewhere(), picture(64, 64))
    assert done.rebuilt.device.type == done.original.device.type == "cpu"


def test_the_shipped_vqvae_keeps_to_the_targets_on_pictures_it_never_saw():
    """At 128 pixels 26 dB, 0.75 bits a pixel, LPIPS 0.06 where its weights are; the examples are none of its data."""
    vqvae = checkpoints.load(ROOT / "checkpoints" / "photos-vqvae").network
    done = [
        reconstruct.rebuild(vqvae, reconstruct.frame(Image.open(path), "crop", 128, 3)).quality
        for path in sorted((ROOT / "dd" / "ui" / "static" / "examples").glob("*.jpg"))
    ]
    assert len(done) == 3
    assert np.mean([quality.psnr for quality in done]) >= 26
    if perceptual.weights_path().is_file():
        assert np.mean([quality.lpips for quality in done]) <= 0.06
    assert max(quality.bits_per_pixel for quality in done) <= 0.75


MEASURED = {"images": 7, "size": 64, "sha256": "abc"} | {
    prefix + figure: value
    for prefix, values in {
        "": (0.75, 26.3, 0.8, 0.049),
        "jpeg_": (0.7, 25, 0.7, 0.25),
        "webp_": (0.6, 28, 0.9, 0.1),
    }.items()
    for figure, value in zip(reconstruct.FIGURES, values, strict=True)
}


def measured(network: VqVae, sha256: str = "abc", **changes: object) -> checkpoints.Checkpoint:
    config = {"measured": {"held-out": MEASURED | changes}}
    return checkpoints.Checkpoint("toy", network, config, sha256)


def test_codes_jpeg_and_webp_are_set_beside_each_other_as_they_were_measured(network):
    text = rebuild.on_average(measured(network))
    assert "over 7 pictures of 64 x 64 pixels that toy has not learnt from" in text
    assert "VQ-VAE codes at 0.75 bits per pixel LPIPS 0.049 and 26.3 dB" in text
    assert "JPEG at 0.70 bits per pixel LPIPS 0.250 and 25.0 dB" in text
    assert "WebP at 0.60 bits per pixel LPIPS 0.100 and 28.0 dB" in text


def test_nothing_is_said_of_what_was_not_measured_or_of_other_weights(network):
    assert rebuild.on_average(measured(network, jpeg_lpips=None)) == ""
    assert rebuild.on_average(measured(network, sha256="def")) == ""
    assert rebuild.on_average(checkpoints.Checkpoint("toy", network, {}, "abc")) == ""


def test_the_shipped_comparison_is_of_the_shipped_weights_and_in_the_documents():
    loaded = checkpoints.load(ROOT / "checkpoints" / "photos-vqvae")
    known = reconstruct.held_out_averages(loaded)
    assert [quality.name for quality in known.ways] == ["VQ-VAE codes", "JPEG", "WebP"]
    assert "106 pictures of 128 x 128 pixels" in rebuild.on_average(loaded)
    lines = (ROOT / "docs" / "results.md").read_text().splitlines()
    for quality in known.ways:
        figures = f"{quality.psnr:.1f} dB | {quality.ssim:.3f} | {quality.lpips:.3f}"
        assert any(figures in line and f"{quality.bits_per_pixel:.2f}" in line for line in lines), quality.name
    for name in ("faces-vqvae", "fashion-vqvae"):
        assert rebuild.on_average(checkpoints.load(ROOT / "checkpoints" / name)) == ""


def test_without_lpips_the_table_says_what_to_do(network, monkeypatch):
    monkeypatch.setattr(perceptual, "why_unavailable", lambda: "LPIPS weights are not available offline: do this")
    done = reconstruct.rebuild(network, picture(64, 64))
    assert done.quality.lpips is None
    text = rebuild.table(done, [])
    assert "LPIPS weights are not available offline: do this." in text
    assert text.splitlines()[2].endswith("| – |")
