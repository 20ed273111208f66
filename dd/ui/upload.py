"""Pictures that visitors bring, and those that are there to try."""

from pathlib import Path

import gradio as gr
from gradio.data_classes import ImageData

EXAMPLES = Path(__file__).parent / "static" / "examples"


def upload(label: str, elem_id: str, height: int = 240) -> gr.Image:
    """An image input that hands over the file unopened: whatever it is, dd.images opens it and says what is wrong."""
    sources = ["upload", "clipboard", "webcam"]
    component = gr.Image(label=label, type="filepath", sources=sources, height=height, elem_id=elem_id, format="png")
    component.preprocess = _path
    return component


def _path(payload: ImageData | None) -> str | None:
    return None if payload is None else payload.path


def examples(names: tuple[str, ...], target: gr.Image) -> gr.Examples:
    """Pictures to try, by file name."""
    return gr.Examples(
        [[str(EXAMPLES / name)] for name in names], target, label="Or try one of these", cache_examples=False
    )
