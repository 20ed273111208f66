"""The results table: process x sampler x network calls, for one or more checkpoints.

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

import matplotlib
import torch

from dd import results
from dd.checkpoints import Checkpoint, write_text
from dd.device import best_device, device
from dd.likelihood import Bound
from dd.metrics import NEIGHBOURS
from dd.perceptual import WEIGHTS
from dd.processes import EVERY, Process, suits
from dd.processes.d3pm import D3PM
from dd.processes.dirichlet import Dirichlet
from dd.recipe import sampling_schedule, sampling_temperature
from dd.samplers import SCHEDULES, calls_per_step, schedules, steps_for
from train import bounds, judges, loading
from train.judges import Judge, sample_setting
from train.loading import load_cells, load_denoiser
from train.loop import sentences

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import NullLocator

CHECKPOINTS = ("checkpoints/digits", "checkpoints/fashion", "checkpoints/fashion-ddpm")
KINDS = ("bound", "samples", "flow-bound", "steps-bound", "time")
TIMED = 16  # images of a timing at once, twice, since the first call compiles the network
CALLS = (100, 50, 25, 10, 250)
BEGIN, END = "<!-- train.results: begin -->", "<!-- train.results: end -->"
SAMPLER = ("process", "sampler", "schedule")
FIGURES = {"fid": "FID", "precision": "Precision", "recall": "Recall", "accuracy": "Class accuracy"}
Record = dict[str, Any]


# -- measuring ---------------------------------------------------------------------------------------------------------


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
    return [process_ for process_ in found if process_.architecture == config["architecture"]]


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
    known = {method for _, process_ in pairs for method in process_.methods}
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
    for checkpoint, process_ in (pair for pair in pairs if "bound" in pair[1].losses):
        setting = _setting(args, checkpoint, process_, "bound") | {"images": args.bound_images}
        yield setting, _bound_job(args, checkpoint, device, setting, partial(bounds.continuous_bound, process_))


def _samples(
    args: argparse.Namespace, cells: list[tuple[Checkpoint, Process, str, int]], device: torch.device
) -> Iterator[Job]:
    configs = {checkpoint.sha256: checkpoint.config for checkpoint, *_ in cells}
    judge = cache(lambda sha256: judges.find_judge(configs[sha256], args, device))
    for checkpoint, process_, sampler, calls in cells:
        temperature, tilt = sampling_temperature(checkpoint.config, process_, args.temperature, args.tilt)
        setting = _setting(args, checkpoint, process_, "samples") | _sampling(args, checkpoint.config, sampler, calls)
        setting |= {"temperature": temperature, "tilt": tilt, "images": args.images}
        judge_ = judge(checkpoint.sha256)
        setting |= judge_.name
        if not judges.classified(checkpoint.config):
            setting["split"] = "all"  # pictures in folders are judged against every one that there is
        yield setting, _samples_job(checkpoint, process_, setting, judge_)


def _flow_bounds(
    args: argparse.Namespace, pairs: list[tuple[Checkpoint, Process]], device: torch.device
) -> Iterator[Job]:
    for checkpoint, process_ in (pair for pair in pairs if isinstance(pair[1], Dirichlet)):
        setting = _setting(args, checkpoint, process_, "flow-bound")
        setting |= {"images": args.flow_images, "steps": bounds.ODE_STEPS}
        yield setting, _bound_job(args, checkpoint, device, setting, partial(bounds.flow_bound, process_))


def _steps_bounds(
    args: argparse.Namespace, pairs: list[tuple[Checkpoint, Process]], device: torch.device
) -> Iterator[Job]:
    for checkpoint, process_ in (pair for pair in pairs if isinstance(pair[1], D3PM)):
        schedule = sampling_schedule(checkpoint.config, process_.methods[0], args.schedule)
        for steps in sorted({*args.calls, process_.T}):
            setting = _setting(args, checkpoint, process_, "steps-bound")
            setting |= {"images": args.steps_bound_images, "steps": steps, "schedule": schedule}
            bound = partial(bounds.chain_bound, process_, steps=steps, schedule=schedule)
            yield setting, _bound_job(args, checkpoint, device, setting, bound)


def _times(
    args: argparse.Namespace, cells: list[tuple[Checkpoint, Process, str, int]], device: torch.device
) -> Iterator[Job]:
    """Seconds per image; every machine has cells of its own."""
    for checkpoint, process_, sampler, calls in cells:
        setting = _setting(args, checkpoint, process_, "time") | _sampling(args, checkpoint.config, sampler, calls)
        setting |= {"images": 2 * TIMED, "split": None, "machine": machine(device)}
        yield setting, _time_job(checkpoint, process_, setting)


def _setting(args: argparse.Namespace, checkpoint: Checkpoint, process_: Process, kind: str) -> Record:
    return {
        "kind": kind, "checkpoint": checkpoint.name, "sha256": checkpoint.sha256, "process": process_.name,
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


def _samples_job(checkpoint: Checkpoint, process_: Process, setting: Record, judge: Judge) -> Callable[[], Record]:
    def measure() -> Record:
        standard = judge.standard()
        return standard.figures(sample_setting(checkpoint, process_, setting, labels=standard.labels))

    return measure


def _time_job(checkpoint: Checkpoint, process_: Process, setting: Record) -> Callable[[], Record]:
    def measure() -> Record:
        return {"seconds_per_image": sample_setting(checkpoint, process_, setting, batch=TIMED).seconds_per_image}

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


# -- the page ----------------------------------------------------------------------------------------------------------


def current(records: list[Record]) -> list[Record]:
    """Those of each checkpoint's latest weights."""
    latest = {r["checkpoint"]: r["sha256"] for r in records}
    return [r for r in records if latest[r["checkpoint"]] == r["sha256"]]


def of_checkpoint(records: list[Record], name: str) -> list[Record]:
    """Those of that checkpoint, process by process."""
    return sorted((r for r in records if r["checkpoint"] == name), key=lambda r: list(EVERY).index(r["process"]))


def tables(records: list[Record]) -> str:
    """Markdown for all records: a section per checkpoint, in it a table per kind of sample."""
    out = []
    for name in dict.fromkeys(r["checkpoint"] for r in records):
        mine = of_checkpoint(records, name)
        out.append(f"### {name}\n\nWeights `{mine[0]['sha256'][:12]}`.\n")
        totals = [r for r in mine if r["kind"] in ("bound", "flow-bound")]
        if totals:
            out.append(_bound_table(totals))
        steps_bounds = [r for r in mine if r["kind"] == "steps-bound"]
        if steps_bounds:
            out.append(_steps_bound_table(steps_bounds))
        samples = [r for r in mine if r["kind"] == "samples"]
        for group in sorted(dict.fromkeys(map(_group, samples)), key=lambda group: -group[4]):  # most samples first
            out.append(_sample_tables([r for r in samples if _group(r) == group]))
        times = [r for r in mine if r["kind"] == "time"]
        for kind in dict.fromkeys((r["guidance"], r["machine"]) for r in times):
            out.append(_time_table([r for r in times if (r["guidance"], r["machine"]) == kind]))
        if plotted(samples):
            out.append(f"![FID and time against network calls](fid-{name}.svg)\n")
    return "\n".join(out)


def _bound_table(records: list[Record]) -> str:
    lines = [
        "Likelihood bound, without class label: in continuous time, for chains L_vb of all their steps, one drawn at "
        f"random for every image; flow: of the probability-flow ODE, {bounds.ODE_STEPS} Heun steps, exact end "
        "densities, Hutchinson divergence.\n",
        "| process | nats per image | bits per dimension | images | split | seed |",
        "|---|---|---|---|---|---|",
    ]
    for r in records:
        name = r["process"] + (", flow" if r["kind"] == "flow-bound" else "")
        figure = f"{r['nll_nats']:.2f} ± {r['nll_stderr']:.2f}"
        lines.append(f"| {name} | {figure} | {r['bits_per_dim']:.4f} | {r['images']:,} | {r['split']} | {r['seed']} |")
    return "\n".join(lines) + "\n"


def _steps_bound_table(records: list[Record]) -> str:
    """One for every schedule and number of images: more of them are others."""
    out, keys = [], ("images", "split", "schedule")
    for images, split, schedule in dict.fromkeys(tuple(r[key] for key in keys) for r in records):
        mine = [r for r in records if tuple(r[key] for key in keys) == (images, split, schedule)]
        head = f"L_vb of sampling in that many steps of the schedule {schedule}, every term, nats per image"
        table = _by(mine, "steps", ("process",), lambda r: f"{r['nll_nats']:.2f} ± {r['nll_stderr']:.2f}")
        same = "the same in every cell, so that differences between cells are surer than ± says"
        out.append(f"{head} ({images:,} images of the {split} split, {same}):\n\n{table}")
    return "\n".join(out)


def _group(record: Record) -> tuple:
    """Cells that can be compared with each other."""
    keys = ("split", "guidance", "temperature", "tilt", "images", "seed", "judge", "class_judge")
    return tuple(record.get(key) for key in keys)


def _sample_tables(cells: list[Record]) -> str:
    split, guidance, temperature, tilt, images, seed, *_ = _group(cells[0])
    name = cells[0]["checkpoint"]
    floor_ = cells[0]["fid_floor"]
    pictures = cells[0]["judge"] == WEIGHTS  # in folders, set against all of them, whatever the split
    floor_of = "as many pictures, as their cells show them" if pictures else "training images against the same"
    against = "every picture" if pictures else f"{images:,} images of the {split} split"
    lines = [
        f"#### {name}, {images:,} samples, temperature {temperature:g}{f', tilt {tilt:g}' if tilt else ''}, "
        f"guidance {guidance:g}\n",
        f"Seed {seed}, against {against}. FID floor ({floor_of}): {floor_:.3f}{_scatter(cells)}.\n",
    ]
    if len({r["budget"] for r in cells}) > 1:
        for key, title in FIGURES.items():
            if known := [r for r in cells if r[key] is not None]:
                lines += [
                    f"{title} by network calls:\n",
                    _by(known, "budget", SAMPLER, lambda r, k=key: results.short(r[k])),
                ]
        return "\n".join(lines)
    lines += [
        f"| {' | '.join([*SAMPLER, 'calls', *FIGURES.values()])} |",
        "|" + "---|" * (len(SAMPLER) + 1 + len(FIGURES)),
    ]
    for r in cells:
        figures = ("" if r[key] is None else results.short(r[key]) for key in FIGURES)
        lines.append(f"| {' | '.join([*(r[key] for key in SAMPLER), str(r['calls']), *figures])} |")
    return "\n".join(lines) + "\n"


def _scatter(cells: list[Record]) -> str:
    """What a single floor is off by, where a cell knows it."""
    known = [r["fid_floor_sd"] for r in cells if r.get("fid_floor_sd")]
    return f", with a standard deviation of {known[0]:.2g} from draw to draw" if known else ""


def _time_table(times: list[Record]) -> str:
    of, at_once = times[0], f"{TIMED} images at once"
    head = f"Seconds per image by network calls, guidance {of['guidance']:g}, {at_once}, on {of['machine']}:"
    return f"{head}\n\n" + _by(times, "budget", SAMPLER, lambda r: f"{r['seconds_per_image']:.3g}")


def _by(cells: list[Record], column: str, row: tuple[str, ...], figure: Callable[[Record], str]) -> str:
    """A table of figures: a column for every value of the key `column`, a row for every one of the keys `row`."""
    columns = sorted({r[column] for r in cells})
    rows: dict[tuple, dict] = {}
    for r in cells:
        rows.setdefault(tuple(r[key] for key in row), {})[r[column]] = figure(r)
    lines = [f"| {' | '.join([*row, *map(str, columns)])} |", "|" + "---|" * (len(row) + len(columns))]
    lines += [f"| {' | '.join([*name, *(figures.get(c, '') for c in columns)])} |" for name, figures in rows.items()]
    return "\n".join(lines) + "\n"


def page(old: str, records: list[Record]) -> str:
    """The page with everything between the marks replaced; the marks are added at the end where there are none."""
    text = (
        f"{BEGIN}\n\nMade by `python -m train.results --checkpoints checkpoints/NAME --data-root DATA`, with "
        "`--kinds`, `--processes`, `--samplers`, `--calls`, `--schedule`, `--images`, `--bound-images`, `--split` "
        "and `--seed` as each table says (faces: DATA/faces64). FID, "
        f"precision and recall (k = {NEIGHBOURS}) are in the features of the project's own classifier, or for faces of "
        "SqueezeNet, and compare only with each other, at the same number of images. Heun and Langevin steps call "
        "the network twice, guidance doubles every call; a column may hold a cell with up to three calls "
        f"fewer than its head.\n\n{tables(records)}\n{END}"
    )
    if BEGIN in old and END in old:
        return old[: old.index(BEGIN)] + text + old[old.index(END) + len(END) :]
    return (old.rstrip() or "# Results") + f"\n\n{text}\n"


def plotted(samples: list[Record]) -> list[Record]:
    """The group with most settings, where it has more than one number of calls."""
    groups = [[r for r in samples if _group(r) == group] for group in dict.fromkeys(map(_group, samples))]
    cells = max(groups, key=lambda cells: (len(cells), cells[0]["images"]), default=[])
    return cells if len({r["budget"] for r in cells}) > 1 else []


def timed(times: list[Record]) -> list[Record]:
    """Those of the machine with the most of them, the latest of equals."""
    machines = list(dict.fromkeys(r["machine"] for r in times))[::-1]
    count = {name: sum(r["machine"] == name for r in times) for name in machines}
    chosen = max(machines, key=count.get, default=None)
    return [r for r in times if r["machine"] == chosen]


def plot(name: str, records: list[Record], folder: Path) -> None:
    """FID and seconds against network calls, one line a process and sampler."""
    mine = of_checkpoint(records, name)
    samples, times = ([r for r in mine if r["kind"] == kind] for kind in ("samples", "time"))
    if not (cells := plotted(samples)):
        return
    colours = {p: f"C{i}" for i, p in enumerate(dict.fromkeys(r["process"] for r in cells))}
    codes = cells[0]["judge"] == WEIGHTS
    panels = [("fid", f"FID ({'SqueezeNet' if codes else 'own classifier'})", cells)]
    times = timed([r for r in times if r["guidance"] == cells[0]["guidance"]])
    panels += [("seconds_per_image", "seconds per image", times)] if times else []
    matplotlib.rcParams["svg.hashsalt"] = name
    figure, axes = pyplot.subplots(
        1, len(panels), squeeze=False, figsize=(2 + 4.5 * len(panels), 4.2), layout="constrained"
    )
    axes = axes[0]
    for process_, *how in dict.fromkeys(tuple(r[key] for key in SAMPLER) for r in cells):
        mine = dict.fromkeys((r["sampler"], r["schedule"]) for r in cells if r["process"] == process_)
        i = list(mine).index(tuple(how))
        style = {"color": colours[process_], "marker": "osD^vP*"[i % 7], "linestyle": ("-", "--", ":", "-.")[i % 4]}
        for axis, (what, _, known) in zip(axes, panels, strict=True):
            line = [r for r in known if [r[key] for key in SAMPLER] == [process_, *how]]
            line.sort(key=lambda r: r["calls"])
            axis.plot([r["calls"] for r in line], [r[what] for r in line], label=" · ".join((process_, *how)), **style)
    axes[0].axhline(cells[0]["fid_floor"], color="grey", linewidth=1)
    floor_ = "rebuilt pictures" if codes else "floor: training images"
    axes[0].annotate(floor_, (0.01, cells[0]["fid_floor"]), xycoords=("axes fraction", "data"),
                     va="bottom", color="grey", fontsize=8)  # fmt: skip
    for axis, (_, label, _) in zip(axes, panels, strict=True):
        axis.set(xscale="log", yscale="log", xlabel="network calls", ylabel=label)
        axis.set_xticks(budgets := sorted({r["budget"] for r in cells}), budgets)
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
    axes[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.suptitle(f"{name}: {cells[0]['images']:,} samples a point")
    for suffix, metadata in (("svg", {"Date": None}), ("png", {})):
        figure.savefig(folder / f"fid-{name}.{suffix}", dpi=110, metadata=metadata)
    pyplot.close(figure)


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
