"""The notebooks in docs run from top to bottom in a fresh kernel; what they claim, their own cells assert.

DD_CHECKPOINT names another network for the walkthrough than checkpoints/digits.
"""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ("walkthrough", "train-small")


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "docs" / f"{name}.ipynb", as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def execute(name: str, **environment: str) -> nbformat.NotebookNode:
    """The notebook with its outputs; raises CellExecutionError at the first cell that fails."""
    notebook = read(name)
    client = NotebookClient(
        notebook, timeout=400, startup_timeout=200, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MPLBACKEND", raising=False)  # which importing app.py sets, for other tests, in this process
        for key, value in environment.items():
            patch.setenv(key, value)
        client.execute()
    return notebook


def printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_valid_and_without_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.nbformat == 4
    for cell in code_cells(notebook):
        assert not cell.outputs
        assert cell.execution_count is None


def test_the_first_cell_fetches_the_repository_where_it_is_not_there(tmp_path):
    repository, elsewhere = tmp_path / "origin", tmp_path / "elsewhere"
    shutil.copytree(ROOT / "dd", repository / "dd", ignore=shutil.ignore_patterns("__pycache__"))
    (repository / "requirements.txt").write_text("torch\n")  # installed already, so that pip need not ask any index
    elsewhere.mkdir()
    git = ["git", "-C", str(repository), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True)
    setup = code_cells(read("walkthrough"))[0].source
    assert setup == code_cells(read("train-small"))[0].source
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"DD_REPOSITORY": repository.as_uri(), "PIP_NO_INDEX": "1"}
    script = setup + "\nimport dd\nprint(Path.cwd())\nprint(Path(dd.__file__).parents[1])"
    for _ in range(2):  # the second time it is there already
        run = subprocess.run(
            [sys.executable, "-c", script], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.split() == [str(elsewhere / "dirichlet-diffusion")] * 2
        environment.pop("DD_REPOSITORY", None)


def seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.timeout(1200)
def test_walkthrough_from_a_one_hot_cell_to_a_generated_digit():
    before = seconds_of_children()
    notebook = execute("walkthrough")
    assert seconds_of_children() - before < 180  # of processor time, so that other work on the machine does not count
    assert len(code_cells(notebook)) == 20
    assert pictures(notebook) == 12
    said = printed(notebook)
    for process in ("dirichlet", "d3pm-absorbing", "d3pm-uniform", "multinomial", "gaussian"):
        assert f"{process:15} read as meant" in said


@pytest.mark.timeout(900)
def test_train_small_beats_independent_pixels_and_leaves_a_usable_checkpoint(tmp_path):
    from dd import checkpoints

    out = tmp_path / "small"
    notebook = execute("train-small", DD_STEPS="60", DD_OUT=str(out), DD_DATA=str(tmp_path / "no data here"))
    assert pictures(notebook) == 3
    assert "of strokes, 4 classes" in printed(notebook)
    assert checkpoints.load(out).config["trained"]["steps"] == 60
