"""Tab "Reconstruct" in a real browser: a real upload, bad uploads, a painted mask."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.ui.test_pages_browser import PIXELS, scrub, set_slider, wait_done

pytestmark = pytest.mark.browser
EXAMPLES = Path(__file__).parents[2] / "dd" / "ui" / "static" / "examples"


@pytest.fixture
def tab(page):
    page.get_by_role("tab", name="Reconstruct").click()
    page.wait_for_selector("#rebuild-upload")
    return page


def bring(tab, path: Path) -> None:
    tab.locator("#rebuild-upload input[type=file]").first.set_input_files(path)


def test_a_photo_is_rebuilt_and_its_codes_can_be_clicked(tab):
    bring(tab, EXAMPLES / "cat.jpg")
    tab.wait_for_selector("#rebuild-figures table", timeout=60_000)
    rows = tab.locator("#rebuild-figures table tr").all_inner_texts()
    codes = rows[1].split()
    assert rows[1].startswith("VQ-VAE codes")
    assert float(codes[2]) <= 0.75  # bits per pixel
    assert float(codes[3]) == pytest.approx(float(codes[2]) * 256**2 / 8000, abs=0.1)  # kB
    assert float(codes[4]) > 20  # decibels
    tab.wait_for_selector("#rebuild-usage svg rect")
    tab.locator("#rebuild-codes img").click(position={"x": 40, "y": 40})
    tab.wait_for_selector("text=/Code \\d+: \\d+ of \\d+ cells/", timeout=30_000)
    errors, where, patch = (shown(tab, f"#rebuild-{name} img") for name in ("errors", "where", "patch"))
    assert errors.std() > 1, "the errors of a photograph are not all alike"
    assert errors.shape == where.shape
    assert where.std() > 1
    assert patch.shape[0] == patch.shape[1] < errors.shape[0]


def shown(page, selector: str) -> np.ndarray:
    """The pixels of a picture on the page, grey."""
    source = page.wait_for_selector(selector, timeout=30_000).get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(page.request.get(source).body())).convert("L"), float)


def test_the_slider_between_before_and_after_takes_keys(tab):
    bring(tab, EXAMPLES / "coffee.jpg")
    handle = tab.get_by_role("slider", name="Where before ends and after begins")
    handle.wait_for(timeout=60_000)
    cut = "document.querySelector('#rebuild-slider img.fixed').style.clipPath"
    before = tab.evaluate(cut)
    handle.focus()
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function(f"{cut} !== {before!r}")
    right = tab.evaluate(cut)
    tab.keyboard.press("Home")
    tab.wait_for_function(f"{cut} !== {right!r}")


def test_a_file_that_is_no_picture_gets_a_sentence(tab, tmp_path):
    fake = tmp_path / "photo.png"
    fake.write_text("this is no picture")
    bring(tab, fake)
    tab.wait_for_selector("text=/not a picture that can be read/", timeout=30_000)


def test_a_rotated_photo_in_its_own_shape(tab, tmp_path):
    path, exif = tmp_path / "rotated.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.open(EXAMPLES / "cat.jpg").save(path, exif=exif)
    bring(tab, path)
    tab.wait_for_selector("#rebuild-figures table", timeout=60_000)
    tab.get_by_label("the whole picture, its own shape").check()
    tab.wait_for_function(
        "document.querySelector('#rebuild-figures').innerText.includes('64 x 43 codes')", timeout=30_000
    )


def paint(page) -> None:
    """A stroke through the middle of the picture to inpaint."""
    box = page.locator("#inpaint-canvas canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 40, y)
    page.mouse.down()
    for i in range(9):
        page.mouse.move(x - 40 + 10 * i, y)
    page.mouse.up()
    page.wait_for_timeout(500)


def press_and_wait(page, button: str, result: str) -> None:
    """Until what the button sets off has come to the result, which shows that it is under way."""
    page.click(button)
    page.wait_for_selector(f"{result} .wrap:not(.hide)", state="attached", timeout=30_000)
    page.wait_for_selector(f"{result} .wrap:not(.hide)", state="detached", timeout=60_000)


def test_a_painted_part_is_generated_and_the_rest_stays(tab):
    tab.get_by_role("tab", name="Inpaint").click()
    tab.click("#inpaint-run")
    tab.wait_for_selector("text=/there is no picture here/i", timeout=30_000)
    press_and_wait(tab, "#inpaint-made", "#inpaint-canvas")
    paint(tab)
    set_slider(tab, "Steps", 8)
    tab.click("#inpaint-run")
    wait_done(tab, "inpaint-player")
    state, guess = tab.evaluate(PIXELS, "#inpaint-player")
    assert state == guess  # the clean picture at the end
    scrub(tab, "inpaint-player", 0)
    noise, first_guess = tab.evaluate(PIXELS, "#inpaint-player")
    assert len({state, noise, first_guess}) == 3


def test_a_region_can_be_painted_without_a_pointer(tab):
    tab.get_by_role("tab", name="Inpaint").click()
    press_and_wait(tab, "#inpaint-made", "#inpaint-canvas")
    tab.focus("#inpaint-top")
    tab.keyboard.press("Enter")
    set_slider(tab, "Steps", 4)
    tab.wait_for_timeout(1000)
    tab.click("#inpaint-run")
    wait_done(tab, "inpaint-player")
    with tab.expect_download(timeout=60_000) as download:
        tab.click("#inpaint-json")
    known = json.loads(Path(download.value.path()).read_text())["given"]["known"]
    half = len(known) // 2
    assert {cell for row in known[: half - 1] for cell in row} == {0}
    assert {cell for row in known[half + 1 :] for cell in row} == {1}


def test_the_canvas_own_bin_takes_the_paint_and_leaves_the_picture(tab):
    tab.get_by_role("tab", name="Inpaint").click()
    press_and_wait(tab, "#inpaint-made", "#inpaint-canvas")
    tab.click("#inpaint-left")
    tab.wait_for_timeout(1500)
    tab.locator("#inpaint-canvas").get_by_role("button", name="Clear canvas").click()
    tab.wait_for_timeout(1500)
    tab.click("#inpaint-run")
    tab.wait_for_selector("text=/nothing is painted over yet.*or press Middle/i", timeout=30_000)
    tab.click("#inpaint-right")
    tab.wait_for_timeout(1000)
    set_slider(tab, "Steps", 4)
    tab.click("#inpaint-run")
    wait_done(tab, "inpaint-player")


def test_a_bad_picture_to_restore_leaves_none(tab, tmp_path):
    """And says so; the picture before it must not be restored in its place."""
    fake = tmp_path / "photo.png"
    fake.write_text("this is no picture")
    tab.get_by_role("tab", name="Noise and restore").click()
    press_and_wait(tab, "#restore-made", "#restore-canvas")
    tab.wait_for_selector("#restore-damaged img", timeout=30_000)
    tab.get_by_role("button", name="Bring a picture of your own").locator("visible=true").click()
    tab.locator("#restore-upload input[type=file]").first.set_input_files(fake)
    tab.wait_for_selector("#restore-note >> text=/not a picture that can be read/", timeout=30_000)
    tab.wait_for_selector("#restore-canvas img", state="detached", timeout=30_000)
    tab.click("#restore-run")
    tab.wait_for_selector("text=/there is no picture here/i", timeout=30_000)


def test_an_upload_is_framed_as_asked(tab, tmp_path):
    wide = Image.new("L", (120, 40))
    wide.paste(255, (10, 10, 20, 30))
    wide.save(tmp_path / "wide.png")
    tab.get_by_role("tab", name="Noise and restore").click()
    tab.get_by_role("button", name="Bring a picture of your own").locator("visible=true").click()
    tab.locator("#restore-upload input[type=file]").first.set_input_files(tmp_path / "wide.png")
    middle = tab.wait_for_selector("#restore-canvas img", timeout=30_000).get_attribute("src")
    set_slider(tab, "From the left", 0)
    tab.wait_for_function(f"document.querySelector('#restore-canvas img')?.src !== {middle!r}", timeout=30_000)
    left = shown(tab, "#restore-canvas img")
    assert left.sum() > 0
    assert (left.sum(0) * np.arange(len(left))).sum() / left.sum() < len(left) / 2  # the bar is left of the middle


def test_an_uploaded_garment_is_inpainted(tab, tmp_path):
    drawing = Image.new("L", (60, 60), 255)
    drawing.paste(90, (18, 12, 42, 50))
    drawing.save(tmp_path / "shirt.png")
    tab.get_by_role("tab", name="Inpaint").click()
    tab.get_by_label("Data", exact=True).locator("visible=true").click()
    tab.get_by_role("option", name="fashion", exact=True).click()
    tab.get_by_role("button", name="Bring a picture of your own").locator("visible=true").click()
    tab.locator("#inpaint-upload input[type=file]").first.set_input_files(tmp_path / "shirt.png")
    tab.wait_for_function("!document.querySelector('#inpaint-canvas .empty')", timeout=30_000)
    tab.wait_for_timeout(1000)
    tab.click("#inpaint-right")
    tab.wait_for_timeout(1500)
    set_slider(tab, "Steps", 4)
    tab.click("#inpaint-run")
    wait_done(tab, "inpaint-player")
    with tab.expect_download(timeout=60_000) as download:
        tab.click("#inpaint-json")
    recipe = json.loads(Path(download.value.path()).read_text())
    cells = np.array(recipe["given"]["cells"])
    assert recipe["checkpoint"] == "fashion"
    assert cells[14, 14] > 0 == cells[0, 0], "a garment is bright on black, whatever the picture's ground"
    assert np.array(recipe["given"]["known"])[:, :14].all()


def test_a_picture_of_another_model_is_dropped_with_a_word(tab):
    tab.get_by_role("tab", name="Inpaint").click()
    press_and_wait(tab, "#inpaint-made", "#inpaint-canvas")
    tab.get_by_label("Data", exact=True).locator("visible=true").click()
    tab.get_by_role("option", name="digits", exact=True).click()
    tab.get_by_text("bring or generate one for digits").first.wait_for(timeout=30_000)


def test_a_noised_picture_is_restored(tab):
    tab.get_by_role("tab", name="Noise and restore").click()
    press_and_wait(tab, "#restore-made", "#restore-canvas")
    noised = tab.wait_for_selector("#restore-damaged img", timeout=30_000).get_attribute("src")
    set_slider(tab, "Noise to time t", 0.9)
    tab.wait_for_function(f"document.querySelector('#restore-damaged img')?.src !== {noised!r}", timeout=30_000)
    set_slider(tab, "Steps", 8)
    tab.click("#restore-run")
    wait_done(tab, "restore-player")
    assert "step 8 of 8" in tab.locator("#restore-player").inner_text()
    state, guess = tab.evaluate(PIXELS, "#restore-player")
    assert state == guess
    scrub(tab, "restore-player", 0)
    assert tab.evaluate(PIXELS, "#restore-player")[0] != state
