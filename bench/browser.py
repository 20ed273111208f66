"""Start-up, first frame, frames a second and memory of the app, through a real browser.

    python -m bench.browser --images 16 --steps 100 [--guidance 2]

Starts `python app.py` on the shipped checkpoints, drives it in headless Chromium (Playwright) and prints one JSON
object. Every frame counted is one reverse step computed after the one before it. Nothing else should be running.
"""

import argparse
import json
import statistics

from bench.app import app, memory, page

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
        megabytes = memory(pid)
    print(
        json.dumps(
            {
                "images": args.images,
                "steps": args.steps,
                "guidance": args.guidance,
                "ready_s": round(ready, 1),
                "first_frame_ms": round(statistics.median(first[1:])),
                "steps_per_second": round(statistics.median(rate[1:]), 1),
                "app_memory_MB": round(megabytes),
            }
        )
    )


if __name__ == "__main__":
    main()
