"""How long the tab Reconstruct takes for a picture: from handing over the file to figures and pictures on the page.

    python -m bench.rebuild --size 256

Starts app.py on the shipped checkpoints, drives it in headless Chromium and prints one JSON object: medians, in
milliseconds, over the example pictures. `page` is what a visitor waits; the others are its parts without the page.
"""

import argparse
import json
import shutil
import statistics

from bench.load import REPOSITORY, app
from bench.steps import milliseconds
from dd import reconstruct
from dd.images import open_image
from dd.runs import Models

EXAMPLES = sorted((REPOSITORY / "dd" / "ui" / "static" / "examples").glob("*.jpg"))
WATCH = """() => {
  window.shown = [];
  const figures = document.querySelector('#rebuild-figures');
  new MutationObserver(() => window.shown.push(performance.now()))
    .observe(figures, { childList: true, subtree: true, characterData: true });
  const upload = document.querySelector('#rebuild-upload');
  upload.addEventListener('change', () => { window.given = performance.now(); }, true);
}"""


def parts(name: str, size: int, repeats: int) -> dict[str, float]:
    """Medians of opening and framing, of the network with its figures, and of JPEG, PNG and WebP with theirs."""
    network = Models(REPOSITORY / "checkpoints").vqvae(name).network
    images = [reconstruct.frame(open_image(path), "crop", size, network.colours) for path in EXAMPLES]
    rate = network.bits_per_pixel()
    return {
        "open": milliseconds(
            lambda: reconstruct.frame(open_image(EXAMPLES[0]), "crop", size, network.colours), repeats
        ),
        "rebuild": milliseconds(lambda: [reconstruct.rebuild(network, image) for image in images], repeats)
        / len(images),
        "rivals": milliseconds(lambda: [reconstruct.rivals(image, rate) for image in images], repeats) / len(images),
    }


def page_times(url: str, size: int, repeats: int) -> list[float]:
    """Milliseconds from a file's arrival in the page to its figures, one a picture; the first round does not count."""
    from playwright.sync_api import sync_playwright

    times = []
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        page.get_by_role("tab", name="Reconstruct").click()
        page.wait_for_selector("#rebuild-upload")
        page.get_by_label("Size", exact=True).locator("visible=true").click()
        page.get_by_role("option", name=str(size), exact=True).click()
        page.evaluate(WATCH)
        for i in range((repeats + 1) * len(EXAMPLES)):
            if i:
                page.locator("#rebuild-upload").get_by_label("Remove Image").click()
                page.locator("#rebuild-figures").get_by_text("Upload a picture").wait_for()
                page.wait_for_timeout(500)
            page.evaluate("() => { window.shown.length = 0; }")
            page.locator("#rebuild-upload input[type=file]").first.set_input_files(EXAMPLES[i % len(EXAMPLES)])
            page.wait_for_selector("#rebuild-figures table", timeout=60_000)
            given, shown = page.evaluate("[window.given, window.shown]")
            if i >= len(EXAMPLES):
                times.append(shown[-1] - given)
        browser.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vqvae", default="photos-vqvae")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with app(str(REPOSITORY / "checkpoints"), 64) as (url, _):
        times = page_times(url, args.size, args.repeats)
    alone = parts(args.vqvae, args.size, args.repeats)
    figures = {"page": statistics.median(times), "page_slowest": max(times), **alone}
    print(json.dumps({"vqvae": args.vqvae, "size": args.size} | {k: round(v) for k, v in figures.items()}))


if __name__ == "__main__":
    main()
