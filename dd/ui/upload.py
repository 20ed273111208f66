"""Pictures that visitors bring, those that are there to try, and those that visitors are given."""

import errno
import hashlib
import io
import secrets
from pathlib import Path

import gradio as gr
from gradio.data_classes import ImageData
from gradio.utils import get_upload_folder
from PIL import Image
from starlette.requests import Request
from starlette.responses import PlainTextResponse

UNWRITABLE = "the file cannot be written here ({}); the server's disk is full or read-only, tell whoever runs it"
EXAMPLES = Path(__file__).parent / "static" / "examples"


def upload(label: str, elem_id: str, height: int = 240) -> gr.Image:
    """An image input that hands over the file unopened: whatever it is, dd.images opens it and says what is wrong."""
    sources = ["upload", "clipboard", "webcam"]
    component = gr.Image(label=label, type="filepath", sources=sources, height=height, elem_id=elem_id, format="png")
    component.preprocess = _path
    return component


def _path(payload: ImageData | None) -> str | None:
    return None if payload is None else payload.path


def unwritten(error: OSError) -> str:
    """The sentence for a file that cannot be written."""
    return UNWRITABLE.format(error.strerror)


def unwritable(request: Request, error: OSError) -> PlainTextResponse:
    """What the web server answers when an upload finds no place on the disk; any other error stays one."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        raise error
    return PlainTextResponse(unwritten(error), 507)


def examples(names: tuple[str, ...], target: gr.Image) -> None:
    """Pictures to try, by file name. (gr.Examples would build `target` anew, and so without what `upload` gave it.)"""
    samples, shown = [[str(EXAMPLES / name)] for name in names], gr.Image(type="filepath", render=False)
    row = gr.Dataset(components=[shown], samples=samples, type="index", label="Or try one of these")

    def on_click(i: int | None) -> object:
        try:
            return png(Image.open(samples[int(i)][0])) if i in range(len(samples)) else gr.skip()
        except OSError as error:
            raise gr.Error(unwritten(error), print_exception=False) from error

    row.click(on_click, row, target, show_progress="hidden", api_visibility="private")


def png(image: Image.Image, name: str = "picture") -> str:
    """The path of the picture as a PNG among the page's temporary files, named by what is in it.

    Gradio writes such a file in place, so that whoever is just fetching the same picture gets half of it; here a
    finished file takes the other's place.
    """
    file = io.BytesIO()
    image.save(file, "png")
    path = Path(get_upload_folder()) / hashlib.sha256(file.getvalue()).hexdigest() / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{secrets.token_hex(8)}.part")  # several at once may make the same picture
    try:
        part.write_bytes(file.getvalue())
        return str(part.replace(path))
    finally:
        part.unlink(missing_ok=True)
