"""Tab "Reconstruct": rebuild a picture from codes, noise and restore one, inpaint one."""

import gradio as gr

from dd.models import Models
from dd.ui import rebuild, restore
from dd.ui.engine import Engine

NO_VQVAE = "There is no VQ-VAE among these checkpoints; train one with `python -m train.vqvae` (see README)."


def build(models: Models, engine: Engine, generated: gr.State) -> None:
    """generated: the session of the tab Generate, whose result can be restored and inpainted."""
    with gr.Tab("Rebuild", id="rebuild"):
        if models.names("vqvae"):
            rebuild.build(models, engine)
        else:
            gr.Markdown(NO_VQVAE)
    with gr.Tab("Noise and restore", id="restore"):
        restore.build(models, engine, generated, inpaint=False)
    with gr.Tab("Inpaint", id="inpaint"):
        restore.build(models, engine, generated, inpaint=True)
