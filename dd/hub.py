"""Checkpoints and the Space on the Hugging Face hub: push, pull, verify by hash, try again."""

import filecmp
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # whatever the installed library's HTTP client raises
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from dd import checkpoints
from dd.checkpoints import CheckpointError

T = TypeVar("T")

ATTEMPTS, WAIT = 4, 1.0  # waits of WAIT, 2 WAIT, 4 WAIT seconds between attempts
TRANSIENT = (408, 429, 500, 502, 503, 504)
PATTERNS = [pattern for name in checkpoints.FILES for pattern in (name, f"*/{name}")]
SPACE = (
    "app.py", "README.md", "LICENSE", "requirements.txt", "pyproject.toml", "Dockerfile", ".dockerignore",
    "dd", "docs", "train", "checkpoints",
)  # fmt: skip
JUNK = ("__pycache__", "*.pyc", "*.part", "*.pt", ".*_cache")
GRADIO_ONLY = ("sdk:", "sdk_version:", "python_version:", "app_file:")


class HubError(CheckpointError):
    """The hub could not do what was asked; the message says why and what to do."""


def folder(source: str | Path) -> Path:
    """A folder of checkpoints: `source` itself, or a hub repository, pulled into the hub's cache."""
    if Path(source).is_dir() or not _is_repository(source):
        return Path(source)
    into = Path(constants.HF_HOME) / "dirichlet-diffusion" / str(source).replace("/", "--")
    pulled = pull(str(source), into)
    for gone in {path for path in into.iterdir() if path.is_dir()} - set(pulled):  # not in the repository any more
        shutil.rmtree(gone)
    return into


def _is_repository(source: str | Path) -> bool:
    return isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "/", "~"))


def pull(source: str, into: str | Path) -> list[Path]:
    """The checkpoints of hub repository USER/NAME[@REVISION] as folders in `into`; those that changed are replaced.

    A repository holds one checkpoint at its root, or several in folders. When the hub cannot be reached, what was
    downloaded before serves. Every file is compared with the hash the hub gave for it.
    """
    repository, _, revision = source.partition("@")
    cached = snapshot(repository, revision or None)
    found = [cached] if (cached / "config.json").is_file() else sorted(p.parent for p in cached.glob("*/config.json"))
    if not found:
        raise HubError(f"{source} holds no checkpoint: neither config.json nor NAME/config.json is there")
    names = [repository.split("/")[-1] if one == cached else one.name for one in found]
    return [_copy(one, Path(into) / name) for one, name in zip(found, names, strict=True)]


def snapshot(repository: str, revision: str | None = None) -> Path:
    """The repository in the hub's cache, every file compared with the hash the hub gave for it."""
    for force in (False, True):  # a damaged cache is downloaded afresh, once
        cached = Path(
            _attempt(
                repository,
                lambda force=force: snapshot_download(
                    repository, revision=revision, allow_patterns=PATTERNS, force_download=force, max_workers=1
                ),
            )
        )
        damaged = [path for path in sorted(cached.rglob("*")) if path.is_file() and not _intact(path)]
        if not damaged:
            return cached
    raise HubError(f"{damaged[0].name} of {repository} differs from the hash the hub gives for it; try again later")


def _intact(path: Path) -> bool:
    """Whether a file of the hub's cache is what its name says: the cache links files to blobs named by hash."""
    blob = path.resolve().name
    return blob == path.name or digest(path, like=blob) == blob  # a cache without links has no such names


def digest(path: Path, like: str) -> str:
    """SHA-256 (large files), or where `like` is a hash of 40 digits, git's hash of a blob (small ones)."""
    content = path.read_bytes()
    if len(like) == 40:
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return hashlib.sha256(content).hexdigest()


def _copy(source: Path, target: Path) -> Path:
    """Copy a checkpoint's files if any of them differs; meanwhile there are no weights: half a copy is not used."""
    names = [name for name in reversed(checkpoints.FILES) if (source / name).is_file()]
    if filecmp.cmpfiles(source, target, names, shallow=False)[0] == names:
        return target
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.safetensors").unlink(missing_ok=True)
    for name in names:
        with checkpoints.replacing(target / name) as part:
            shutil.copyfile(source / name, part)
    return target


def push(checkpoint: str | Path, repository: str) -> str:
    """Upload a checkpoint's folder, creating the repository where there is none; its address."""
    if not Path(checkpoint).is_dir():
        raise HubError(f"there is no folder {checkpoint} to push")
    loaded = checkpoints.load(checkpoint)  # a damaged one is not published
    files = [name for name in checkpoints.FILES if (Path(checkpoint) / name).is_file()]
    api = HfApi()

    def upload() -> str:
        api.create_repo(repository, exist_ok=True)
        made = api.upload_folder(
            repo_id=repository, folder_path=checkpoint, allow_patterns=files, commit_message=f"Checkpoint {loaded.name}"
        )
        for there in api.get_paths_info(repository, files, revision=made.oid):
            expected = there.lfs.sha256 if there.lfs else there.blob_id
            if digest(Path(checkpoint) / there.path, like=expected) != expected:
                raise HubError(f"{there.path} arrived damaged in {repository}; push it again")
        return made.repo_url.url

    return _attempt(repository, upload, pushing=True)


def push_space(root: str | Path, repository: str, docker: bool = False) -> str:
    """Upload the app as a Space, on Gradio's image or on the Dockerfile here; its address."""
    api = HfApi()
    with tempfile.TemporaryDirectory() as stage:
        _stage(Path(root), Path(stage), docker)

        def upload() -> str:
            sdk = "docker" if docker else "gradio"
            api.create_repo(repository, repo_type="space", space_sdk=sdk, exist_ok=True)
            made = api.upload_folder(
                repo_id=repository, repo_type="space", folder_path=stage, commit_message="Dirichlet Diffusion"
            )
            return made.repo_url.url

        return _attempt(repository, upload, pushing=True)


def _stage(root: Path, stage: Path, docker: bool) -> None:
    """What a Space needs, and nothing else."""
    for name in SPACE:
        if (root / name).is_dir():
            shutil.copytree(root / name, stage / name, ignore=shutil.ignore_patterns(*JUNK))
        elif (root / name).is_file():
            shutil.copyfile(root / name, stage / name)
    if docker:
        readme = stage / "README.md"
        readme.write_text(docker_header(readme.read_text()))


def docker_header(readme: str) -> str:
    """The README with the front matter of a Docker Space in the place of a Gradio one's."""
    _, header, text = readme.split("---", 2)
    kept = [line for line in header.strip().splitlines() if not line.startswith(GRADIO_ONLY)]
    return "\n".join(["---", *kept, "sdk: docker", "app_port: 7860", "---"]) + text


def _attempt(repository: str, call: Callable[[], T], pushing: bool = False) -> T:
    """The call's result, tried again with growing waits while the fault may pass; then HubError."""
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except (HTTPError, LocalEntryNotFoundError, LocalTokenNotFoundError, OfflineModeIsEnabled) as error:
            if attempt == ATTEMPTS - 1 or not _may_pass(error):
                raise HubError(_sentence(repository, error, pushing)) from error
            time.sleep(WAIT * 2**attempt)
        except HFValidationError as error:
            raise HubError(f"{repository!r} is not the name of a hub repository; write USER/NAME") from error


def _may_pass(error: Exception) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in TRANSIENT
    return not (constants.HF_HUB_OFFLINE or isinstance(error, LocalTokenNotFoundError))


def _sentence(repository: str, error: Exception, pushing: bool) -> str:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    so_far = f"nothing was uploaded to {repository}" if pushing else f"{repository} has not been downloaded before"
    instead = "and push again" if pushing else "or give a local folder"
    if constants.HF_HUB_OFFLINE:
        return f"HF_HUB_OFFLINE is set and {so_far}; unset it, {instead}"
    if status in (401, 403) or isinstance(error, LocalTokenNotFoundError):
        return (
            f"the hub gives no access to {repository}; run `hf auth login`, or set HF_TOKEN to a token that may use it"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repository} has no such revision on the hub; check what follows the @"
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return (
            f"there is no repository {repository} on the hub that you may see; check the name, or run `hf auth login`"
        )
    if status is not None:
        return f"the hub answered {status} for {repository}, {ATTEMPTS} times where that may pass; try again later"
    return (
        f"the hub at {constants.ENDPOINT} cannot be reached ({type(error).__name__}) and {so_far}; "
        f"check the network, {instead}"
    )
