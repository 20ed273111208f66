"""Tab "About": the short version, with formulas, references, model cards and results."""

from pathlib import Path

import gradio as gr

from dd.runs import Models

TEXT = (Path(__file__).parent / "static" / "about.md").read_text()
LATEX = [{"left": "$$", "right": "$$", "display": True}, {"left": "$", "right": "$", "display": False}]


def build(models: Models) -> None:
    gr.Markdown(TEXT, latex_delimiters=LATEX, elem_id="about")
    gr.Markdown("## Model cards")
    for name in models.names():
        card = models.root / name / "README.md"
        with gr.Accordion(name, open=False):
            gr.Markdown(_body(card.read_text()) if card.is_file() else f"{name} has no model card yet.")


def _body(card: str) -> str:
    """A card without its front matter."""
    return card.split("---", 2)[2] if card.startswith("---") else card
