"""An hour's visitors in minutes: does the app's memory grow? Loopback only, bounded in time; prints JSON lines.

    python -m bench.hour --visits 600 --seconds 600 [--checkpoints checkpoints]

An hour of a busy public page is taken to be 600 visits: a new visitor every six seconds. Each has a session of its own,
does one of the six things of KINDS, and never says good-bye, so that nothing but the app's own bounds (200 sessions,
MOST_KEPT bytes of runs) frees what it holds. Memory may grow until 200 sessions are there; after that it must not.
"""

import argparse
import io
import itertools
import json
import queue
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from bench.app import CHECKPOINTS, app, memory
from bench.visitor import BODY, Visitor

WORKERS = 4  # visits at a time


def run_and_download(visitor: Visitor, number: int) -> None:
    _done(visitor.press("generate-run", Steps=12, Images=4, Seed=number))
    _done(visitor.press("generate-png"))
    _done(visitor.press("generate-webp"))


def leave_in_the_middle(visitor: Visitor, number: int) -> None:
    messages = visitor.press("generate-run", Steps=200, Images=4, Seed=number)
    for _ in range(6):
        next(messages)
    messages.close()


def compare(visitor: Visitor, number: int) -> None:
    _done(visitor.press("compare-run", **{"Network calls": 4, "Images": 1, "Seed": number}))


def call_generate(visitor: Visitor, number: int) -> None:
    model = visitor.models[0]
    _call(
        visitor, "generate", [model, "dirichlet", "dirichlet", 8, 4, "each", 1.0, number, None, "default", True, None]
    )


def call_likelihood(visitor: Visitor, number: int) -> None:
    cells = np.random.default_rng(number).integers(0, 2, (28, 28)).tolist()
    _call(visitor, "likelihood", [cells, visitor.models[0], "d3pm-absorbing", "any", 16, number])


def call_reconstruct(visitor: Visitor, number: int) -> None:
    noise = np.random.default_rng(number).integers(0, 256, (96, 96, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="photo.png"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(f"{visitor.url}/upload", head + file.getvalue() + b"\r\n--x--\r\n", headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        path = json.load(answer)[0]
    _call(visitor, "reconstruct", [{"path": path}, visitor.vqvae, "crop", 96])


KINDS: tuple[Callable[[Visitor, int], None], ...] = (
    run_and_download, leave_in_the_middle, compare, call_generate, call_likelihood, call_reconstruct,
)  # fmt: skip


def arrive(url: str, config: dict | None = None) -> Visitor:
    """A new visitor, who sees what models there are."""
    visitor = Visitor(url, config)
    choices = next(p for p in visitor.parts.values() if p["props"].get("label") == "Data")["props"]["choices"]
    visitor.models = [name for _, name in choices]
    visitor.vqvae = next(p for p in visitor.parts.values() if p["props"].get("label") == "VQ-VAE")["props"]["value"]
    return visitor


def _done(messages: Iterator[dict]) -> None:
    *_, last = messages
    if not last.get("success"):
        raise RuntimeError(f"not completed: {str(last)[:200]}")


def _call(visitor: Visitor, name: str, data: list) -> None:
    request = urllib.request.Request(f"{visitor.url}/call/{name}", json.dumps({"data": data}).encode(), BODY)
    with urllib.request.urlopen(request, timeout=60) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{visitor.url}/call/{name}/{event}", timeout=300) as stream:
        text = stream.read().decode()
    if "event: complete" not in text:
        raise RuntimeError(f"{name} not completed: {text[-200:]}")


def visits(url: str, pid: int, count: int, seconds: float) -> None:
    """So many visits, WORKERS at a time; prints what the app's process is like before, meanwhile and afterwards."""
    first = arrive(url)
    numbers, failures, done = itertools.count(), queue.Queue(), itertools.count(1)
    start = time.monotonic()

    def say(number: int) -> None:
        row = {
            "visits": number, "seconds": round(time.monotonic() - start), "memory_mb": memory(pid),
            "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
            "files": len(list(Path(f"/proc/{pid}/fd").iterdir())), "failed": failures.qsize(),
        }  # fmt: skip
        print(json.dumps(row), flush=True)

    def work() -> None:
        while (number := next(numbers)) < count and time.monotonic() < start + seconds:
            try:
                KINDS[number % len(KINDS)](arrive(url, first.config), number)
            except Exception as error:  # whatever a visitor may see is what is counted
                failures.put(f"{KINDS[number % len(KINDS)].__name__}: {type(error).__name__}: {error}"[:200])
            if (finished := next(done)) % 25 == 0:
                say(finished)

    for kind in range(len(KINDS)):  # every kind once, so that all that is loaded when first used is there
        KINDS[kind](arrive(url, first.config), 10**6 + kind)
    say(0)
    workers = [threading.Thread(target=work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    say(next(done) - 1)
    print(json.dumps({"kinds_of_failure": sorted(set(failures.queue))}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visits", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=600, help="after which no new visit is begun")
    parser.add_argument("--checkpoints", default=CHECKPOINTS)
    args = parser.parse_args()
    with app("--checkpoints", args.checkpoints) as (url, pid, _):
        visits(url, pid, args.visits, args.seconds)


if __name__ == "__main__":
    main()
