"""Run, Pause, Step, Reset, the downloads and the way back from a recipe: the same on every tab that plays a run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from dd.models import Models
from dd.recipe import Recipe, RecipeError
from dd.runs import Run
from dd.ui.controls import QUIET, REFUSALS, refuse
from dd.ui.engine import Engine
from dd.ui.player import CLEAR
from dd.ui.session import EXPIRES, Session
from dd.ui.upload import unwritten

LIVE = {"concurrency_id": "live", "concurrency_limit": 16, "show_progress": "minimal", "api_visibility": "private"}
FOUR = "Run to the end, Pause, Step once, Reset to start over."
KINDS = (("png", "PNG"), ("gif", "GIF"), ("webp", "WebP"), ("json", "Recipe"))
MOVING = ("gif", "webp")  # which take seconds and memory to make: one at a time


@dataclass(frozen=True)
class Buttons:
    run: gr.Button
    pause: gr.Button
    step: gr.Button
    reset: gr.Button
    place: gr.Markdown  # says a visitor's place in the queue while there is one


@dataclass(frozen=True)
class Form:
    """A tab's controls and the recipes they stand for.

    fill: what the controls, in their order, become for a run of a recipe saved on this tab.
    """

    tab: str
    controls: list[gr.components.Component]
    to_recipe: Callable[..., Recipe]
    fill: Callable[[Run], list]


@dataclass(frozen=True)
class Events:
    """What the buttons set off, so that a tab can go on from its end. filled: the controls, by a loaded recipe."""

    running: gr.events.Dependency
    stepping: gr.events.Dependency
    pausing: gr.events.Dependency
    resetting: gr.events.Dependency
    filled: gr.events.Dependency
    loaded: gr.events.Dependency


def buttons(prefix: str) -> Buttons:
    """The four buttons of a tab, in one row, and below them a line on them, or on the place in the queue."""
    with gr.Row():
        four = (
            gr.Button("Run", variant="primary", size="md", min_width=60, elem_id=f"{prefix}-run"),
            gr.Button("Pause", size="md", min_width=60, elem_id=f"{prefix}-pause"),
            gr.Button("Step", size="md", min_width=60, elem_id=f"{prefix}-step"),
            gr.Button("Reset", size="md", min_width=60, elem_id=f"{prefix}-reset"),
        )
    return Buttons(*four, gr.Markdown(FOUR, height=20, elem_id=f"{prefix}-place"))


def session_state() -> gr.State:
    return gr.State(None, time_to_live=EXPIRES)


def renew(state: gr.State, *visits: gr.events.EventListener) -> None:
    """These events count as visits: the state lives EXPIRES from each on. Gradio counts from when it was last set."""
    gr.on(list(visits), lambda value: value, state, state, queue=False, **QUIET)


def load_button(prefix: str) -> gr.UploadButton:
    return gr.UploadButton("Load recipe", file_types=[".json"], size="sm", min_width=90, elem_id=f"{prefix}-load")


def connect(
    pressed: Buttons,
    load: gr.UploadButton,
    stage: gr.HTML,
    session: gr.State,
    form: Form,
    models: Models,
    engine: Engine,
) -> Events:
    """Wire the four buttons, and the one that takes a recipe saved on this tab, sets the controls to it and runs it.

    A recipe that the controls cannot express, for example one written by hand, is refused: the picture would be
    another one.
    """
    wanted = gr.State(None, time_to_live=EXPIRES)

    def on_run(session: Session | None, *values: object, wanted: Recipe | None = None) -> Iterator[tuple]:
        """wanted: the loaded recipe that the controls are to stand for."""
        session = session or Session()
        try:
            session.prepare(form.to_recipe(*values), models, engine)
            if wanted is not None and session.run.recipe != wanted:
                raise RecipeError("this recipe asks for what this tab cannot set; python -m dd sample can")
            for text in session.steps(engine):
                yield text, session
        except REFUSALS as error:
            raise refuse(error) from error

    def on_step(session: Session | None, *values: object) -> Iterator[tuple]:
        """One reverse step; of a new run the noise that it starts from is shown first."""
        session = session or Session()
        session.halt()
        try:
            session.prepare(form.to_recipe(*values), models, engine)
            if session.shown == 0:
                yield session.step(engine), session
            yield session.step(engine) or gr.skip(), session
        except REFUSALS as error:
            raise refuse(error) from error

    def on_load(path: str | None) -> list:
        try:
            if path is None:
                raise RecipeError("no file has come; choose the .json file of a run")
            loaded = Recipe.from_json(Path(path).read_text(errors="replace"))
            run = engine.do(Run, loaded, models)
            if tab_of(loaded) != form.tab:
                raise RecipeError(f"this recipe was saved on the tab {tab_of(loaded)}; load it there")
            return [run.recipe, *form.fill(run)]
        except REFUSALS as error:
            raise refuse(error) from error

    def on_loaded(wanted: Recipe, *values: object) -> Iterator[tuple]:
        yield from on_run(None, *values, wanted=wanted)

    def on_halt(session: Session | None) -> Session | None:
        """Beside Gradio's own cancelling, which may come before or after what it is to cancel."""
        if session is not None:
            session.halt()
        return session

    def on_reset(session: Session | None) -> tuple:
        on_halt(session)
        if session is not None:
            session.recipe, session.pins = None, []  # a step on its way may bring the session back: nothing goes on
        return CLEAR, None

    live = {**LIVE, "show_progress_on": pressed.place}
    quiet = {"show_progress_on": pressed.place, "api_visibility": "private"}  # or an error would cover every control
    results = [stage, session]
    filled = load.upload(on_load, load, [wanted, *form.controls], **quiet)
    loaded = filled.success(on_loaded, [wanted, *form.controls], results, **live)
    running = pressed.run.click(on_run, [session, *form.controls], results, cancels=[loaded], **live)
    stepping = pressed.step.click(on_step, [session, *form.controls], results, cancels=[running, loaded], **live)
    under_way = [running, stepping, loaded]
    halting = {"cancels": under_way, "queue": False, **QUIET}
    pausing = pressed.pause.click(on_halt, session, session, **halting)
    load.click(on_halt, session, session, **halting)  # at its click: after the upload it would stop the loaded run, too
    resetting = pressed.reset.click(on_reset, session, results, cancels=under_way, queue=False, **QUIET)
    pausing.success(None, js=_tell(stage, "dd-paused"), api_visibility="private")
    stepping.success(None, js=_tell(stage, "dd-stepped"), api_visibility="private")
    stepping.failure(None, js=_tell(stage, "dd-refused"), api_visibility="private")
    # Not of the image editor: with a listener to its input it would keep a loaded recipe from being run.
    inputs = [control.input for control in form.controls if isinstance(control, gr.Dropdown | gr.Slider | gr.Number)]
    gr.on(inputs, None, js=_tell(stage, "dd-changed"), api_visibility="private")
    return Events(running, stepping, pausing, resetting, filled, loaded)


def _tell(stage: gr.HTML, event: str) -> str:
    """JavaScript that tells the player of something."""
    return f"() => document.dispatchEvent(new CustomEvent('{event}', {{ detail: {{ player: '{stage.elem_id}' }} }}))"


def downloads(prefix: str, session: gr.State, engine: Engine) -> None:
    """A button a file kind. The file is made when asked for, then fetched through one hidden download button."""
    made = {kind: gr.Button(text, size="sm", min_width=60, elem_id=f"{prefix}-{kind}") for kind, text in KINDS}
    fetch = gr.DownloadButton("file", visible="hidden", elem_id=f"{prefix}-file")

    def maker(kind: str) -> Callable[[Session | None], str]:
        def make(session: Session | None) -> str:
            try:
                make_file = (session or Session()).file
                return engine.aside(make_file, kind) if kind in MOVING else make_file(kind)
            except REFUSALS as error:
                raise refuse(error) from error
            except OSError as error:
                raise refuse(RecipeError(unwritten(error))) from error

        return make

    for kind, button in made.items():
        done = button.click(maker(kind), session, fetch, show_progress="minimal", api_visibility="private")
        renew(session, button.click)
        done.success(None, js=f"() => document.querySelector('#{prefix}-file').click()", api_visibility="private")


def tab_of(recipe: Recipe) -> str:
    """The tab that makes such recipes."""
    if recipe.given is not None:
        return "Noise and restore" if recipe.given.known is None else "Inpaint"
    return "Generate" if len(recipe.lanes) == 1 else "Compare"
