"""What is measured: the app in a process of its own, its page in headless Chromium, the memory it takes."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CHECKPOINTS = str(REPOSITORY / "checkpoints")
PATIENCE = 300  # seconds until the app must answer


@contextmanager
def app(*options: str) -> Iterator[tuple[str, int, float]]:
    """The app on a free port, without a network: its address, process id and the seconds until it answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "app.py", "--host", "127.0.0.1", "--port", str(port), *options]
    start, url = time.monotonic(), f"http://127.0.0.1:{port}"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, env=offline) as process:
        try:
            while not _answers(url):
                if process.poll() is not None:
                    sys.exit("the app has ended before it answered")
                if time.monotonic() > start + PATIENCE:
                    sys.exit(f"the app has not answered within {PATIENCE} s")
                time.sleep(0.05)
            yield url, process.pid, time.monotonic() - start
            if process.poll() is not None:
                sys.exit("the app has died")
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=20).close()
    except OSError:
        return False
    return True


@contextmanager
def page(url: str) -> Iterator:
    """A page of headless Chromium at the address, without a GPU."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        yield page
        browser.close()


def memory(pid: int | None) -> float | None:
    """Resident memory of a process, in megabytes; None where it cannot be read."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
