"""What docs/results.md says of the records in docs/results.jsonl: its tables, and the plots beside it.

A record is one measured cell, a line of results.jsonl (train.results).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

from dd import results
from dd.metrics import NEIGHBOURS
from dd.perceptual import WEIGHTS
from dd.processes import EVERY

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import NullLocator

BEGIN, END = "<!-- train.results: begin -->", "<!-- train.results: end -->"
SAMPLER = ("process", "sampler", "schedule")
FIGURES = {"fid": "FID", "precision": "Precision", "recall": "Recall", "accuracy": "Class accuracy"}
Record = dict[str, Any]


def current(records: list[Record]) -> list[Record]:
    """Those of each checkpoint's latest weights."""
    latest = {r["checkpoint"]: r["sha256"] for r in records}
    return [r for r in records if latest[r["checkpoint"]] == r["sha256"]]


def of_checkpoint(records: list[Record], name: str) -> list[Record]:
    """Those of that checkpoint, process by process."""
    return sorted((r for r in records if r["checkpoint"] == name), key=lambda r: list(EVERY).index(r["process"]))


def markdown(records: list[Record]) -> str:
    """A section per checkpoint: its bounds, its samples, its times."""
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
        for group in dict.fromkeys(map(_group, sorted(samples, key=lambda r: -r["images"]))):
            out.append(_sample_tables([r for r in samples if _group(r) == group]))
        times = [r for r in mine if r["kind"] == "time"]
        for kind in dict.fromkeys((r["guidance"], r["machine"], r["seed"]) for r in times):
            out.append(_time_table([r for r in times if (r["guidance"], r["machine"], r["seed"]) == kind]))
        if plotted(samples):
            out.append(f"![FID and time against network calls](fid-{name}.svg)\n")
    return "\n".join(out)


def _bound_table(records: list[Record]) -> str:
    flow = ""
    if steps := {r["steps"] for r in records if r["kind"] == "flow-bound"}:
        heun = " and ".join(map(str, sorted(steps)))
        flow = f"; flow: of the probability-flow ODE, {heun} Heun steps, exact end densities, Hutchinson divergence"
    lines = [
        "Likelihood bound, without class label: in continuous time, for chains L_vb of all their steps, one drawn at "
        f"random for every image{flow}.\n",
        "| process | nats per image | bits per dimension | images | split | seed |",
        "|---|---|---|---|---|---|",
    ]
    for r in records:
        name = r["process"] + (", flow" if r["kind"] == "flow-bound" else "")
        figure = f"{r['nll_nats']:.2f} ± {r['nll_stderr']:.2f}"
        lines.append(f"| {name} | {figure} | {r['bits_per_dim']:.4f} | {r['images']:,} | {r['split']} | {r['seed']} |")
    return "\n".join(lines) + "\n"


def _steps_bound_table(records: list[Record]) -> str:
    """One for every schedule, seed and number of images: more of them are others."""
    out, keys = [], ("images", "split", "schedule", "seed")
    for kind in dict.fromkeys(tuple(r[key] for key in keys) for r in records):
        images, split, schedule, seed = kind
        mine = [r for r in records if tuple(r[key] for key in keys) == kind]
        head = f"L_vb of sampling in that many steps of the schedule {schedule}, every term, nats per image"
        table = _by(mine, "steps", ("process",), lambda r: f"{r['nll_nats']:.2f} ± {r['nll_stderr']:.2f}")
        same = "the same in every cell, so that differences between cells are surer than ± says"
        out.append(f"{head} (seed {seed}, {images:,} images of the {split} split, {same}):\n\n{table}")
    return "\n".join(out)


def _group(record: Record) -> tuple:
    """Cells that can be compared with each other."""
    keys = ("split", "guidance", "temperature", "tilt", "images", "seed", "judge", "class_judge")
    return tuple(record.get(key) for key in keys)


def _sample_tables(cells: list[Record]) -> str:
    split, guidance, temperature, tilt, images, seed, *_ = _group(cells[0])
    name = cells[0]["checkpoint"]
    floor = cells[0]["fid_floor"]
    pictures = cells[0]["judge"] == WEIGHTS  # in folders, set against all of them, whatever the split
    floor_of = "as many pictures, as their cells show them" if pictures else "training images against the same"
    against = "every picture" if pictures else f"{images:,} images of the {split} split"
    lines = [
        f"#### {name}, {images:,} samples, temperature {temperature:g}{f', tilt {tilt:g}' if tilt else ''}, "
        f"guidance {guidance:g}\n",
        f"Seed {seed}, against {against}. FID floor ({floor_of}): {floor:.3f}{_scatter(cells)}.\n",
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
    of = times[0]
    how = f"guidance {of['guidance']:g}, seed {of['seed']}, {of['images'] // 2} images at once, twice"
    head = f"Seconds per image by network calls, {how}, on {of['machine']}:"
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
        f"fewer than its head.\n\n{markdown(records)}\n{END}"
    )
    if BEGIN in old and END in old:
        return old[: old.index(BEGIN)] + text + old[old.index(END) + len(END) :]
    return (old.rstrip() or "# Results") + f"\n\n{text}\n"


def plotted(samples: list[Record]) -> list[Record]:
    """The group with most settings, where it has more than one number of calls."""
    groups = [[r for r in samples if _group(r) == group] for group in dict.fromkeys(map(_group, samples))]
    cells = max(groups, key=lambda cells: (len(cells), cells[0]["images"]), default=[])
    return cells if len({r["budget"] for r in cells}) > 1 else []


def of_one_machine(times: list[Record]) -> list[Record]:
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
    times = of_one_machine([r for r in times if r["guidance"] == cells[0]["guidance"]])
    panels += [("seconds_per_image", "seconds per image", times)] if times else []
    matplotlib.rcParams["svg.hashsalt"] = name
    figure, axes = pyplot.subplots(
        1, len(panels), squeeze=False, figsize=(2 + 4.5 * len(panels), 4.2), layout="constrained"
    )
    axes = axes[0]
    for process, *how in dict.fromkeys(tuple(r[key] for key in SAMPLER) for r in cells):
        mine = dict.fromkeys((r["sampler"], r["schedule"]) for r in cells if r["process"] == process)
        i = list(mine).index(tuple(how))
        style = {"color": colours[process], "marker": "osD^vP*"[i % 7], "linestyle": ("-", "--", ":", "-.")[i % 4]}
        for axis, (what, _, known) in zip(axes, panels, strict=True):
            line = [r for r in known if [r[key] for key in SAMPLER] == [process, *how]]
            line.sort(key=lambda r: r["calls"])
            axis.plot([r["calls"] for r in line], [r[what] for r in line], label=" · ".join((process, *how)), **style)
    axes[0].axhline(cells[0]["fid_floor"], color="grey", linewidth=1)
    note = "rebuilt pictures" if codes else "floor: training images"
    axes[0].annotate(note, (0.01, cells[0]["fid_floor"]), xycoords=("axes fraction", "data"),
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
