"""Run, Pause, Step, Reset and the downloads: the same on every tab that plays a run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gradio as gr

from dd.runs import Models, Recipe, RecipeError
from dd.ui.controls import QUIET, refuse
from dd.ui.engine import Engine
from dd.ui.player import CLEAR
from dd.ui.session import EXPIRES, Session
from dd.ui.upload import UNWRITABLE

LIVE = {"concurrency_id": "live", "concurrency_limit": 16, "show_progress": "minimal", "api_visibility": "private"}
KINDS = (("png", "PNG"), ("gif", "GIF"), ("webp", "WebP"), ("json", "Recipe (JSON)"))


@dataclass(frozen=True)
class Buttons:
    run: gr.Button
    pause: gr.Button
    step: gr.Button
    reset: gr.Button
    place: gr.Markdown  # says a visitor's place in the queue while there is one


def buttons(prefix: str) -> Buttons:
    """The four buttons of a tab, in one row, and below them a line that says the place in the queue."""
    with gr.Row(elem_classes="dd-transport"):
        four = (
            gr.Button("Run", variant="primary", size="md", min_width=60, elem_id=f"{prefix}-run"),
            gr.Button("Pause", size="md", min_width=60, elem_id=f"{prefix}-pause"),
            gr.Button("Step", size="md", min_width=60, elem_id=f"{prefix}-step"),
            gr.Button("Reset", size="md", min_width=60, elem_id=f"{prefix}-reset"),
        )
    return Buttons(*four, gr.Markdown("", height=20, elem_id=f"{prefix}-place", elem_classes="dd-place"))


def session_state() -> gr.State:
    return gr.State(None, time_to_live=EXPIRES)


def renew(state: gr.State, *visits: gr.events.EventListener) -> None:
    """These events count as visits: the state lives EXPIRES from each on. Gradio counts from when it was last set."""
    gr.on(list(visits), lambda value: value, state, state, queue=False, **QUIET)


def runner(to_recipe: Callable[..., Recipe], models: Models, engine: Engine) -> Callable[..., Iterator[tuple]]:
    """(session, *controls) -> a stream of (message, session), one a reverse step."""

    def on_run(session: Session | None, *values: object) -> Iterator[tuple]:
        session = session or Session()
        try:
            session.prepare(to_recipe(*values), models, engine)
            for text in session.steps(engine):
                yield text, session
        except ValueError as error:
            raise refuse(error) from error

    return on_run


def connect(
    pressed: Buttons,
    stage: gr.HTML,
    session: gr.State,
    controls: list[gr.components.Component],
    to_recipe: Callable[..., Recipe],
    models: Models,
    engine: Engine,
) -> gr.events.Dependency:
    """Wire the four buttons; returns the run's event, so that a tab can go on from its end."""
    on_run = runner(to_recipe, models, engine)

    def on_step(session: Session | None, *values: object) -> tuple:
        session = session or Session()
        try:
            session.prepare(to_recipe(*values), models, engine)
            return session.step(engine) or gr.skip(), session
        except ValueError as error:
            raise refuse(error) from error

    live = {**LIVE, "show_progress_on": pressed.place}
    running = pressed.run.click(on_run, [session, *controls], [stage, session], **live)
    stepping = pressed.step.click(on_step, [session, *controls], [stage, session], cancels=[running], **live)
    pressed.pause.click(None, cancels=[running, stepping], **QUIET)
    pressed.reset.click(
        lambda: (CLEAR, None), None, [stage, session], cancels=[running, stepping], queue=False, **QUIET
    )  # fmt: skip
    return running


def downloads(prefix: str, session: gr.State) -> None:
    """A button a file kind. The file is made when asked for, then fetched through one hidden download button."""
    made = {kind: gr.Button(text, size="sm", min_width=60, elem_id=f"{prefix}-{kind}") for kind, text in KINDS}
    fetch = gr.DownloadButton("file", visible="hidden", elem_id=f"{prefix}-file")

    def maker(kind: str) -> Callable[[Session | None], str]:
        def make(session: Session | None) -> str:
            try:
                return (session or Session()).file(kind)
            except ValueError as error:
                raise refuse(error) from error
            except OSError as error:
                raise refuse(RecipeError(UNWRITABLE.format(error.strerror))) from error

        return make

    for kind, button in made.items():
        done = button.click(maker(kind), session, fetch, show_progress="minimal", api_visibility="private")
        renew(session, button.click)
        done.success(None, js=f"() => document.querySelector('#{prefix}-file').click()", api_visibility="private")
