"""What the tabs say about processes and samplers, and how their controls become a recipe."""

import html

import gradio as gr

from dd.data import LABELS
from dd.processes import REGISTRY, process
from dd.runs import Lane, Models, Recipe, RecipeError

PROCESS_NAMES = {
    "dirichlet": "Dirichlet (Wright-Fisher)",
    "d3pm-absorbing": "D3PM, absorbing",
    "d3pm-uniform": "D3PM, uniform",
    "d3pm-gaussian": "D3PM, discretised Gaussian",
    "multinomial": "Multinomial",
    "gaussian": "Gaussian on one-hots",
}
OPTION_NAMES = {"stretch": "Time dilation c", "below": "Dilate below t", "eta": "eta"}
METHOD_NAMES = {
    "dirichlet": "Dirichlet step",
    "euler": "Euler-Maruyama",
    "ode": "Probability-flow ODE",
    "heun": "ODE, Heun (2 calls)",
    "langevin": "Predictor-corrector (2 calls)",
    "bridge": "Exact ancestral bridge",
    "ancestral": "Ancestral",
    "ddpm": "DDPM (ancestral)",
    "ddim": "DDIM (ODE)",
}


def process_choices() -> list[tuple[str, str]]:
    return [(PROCESS_NAMES.get(name, name), name) for name in REGISTRY]


def method_choices(name: str) -> list[tuple[str, str]]:
    methods = process(name, 2, 784).methods
    return [(METHOD_NAMES.get(method, method), method) for method in methods]


def title(lane: Lane) -> str:
    """How a lane is called on the page."""
    name = PROCESS_NAMES.get(lane.process, lane.process)
    return f"{name} · {METHOD_NAMES.get(lane.method, lane.method)}"


def class_choices(models: Models, checkpoint: str) -> list[tuple[str, str]]:
    """("0 t-shirt", "0"), ... for a class-conditional model, always with "any"."""
    config = models.get(checkpoint).config
    classes = config["network"].get("classes", 0)
    if not classes:
        return [("any", "any")]
    names = config["data"].get("labels") or LABELS.get(config["data"]["source"], [str(i) for i in range(classes)])
    return [("each in turn", "each"), ("any", "any")] + [(str(name), str(i)) for i, name in enumerate(names)]


def first_class(models: Models, checkpoint: str) -> str:
    return class_choices(models, checkpoint)[0][1]


def refuse(error: Exception) -> gr.Error:
    """A sentence in the page instead of a traceback; the page renders HTML, and the sentence may quote a visitor."""
    return gr.Error(html.escape(str(error), quote=False), duration=12, print_exception=False)


def recipe(checkpoint, lanes, steps, images, label, guidance, seed, equal_calls=False) -> Recipe:
    label = label if label in ("any", "each") else _class(label)
    return Recipe(str(checkpoint), tuple(lanes), steps, images, label, guidance, seed, equal_calls)


def _class(label: object) -> int | str:
    try:
        return int(str(label))
    except ValueError as error:
        raise RecipeError(f"there is no class {str(label)[:40]!r}; choose one from the list") from error
