"""What the tabs say about processes and samplers, and how their controls become a recipe."""

import html
import random

import gradio as gr
import torch

from dd import checkpoints
from dd.checkpoints import CheckpointError
from dd.data import LABELS
from dd.images import ImageError
from dd.models import Models
from dd.processes import EVERY, OWN_NETWORK, REGISTRY, suits, traits
from dd.recipe import TEMPERATURES, Lane, Recipe, RecipeError
from dd.samplers import schedules, time_grid
from dd.triangle.cells import SettingsError

REFUSALS = (RecipeError, CheckpointError, ImageError, SettingsError)  # which say what was wrong; others are bugs
QUIET = {"show_progress": "hidden", "api_visibility": "private"}
PROCESS_NAMES = {
    "dirichlet": "Dirichlet (Wright-Fisher)",
    "d3pm-absorbing": "D3PM, absorbing",
    "d3pm-uniform": "D3PM, uniform",
    "d3pm-gaussian": "D3PM, discretised Gaussian",
    "multinomial": "Multinomial",
    "gaussian": "Gaussian on one-hots",
    "ddpm": "DDPM on pixels, its own network",
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
SCHEDULE_NAMES = {
    "cosine": "cosine in t",
    "early": "dense early (MaskGIT)",
    "information": "even in t",
    "native": "even in its own time",
    "nichol": "Nichol & Dhariwal",
}


def process_choices(models: Models, model: str, inpaint: bool = False) -> list[tuple[str, str]]:
    """The processes that suit this model's data, and those with a network of their own for them.

    inpaint: those alone to which a cell can be known for certain.
    """
    names = [name for name in REGISTRY if suits(name, models.config(model)["data"])]
    names += [name for name in OWN_NETWORK if models.companion(model, traits(name).architecture)]
    if inpaint:
        names = [name for name in names if traits(name).categorical]
    return [(PROCESS_NAMES.get(name, name), name) for name in names]


def method_choices(name: str) -> list[tuple[str, str]]:
    methods = traits(name).methods
    return [(METHOD_NAMES.get(method, method), method) for method in methods]


def tempered(name: str) -> bool:
    """Whether a temperature can be set; an unknown process is complained of elsewhere."""
    return name not in EVERY or traits(name).categorical


def schedule_choices(name: str) -> list[tuple[str, str]]:
    """The schedules that differ for this process: the own time of some is t itself."""
    named = traits(name)
    own, even = (torch.tensor(time_grid(named, 4, kind)) for kind in ("native", "information"))
    kinds = [kind for kind in schedules(named) if kind != "native" or not torch.allclose(own, even, atol=1e-6)]
    return [(SCHEDULE_NAMES[kind], kind) for kind in kinds]


def title(lane: Lane) -> str:
    """How a lane is called on the page."""
    name = PROCESS_NAMES.get(lane.process, lane.process)
    return f"{name} · {METHOD_NAMES.get(lane.method, lane.method)}"


def class_choices(models: Models, checkpoint: str) -> list[tuple[str, str]]:
    """("0 t-shirt", "0"), ... for a class-conditional model, always with "any"."""
    config = models.config(checkpoint)
    classes = checkpoints.classes(config)
    if not classes:
        return [("any", "any")]
    names = config["data"].get("labels") or LABELS.get(config["data"]["source"], [str(i) for i in range(classes)])
    return [("each in turn", "each"), ("any", "any")] + [(str(name), str(i)) for i, name in enumerate(names)]


def first_class(models: Models, checkpoint: str) -> str:
    return class_choices(models, checkpoint)[0][1]


def model_dropdown(names: list[str]) -> gr.Dropdown:
    return gr.Dropdown(names, value=names[0], label="Data", info="What the network was trained on.")


def class_dropdown(models: Models, model: gr.Dropdown, value: str | None = None) -> gr.Dropdown:
    """The classes of the chosen model; `value` or the first of them to begin with, whatever model is chosen."""

    def choices(name: str) -> dict:
        return {"choices": class_choices(models, name), "value": value or first_class(models, name)}

    label = gr.Dropdown(**choices(model.value), label="Class", info="What to draw; 'any' leaves it to the noise.")
    model.input(
        lambda name: gr.Dropdown(**choices(name)), model, label, queue=False, **QUIET
    )  # fmt: skip
    return label


def guidance_slider(label: gr.Dropdown) -> gr.Slider:
    """Of no use while no class is chosen in the dropdown `label`."""
    guidance = gr.Slider(
        0, 5, 1.0, step=0.1, label="Guidance",
        info="How strongly the class is insisted on; any value but 0 and 1 costs twice the network.",
    )  # fmt: skip
    label.change(lambda value: gr.Slider(interactive=value != "any"), label, guidance, queue=False, **QUIET)
    return guidance


def temperature_slider(models: Models, model: gr.Dropdown) -> gr.Slider:
    """The temperature chosen for the model to begin with, whatever model is chosen."""

    def own(name: str) -> float:
        return checkpoints.temperature(models.config(name))

    slider = gr.Slider(
        *TEMPERATURES, own(model.value), step=0.05, label="Temperature",
        info="Below 1 the network is made surer (faces: late in the run): fewer specks, less variety. "
        "1 is as it was trained.",
    )  # fmt: skip
    model.input(own, model, slider, queue=False, **QUIET)
    return slider


def seed_with_dice(prefix: str, what: str = "picture") -> gr.Number:
    seed = gr.Number(0, label="Seed", info=f"The same seed gives the same {what}.")
    dice = gr.Button("New seed", size="sm", elem_id=f"{prefix}-dice")
    dice.click(lambda: random.randrange(2**31), None, seed, queue=False, **QUIET)
    return seed


def process_and_sampler(models: Models, model: gr.Dropdown, inpaint: bool = False) -> tuple[gr.Dropdown, gr.Dropdown]:
    """The Dirichlet process and its step to begin with, and for a model that lacks what was chosen; another process
    begins with its first sampler, which the tab sees to."""
    process = gr.Dropdown(
        process_choices(models, model.value, inpaint), value="dirichlet", label="Process",
        info="The noise to run backwards.",
    )  # fmt: skip
    sampler = gr.Dropdown(
        method_choices("dirichlet"), value="dirichlet", label="Sampler", info="How one reverse step is taken."
    )

    def of_model(name: str, process: str, sampler: str) -> tuple:
        process, sampler = kept(models, name, process, sampler, inpaint)
        choices = process_choices(models, name, inpaint)
        return gr.Dropdown(choices, value=process), gr.Dropdown(method_choices(process), value=sampler)

    model.input(of_model, [model, process, sampler], [process, sampler], queue=False, **QUIET)
    return process, sampler


def kept(models: Models, model: str, process: str, sampler: str, inpaint: bool = False) -> tuple[str, str]:
    """Process and sampler as they were chosen where the model has them, else the Dirichlet process and its step."""
    known = process in [name for _, name in process_choices(models, model, inpaint)]
    return (process, sampler) if known else ("dirichlet", method_choices("dirichlet")[0][1])


def first_method(process: str) -> gr.Dropdown:
    """The sampler dropdown of a process just chosen."""
    methods = method_choices(process)
    return gr.Dropdown(methods, value=methods[0][1])


def refuse(error: Exception) -> gr.Error:
    """A sentence in the page instead of a traceback; the page renders HTML, and the sentence may quote a visitor."""
    sentence = str(error)
    return gr.Error(html.escape(sentence[:1].upper() + sentence[1:], quote=False), duration=12, print_exception=False)


def recipe(
    checkpoint: str, lanes: list[Lane], steps: object, images: object, label: object, guidance: object,
    temperature: object, seed: object, equal_calls: bool = False,
) -> Recipe:  # fmt: skip
    """Of what a visitor has set or sent, which dd.recipe.check is to look at."""
    label = label if label in ("any", "each") else _class(label)
    return Recipe(
        str(checkpoint), tuple(lanes), steps, images, label, guidance, temperature, seed=seed, equal_calls=equal_calls
    )  # fmt: skip


def _class(label: object) -> int | str:
    try:
        return int(str(label))
    except ValueError as error:
        raise RecipeError(f"there is no class {str(label)[:40]!r}; choose one from the list") from error
