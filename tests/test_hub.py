"""Pushing to and pulling from a hub on loopback, with the real huggingface_hub in between."""

import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

from dd import checkpoints, hub
from dd.__main__ import main
from tests.fake_hub import Hub, serving
from tests.tiny import write_checkpoint

NAME = "someone/tiny-model"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with serving() as fake:
        monkeypatch.setattr(constants, "ENDPOINT", fake.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", fake.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "WAIT", 0.01)
        monkeypatch.setenv("HF_TOKEN", "hf_not_a_real_token")
        yield fake


@pytest.fixture
def pushed(fake: Hub, tmp_path: Path) -> Path:
    """A checkpoint that has been pushed to the fake hub."""
    folder = write_checkpoint(tmp_path / "tiny")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# tiny\n")
    (folder / "state.pt").write_bytes(b"not for the hub")
    assert main(["push", str(folder), NAME]) == 0
    return folder


def same(a: Path, b: Path) -> bool:
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in checkpoints.FILES)


def test_push_uploads_the_checkpoint_and_nothing_else(fake: Hub, pushed: Path):
    assert set(fake.files[f"models/{NAME}"]) == set(checkpoints.FILES)
    assert f"POST /{NAME}.git/info/lfs/objects/batch" in fake.requests


def test_pull_gives_back_what_was_pushed(fake: Hub, pushed: Path, tmp_path: Path, capsys):
    assert main(["pull", NAME, "--to", str(tmp_path / "got")]) == 0
    got = tmp_path / "got" / "tiny-model"
    assert same(got, pushed)
    assert str(got) in capsys.readouterr().out
    assert checkpoints.load(got).sha256 == checkpoints.load(pushed).sha256


def test_repository_of_several_checkpoints(fake: Hub, pushed: Path, tmp_path: Path):
    files = fake.files[f"models/{NAME}"]
    fake.files["models/someone/all"] = {f"{one}/{name}": c for one in ("a", "b") for name, c in files.items()}
    assert hub.pull("someone/all", tmp_path / "got") == [tmp_path / "got" / "a", tmp_path / "got" / "b"]
    assert same(tmp_path / "got" / "b", pushed)


def test_second_pull_needs_no_hub(fake: Hub, pushed: Path, tmp_path: Path, monkeypatch):
    first = hub.folder(NAME)
    downloads = [r for r in fake.requests if "/resolve/" in r]
    assert downloads
    hub.folder(NAME)
    assert [r for r in fake.requests if "/resolve/" in r] == downloads, "nothing is downloaded twice"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.folder(NAME) == first
    assert same(first / "tiny-model", pushed)


def test_a_local_folder_asks_nobody(fake: Hub, tmp_path: Path):
    assert hub.folder(tmp_path) == tmp_path
    assert hub.folder(tmp_path / "not-there") == tmp_path / "not-there"
    assert fake.requests == []


def test_damaged_cache_is_downloaded_again(fake: Hub, pushed: Path, tmp_path: Path):
    hub.pull(NAME, tmp_path / "a")
    weights = next((tmp_path / "home").rglob("snapshots/*/model.safetensors")).resolve()
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert same(hub.pull(NAME, tmp_path / "b")[0], pushed)


def test_damaged_download_is_refused(fake: Hub, pushed: Path, tmp_path: Path, capsys):
    fake.damage = True
    assert main(["pull", NAME, "--to", str(tmp_path / "got")]) == 2
    assert "differs from the hash" in capsys.readouterr().err
    assert not (tmp_path / "got").exists()


def test_damaged_checkpoint_is_not_pushed(fake: Hub, tmp_path: Path, capsys):
    folder = write_checkpoint(tmp_path / "tiny")
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    assert main(["push", str(folder), NAME]) == 2
    assert "damaged" in capsys.readouterr().err
    assert fake.requests == []


def test_what_is_no_folder_is_not_pushed(fake: Hub, pushed: Path):
    with pytest.raises(hub.HubError, match="there is no folder someone/else to push"):
        hub.push("someone/else", "someone/other")


def test_passing_faults_are_tried_again(fake: Hub, pushed: Path, tmp_path: Path):
    fake.failures = 2
    assert same(hub.pull(NAME, tmp_path / "got")[0], pushed)
    assert fake.failures == 0


def test_lasting_refusals_are_not(fake: Hub, pushed: Path, tmp_path: Path):
    fake.failures, fake.failure = 99, 401
    before = len(fake.requests)
    with pytest.raises(hub.HubError, match="gives no access to someone/tiny-model"):
        hub.pull(NAME, tmp_path / "got")
    assert len(fake.requests) == before + 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("someone/else", "no repository someone/else"),
        (f"{NAME}@v9", "no such revision"),
        ("some one/else", "not the name of a hub repository"),
        ("someone", "there is no repository someone"),
    ],
)
def test_wrong_names_get_a_sentence(fake: Hub, pushed: Path, tmp_path: Path, name: str, sentence: str):
    with pytest.raises(hub.HubError, match=sentence):
        hub.pull(name, tmp_path / "got")


def test_unreachable_hub_gets_a_sentence(fake: Hub, tmp_path: Path, monkeypatch, capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert main(["pull", NAME, "--to", str(tmp_path / "got")]) == 2
        said = capsys.readouterr().err
    assert "cannot be reached" in said
    assert "Traceback" not in said
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(hub.HubError, match="HF_HUB_OFFLINE is set"):
        hub.pull(NAME, tmp_path / "got")


def test_pushing_to_an_unreachable_hub_says_that_nothing_was_uploaded(fake: Hub, tmp_path: Path, monkeypatch, capsys):
    folder = write_checkpoint(tmp_path / "tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["push", str(folder), NAME]) == 2
    assert f"nothing was uploaded to {NAME}; unset it, and push again" in capsys.readouterr().err


@pytest.mark.parametrize("docker", [False, True])
def test_space_holds_the_app(fake: Hub, docker: bool):
    assert main(["push", "--space", "someone/app", *(["--docker"] if docker else [])]) == 0
    files = fake.files["spaces/someone/app"]
    assert {"app.py", "requirements.txt", "README.md", "Dockerfile", "dd/ui/app.py"} <= set(files)
    assert not [path for path in files if "__pycache__" in path or path.startswith(("tests/", ".git/"))]
    header = files["README.md"].decode().split("---")[1]
    assert fake.sdk == ("docker" if docker else "gradio")
    assert f"sdk: {fake.sdk}\n" in header
    assert ("app_port: 7860" in header) == docker


@pytest.mark.parametrize(
    "words", [["push"], ["push", "a"], ["push", "a", "b/c", "--docker"], ["push", "a", "--space", "b/c"]]
)
def test_push_says_how_it_is_used(words: list[str], capsys):
    assert main(words) == 2
    assert "say push CHECKPOINT USER/NAME" in capsys.readouterr().err
