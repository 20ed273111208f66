"""A running app and a real browser. Without Chromium the tests skip, and fail where DD_REQUIRE_BROWSER is set."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port), "--host", "127.0.0.1", *options]
    with subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "HF_HUB_OFFLINE": "1"}) as process:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(url, timeout=20).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, "the app has exited"
                assert time.monotonic() < deadline, "the app did not answer within 300 s"
                time.sleep(0.3)
        try:
            yield App(url, process.pid)
            assert process.poll() is None, "the app died during the tests"
        finally:
            process.terminate()


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
