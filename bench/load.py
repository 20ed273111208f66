"""Many clients at once: what visitors see when two cores are shared. Loopback only, bounded in time; prints JSON lines.

    python -m bench.load --clients 10 50 200 --seconds 60 [--checkpoints checkpoints] [--url http://127.0.0.1:7860]

Without --url it starts app.py itself. Every client, a gradio_client with its own session and connections, asks for one
run after the other until the time is over, every eighth one for a long run; whoever is told that the queue is full asks
again after BACK seconds. Then nobody asks any more, the line empties in its order until all who were let in have seen a
frame (at most --drain seconds), and what is under way is cancelled. First frame: from asking to the first step seen,
queue included. A probe fetches the whole page once a second meanwhile.

The clients live in PROCESSES processes and arrive within --arrive seconds. Making them is not part of the measurement,
and they take over the configuration that one of them has fetched; each process looks after its clients from one thread,
every LOOK seconds. What the clients themselves cost is reported, as they share the app's cores.
"""

import argparse
import copy
import json
import multiprocessing
import os
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import numpy as np
from gradio_client import Client
from gradio_client.client import Job

from bench.app import CHECKPOINTS, app, memory

FULL = "Queue is full"
LONG_EVERY = 8
PROCESSES = 3
LOOK = 0.05  # seconds between two looks at a client; what a first frame's time may be off by
BACK = 5.0  # seconds until a refused client asks again


@dataclass
class Ask:
    """What is asked for: reverse steps of a short and of a long run, images of either."""

    steps: int
    long_steps: int
    images: int


@dataclass
class Tally:
    """What the clients of one process saw. cpu: processor seconds that they took, set-up not counted."""

    first_frame: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    runs: int = 0
    steps: int = 0
    steps_by_then: int = 0
    cancelled: int = 0
    unseen: int = 0
    cpu: float = 0.0


class Like(Client):
    """A client of its own that takes over what another one has fetched: the configuration of the app."""

    def __init__(self, other: Client):
        self.other = other
        super().__init__(other.src, verbose=False, ssl_verify=False)  # loading certificates would cost 20 ms a request

    def _get_config(self) -> dict:
        return copy.deepcopy(self.other.config)

    def _get_api_info(self) -> dict:
        return copy.deepcopy(self.other._info)


class Visit:
    """One client asking for run after run; `look` sees what has happened since the last time."""

    def __init__(self, client: Client, number: int, ask: Ask, arrives: float):
        steps = ask.steps if number % LONG_EVERY else ask.long_steps
        self.client, self.again = client, arrives
        self.asked_for = {"steps": steps, "images": ask.images, "seed": number, "frames": True}
        self.job: Job | None = None
        self.seen = 0
        self.asked = 0.0

    @property
    def waits(self) -> bool:
        """Let in, as far as is known, and without a frame yet."""
        return self.job is not None and not self.seen

    def look(self, now: float, open_: bool, tally: Tally) -> None:
        if self.job is None:
            if open_ and now >= self.again:
                self.asked, self.seen = now, 0
                self.job = self.client.submit(**self.asked_for, api_name="/generate")
            return
        done = self.job.done()  # before the outputs are counted, so that none is missed
        fresh = len(self.job.communicator.job.outputs) - self.seen
        tally.steps += fresh
        if fresh and not self.seen:
            tally.first_frame.append(now - self.asked)
        self.seen += fresh
        if done:
            self.finish(now, tally)

    def finish(self, now: float, tally: Tally) -> None:
        error = self.job.exception()
        if error is None:
            tally.runs += 1
        elif FULL in str(error):
            tally.refusals.append(now - self.asked)
            self.again = now + BACK
        else:
            tally.errors.append(f"{type(error).__name__}: {error}"[:200])
            self.again = now + BACK
        self.job = None


def attend(numbers: list[int], url: str, ask: Ask, times: tuple, ready: Barrier, over: Event, waiting, into) -> None:
    """All clients of one process, from one thread. times: seconds of (arriving, asking). waiting: how many still do."""
    arrive, seconds = times
    first = Client(url, verbose=False, ssl_verify=False)
    clients = [Like(first) for _ in numbers]
    ready.wait(timeout=300)
    start, cpu, tally = time.monotonic(), time.process_time(), Tally()
    total = max(numbers) + 1
    visits = [Visit(c, i, ask, start + arrive * i / total) for c, i in zip(clients, numbers, strict=True)]
    while not over.is_set():
        now = time.monotonic()
        open_ = now < start + seconds
        for visit in visits:
            visit.look(now, open_, tally)
        if open_:
            tally.steps_by_then = tally.steps
        waiting.value = len(visits) if open_ else sum(visit.waits for visit in visits)
        time.sleep(max(0.0, now + LOOK - time.monotonic()))
    tally.cpu = time.process_time() - cpu
    jobs = [visit.job for visit in visits if visit.job is not None]
    tally.cancelled, tally.unseen = len(jobs), sum(visit.waits for visit in visits)
    into.put(tally)
    for job in jobs:
        job.cancel()
    os._exit(0)  # a hundred threads of clients that nobody needs any more


def measure(url: str, pid: int | None, clients: int, seconds: float, ask: Ask, arrive: float, drain: float) -> dict:
    """`clients` visits at once, asking for `seconds`."""
    context = multiprocessing.get_context("spawn")
    parts = [list(range(i, clients, PROCESSES)) for i in range(min(PROCESSES, clients))]
    ready, over, into = context.Barrier(len(parts) + 1), context.Event(), context.Queue()
    waiting = [context.Value("i", 0, lock=False) for _ in parts]
    started = [
        context.Process(target=attend, args=(part, url, ask, (arrive, seconds), ready, over, left, into), daemon=True)
        for part, left in zip(parts, waiting, strict=True)
    ]
    for process in started:
        process.start()
    ready.wait(timeout=300)
    before, busy, start = memory(pid), cpu_seconds(pid), time.monotonic()
    pages = probe(url, over)
    while time.monotonic() < start + seconds:
        time.sleep(0.1)
    busy = None if busy is None else round((cpu_seconds(pid) - busy) / seconds, 2)
    time.sleep(4 * LOOK)
    while any(left.value for left in waiting) and time.monotonic() < start + seconds + drain:
        time.sleep(LOOK)
    elapsed = time.monotonic() - start
    over.set()
    tallies = [into.get(timeout=60) for _ in started]
    for process in started:
        process.join(30)
        process.kill()

    def every(name: str) -> list:
        return [value for tally in tallies for value in getattr(tally, name)]

    def total(name: str) -> float:
        return sum(getattr(tally, name) for tally in tallies)

    frames = every("first_frame") + [float("inf")] * total("unseen")
    return {
        "clients": clients,
        "seconds_asking": seconds,
        "seconds_in_all": round(elapsed, 1),
        "runs": total("runs"),
        "steps_per_second": round(total("steps_by_then") / seconds, 2),
        "images_steps_per_second": round(total("steps_by_then") * ask.images / seconds, 1),
        "let_in": len(frames),
        "first_frame_p50_s": percentile(frames, 50),
        "first_frame_p95_s": percentile(frames, 95),
        "no_frame_in_the_end": total("unseen"),
        "refused_queue_full": len(every("refusals")),
        "refusal_p50_s": percentile(every("refusals"), 50),
        "refusal_p95_s": percentile(every("refusals"), 95),
        "cancelled_at_the_end": total("cancelled"),
        "errors": len(every("errors")),
        "kinds_of_error": sorted(set(every("errors")))[:5],
        "page_p50_s": percentile(pages, 50),
        "page_p95_s": percentile(pages, 95),
        "cores_app": busy,
        "cores_clients": round(total("cpu") / elapsed, 2),
        "memory_mb_before": before,
        "memory_mb_after": memory(pid),
    }


def probe(url: str, over: Event) -> list[float]:
    """Seconds that the page takes, once a second until it is over; a page that fails counts as infinite."""
    seconds: list[float] = []

    def go() -> None:
        while not over.wait(1):
            start = time.monotonic()
            try:
                with urllib.request.urlopen(url, timeout=30) as answer:
                    answer.read()
                seconds.append(time.monotonic() - start)
            except OSError:
                seconds.append(float("inf"))

    threading.Thread(target=go, daemon=True).start()
    return seconds


def percentile(values: list[float], q: float) -> float | None:
    """None where there are no values, or where the percentile is one that never came."""
    value = float(np.percentile(values, q, method="higher")) if values else float("inf")
    return round(value, 3) if np.isfinite(value) else None


def cpu_seconds(pid: int | None) -> float | None:
    """Processor seconds of a process; None where they cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--seconds", type=float, default=60, help="of asking, in every measurement")
    parser.add_argument("--arrive", type=float, default=10, help="seconds within which the clients arrive")
    parser.add_argument("--drain", type=float, default=150, help="seconds that those in the line may still wait")
    parser.add_argument("--steps", type=int, default=16, help="of a short run")
    parser.add_argument("--long-steps", type=int, default=200, help=f"of every {LONG_EVERY}th client's runs")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--checkpoints", default=CHECKPOINTS)
    parser.add_argument("--queue-size", type=int, default=64)
    parser.add_argument("--url", help="an app that runs already (then memory is not known)")
    args = parser.parse_args()
    ask = Ask(args.steps, args.long_steps, args.images)

    def each(url: str, pid: int | None) -> None:
        for clients in args.clients:
            found = measure(url, pid, clients, args.seconds, ask, args.arrive, args.drain)
            print(json.dumps(vars(ask) | {"cores": os.cpu_count(), "load": os.getloadavg()[0]} | found), flush=True)

    if args.url:
        each(args.url, None)
    else:
        with app("--checkpoints", args.checkpoints, "--queue-size", str(args.queue_size)) as (url, pid, _):
            each(url, pid)


if __name__ == "__main__":
    main()
