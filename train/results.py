"""Measure process x sampler x network calls, for one or more checkpoints; train.tables makes a page of it.

    python -m train.results [--checkpoints checkpoints/digits checkpoints/fashion] --data-root DATA [--minutes 30]
    python -m train.results --images 10000 --calls 100 --samplers dirichlet ancestral ddpm --data-root DATA
    python -m train.results --kinds time --data-root DATA    (on a machine that does nothing else)
    python -m train.results --checkpoints checkpoints/faces --data-root DATA/faces64 --split held-out \
        --images 1000 --bound-images 500

Every measured cell is appended to docs/results.jsonl at once, and cells measured before (same weights, setting, seed,
split and count) are skipped: run it again to go on; give another --out to measure anew. docs/results.md gets the
tables, between two marks that leave the rest of the page alone, and docs/fid-NAME.svg and .png the plots. Cells come in
the order of --calls.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from dd import results
from dd.checkpoints import Checkpoint, write_text
from dd.device import best_device, device
from dd.likelihood import Bound
from dd.metrics import NEIGHBOURS
from dd.processes import EVERY, Process, suits
from dd.processes.d3pm import D3PM
from dd.processes.dirichlet import Dirichlet
from dd.recipe import sampling_schedule, sampling_temperature
from dd.samplers import SCHEDULES, calls_per_step, schedules, steps_for
from train import bounds, judges, loading
from train.judges import Judge, sample_setting
from train.loading import load_cells, load_denoiser
from train.loop import sentences
from train.tables import Record, current, page, plot

CHECKPOINTS = ("checkpoints/digits", "checkpoints/fashion", "checkpoints/fashion-ddpm")
KINDS = ("bound", "samples", "flow-bound", "steps-bound", "time")
CALLS = (100, 50, 25, 10, 250)
TIMED = 16  # images of a timing at once, twice, since the first call compiles the network


def machine(device: torch.device) -> str:
    """What the seconds were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}, {threads}, torch {torch.__version__}"


def processes_of(checkpoint: Checkpoint, wanted: list[str] | None) -> list[Process]:
    """Those of them that its network answers, whatever it was trained on; all that there are by default."""
    config = checkpoint.config
    names = wanted or EVERY
    found = [loading.find_process(name, config) for name in names if suits(name, config["data"])]
    return [process for process in found if process.architecture == config["architecture"]]


def load_measurable(source: str | Path, device: torch.device) -> Checkpoint:
    checkpoint = load_denoiser(source, device)
    if checkpoint.config["data"]["source"] != "codes":
        return checkpoint
    return replace(checkpoint, config=loading.with_vqvae(source, checkpoint.config))


Job = tuple[Record, Callable[[], Record]]  # a setting, and what measures it


def jobs(args: argparse.Namespace, device: torch.device) -> Iterator[Job]:
    """What was asked for; last the times, which want a machine that does nothing else."""
    loaded = [load_measurable(source, device) for source in args.checkpoints]
    pairs = [(c, p) for c in loaded for p in processes_of(c, args.processes)]
    if not pairs:
        raise loading.EvaluationError(f"none of the checkpoints answers {', '.join(args.processes)}")
    known = {method for _, process in pairs for method in process.methods}
    if unknown := set(args.samplers or ()) - known:
        raise loading.EvaluationError(
            f"no sampler {unknown.pop()!r} among those of {', '.join(p.name for _, p in pairs)}; "
            f"choose from {', '.join(sorted(known))}"
        )
    wanted = [(c, p, sampler) for c, p in pairs for sampler in p.methods if sampler in (args.samplers or known)]
    wanted = [entry for entry in wanted if args.schedule in (None, *schedules(entry[1]))]
    cells = [(*entry, calls) for calls in args.calls for entry in wanted]
    if "bound" in args.kinds:
        yield from _bounds(args, pairs, device)
    if "samples" in args.kinds:
        yield from _samples(args, cells, device)
    if "flow-bound" in args.kinds:
        yield from _flow_bounds(args, pairs, device)
    if "steps-bound" in args.kinds:
        yield from _steps_bounds(args, pairs, device)
    if "time" in args.kinds:
        yield from _times(args, cells, device)


def _bounds(args: argparse.Namespace, pairs: list[tuple[Checkpoint, Process]], device: torch.device) -> Iterator[Job]:
    for checkpoint, process in (pair for pair in pairs if "bound" in pair[1].losses):
        setting = _setting(args, checkpoint, process, "bound") | {"images": args.bound_images}
        yield setting, _bound_job(args, checkpoint, device, setting, partial(bounds.continuous_bound, process))


def _samples(
    args: argparse.Namespace, cells: list[tuple[Checkpoint, Process, str, int]], device: torch.device
) -> Iterator[Job]:
    configs = {checkpoint.sha256: checkpoint.config for checkpoint, *_ in cells}
    judge_of = cache(lambda sha256: judges.find_judge(configs[sha256], args, device))
    for checkpoint, process, sampler, calls in cells:
        temperature, tilt = sampling_temperature(checkpoint.config, process, args.temperature, args.tilt)
        setting = _setting(args, checkpoint, process, "samples") | _sampling(args, checkpoint.config, sampler, calls)
        setting |= {"temperature": temperature, "tilt": tilt, "images": args.images}
        judge = judge_of(checkpoint.sha256)
        setting |= judge.name
        if not judges.classified(checkpoint.config):
            setting["split"] = "all"  # pictures in folders are judged against every one that there is
        yield setting, _samples_job(checkpoint, process, setting, judge)


def _flow_bounds(
    args: argparse.Namespace, pairs: list[tuple[Checkpoint, Process]], device: torch.device
) -> Iterator[Job]:
    for checkpoint, process in (pair for pair in pairs if isinstance(pair[1], Dirichlet)):
        setting = _setting(args, checkpoint, process, "flow-bound")
        setting |= {"images": args.flow_images, "steps": bounds.ODE_STEPS}
        yield setting, _bound_job(args, checkpoint, device, setting, partial(bounds.flow_bound, process))


def _steps_bounds(
    args: argparse.Namespace, pairs: list[tuple[Checkpoint, Process]], device: torch.device
) -> Iterator[Job]:
    chains = [(c, p) for c, p in pairs if isinstance(p, D3PM) and args.schedule in (None, *schedules(p))]
    for checkpoint, process in chains:
        schedule = sampling_schedule(checkpoint.config, process.methods[0], args.schedule)
        for steps in sorted({*args.calls, process.T}):
            setting = _setting(args, checkpoint, process, "steps-bound")
            setting |= {"images": args.steps_bound_images, "steps": steps, "schedule": schedule}
            bound = partial(bounds.chain_bound, process, steps=steps, schedule=schedule)
            yield setting, _bound_job(args, checkpoint, device, setting, bound)


def _times(
    args: argparse.Namespace, cells: list[tuple[Checkpoint, Process, str, int]], device: torch.device
) -> Iterator[Job]:
    """Seconds per image; every machine has cells of its own."""
    for checkpoint, process, sampler, calls in cells:
        setting = _setting(args, checkpoint, process, "time") | _sampling(args, checkpoint.config, sampler, calls)
        setting |= {"images": 2 * TIMED, "split": None, "machine": machine(device)}
        yield setting, _time_job(checkpoint, process, setting)


def _setting(args: argparse.Namespace, checkpoint: Checkpoint, process: Process, kind: str) -> Record:
    return {
        "kind": kind, "checkpoint": checkpoint.name, "sha256": checkpoint.sha256, "process": process.name,
        "split": args.split, "seed": args.seed,
    }  # fmt: skip


def _sampling(args: argparse.Namespace, config: dict[str, Any], sampler: str, calls: int) -> Record:
    steps = steps_for(calls, sampler, args.guidance)
    return {
        "sampler": sampler, "steps": steps, "guidance": args.guidance,
        "schedule": sampling_schedule(config, sampler, args.schedule),
        "calls": steps * calls_per_step(sampler, args.guidance), "budget": calls,
    }  # fmt: skip


def _bound_job(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    device: torch.device,
    setting: Record,
    bound: Callable[..., Bound],
) -> Callable[[], Record]:
    """bound(network=, x0=, generator=) of the images of a setting."""

    def measure() -> Record:
        x0 = load_cells(checkpoint.config, args.split, args.data_root, setting["images"], device)
        generator = torch.Generator().manual_seed(args.seed)
        made = bound(network=checkpoint.network, x0=x0, generator=generator)
        return bounds.likelihood(made, x0[0].numel())

    return measure


def _samples_job(checkpoint: Checkpoint, process: Process, setting: Record, judge: Judge) -> Callable[[], Record]:
    def measure() -> Record:
        standard = judge.standard()
        return standard.figures(sample_setting(checkpoint, process, setting, labels=standard.labels))

    return measure


def _time_job(checkpoint: Checkpoint, process: Process, setting: Record) -> Callable[[], Record]:
    def measure() -> Record:
        return {"seconds_per_image": sample_setting(checkpoint, process, setting, batch=TIMED).seconds_per_image}

    return measure


def measure_all(args: argparse.Namespace, device: torch.device, path: Path) -> bool:
    """Append what is not measured yet. False when the minutes ran out first."""
    known = results.read(path)
    start = time.monotonic()
    for setting, measure in jobs(args, device):
        if any(results.matches(record, setting) for record in known):
            continue
        if args.minutes is not None and time.monotonic() - start > 60 * args.minutes:
            return False
        record = setting | measure() | {"machine": machine(device)}
        append(path, record)
        known.append(record)
        print(json.dumps({k: v for k, v in record.items() if k not in ("sha256", "machine")}), flush=True)
    return True


def append(path: Path, record: Record) -> None:
    """One line more; a line cut short by a crash is closed first."""
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write((json.dumps(record) + "\n").encode())


@sentences()
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    complete = measure_all(args, args.device or best_device(), out / "results.jsonl")
    records = current(results.read(out / "results.jsonl"))
    md = out / "results.md"
    write_text(md, page(md.read_text() if md.is_file() else "", records))
    for name in dict.fromkeys(r["checkpoint"] for r in records if r["kind"] == "samples"):
        plot(name, records, out)
    print("complete" if complete else "the minutes are over; run the same command again to go on", flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure processes, samplers and network calls; resumable.")
    parser.add_argument("--checkpoints", nargs="+", default=CHECKPOINTS, help="folders of denoisers")
    parser.add_argument("--processes", nargs="+", help="default: all that the page offers for each checkpoint")
    parser.add_argument("--samplers", nargs="+", help="default: all that each process has")
    parser.add_argument("--calls", nargs="+", type=int, default=CALLS, help="network calls, in the order of work")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="what to measure")
    parser.add_argument("--images", type=int, default=2000, help="samples a cell, and real images to compare with")
    parser.add_argument("--bound-images", type=int, help="images of a bound (default: 10,000 of test, or 5,000)")
    parser.add_argument("--steps-bound-images", type=int, default=100, help="images of the bounds of so many steps")
    parser.add_argument("--flow-images", type=int, default=bounds.ODE_IMAGES, help="images of the flow's bound")
    parser.add_argument(
        "--schedule", choices=SCHEDULES, help="of the steps, where a process has it (default: as each checkpoint says)"
    )
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--temperature", type=float, help="of the samples (default: as each checkpoint says)")
    parser.add_argument("--tilt", type=float, help="of the temperature along t (default: as each checkpoint says)")
    parser.add_argument("--minutes", type=float, help="start no new cell after that many minutes")
    parser.add_argument("--split", default="test", choices=("held-out", "test"))
    parser.add_argument(
        "--classifier",
        help="folder of the judge, for pictures in folders of their class alone (default: the shipped one)",
    )
    parser.add_argument("--data-root", default="data", help="where torchvision finds or puts the data")
    parser.add_argument("--out", default=results.RESULTS.parent, help="folder of results.jsonl, results.md and plots")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=device, help="cpu, cuda, ... (default: the best there is)")
    args = parser.parse_args(argv)
    args.bound_images = args.bound_images or (10_000 if args.split == "test" else 5_000)
    if min(args.calls) < 1 or args.images <= NEIGHBOURS:
        parser.error(f"--calls must be at least 1 and --images more than {NEIGHBOURS}")
    return args


if __name__ == "__main__":
    main()
