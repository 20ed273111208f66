"""Frames a second of the tab Simplex in headless Chromium without a GPU, through the whole app.

    python -m bench.simplex [--particles 1000] [--seconds 3]

Prints one JSON object: for every setting the pictures drawn a second while the run plays at normal speed (at most the
browser's 60), and the processor time in ms that the page's main thread spends on one. Nothing else should be running.
"""

import argparse
import json

from bench.app import app, page

ROOT = "document.querySelector('.sx-root')"
DEFAULT = {"trails": True, "heat": True, "contours": True, "lines": False, "arrows": "none"}
SETTINGS = {
    "default": {},
    "without trails": {"trails": False},
    "with streamlines and arrows": {"lines": True, "arrows": "both"},
}
SET = """(wanted) => {
  for (const [name, value] of Object.entries(wanted)) {
    const control = document.querySelector(`.sx-root [data-sx=${name}]`);
    if (typeof value === 'boolean') control.checked = value; else control.value = value;
    control.dispatchEvent(new Event('change'));
  }
}"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Frames a second of the tab Simplex in headless Chromium.")
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3.0, help="measured for every setting")
    args = parser.parse_args(argv)
    with app() as (url, _, _), page(url) as tab:
        tab.set_default_timeout(120_000)
        tab.get_by_role("tab", name="Simplex").click()
        tab.wait_for_function(f"{ROOT}?.simplex?.frames() > 0")
        tab.get_by_label("number input for Particles").fill(str(args.particles))
        tab.keyboard.press("Tab")
        tab.click("#sx-run")
        tab.wait_for_function(f"{ROOT}.simplex.particles()[0] === {args.particles}")
        threads = tab.context.new_cdp_session(tab)
        threads.send("Performance.enable", {"timeDomain": "threadTicks"})
        out = {"particles": args.particles}
        for name, setting in SETTINGS.items():
            tab.evaluate(SET, {**DEFAULT, **setting})
            tab.evaluate(f"{ROOT}.simplex.seek(0); {ROOT}.simplex.play(true)")
            tab.wait_for_timeout(1000)
            out[name] = measure(tab, threads, args.seconds)
    print(json.dumps(out))


def measure(tab, threads, seconds: float) -> dict[str, float]:
    """Pictures a second and main-thread processor time for each, over some seconds of playing."""

    def now() -> tuple[float, int, float]:
        metrics = {m["name"]: m["value"] for m in threads.send("Performance.getMetrics")["metrics"]}
        clock, drawn = tab.evaluate(f"[performance.now(), Number({ROOT}.dataset.drawn)]")
        return clock, drawn, metrics["TaskDuration"]

    before = now()
    tab.wait_for_timeout(1000 * seconds)
    ms, pictures, busy = (b - a for a, b in zip(before, now(), strict=True))
    return {"frames_per_second": round(1000 * pictures / ms, 1), "ms_of_main_thread": round(1000 * busy / pictures, 1)}


if __name__ == "__main__":
    main()
