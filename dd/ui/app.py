"""The page: one tab a file."""

import gradio as gr

from dd.runs import Models, Recipe, Run
from dd.ui import about, compare, generate, simplex
from dd.ui.engine import Engine

TITLE = "Dirichlet Diffusion"
THEME = gr.themes.Default(primary_hue="blue", neutral_hue="slate")
HOW_TO_GET_ONE = "Restore the folder from the repository, or train one: the README says how."
CSS = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
h1 { margin-bottom: 0 !important; }
.katex-display, #compare-table { overflow-x: auto; overflow-y: hidden; max-width: 100%; }
#compare-table table { font-variant-numeric: tabular-nums; }
@media (max-width: 700px) { .dd-stage { order: -1; } }
"""


def warm_up(models: Models) -> None:
    """Load the first model and build its tables now, so that the first visitor's first step is as fast as the next."""
    Run(Recipe(models.names()[0], steps=2, images=16), models).exhaust()


def build(models: Models) -> gr.Blocks:
    """The whole app; nothing is loaded or computed before it is asked for."""
    engine = Engine()
    with gr.Blocks(title=TITLE, analytics_enabled=False) as demo:
        gr.Markdown(f"# {TITLE}\nDiffusion on the probability simplex, live, with exact mathematics.")
        if not models.names():
            gr.Markdown(f"There is no trained denoiser in the folder `{models.root.name}`. {HOW_TO_GET_ONE}")
            return demo
        with gr.Tab("Generate", id="generate"):
            generate.build(models, engine)
        with gr.Tab("Compare", id="compare"):
            compare.build(models, engine)
        with gr.Tab("Simplex", id="simplex"):
            simplex.build()
        with gr.Tab("About", id="about"):
            about.build(models)
        engine.submit(warm_up, models)
    return demo
