"""Start-up, first frame, frames a second and memory of the app, through a real browser.

    python -m bench.browser --images 16 --steps 100 [--guidance 2]

Starts `python app.py` on the shipped checkpoints, drives it in headless Chromium (Playwright) and prints one JSON
object. Every frame counted is one reverse step computed after the one before it. Nothing else should be running.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
WATCH = """() => {
  window.drawn = [];
  const root = document.querySelector('#generate-player');
  new MutationObserver((changes) => {
    for (const c of changes) if (c.attributeName === 'data-drawn') window.drawn.push(performance.now());
  }).observe(root, { attributes: true, subtree: true });
  const run = document.querySelector('#generate-run');
  run.addEventListener('click', () => { window.clicked = performance.now(); }, true);
}"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Frames a second of the page in headless Chromium.")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=3, help="runs measured, after one that is not")
    args = parser.parse_args(argv)
    with app() as (url, pid, ready), page(url) as page_:
        page_.wait_for_selector("#generate-run")
        for label, value in (("Steps", args.steps), ("Images", args.images), ("Guidance", args.guidance)):
            field = page_.get_by_label(f"number input for {label}").locator("visible=true")
            field.fill(str(value))
            field.press("Enter")
        page_.wait_for_timeout(2000)
        page_.evaluate(WATCH)
        first, rate = [], []
        for _ in range(args.runs + 1):
            page_.evaluate("() => { window.drawn.length = 0; }")
            page_.click("#generate-run")
            page_.wait_for_function(f"window.drawn.length > {args.steps}", timeout=300_000, polling=100)
            clicked, drawn = page_.evaluate("[window.clicked, window.drawn]")
            first.append(drawn[0] - clicked)
            rate.append(1000 * (len(drawn) - 1) / (drawn[-1] - drawn[0]))
        memory = int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
    print(
        json.dumps(
            {
                "images": args.images,
                "steps": args.steps,
                "guidance": args.guidance,
                "ready_s": round(ready, 1),
                "first_frame_ms": round(statistics.median(first[1:])),
                "steps_per_second": round(statistics.median(rate[1:]), 1),
                "app_memory_MB": round(memory),
            }
        )
    )


@contextmanager
def app() -> Iterator[tuple[str, int, float]]:
    """The app on the shipped checkpoints and a free port: its address, process id and the seconds until it answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start, url = time.monotonic(), f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port), "--host", "127.0.0.1"], cwd=REPOSITORY,
        stdout=subprocess.DEVNULL, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    try:
        _wait(url)
        yield url, process.pid, time.monotonic() - start
    finally:
        process.terminate()


@contextmanager
def page(url: str) -> Iterator:
    """A page of headless Chromium at the address, without a GPU."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        yield page
        browser.close()


def _wait(url: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    main()
