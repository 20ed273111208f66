"""Uploads: every one works or is refused in one sentence, and none takes much memory."""

import io
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from dd import images
from dd.images import ImageError, at_rate, crop, fit, open_image, square, to_picture, to_tensor


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, (200, 30, 40))
    image.paste((20, 40, 220), (size[0] // 2, 0, size[0], size[1]))
    return image.convert(mode)


def png(width: int, height: int, rows: bytes, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG of that size, depth and colour type; rows: each begins with the number of its filter."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = zlib.compress(rows, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png_of_zeros(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG that claims a size and holds a hundred zeros."""
    return png(width, height, bytes(100), bits, colour)


def works_or_is_refused(data: bytes) -> bool:
    try:
        return open_image(data).mode == "RGB"
    except ImageError as error:
        return str(error).endswith(".") and "\n" not in str(error)


def assert_left_red_right_blue(image: Image.Image, tolerance: int = 60) -> None:
    left = image.getpixel((image.width // 4, image.height // 2))
    right = image.getpixel((3 * image.width // 4, image.height // 2))
    assert np.abs(np.subtract(left, (200, 30, 40))).max() < tolerance
    assert np.abs(np.subtract(right, (20, 40, 220))).max() < tolerance


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        ("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("RGB", "BMP"),
        ("RGB", "WEBP"), ("RGBA", "WEBP"), ("RGB", "TIFF"), ("CMYK", "TIFF"), ("RGB", "PPM"),
    ],
)  # fmt: skip
def test_colour_modes_become_the_same_rgb_picture(mode, format):
    image = open_image(encoded(picture(mode), format))
    assert image.mode == "RGB"
    assert image.size == (40, 24)
    assert_left_red_right_blue(image)


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_modes_become_rgb(mode):
    image = open_image(encoded(Image.new("L", (5, 7), 255).convert(mode), "PNG"))
    assert (image.mode, image.size, image.getpixel((2, 3))) == ("RGB", (5, 7), (255, 255, 255))


def test_one_pixel():
    image = open_image(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"))
    assert image.size == (1, 1)
    assert crop(image, 64, 64).getpixel((63, 0)) == (1, 2, 3)
    assert fit(image, 64, 32).getpixel((32, 16)) == (1, 2, 3)


def test_extreme_aspect_ratio():
    image = Image.new("RGB", (4000, 1), (9, 8, 7))
    assert fit(image, 64, 64).size == (64, 64)
    assert crop(image, 64, 64).getpixel((5, 5)) == (9, 8, 7)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(format):
    values = np.array([[0, 257 * 64, 257 * 128, 65535]], np.uint16)
    image = open_image(encoded(Image.fromarray(values), format))
    assert [image.getpixel((i, 0))[0] for i in range(4)] == [0, 64, 128, 255]


@pytest.mark.parametrize("alpha", [False, True])
def test_sixteen_bit_colour_is_scaled_and_not_clipped(alpha):
    values = np.array([[[65535, 257 * 64, 0], [257 * 128, 0, 257 * 200]]], ">u2")
    if alpha:
        values = np.concatenate([values, np.full((1, 2, 1), 65535, ">u2")], -1).astype(">u2")
    image = open_image(png(2, 1, b"\0" + values.tobytes(), 16, 6 if alpha else 2))
    assert [image.getpixel((i, 0)) for i in range(2)] == [(255, 64, 0), (128, 0, 200)]


def test_float_tiff_with_nan_and_infinity():
    values = np.array([[0.0, 0.5, 1.0, np.nan, np.inf]], np.float32)
    image = open_image(encoded(Image.fromarray(values), "TIFF"))
    assert [image.getpixel((i, 0))[0] for i in range(5)] == [0, 128, 255, 0, 255]


def test_transparency_is_shown_over_white():
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    out = open_image(encoded(image, "PNG"))
    assert [out.getpixel((i, 0)) for i in range(2)] == [(255, 255, 255), (0, 0, 0)]


def test_palette_transparency_is_shown_over_white():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((1, 0), 1)
    out = open_image(encoded(image, "PNG", transparency=0))
    assert [out.getpixel((i, 0)) for i in range(2)] == [(255, 255, 255), (10, 20, 30)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation):
    upright = picture(size=(40, 24))
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = open_image(encoded(stored, "JPEG", exif=exif))
    assert out.size == (40, 24)
    assert_left_red_right_blue(out)


def test_damaged_exif_does_not_matter():
    data = encoded(picture(), "JPEG", exif=b"Exif\x00\x00" + bytes(range(64)))
    assert_left_red_right_blue(open_image(data))


def test_animated_gif_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    out = open_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert out.getpixel((4, 4)) == (250, 0, 0)


def test_large_jpeg_is_reduced_while_it_is_read():
    out = open_image(encoded(picture(size=(3000, 1500)), "JPEG"), max_side=500)
    assert out.size == (500, 250)
    assert_left_red_right_blue(out)


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
REFUSED = {
    "svg": (SVG, "SVG"),
    "svg without xml": (SVG[21:], "SVG"),
    "text": (b"Dear Sir or Madam,\nplease find enclosed", "not a picture"),
    "html": (b"<!doctype html><html></html>", "not a picture"),
    "empty": (b"", "empty"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3", "not a picture"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    "truncated jpeg": (encoded(picture(size=(300, 300)), "JPEG", quality=95)[:1500], "damaged"),
    "jpeg header only": (encoded(picture(), "JPEG")[:40], "picture"),
    "truncated png": (encoded(picture(size=(300, 300)), "PNG")[:120], "damaged"),
    "truncated gif": (encoded(picture("P", (300, 300)), "GIF")[:800], "damaged"),
    "truncated webp": (encoded(picture(size=(300, 300)), "WEBP")[:60], "picture"),
    "20,000 x 20,000": (png_of_zeros(20000, 20000), "million"),
    "8,000 x 8,000": (png_of_zeros(8000, 8000), "8,000 x 8,000"),
    "bomb": (png_of_zeros(2**31 - 1, 2**31 - 1), "million"),
    "one bit bomb": (png_of_zeros(60000, 60000, 1, 0), "million"),
    "large file": (b"\xff\xd8\xff" + bytes(images.MAX_BYTES), "MB"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_read_gets_one_sentence(what):
    data, word = REFUSED[what]
    with pytest.raises(ImageError, match=word) as caught:
        open_image(data)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 200


def test_every_byte_prefix_of_every_format_works_or_is_refused():
    for format in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"):
        data = encoded(picture(size=(32, 32)), format)
        for length in range(0, len(data), max(1, len(data) // 60)):
            assert works_or_is_refused(data[:length])


def test_random_damage_works_or_is_refused():
    generator = np.random.default_rng(0)
    for format in ("JPEG", "PNG", "GIF", "WEBP", "TIFF"):
        data = np.frombuffer(encoded(picture(size=(32, 32)), format), np.uint8)
        for _ in range(60):
            broken = data.copy()
            broken[generator.integers(0, len(data), 6)] = generator.integers(0, 256, 6)
            assert works_or_is_refused(broken.tobytes())


def test_path_stream_and_missing_file(tmp_path):
    path = tmp_path / "a.png"
    picture().save(path)
    assert open_image(path).size == open_image(str(path)).size == open_image(path.open("rb")).size == (40, 24)
    with pytest.raises(ImageError, match="cannot be opened"):
        open_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="cannot be opened"):
        open_image(tmp_path)


def test_large_pictures_are_decoded_one_after_the_other(monkeypatch):
    inside, most = 0, 0

    def upright(image, max_side):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.2)
        inside -= 1
        return image

    monkeypatch.setattr(images, "_upright_rgb", upright)
    data = encoded(picture(), "PNG")
    for large in (0, 10**9):
        monkeypatch.setattr(images, "LARGE", large)
        most = 0
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(open_image, [data] * 3))
        assert (most == 1) == (large == 0)


@pytest.mark.slow
@pytest.mark.parametrize(("format", "mode"), [("PNG", "RGB"), ("PNG", "I;16"), ("PNG", "RGBA"), ("JPEG", "RGB")])
def test_memory_stays_bounded(tmp_path, format, mode):
    """The largest admissible picture, opened in a process of its own, takes less than 700 MB more than the imports."""
    side = int(images.MAX_PIXELS**0.5)
    path = tmp_path / "large"
    colour = 9000 if mode == "I;16" else (10, 200, 30)
    Image.new(mode, (side, side), colour).save(path, format, **({"progressive": True} if format == "JPEG" else {}))
    code = (
        "import resource, sys; from dd.images import open_image; peak = lambda: resource.getrusage(0).ru_maxrss\n"
        "a = peak(); image = open_image(sys.argv[1]); print(peak() - a, *image.size)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    grown, width, height = (int(word) for word in out.stdout.split())
    grown /= 1024 if sys.platform != "darwin" else 1024**2  # ru_maxrss is in kB, on macOS in bytes
    assert (width, height) == (images.MAX_SIDE, images.MAX_SIDE)
    assert grown < 700


def test_crop_takes_the_middle_and_fit_takes_everything():
    image = Image.new("RGB", (90, 30), (255, 0, 0))
    image.paste((0, 255, 0), (30, 0, 60, 30))
    assert (np.asarray(crop(image, 30, 30)) == (0, 255, 0)).all()
    fitted = fit(image, 90, 90)
    assert fitted.getpixel((5, 45)) == (255, 0, 0)
    assert fitted.getpixel((45, 5)) == (128, 128, 128)


def test_a_square_is_taken_where_it_is_asked_for():
    image = Image.new("RGB", (90, 30), (255, 0, 0))
    image.paste((0, 255, 0), (30, 0, 60, 30))
    assert (np.asarray(square(image)) == np.asarray(crop(image, 30, 30))).all()
    assert (np.asarray(square(image, across=0.0)) == (255, 0, 0)).all()
    corner = Image.new("RGB", (40, 40))
    corner.paste((9, 9, 9), (30, 30, 40, 40))
    assert (np.asarray(square(corner, 4.0, 1.0, 1.0)) == 9).all()
    whole = np.asarray(square(image, 0.25, 0.5, 0.0))  # 120 x 120, the picture at its top in the middle
    assert (whole[:30, 15:105] == np.asarray(image)).all()
    assert (whole[30:] == (255, 0, 0)).all()
    assert (whole[:, :15] == (255, 0, 0)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 2000)])
def test_a_square_of_the_smallest_pictures(size):
    assert square(Image.new("RGB", size, (3, 4, 5)), 8.0).getpixel((0, 0)) == (3, 4, 5)
    assert square(Image.new("RGB", size), 0.5).size == (2, 2)


def test_tensors_and_back():
    image = picture()
    x = to_tensor(image)
    assert x.shape == (1, 3, 24, 40)
    assert np.array_equal(to_picture(x), image)
    grey = image.convert("L")
    assert to_tensor(grey).shape == (1, 1, 24, 40)
    assert np.array_equal(to_picture(to_tensor(grey)), grey)
    assert to_picture(torch.full((1, 2, 2), 7.0)).getpixel((0, 0)) == 255


@pytest.mark.parametrize("codec", ["JPEG", "WEBP"])
def test_rate_is_the_largest_within_the_budget(codec):
    generator = np.random.default_rng(1)
    noise = Image.fromarray(generator.integers(0, 256, (64, 64, 3), np.uint8))
    best, rate = at_rate(noise, codec, 4.0)
    assert best.size == (64, 64)
    assert 2.0 < rate <= 4.0
    assert at_rate(noise, codec, 1e-4)[1] < 4.0
