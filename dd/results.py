"""Measured figures of the shipped checkpoints, looked up and never invented: docs/results.jsonl, one record a line.

The file is written by `python -m train.results`. A cell is one setting of checkpoint (by the hash of its weights),
process, sampler, steps, schedule, guidance, temperature and tilt; a bound belongs to checkpoint and process, that of a
probability flow to the samplers that follow the flow.
"""

import json
from pathlib import Path
from typing import Any

from dd.processes import Process, traits

RESULTS = Path(__file__).parent.parent / "docs" / "results.jsonl"


def read(path: str | Path = RESULTS) -> list[dict[str, Any]]:
    """All records, oldest first; none when there is no file. A line cut short by a crash is left out."""
    try:
        lines = Path(path).read_text().splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def short(figure: float) -> str:
    """Three digits or more: 0.294, 1.10, 86.3, 11,518 (below 0.0001 with an exponent)."""
    return f"{figure:,.0f}" if figure >= 99.95 else f"{figure:#.3g}"


def matches(record: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a record is of that setting."""
    return all(record.get(key) == value for key, value in wanted.items())


def find_samples(
    records: list[dict[str, Any]],
    sha256: str,
    process: str,
    sampler: str,
    steps: int,
    schedule: str,
    guidance: float = 1.0,
    temperature: float = 1.0,
    tilt: float = 0.0,
) -> dict[str, Any] | None:
    """FID, recall, accuracy of exactly that setting, from the most images; None: not measured."""
    wanted = {
        "kind": "samples", "sha256": sha256, "process": process, "sampler": sampler, "steps": steps,
        "schedule": schedule, "guidance": guidance, "temperature": temperature, "tilt": tilt,
    }  # fmt: skip
    return _best(records, wanted)


def follows_flow(process: Process, sampler: str) -> bool:
    """Whether a sampler of the process follows its probability flow, which has a law and a bound of its own."""
    return process.flow is not None and sampler in (process.flow, "heun")


def find_bound(records: list[dict[str, Any]], sha256: str, process: str, sampler: str = "") -> dict[str, Any] | None:
    """The continuous-time bound of that checkpoint and process, or of its flow for a sampler that follows it.

    None: not measured.
    """
    kind = "flow-bound" if sampler and follows_flow(traits(process), sampler) else "bound"
    return _best(records, {"kind": kind, "sha256": sha256, "process": process})


def sampled_calls(records: list[dict[str, Any]], hashes: set[str]) -> list[int]:
    """The numbers of network calls at which samples of these weights were measured, whatever the process, in order."""
    return sorted({r["calls"] for r in records if r["kind"] == "samples" and r["sha256"] in hashes})


def _best(records: list[dict[str, Any]], wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The matching record of most images, the test split before the held-out one, the latest of equals."""
    found = [r for r in records if matches(r, wanted)]
    ranked = sorted(found, key=lambda r: (r["split"] == "test", r["images"]))
    return ranked[-1] if ranked else None
