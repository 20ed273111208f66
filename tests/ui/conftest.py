"""A running app and a real browser. Without Chromium the tests skip, and fail where DD_REQUIRE_BROWSER is set."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import bench.app

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip


@dataclass(frozen=True)
class App:
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """Processor time the app has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(*options: str) -> Iterator[App]:
    """The app as a user starts it, in its own process on a free port; on the shipped checkpoints by default."""
    with bench.app.app(*options) as (url, pid, _):
        yield App(url, pid)


@pytest.fixture(scope="session")
def app() -> Iterator[App]:
    with running() as app:
        yield app


@pytest.fixture(scope="session")
def app_url(app: App) -> str:
    return app.url


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        reason = "no Chromium on this machine"
        pytest.fail(reason) if os.environ.get("DD_REQUIRE_BROWSER") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, app_url):
    """A fresh visitor on a desktop."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(app_url)
    page.wait_for_selector("#generate-run")
    yield page
    assert page.errors == []
    context.close()


def offered(page, label: str) -> list[str]:
    """What the dropdown of that label has on offer; it is closed again."""
    page.get_by_label(label, exact=True).locator("visible=true").click()
    page.get_by_role("option").first.wait_for()
    found = [text.removeprefix("✓").strip() for text in page.get_by_role("option").all_inner_texts()]
    page.keyboard.press("Escape")
    page.get_by_role("option").first.wait_for(state="hidden")
    return found
