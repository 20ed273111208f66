"""Many clients at once: what visitors see when two cores are shared. Loopback only, bounded in time; prints JSON.

    python -m bench.load --clients 10 50 200 --seconds 60 [--checkpoints checkpoints] [--url http://127.0.0.1:7860]

Without --url it starts app.py itself. Every client, a gradio_client of its own, asks for one run after the other until
the time is over, every eighth one for a long run; what is under way then is cancelled. First frame: from asking to the
first step seen, queue included.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gradio_client import Client

REPOSITORY = Path(__file__).parents[1]
FULL = "Queue is full"
LONG_EVERY = 8


@dataclass
class Tally:
    """What all clients of one measurement saw."""

    first_frame: list[float] = field(default_factory=list)
    runs: list[float] = field(default_factory=list)
    steps: int = 0
    refused: int = 0
    cancelled: int = 0
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def visit(client: Client, number: int, steps: tuple[int, int], images: int, until: float, tally: Tally) -> None:
    """One client's visit: runs until the time is over. A refusal is waited out for a second."""
    while time.monotonic() < until:
        asked = time.monotonic()
        job = client.submit(
            steps=steps[number % LONG_EVERY == 0], images=images, seed=number, frames=True, api_name="/generate"
        )
        seen = 0
        try:
            while not job.done() or seen < len(job.outputs()):
                now = time.monotonic()
                fresh = len(job.outputs()) - seen
                with tally.lock:
                    tally.steps += fresh
                    if fresh and not seen:
                        tally.first_frame.append(now - asked)
                seen += fresh
                if now >= until and not job.done():
                    job.cancel()
                    with tally.lock:
                        tally.cancelled += 1
                    return
                time.sleep(0.02)
            job.result()
            with tally.lock:
                tally.runs.append(time.monotonic() - asked)
        except Exception as error:  # whatever a client may see is what is counted
            refused = FULL in str(error)
            with tally.lock:
                tally.refused += refused
                if not refused:
                    tally.errors.append(f"{type(error).__name__}: {error}"[:200])
            time.sleep(1)


def measure(url: str, pid: int | None, clients: int, seconds: float, steps: tuple[int, int], images: int) -> dict:
    """`clients` visits at once for `seconds`."""
    visitors = [Client(url, verbose=False) for _ in range(clients)]
    before, tally = memory(pid), Tally()
    start = time.monotonic()
    threads = [
        threading.Thread(target=visit, args=(visitor, i, steps, images, start + seconds, tally), daemon=True)
        for i, visitor in enumerate(visitors)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, start + seconds + 60 - time.monotonic()))
    elapsed = time.monotonic() - start
    stuck = sum(thread.is_alive() for thread in threads)
    for visitor in visitors:
        visitor.close()
    return {
        "clients": clients,
        "seconds": round(elapsed, 1),
        "runs": len(tally.runs),
        "steps_per_second": round(tally.steps / elapsed, 2),
        "images_steps_per_second": round(tally.steps * images / elapsed, 1),
        "first_frame_p50_s": percentile(tally.first_frame, 50),
        "first_frame_p95_s": percentile(tally.first_frame, 95),
        "refused_queue_full": tally.refused,
        "cancelled_at_the_end": tally.cancelled,
        "clients_stuck": stuck,
        "errors": len(tally.errors),
        "kinds_of_error": sorted(set(tally.errors))[:5],
        "memory_mb_before": before,
        "memory_mb_after": memory(pid),
    }


def percentile(values: list[float], q: float) -> float | None:
    return round(float(np.percentile(values, q)), 3) if values else None


def memory(pid: int | None) -> float | None:
    """Resident memory of a process, in megabytes; None where it cannot be read."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


@contextmanager
def app(checkpoints: str, queue_size: int) -> Iterator[tuple[str, int]]:
    """The app in its own process: its address and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port), "--checkpoints", checkpoints]
    command += ["--queue-size", str(queue_size)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                urllib.request.urlopen(url, timeout=20).close()
                break
            except (urllib.error.URLError, OSError):
                if process.poll() is not None:
                    sys.exit("the app has ended before it answered")
                time.sleep(0.5)
        yield url, process.pid
        process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--seconds", type=float, default=60, help="of every measurement")
    parser.add_argument("--steps", type=int, default=16, help="of a short run")
    parser.add_argument("--long-steps", type=int, default=200, help=f"of every {LONG_EVERY}th client's runs")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=1, help="rounds, for memory over time")
    parser.add_argument("--checkpoints", default=str(REPOSITORY / "checkpoints"))
    parser.add_argument("--queue-size", type=int, default=64)
    parser.add_argument("--url", help="an app that runs already (then memory is not known)")
    args = parser.parse_args()
    steps = (args.steps, args.long_steps)

    def rounds(url: str, pid: int | None) -> list[dict]:
        plan = [clients for _ in range(args.repeat) for clients in args.clients]
        return [measure(url, pid, clients, args.seconds, steps, args.images) for clients in plan]

    if args.url:
        results = rounds(args.url, None)
    else:
        with app(args.checkpoints, args.queue_size) as (url, pid):
            results = rounds(url, pid)
    machine = {"cores": os.cpu_count(), "load_average": os.getloadavg()[0]}
    asked = {"steps": args.steps, "long_steps": args.long_steps, "images": args.images, "queue_size": args.queue_size}
    print(json.dumps({"machine": machine, "asked": asked, "results": results}, indent=2))


if __name__ == "__main__":
    main()
