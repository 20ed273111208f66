"""The page with `faces` and `faces-vqvae` among the checkpoints (untrained stand-ins), and what people may upload."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import expect

from dd.models import Models
from dd.recipe import Recipe
from dd.runs import Run
from tests.test_images import SVG, encoded, picture, png
from tests.tiny import write_checkpoint, write_faces, write_vqvae
from tests.ui.conftest import App, offered, running
from tests.ui.test_pages_browser import PIXELS, scrub, set_slider, wait_done
from tests.ui.test_reconstruct_browser import paint

pytestmark = pytest.mark.browser
PROCESSES = {"Dirichlet (Wright-Fisher)", "D3PM, absorbing", "D3PM, uniform", "Multinomial", "Gaussian on one-hots"}
LOADED = "[...document.querySelectorAll('#rebuild-slider img')].filter((e) => e.naturalWidth === 64).length === 2"
SEES = "[...document.querySelectorAll('#rebuild-upload video')].some((e) => e.videoWidth && e.readyState >= 2)"
TABLE, TOAST = "#rebuild-figures table", ".toast-body"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    write_checkpoint(root / "digits", name="digits")
    write_faces(root)
    write_vqvae(root / "photos-vqvae", colours=3)
    return root


@pytest.fixture(scope="module")
def faces_app(root: Path) -> Iterator[App]:
    with running("--checkpoints", str(root)) as app:
        yield app


@pytest.fixture(scope="module")
def rebuilt_before(faces_app: App, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The app has its VQ-VAE and LPIPS in memory, so that a picture's memory is its own."""
    file = tmp_path_factory.mktemp("rebuilt") / "small.png"
    picture("RGB").save(file)
    Client(faces_app.url, verbose=False).predict(handle_file(file), api_name="/reconstruct")


@pytest.fixture(scope="module")
def visitor(browser, faces_app: App):
    """One visitor for the whole file."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.grant_permissions(["camera", "clipboard-read", "clipboard-write"])
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.unanswered = set()
    page.on("request", lambda request: "/run/" in request.url and page.unanswered.add(request))
    for ended in ("requestfinished", "requestfailed"):
        page.on(ended, lambda request: page.unanswered.discard(request))
    page.goto(faces_app.url)
    page.wait_for_selector("#generate-run")
    yield page
    assert errors == []
    context.close()


def choose(page, label: str, option: str) -> None:
    """Choose, and wait for what the server makes of it: a list that changes while it is open confuses Gradio."""
    page.get_by_label(label, exact=True).locator("visible=true").click()
    page.get_by_role("option", name=option, exact=True).locator("visible=true").click()
    page.wait_for_timeout(300)
    while page.unanswered:
        page.wait_for_timeout(50)


def open_tab(page, *names: str) -> None:
    for name in names:
        page.get_by_role("tab", name=name).click()


def canvas_size(page, player: str) -> list[int]:
    return page.evaluate(
        f"(() => {{ const c = document.querySelector('#{player} canvas'); return [c.width, c.height]; }})()"
    )


def recipe_of(page, prefix: str) -> dict:
    with page.expect_download(timeout=60_000) as download:
        page.click(f"#{prefix}-json")
    recipe = json.loads(Path(download.value.path()).read_text())
    assert recipe.pop("measured")[0]["t"][-1] == 0.0  # of that very run: its milliseconds come twice by no recipe
    return recipe


# -- faces on the tabs ---------------------------------------------------------------------------------------------


def test_generate_offers_faces_with_every_process_and_shows_them_decoded(visitor):
    open_tab(visitor, "Generate")
    choose(visitor, "Data", "faces")
    assert offered(visitor, "Class") == ["each in turn", "any", "neutral", "smiling"]
    assert set(offered(visitor, "Process")) == PROCESSES
    set_slider(visitor, "Steps", 4)
    for name in sorted(PROCESSES):
        visitor.click("#generate-reset")
        choose(visitor, "Process", name)
        visitor.click("#generate-run")
        wait_done(visitor, "generate-player")
        assert canvas_size(visitor, "generate-player") == [4 * 34 - 2] * 2  # 32 x 32 pixels of 8 x 8 codes
        last = visitor.evaluate(PIXELS, "#generate-player")
        scrub(visitor, "generate-player", 0)
        assert visitor.evaluate(PIXELS, "#generate-player")[1] != last[1]


def test_a_clicked_code_cell_has_a_path_among_all_codes(visitor):
    open_tab(visitor, "Generate")
    visitor.click("#generate-reset")
    choose(visitor, "Data", "faces")
    set_slider(visitor, "Steps", 4)
    visitor.click("#generate-run")
    wait_done(visitor, "generate-player")
    canvas = visitor.locator("#generate-player canvas").first
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 38 / 134, "y": box["height"] * 10 / 134})  # image 2, pixel (10, 4)
    visitor.get_by_text("image 2, row 3, column 2").wait_for(timeout=30_000)
    assert visitor.locator("#generate-player-explorer .dd-plots rect").count() >= 8  # a bar a code


def test_what_generate_made_can_be_inpainted(visitor, root: Path):
    test_a_clicked_code_cell_has_a_path_among_all_codes(visitor)
    made = recipe_of(visitor, "generate")
    open_tab(visitor, "Reconstruct", "Inpaint")
    visitor.click("#inpaint-take")
    data = visitor.get_by_label("Data", exact=True).locator("visible=true")
    deadline = time.monotonic() + 30
    while data.input_value() != "faces" and time.monotonic() < deadline:
        visitor.wait_for_timeout(50)
    assert visitor.get_by_label("Data", exact=True).locator("visible=true").input_value() == "faces"
    paint(visitor)
    set_slider(visitor, "Steps", 4)
    set_slider(visitor, "Results", 4)
    visitor.click("#inpaint-reset")  # or the end of a run before this one would be waited for
    visitor.wait_for_function("document.querySelector('#inpaint-player [data-done=\"1\"]') === null")
    visitor.click("#inpaint-run")
    wait_done(visitor, "inpaint-player")
    assert canvas_size(visitor, "inpaint-player") == [2 * 34 - 2] * 2
    asked = recipe_of(visitor, "inpaint")
    assert asked["temperature"] == 0.7  # that of the faces, not of the model that the tab began with
    cells = Run(Recipe.from_json(json.dumps(made)), Models(root)).exhaust()[0]
    given = torch.tensor(asked["given"]["cells"])
    assert torch.equal(given, cells[1])  # the image that was clicked
    known = torch.tensor(asked["given"]["known"], dtype=torch.bool)
    assert 0 < int(known.sum()) < known.numel()
    results = Run(Recipe.from_json(json.dumps(asked)), Models(root)).exhaust()[0]
    assert all(torch.equal(result[known], given[known]) for result in results)
    assert len({tuple(result[~known].tolist()) for result in results}) > 1


def test_there_has_to_be_something_to_take_over(browser, faces_app: App):
    context = browser.new_context()
    page = context.new_page()
    page.goto(faces_app.url)
    page.wait_for_selector("#generate-run")
    open_tab(page, "Reconstruct", "Noise and restore")
    page.click("#restore-take")
    page.get_by_text("there is no finished run on the tab Generate yet").first.wait_for(timeout=30_000)
    context.close()


def test_compare_runs_faces_in_four_lanes(visitor):
    open_tab(visitor, "Compare")
    choose(visitor, "Data", "faces")
    set_slider(visitor, "Network calls", 4)
    visitor.click("#compare-reset")
    visitor.wait_for_function("document.querySelector('#compare-player [data-done=\"1\"]') === null")
    visitor.click("#compare-run")
    wait_done(visitor, "compare-player")
    assert len(visitor.evaluate(PIXELS, "#compare-player")) == 4
    assert canvas_size(visitor, "compare-player") == [3 * 34 - 2] * 2


# -- recipes come back to the tab that made them --------------------------------------------------------------------


def load_recipe(page, prefix: str, recipe: dict, path: Path) -> None:
    path.write_text(json.dumps(recipe))
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Load recipe").locator("visible=true").click()
    chooser.value.set_files(path)


def reloads(visitor, page, prefix: str, tabs: tuple[str, ...], path: Path) -> None:
    """What `visitor` sees on a tab comes back in a fresh `page` by its recipe, the controls' values included."""
    wanted, recipe = visitor.evaluate(PIXELS, f"#{prefix}-player"), recipe_of(visitor, prefix)
    open_tab(page, *tabs)
    load_recipe(page, prefix, recipe, path)
    wait_done(page, f"{prefix}-player")
    assert page.evaluate(PIXELS, f"#{prefix}-player") == wanted
    page.click(f"#{prefix}-reset")
    page.wait_for_function(f"document.querySelector('#{prefix}-player [data-done=\"1\"]') === null")
    page.click(f"#{prefix}-run")
    wait_done(page, f"{prefix}-player")
    assert recipe_of(page, prefix) == recipe


@pytest.fixture
def other(browser, faces_app: App):
    """A visitor who has done nothing yet."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.goto(faces_app.url)
    page.wait_for_selector("#generate-run")
    yield page
    context.close()


def test_a_comparison_comes_back_by_its_recipe(visitor, other, tmp_path):
    test_compare_runs_faces_in_four_lanes(visitor)
    reloads(visitor, other, "compare", ("Compare",), tmp_path / "recipe.json")
    other.locator("#compare-table table").wait_for()


def test_what_was_inpainted_comes_back_by_its_recipe(visitor, other, root: Path, tmp_path):
    test_what_generate_made_can_be_inpainted(visitor, root)
    reloads(visitor, other, "inpaint", ("Reconstruct", "Inpaint"), tmp_path / "recipe.json")


def test_what_was_restored_comes_back_by_its_recipe(visitor, other, tmp_path):
    open_tab(visitor, "Reconstruct", "Noise and restore")
    visitor.click("#restore-made")
    noised = visitor.wait_for_selector("#restore-damaged img", timeout=60_000).get_attribute("src")
    choose(visitor, "Process", "Gaussian on one-hots")  # whose sampler is chosen a moment later
    visitor.wait_for_function(f"document.querySelector('#restore-damaged img')?.src !== {noised!r}", timeout=30_000)
    assert visitor.locator("#restore-damaged img").count() == 1
    visitor.locator("[data-testid='image'] img, .image-frame img").locator("visible=true").first.wait_for()
    set_slider(visitor, "Steps", 4)
    set_slider(visitor, "Noise to time t", 0.7)
    visitor.click("#restore-run")
    wait_done(visitor, "restore-player")
    reloads(visitor, other, "restore", ("Reconstruct", "Noise and restore"), tmp_path / "recipe.json")


def test_a_recipe_of_another_tab_or_beyond_this_one_is_refused(visitor, other, tmp_path):
    test_compare_runs_faces_in_four_lanes(visitor)
    recipe = recipe_of(visitor, "compare")
    load_recipe(other, "generate", recipe, tmp_path / "recipe.json")
    other.get_by_text("this recipe was saved on the tab Compare; load it there").first.wait_for(timeout=30_000)
    assert other.get_by_label("Data", exact=True).locator("visible=true").is_enabled()
    assert other.get_by_text("Error", exact=True).locator("visible=true").count() == 1, "an error covers the controls"
    open_tab(other, "Compare")
    recipe["lanes"][0]["options"] = {"stretch": 2.0}
    load_recipe(other, "compare", recipe, tmp_path / "recipe.json")
    other.get_by_text("this recipe asks for what this tab cannot set").first.wait_for(timeout=30_000)


# -- pictures that people bring ----------------------------------------------------------------------------------------


def rebuild_tab(page) -> None:
    """The tab Rebuild with nothing in it."""
    open_tab(page, "Reconstruct", "Rebuild")
    remove = page.locator("#rebuild-upload").get_by_label("Remove Image")
    if remove.count():
        remove.click()
    page.locator("#rebuild-figures").get_by_text("Upload a picture").wait_for(timeout=30_000)
    for close in page.locator(f"{TOAST} button").all():
        close.click()
    page.wait_for_function(f"document.querySelector('{TOAST}') === null", timeout=30_000)


def test_a_face_is_rebuilt_and_its_codes_are_large_enough_to_be_clicked(visitor, tmp_path):
    rebuild_tab(visitor)
    choose(visitor, "VQ-VAE", "faces-vqvae")
    picture(size=(64, 64)).save(tmp_path / "face.png")
    visitor.locator("#rebuild-upload input[type=file]").first.set_input_files(tmp_path / "face.png")
    visitor.wait_for_selector(TABLE, timeout=60_000)
    visitor.wait_for_function(LOADED, timeout=30_000)
    image = visitor.locator("#rebuild-codes img")
    image.wait_for()
    assert image.evaluate("e => e.naturalWidth") == 512  # 64 pixels, enlarged
    box = image.bounding_box()
    image.click(position={"x": box["width"] / 2 - 3, "y": box["height"] / 2 - 3})
    visitor.locator("text=/Code \\d+: \\d+ of 256 cells/").wait_for(timeout=30_000)
    number = visitor.locator("#rebuild-code input")
    clicked = int(number.input_value())
    number.fill(str((clicked + 1) % 8))
    number.press("Enter")
    visitor.locator(f"text=/Code {(clicked + 1) % 8}: \\d+ of 256 cells/").wait_for(timeout=30_000)
    number.fill("8")
    number.press("Enter")
    visitor.get_by_text("the codes of faces-vqvae are 0 to 7").first.wait_for(timeout=30_000)


def frames() -> bytes:
    colours = [Image.new("RGB", (40, 24), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    return encoded(colours[0], "GIF", save_all=True, append_images=colours[1:])


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(), "JPEG", exif=exif)


UPLOADS = {
    "one-pixel.png": (lambda: encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"), None),
    "large.png": (lambda: png(20_000, 20_000, bytes(20_000 * 2501), 1, 0), "has too many pixels; at most 50 million"),
    "cmyk.jpg": (lambda: encoded(picture("CMYK"), "JPEG"), None),
    "sixteen-bit.png": (lambda: encoded(picture("L").convert("I;16"), "PNG"), None),
    "palette.png": (lambda: encoded(picture("P"), "PNG"), None),
    "alpha.png": (lambda: encoded(picture("RGBA"), "PNG"), None),
    "rotated.jpg": (rotated, None),
    "animated.gif": (frames, None),
    "drawing.svg": (lambda: SVG, "SVG files are drawings"),
    "text.png": (lambda: b"Dear Sir or Madam,\n", "not a picture that can be read"),
    "truncated.jpg": (lambda: encoded(picture(size=(300, 300)), "JPEG", quality=95)[:1500], "damaged or incomplete"),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_every_upload_works_or_gets_one_sentence(visitor, faces_app: App, rebuilt_before: None, tmp_path, name: str):
    made, sentence = UPLOADS[name]
    (tmp_path / name).write_bytes(made())
    rebuild_tab(visitor)
    before = megabytes(faces_app)
    visitor.locator("#rebuild-upload input[type=file]").first.set_input_files(tmp_path / name)
    visitor.wait_for_selector(f"{TABLE}, {TOAST}", timeout=60_000)
    said = visitor.locator(TOAST).all_inner_texts()
    if sentence is None:
        assert said == []
        assert visitor.locator(f"{TABLE} tr").count() == 5
    else:
        assert len(said) == 1
        assert sentence in said[0]
        expect(visitor.locator("#rebuild-figures")).to_contain_text(sentence)  # which stays when the toast has gone
        assert visitor.locator(TABLE).count() == 0
        assert not visitor.locator("#rebuild-codes").is_visible()
    assert megabytes(faces_app, peak=True) - before < 150


def test_a_bad_file_after_an_example_gets_its_sentence_too(visitor, tmp_path):
    made, sentence = UPLOADS["text.png"]
    (tmp_path / "text.png").write_bytes(made())
    rebuild_tab(visitor)
    visitor.locator(".gallery button, .gallery-item").locator("visible=true").first.click()
    visitor.wait_for_selector(TABLE, timeout=60_000)
    visitor.locator("#rebuild-upload").get_by_label("Remove Image").click()
    visitor.locator("#rebuild-upload input[type=file]").first.set_input_files(tmp_path / "text.png")
    visitor.wait_for_selector(TOAST, timeout=60_000)
    assert sentence in visitor.locator(TOAST).first.inner_text()


def megabytes(app: App, peak: bool = False) -> float:
    """The app's memory now, from where its peak is counted anew, or that peak; 0 where it cannot be read."""
    folder = Path(f"/proc/{app.pid}")
    if not folder.exists():
        return 0.0
    if not peak:
        (folder / "clear_refs").write_text("5")
    key = "VmHWM:" if peak else "VmRSS:"
    return int((folder / "status").read_text().split(key)[1].split()[0]) / 1024


def test_a_picture_can_be_pasted_taken_with_a_camera_or_chosen(visitor):
    upload = visitor.locator("#rebuild-upload")
    rebuild_tab(visitor)
    visitor.evaluate(
        """async () => {
          const canvas = document.createElement('canvas');
          canvas.getContext('2d').fillRect(0, 0, 40, 60);
          const blob = await new Promise((done) => canvas.toBlob(done));
          await navigator.clipboard.write([new ClipboardItem({ 'image/png': blob })]);
        }"""
    )
    upload.get_by_label("Paste from clipboard").click()
    visitor.wait_for_selector(TABLE, timeout=60_000)
    rebuild_tab(visitor)
    upload.get_by_label("Capture from camera").click()
    upload.get_by_text("Click to Access Webcam").click()
    visitor.wait_for_function(SEES, timeout=60_000)
    upload.get_by_label("capture photo").click()
    visitor.wait_for_selector(TABLE, timeout=60_000)
    rebuild_tab(visitor)
    visitor.locator(".gallery-item, .gallery button").first.click()
    visitor.wait_for_selector(TABLE, timeout=60_000)
