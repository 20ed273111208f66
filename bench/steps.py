"""What a reverse step costs, and how much of it is not the network.

    python -m bench.steps checkpoints/digits --images 16

Prints one JSON object: milliseconds of the network call, and for every process and sampler the milliseconds of
evidence and step together and their share of the network's time. Medians over --repeats.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch

from dd import checkpoints
from dd.device import for_inference
from dd.processes import REGISTRY, process
from dd.samplers import Denoiser


def milliseconds(action: Callable[[], object], repeats: int) -> float:
    """Median time of one call, after two calls that do not count."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[2:])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What a reverse step costs outside the network.")
    parser.add_argument("checkpoint")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args(argv)
    checkpoint = checkpoints.load(args.checkpoint)
    K, (H, W) = checkpoint.config["data"]["K"], checkpoint.config["data"].get("grid", (28, 28))
    denoise = Denoiser(for_inference(checkpoint.network))
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(args.images, K, H, W, generator=generator)
    network = milliseconds(lambda: denoise(f), args.repeats)
    steps = {}
    for name in REGISTRY:
        process_ = process(name, K, H * W)
        x = process_.perturb(torch.zeros(args.images, H, W, dtype=torch.long), 0.5, generator)
        for method in process_.methods:
            single = {"heun": "ode", "langevin": "dirichlet"}.get(method, method)

            def step(process_=process_, x=x, single=single) -> None:
                process_.evidence(x, 0.5)
                process_.step(x, f, 0.5, 0.49, single, generator)

            outside = milliseconds(step, args.repeats)
            steps[f"{name}/{method}"] = {"ms": round(outside, 2), "share": round(outside / network, 3)}
    print(
        json.dumps(
            {
                "checkpoint": checkpoint.name,
                "images": args.images,
                "network_ms": round(network, 2),
                "outside": steps,
                "threads": torch.get_num_threads(),
                "machine": platform.processor() or platform.machine(),
                "torch": torch.__version__,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
