"""Tab "About": the short version, with formulas, references, model cards and results."""

from pathlib import Path

import gradio as gr

from dd.checkpoints import ARCHITECTURES
from dd.models import Models
from dd.processes import EVERY, suits, traits
from dd.recipe import sampling_schedule, sampling_temperature
from dd.results import find_bound, find_samples, read, short
from dd.samplers import steps_for
from dd.ui.controls import PROCESS_NAMES

TEXT = (Path(__file__).parent / "static" / "about.md").read_text()
MEANING = (
    "Bound: an upper bound on -log p of an image, no class given. FID: how far samples are from real images in the "
    "features of a small classifier; the floor is what two sets of real images are apart. Of faces it is in the "
    "features of SqueezeNet, and the floor that of real ones rebuilt. Only FIDs of the same data and as many samples "
    "compare. Accuracy: the share of samples, at the most calls measured, that the classifier takes for the class "
    "asked for. A dash: not measured."
)
CALLS = (10, 25, 50, 100)  # of the network
LATEX = [{"left": "$$", "right": "$$", "display": True}, {"left": "$", "right": "$", "display": False}]


def build(models: Models) -> None:
    gr.Markdown(TEXT, latex_delimiters=LATEX, elem_id="about")
    gr.Markdown(f"## Results\n{MEANING}")
    gr.Markdown(results(models), elem_classes="dd-table")
    gr.Markdown("## Model cards\nWhat every network here was trained on, how, and how well it does.")
    for name in [name for architecture in ARCHITECTURES for name in models.names(architecture)]:
        card = models.root / name / "README.md"
        with gr.Accordion(name, open=False):
            text = _body(card.read_text()) if card.is_file() else f"{name} has no model card yet."
            gr.Markdown(text, elem_classes="dd-card")


def results(models: Models) -> str:
    """What was measured of these very weights, every process by its own first sampler."""
    records = read()
    rows, missing = [], []
    architectures = dict.fromkeys(traits(known).architecture for known in EVERY)
    for name in (name for architecture in architectures for name in models.names(architecture)):
        so_far, config = len(rows), models.config(name)
        sha256 = models.sha256(name)
        for process_name in EVERY:
            made = traits(process_name)
            if made.architecture != config["architecture"] or not suits(process_name, config["data"]):
                continue
            own = sampling_temperature(config, made)
            bound = find_bound(records, sha256, process_name) or {}
            sampler = made.methods[0]
            schedule = sampling_schedule(config, sampler)
            steps = (steps_for(n, sampler) for n in CALLS)
            cells = [find_samples(records, sha256, process_name, sampler, n, schedule, 1.0, *own) for n in steps]
            if bound or any(cells):
                rows.append([name, PROCESS_NAMES.get(process_name, process_name), *(_shown(bound, cells))])
        if len(rows) == so_far:
            missing.append(name)
    if not rows:
        return "Nothing is measured yet of the weights in this folder; `python -m train.results` does it."
    fids = [f"FID, {n} calls" for n in CALLS]
    head = ["Data", "Process", "Bound, nats per image", *fids, "Floor (samples)", "Accuracy"]
    table = "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
    return table + (f"\n\nNot in this table yet: {', '.join(missing)}; their model cards say more." if missing else "")


def _shown(bound: dict, cells: list[dict | None]) -> list[str]:
    """cells: samples at each of CALLS where measured; those of another count than the last are left out."""
    nats = f"{bound['nll_nats']:.2f} ± {bound['nll_stderr']:.2f}" if bound else "–"
    most = next(filter(None, reversed(cells)), None)
    fids = [short(cell["fid"]) if cell and cell["images"] == most["images"] else "–" for cell in cells]
    floor = f"{short(most['fid_floor'])} ({most['images']:,})" if most else "–"
    accuracy = f"{most['accuracy']:.1%}" if most and most.get("accuracy") is not None else "–"
    return [nats, *fids, floor, accuracy]


def _body(card: str) -> str:
    """A card without its front matter."""
    return card.split("---", 2)[2] if card.startswith("---") else card
