"""What one visitor holds and takes: bounded, forgotten when it expires, given back within one step."""

import gc
import itertools
import tempfile
import threading
import time
import weakref
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
import torch
from gradio import state_holder
from gradio.components import State

from dd.checkpoints import CheckpointError
from dd.models import Models
from dd.recipe import Recipe, RecipeError
from dd.runs import Run
from dd.ui import session as sessions
from dd.ui.app import build
from dd.ui.engine import Engine
from dd.ui.session import EXPIRES, Session, Shelf, weight
from tests.tiny import write_checkpoint

RECIPE = Recipe("tiny", steps=6, images=2)


@pytest.fixture(scope="module")
def models(tiny_root: Path) -> Models:
    return Models(tiny_root)


@pytest.fixture
def engine() -> Engine:
    return Engine()


def started(models: Models, engine: Engine, **changes: object) -> Session:
    session = Session()
    session.prepare(Recipe(**{**vars(RECIPE), **changes}), models, engine)
    return session


def test_a_run_weighs_what_it_holds_in_the_end(models, engine):
    run = started(models, engine).run
    run.exhaust()
    pictures = sum(view.state.nbytes + view.guess.nbytes for lanes in run.views for view in lanes)
    paths = sum(x.nbytes + p.nbytes for lanes in run.trajectory for x, p in lanes)
    assert weight(run) == pictures + paths


def test_a_run_that_goes_on_weighs_its_states_too(models, engine):
    """What a step leaves behind is at most what is counted for it, and not a small part of that."""

    def held() -> int:
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    recipe = Recipe(**{**vars(RECIPE), "images": 16, "steps": 20})
    engine.do(Run, recipe, models).exhaust()  # tables that are kept for every run
    before, run = held(), engine.do(Run, recipe, models)
    run.keep_simplex = 0
    run.advance(), run.advance()
    states = weight(run) - (2 * 16 * 28 * 28 * run.total)
    assert 0.25 * states <= held() - before <= states
    run.exhaust()
    assert weight(run) == 2 * 16 * 28 * 28 * run.total


def test_the_run_that_room_is_made_for_is_never_forgotten(models, engine, monkeypatch):
    """Even if another visitor takes a step just before the room is made."""
    shelf = Shelf(most=int(1.5 * weight(Run(RECIPE, models))))
    monkeypatch.setattr(sessions, "SHELF", shelf)
    other, newest = started(models, engine), Session()

    class Meanwhile:
        def __enter__(self):
            other.look()

        def __exit__(self, *_):
            pass

    shelf._lock = Meanwhile()
    newest.prepare(RECIPE, models, engine)
    assert (other.run is None, newest.run is None) == (True, False)


def test_a_run_whose_step_has_failed_is_begun_anew(models, engine, monkeypatch):
    session = started(models, engine)
    failed = session.run
    session.step(engine)
    with monkeypatch.context() as broken:
        broken.setattr(Run, "_view", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            session.step(engine)
    session.prepare(RECIPE, models, engine)
    assert session.run is not failed
    assert len(list(session.steps(engine))) == session.run.total


def test_the_paths_kept_of_a_large_run_weigh_too(models, engine):
    run = started(models, engine).run
    run.keep_simplex = 6 * (2 * 28 * 28) * run.total  # of one image and a half
    run.exhaust()
    pictures = sum(view.state.nbytes + view.guess.nbytes for lanes in run.views for view in lanes)
    paths = sum(x.nbytes + p.nbytes for lanes in run.trajectory for x, p in lanes)
    assert 0 < paths <= weight(run) - pictures <= run.keep_simplex


def test_the_oldest_runs_are_forgotten_when_memory_is_short(models, engine, monkeypatch):
    monkeypatch.setattr(sessions, "SHELF", Shelf(most=int(2.5 * weight(Run(RECIPE, models)))))
    first, second = started(models, engine), started(models, engine, seed=1)
    stream = first.steps(engine)
    next(stream)  # looked at after the second
    third = started(models, engine, seed=2)
    assert (first.run is None, second.run is None, third.run is None) == (False, True, False)
    with pytest.raises(RecipeError, match="nothing to download"):
        second.file("png")
    started(models, engine, seed=3)
    with pytest.raises(RecipeError, match="forgotten to make room"):
        list(stream)
    assert len(list(third.steps(engine))) == third.run.total


def test_whoever_continues_or_downloads_is_looking(models, engine, monkeypatch):
    monkeypatch.setattr(sessions, "SHELF", Shelf(most=int(2.5 * weight(Run(RECIPE, models)))))
    first, second = started(models, engine), started(models, engine, seed=1)
    next(first.steps(engine))
    next(second.steps(engine))
    first.prepare(first.recipe, models, engine)  # paused, now continued, and no step shown of it yet
    third = started(models, engine, seed=2)
    assert (first.run is None, second.run is None) == (False, True)
    first.file("json")
    fourth = started(models, engine, seed=3)
    assert (first.run is None, third.run is None, fourth.run is None) == (False, True, False)


def test_steps_do_not_wait_for_what_takes_seconds(models, engine):
    """A simulation or a picture to be rebuilt: a whole run is over before it ends."""
    session, over = started(models, engine), threading.Event()
    waiting = threading.Thread(target=engine.aside, args=(over.wait, 60))
    waiting.start()
    try:
        assert len(list(session.steps(engine))) == RECIPE.steps + 1
        assert waiting.is_alive()
    finally:
        over.set()
        waiting.join(60)


def test_one_run_too_large_for_the_shelf_still_runs(models, engine, monkeypatch):
    monkeypatch.setattr(sessions, "SHELF", Shelf(most=1))
    session = started(models, engine)
    assert len(list(session.steps(engine))) == RECIPE.steps + 1


def test_a_cancelled_run_frees_the_core_within_one_step(models, engine):
    session = started(models, engine, steps=500)
    stream = session.steps(engine)
    for _ in range(3):
        next(stream)
    stream.close()
    in_hand = len(session.run.views)
    assert in_hand <= 4
    engine.do(lambda: None)  # whatever was in the line has had its turn
    time.sleep(0.2)
    assert len(session.run.views) <= in_hand + 1


def test_a_paused_run_goes_on_where_it_was(models, engine):
    whole = list(started(models, engine).steps(engine))
    session = started(models, engine)
    stream = session.steps(engine)
    next(stream)
    next(stream)
    stream.close()
    session.prepare(RECIPE, models, engine)
    assert 2 + len(list(session.steps(engine))) == len(whole)


def test_a_halted_run_ends_by_itself_and_can_be_gone_on_with(models, engine):
    whole = list(started(models, engine).steps(engine))
    session = started(models, engine)
    stream = session.steps(engine)
    first = [next(stream), next(stream)]
    session.halt()
    assert list(stream) == []
    session.prepare(session.recipe, models, engine)
    assert len(first) + len(list(session.steps(engine))) == len(whole)


def test_a_long_run_and_a_short_one_take_turns(models, engine):
    long, short = started(models, engine, steps=500), started(models, engine, steps=10)
    begun, over = threading.Event(), threading.Event()

    def look() -> None:
        for _ in long.steps(engine):
            begun.set()
            if over.is_set():
                return

    watching = threading.Thread(target=look)
    watching.start()
    begun.wait(60)
    before = len(long.run.views)
    assert len(list(short.steps(engine))) == 11
    turns = len(long.run.views) - before
    over.set()
    watching.join(60)
    assert 3 <= turns <= 2 * 11 + 4


def test_visitors_share_nothing(models, engine):
    one, other = started(models, engine), started(models, engine, seed=1)
    alone = list(started(models, engine).steps(engine))
    mixed = []
    for text, _ in zip(one.steps(engine), other.steps(engine), strict=True):
        mixed.append(text)
    fields = [[part.split('"lanes"')[1] for part in texts] for texts in (mixed, alone)]
    assert fields[0] == fields[1], "another visitor's run changes mine"
    assert one.run is not other.run
    assert Path(one.file("png")).read_bytes() != Path(other.file("png")).read_bytes()


@pytest.fixture
def holder(models: Models) -> state_holder.StateHolder:
    """What Gradio keeps of all visitors of a page."""
    page = build(models)
    page.state_session_capacity = 200
    holder = state_holder.StateHolder()
    holder.set_blocks(page)
    return holder


def states(holder: state_holder.StateHolder) -> list[State]:
    return [block for block in holder.blocks.blocks.values() if isinstance(block, State)]


def clock(hours: float) -> SimpleNamespace:
    """The module datetime, so many hours ahead."""
    return SimpleNamespace(datetime=SimpleNamespace(now=lambda: datetime.now() + timedelta(hours=hours)))


def test_the_picture_of_an_unfinished_run_says_its_step(models, engine):
    session = started(models, engine)
    steps = session.steps(engine)
    next(steps)
    next(steps)
    steps.close()
    assert f"-step-{len(session.run.views) - 1}.png" in session.file("png")
    list(session.steps(engine))
    assert "-step-" not in session.file("png")


def test_state_expires_and_takes_the_run_and_its_files_along(holder, models, engine, monkeypatch):
    assert {block.time_to_live for block in states(holder)} == {EXPIRES}, "a state of the page never expires"
    session = started(models, engine)
    list(session.steps(engine))
    file, gone = Path(session.file("png")), weakref.ref(session)
    holder["visitor"][states(holder)[0]._id] = session
    del session
    holder.delete_all_expired_state()
    assert gone() is not None
    assert file.is_file()
    monkeypatch.setattr(state_holder, "datetime", clock((EXPIRES + 1) / 3600))
    holder.delete_all_expired_state()
    gc.collect()
    assert gone() is None
    assert not file.exists()


def test_whatever_reads_a_visitor_s_state_renews_it(holder):
    """Gradio counts from when a state was last set: half an hour of looking at cells must not lose it."""
    events, ids = list(holder.blocks.fns.values()), {state._id for state in states(holder)}
    renewed = {
        (state._id, target)
        for event in events
        for state in event.outputs
        if state._id in ids & {block._id for block in event.inputs}
        for target in event.targets
    }
    readers = [
        (state._id, target)
        for event in events
        for state in event.inputs
        if state._id in ids
        for target in event.targets
        if target[1] not in ("then", "success")  # after an event that is looked at itself
    ]
    assert len(readers) > 20
    assert set(readers) <= renewed


def test_a_disk_that_cannot_be_written_gets_a_sentence(models, engine, monkeypatch):
    """A download where no folder for temporary files can be written: /proc stands for a read-only disk."""
    page = build(models)
    session = started(models, engine)
    list(session.steps(engine))
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    make = next(event.fn for event in page.fns.values() if event.name == "make")
    with pytest.raises(gr.Error, match=r"cannot be written here.*full or read-only"):
        make(session)


def test_a_disk_that_fails_below_the_page_gets_a_sentence(engine, tmp_path):
    """The weights cannot be read when the first visitor presses Run; when they can, the same page goes on."""
    weights = write_checkpoint(tmp_path / "tiny") / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.symlink_to("/proc/self/mem")
    failing, session = Models(tmp_path), Session()
    with pytest.raises(CheckpointError, match="Input/output error"):
        session.prepare(RECIPE, failing, engine)
    weights.unlink()
    weights.write_bytes(content)
    session.prepare(RECIPE, failing, engine)
    assert len(list(session.steps(engine))) == RECIPE.steps + 1


def test_a_clock_set_back_loses_no_state(holder, monkeypatch):
    place = states(holder)[0]._id
    holder["visitor"][place] = session = Session()
    monkeypatch.setattr(state_holder, "datetime", clock(-24))
    holder.delete_all_expired_state()
    assert holder["visitor"][place] is session


def test_a_clock_that_jumps_does_not_change_a_run(models, engine, monkeypatch):
    """Only the monotonic clock is asked while a run is under way: neither its picture nor its share of time changes."""
    plain = list(started(models, engine).steps(engine))
    jumps = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1e9 * (-1) ** next(jumps))
    session = started(models, Engine(max_seconds=60))
    jumped = list(session.steps(Engine(max_seconds=60)))
    assert [text.split('"lanes"')[1] for text in jumped] == [text.split('"lanes"')[1] for text in plain]
    assert all(0 <= ms < 60_000 for ms in session.run.milliseconds)
