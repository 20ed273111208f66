"""How long the tab Reconstruct takes for a picture: from handing over the file to figures and pictures on the page.

    python -m bench.rebuild --size 256

Starts app.py on the shipped checkpoints, drives it in headless Chromium and prints one JSON object: medians, in
milliseconds, over the example pictures. `page` is what a visitor waits; the others are its parts without the page.
"""

import argparse
import json
import statistics

from bench.app import CHECKPOINTS, REPOSITORY, app, page
from bench.steps import milliseconds
from dd import reconstruct
from dd.images import open_image
from dd.models import Models

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
    network = Models(CHECKPOINTS).vqvae(name).network
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
    times = []
    with page(url) as tab:
        tab.get_by_role("tab", name="Reconstruct").click()
        tab.wait_for_selector("#rebuild-upload")
        tab.get_by_label("Size", exact=True).locator("visible=true").click()
        tab.get_by_role("option", name=str(size), exact=True).click()
        tab.evaluate(WATCH)
        for i in range((repeats + 1) * len(EXAMPLES)):
            if i:
                tab.locator("#rebuild-upload").get_by_label("Remove Image").click()
                tab.locator("#rebuild-figures").get_by_text("Upload a picture").wait_for()
                tab.wait_for_timeout(500)
            tab.evaluate("() => { window.shown.length = 0; }")
            tab.locator("#rebuild-upload input[type=file]").first.set_input_files(EXAMPLES[i % len(EXAMPLES)])
            tab.wait_for_selector("#rebuild-figures table", timeout=60_000)
            given, shown = tab.evaluate("[window.given, window.shown]")
            if i >= len(EXAMPLES):
                times.append(shown[-1] - given)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vqvae", default="photos-vqvae")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with app() as (url, _, _):
        times = page_times(url, args.size, args.repeats)
    alone = parts(args.vqvae, args.size, args.repeats)
    figures = {"page": statistics.median(times), "page_slowest": max(times), **alone}
    print(json.dumps({"vqvae": args.vqvae, "size": args.size} | {k: round(v) for k, v in figures.items()}))


if __name__ == "__main__":
    main()
