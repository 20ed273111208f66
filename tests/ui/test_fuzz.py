"""Hundreds of bad inputs, through Gradio's own dispatch in this process: an answer or a sentence, always.

What Gradio would send to the visitor is what is looked at; that it does send it over HTTP is tested in test_api.py with
fewer. DD_FUZZ=N tries N of every kind.
"""

import asyncio
import io
import json
import os
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import gradio as gr
import pytest
from gradio.state_holder import SessionState
from gradio.utils import error_payload, get_upload_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import dd
from dd.models import Models
from dd.recipe import Given, Lane, Recipe
from dd.ui.app import build

TELLTALES = re.compile(r"Traceback|File \\?\"|site-packages|/dd/|OverflowError|TypeError|ValueError|KeyError")
FUZZ = settings(
    max_examples=int(os.environ.get("DD_FUZZ", 400)), deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
SLOWER = settings(FUZZ, max_examples=int(os.environ.get("DD_FUZZ", 100)))  # a quarter of a minute a thousand, and more
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(10**300, 10**301), st.floats(), st.text(max_size=20),
    st.sampled_from(["nan", "inf", "-1", "../../etc/passwd", "<img src=x onerror=alert(1)>", "\0", "💥"]),
    st.lists(st.integers() | st.lists(st.text(max_size=5), max_size=2), max_size=3),
    st.dictionaries(st.sampled_from(["stretch", "below", "eta", ""]), st.floats() | st.text(max_size=5), max_size=3),
)  # fmt: skip
GENERATE = ["tiny", "dirichlet", "dirichlet", 1, 1, "any", 1.0, 0, None, "default", False, None]
COMPARE = ["tiny", ["dirichlet/ode", "gaussian/ddpm"], 2, 1, "any", 1.0, 0, "default", False, None]
LIKELIHOOD = [[[0] * 28] * 28, "tiny", "gaussian", "any", 2, 0]
SMALL = {"Steps": 4, "Images": 1, "Network calls": 4, "Results": 1, "Particles": 1, "Size": 64}
LOOKED_AT = 3  # steps of a run before its visitor leaves

Dispatch = Callable[[int, list], tuple[str, object]]


def spoilt(arguments: list) -> st.SearchStrategy[list]:
    """The arguments with one to three of them replaced by something odd."""
    places = st.dictionaries(st.integers(0, len(arguments) - 1), ODD, min_size=1, max_size=3)
    return places.map(lambda odd: [odd.get(i, value) for i, value in enumerate(arguments)])


@pytest.fixture(scope="module")
def page(tiny_root: Path) -> gr.Blocks:
    return build(Models(tiny_root), max_seconds=60)


@pytest.fixture(scope="module")
def dispatch(page: gr.Blocks) -> Iterator[Dispatch]:
    """Call event number n as the queue does: ("complete", data), ("error", what the visitor is sent), or ("bare", the
    exception) where that is no sentence.

    In a thread of its own, since Playwright's event loop runs in this one once a browser test has begun.
    """
    state = SessionState(page)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def call(number: int, data: list) -> tuple[str, object]:
        iterator = None
        try:
            for _ in range(LOOKED_AT):
                event = gr.EventData(None, {"lane": 0, "image": 0, "row": 0, "col": 0, "index": [0, 0]})
                output = await page.process_api(number, data, state, iterator=iterator, event_data=event)
                iterator = output["iterator"]
                if not output["is_generating"]:
                    break
            return "complete", output["data"]
        except Exception as error:
            said = error_payload(error, show_error=False)["error"]
            return ("bare", error) if said is None else ("error", said)
        finally:
            if iterator is not None:
                await iterator.aclose()

    yield lambda number, data: asyncio.run_coroutine_threadsafe(call(number, data), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def numbers(page: gr.Blocks) -> dict[str, int]:
    """The named endpoints' numbers."""
    return {event.api_name: n for n, event in page.fns.items() if event.api_visibility == "public"}


def alive(dispatch: Dispatch, page: gr.Blocks) -> bool:
    return dispatch(numbers(page)["generate"], GENERATE)[0] == "complete"


@FUZZ
@given(
    st.one_of(
        st.tuples(st.just("generate"), spoilt(GENERATE)),
        st.tuples(st.just("compare"), spoilt(COMPARE)),
        st.tuples(st.just("likelihood"), spoilt(LIKELIHOOD)),
    )
)
def test_odd_arguments_get_an_answer_or_a_sentence(page: gr.Blocks, dispatch: Dispatch, request_: tuple[str, list]):
    name, arguments = request_
    kind, said = dispatch(numbers(page)[name], arguments)
    assert kind != "bare", f"no sentence for {request_}: {said!r}"
    if kind == "error":
        assert 10 < len(said) < 400
        assert not TELLTALES.search(said)


@SLOWER
@given(st.data())
def test_odd_values_of_the_page_s_controls_kill_nothing(page: gr.Blocks, dispatch: Dispatch, data: st.DataObject):
    """Every event of the page, with anything in the place of what its controls allow.

    What Gradio's own components refuse is their business, and that a control cannot be empty is not said by all of the
    events that only adapt other controls; but no code of ours stumbles.
    """
    number = data.draw(st.sampled_from([n for n, event in page.fns.items() if event.fn and event.inputs]))
    inputs = page.fns[number].inputs
    values = [SMALL.get(getattr(part, "label", None), getattr(part, "value", None)) for part in inputs]
    kind, said = dispatch(number, data.draw(spoilt(values)))
    if kind == "bare" and not isinstance(said, ValueError):  # which says what is wrong, if only to the log
        frames = traceback.extract_tb(said.__traceback__)
        ours = [f for f in frames if Path(dd.__file__).parent in Path(f.filename).parents]
        assert not ours, f"{values}: {said!r}"
    if kind == "error":
        assert not TELLTALES.search(said)
    assert alive(dispatch, page)


def uploaded(name: str, content: bytes) -> dict:
    """A file where Gradio puts what visitors upload."""
    folder = Path(get_upload_folder()) / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return {"path": str(folder / name), "meta": {"_type": "gradio.FileData"}, "orig_name": name}


def mutated(data: st.DataObject, content: bytes) -> bytes:
    """Bytes changed, and perhaps cut off or doubled."""
    content = bytearray(content)
    places = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(places, max_size=9)):
        content[place] = value
    return bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(file, kind)
    return file.getvalue()


PICTURES = {kind: picture(kind) for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff")}


@FUZZ
@given(st.data())
def test_mutated_pictures_get_an_answer_or_a_sentence(page: gr.Blocks, dispatch: Dispatch, data: st.DataObject):
    """Real files with bytes changed, cut off or doubled, under any suffix."""
    kind = data.draw(st.sampled_from(list(PICTURES)))
    suffix = data.draw(st.sampled_from([kind, "png", "svg", "txt", "html"]))
    file = uploaded(f"mutated.{suffix}", mutated(data, PICTURES[kind]))
    kind, said = dispatch(numbers(page)["reconstruct"], [file, "tiny-vqvae", "crop", 32])
    assert kind != "bare", f"no sentence: {said!r}"
    if kind == "error":
        assert 10 < len(said) < 400
        assert not TELLTALES.search(said)


KNOWN = st.sampled_from([None, ((1,) * 28,) * 27 + ((0,) * 28,)])


@SLOWER
@given(st.data())
def test_mutated_recipes_get_a_run_or_a_sentence(page: gr.Blocks, dispatch: Dispatch, data: st.DataObject):
    """What "Load recipe" is given on any tab: files saved on any of them, with fields replaced or bytes changed."""
    loads = [n for n, event in page.fns.items() if [part.get_block_name() for part in event.inputs] == ["uploadbutton"]]
    assert len(loads) == 4
    load = data.draw(st.sampled_from(loads))
    cells = ((0,) * 28,) * 28
    saved = data.draw(
        st.sampled_from([{}, {"lanes": (Lane(), Lane())}, {"given": Given(cells, data.draw(KNOWN), 0.5)}])
    )
    fields = json.loads(Recipe("tiny", **saved, steps=2, images=1).to_json())
    if data.draw(st.booleans()):
        parts = [fields, *fields["lanes"], *([fields["given"]] if fields["given"] else [])]
        part = data.draw(st.sampled_from(parts))
        part[data.draw(st.sampled_from(list(part)))] = data.draw(ODD)
        content = json.dumps(fields).encode(errors="replace")
    else:
        content = mutated(data, json.dumps(fields).encode())
    kind, said = dispatch(load, [uploaded("recipe.json", content)])
    assert kind != "bare", f"no sentence for {content}: {said!r}"
    if kind == "error":
        assert 10 < len(said) < 600
        assert not TELLTALES.search(said)
