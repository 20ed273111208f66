"""What a reverse step costs, and how much of it is not the network.

    python -m bench.steps checkpoints/digits --images 16
    python -m bench.steps train/configs/faces.yaml --grid 16 16 --K 512

Prints one JSON object, in milliseconds, medians over --repeats: the network call; for every process and sampler,
evidence and step together, the mean over a run of --calls network calls for each of them, and their share of the
network's time; for every process, what a training image costs outside the network (noise, evidence and loss); a run of
the page's four lanes against a run of one, per step. A run of few calls has long steps, which the Dirichlet samplers
take in more parts. A configuration in place of a checkpoint is measured with an untrained network.
As in the app, the network has all cores and the rest one thread.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from dd import checkpoints
from dd.data import grid_of
from dd.device import CORES, for_inference, keep_freed_memory
from dd.processes import REGISTRY, Process, make_process, suits
from dd.recipe import Lane
from dd.samplers import Denoiser, calls_per_step, default_schedule, race, reverse, steps_for, time_grid

LANES = (
    Lane("dirichlet", "dirichlet"), Lane("d3pm-absorbing", "ancestral"),
    Lane("d3pm-uniform", "ancestral"), Lane("gaussian", "ddpm"),
)  # fmt: skip


def milliseconds(action: Callable[[], object], repeats: int) -> float:
    """Median time of one call, after two calls that do not count."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[2:])


def outside(process: Process, method: str, f: torch.Tensor, calls: int) -> float:
    """Milliseconds that a sampler adds to each of its network calls: the mean over a whole run of so many of them."""
    generator, steps = torch.Generator().manual_seed(0), steps_for(calls, method)
    times, cells = time_grid(process, steps, default_schedule(method)), (len(f), *f.shape[2:])

    def whole() -> None:
        run = reverse(process, process.prior(cells, generator), times, method, generator)
        query = next(run)
        while not query.last:
            query = run.send(f)

    return milliseconds(whole, 3) / (steps * calls_per_step(method))


def training(process: Process, f: torch.Tensor, x0: torch.Tensor, generator: torch.Generator) -> None:
    """What a batch costs in training outside the network, without the loss's gradient."""
    t, _ = process.times(len(x0), generator)
    x_t = process.perturb(x0, t, generator)
    process.loss(process.logits(f, process.evidence(x_t, t)), x0, x_t, t)


def lanes(names: tuple[Lane, ...], cells: tuple[int, int, int], K: int, denoise: Denoiser, steps: int) -> float:
    """Milliseconds a step of these lanes in lockstep, network and all: the mean over a run; cells: (B, H, W)."""
    runs = []
    for lane in names:
        process, generator = make_process(lane.process, K, cells[1] * cells[2]), torch.Generator().manual_seed(0)
        times = time_grid(process, steps, default_schedule(lane.method))
        runs.append(reverse(process, process.prior(cells, generator), times, lane.method, generator))
    frames = race(runs, denoise)
    next(frames)  # the first call compiles the network for this batch
    start = time.perf_counter()
    for _ in frames:
        pass
    return 1000 * (time.perf_counter() - start) / steps


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What a reverse step costs outside the network.")
    parser.add_argument("source", help="a checkpoint, or the configuration of an untrained network")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--grid", type=int, nargs=2, help="cells of an image where the checkpoint does not say (28 28)")
    parser.add_argument("--K", type=int, help="categories, in place of the configuration's")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--calls", type=int, default=64, help="of the network, of the runs that are timed")
    args = parser.parse_args(argv)
    if args.K and not args.source.endswith(".yaml"):
        parser.error("--K is for a configuration: the network of a checkpoint has its own")
    if args.source.endswith(".yaml"):
        config = yaml.safe_load(Path(args.source).read_text())
        if args.K:
            config["network"]["K"] = config["data"]["K"] = args.K
        network = checkpoints.build(config).eval()
    else:
        checkpoint = checkpoints.load(args.source)
        config, network = checkpoint.config, checkpoint.network
    K, (H, W) = config["data"]["K"], args.grid or grid_of(config["data"])
    torch.set_num_threads(1)
    keep_freed_memory()
    denoise = Denoiser(for_inference(network))
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(args.images, K, H, W, generator=generator)
    x0 = torch.randint(K, (args.images, H, W), generator=generator)
    network_ms = milliseconds(lambda: denoise(f), args.repeats)
    steps, per_image = {}, {}
    for name in (name for name in REGISTRY if suits(name, config["data"])):
        process = make_process(name, K, H * W)
        for method in process.methods:
            ms = outside(process, method, f, args.calls)
            steps[f"{name}/{method}"] = {"ms": round(ms, 2), "share": round(ms / network_ms, 3)}
        if "bound" in process.losses:
            per_image[name] = round(
                milliseconds(lambda p=process: training(p, f, x0, generator), args.repeats) / args.images, 3
            )
    cells = (args.images, H, W)
    one, four = (lanes(names, cells, K, denoise, args.calls) for names in (LANES[:1], LANES))
    print(
        json.dumps(
            {
                "source": args.source,
                "K": K,
                "images": args.images,
                "calls": args.calls,
                "network_ms": round(network_ms, 2),
                "outside": steps,
                "training_ms_per_image": per_image,
                "lanes": {"one_ms": round(one, 1), "four_ms": round(four, 1), "ratio": round(four / one, 2)},
                "cores": CORES,
                "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
                "torch": torch.__version__,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
