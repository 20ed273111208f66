"""The documents' links lead somewhere, every formula of docs/math.md names code that exists, and the README's table
says what was measured of the shipped weights."""

import importlib
import re
from pathlib import Path

import pytest

from dd import checkpoints, results
from dd.processes import traits
from dd.recipe import sampling_temperature
from train.tables import current, page

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
MATH = (ROOT / "docs" / "math.md").read_text()
SECTIONS = re.split(r"^(?=## )", MATH, flags=re.M)[1:]
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
NAME = re.compile(r"`([A-Za-z_]\w*(?:\.\w+)*)`")
ROWS = {
    "Dirichlet, Dirichlet step": ("dirichlet", "dirichlet"),
    "D3PM uniform": ("d3pm-uniform", "ancestral"),
    "D3PM absorbing": ("d3pm-absorbing", "ancestral"),
    "D3PM discretised Gaussian": ("d3pm-gaussian", "ancestral"),
    "Gaussian on one-hots, DDPM steps": ("gaussian", "ddpm"),
}


def code_links(text: str) -> list[tuple[list[str], str]]:
    """(names, module) of every link from `name` to a file of dd/."""
    links = [(NAME.findall(label), target) for label, target in LINK.findall(text) if "/dd/" in target]
    return [(names, target.split("/dd/")[1].removesuffix(".py").replace("/", ".")) for names, target in links]


def has(module: str, name: str) -> bool:
    found = importlib.import_module(f"dd.{module}")
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_repository_resolve(page):
    text = (ROOT / page).read_text()
    for _, target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), flags=re.M)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, target


def test_every_linked_name_is_in_the_module_it_links_to():
    links = code_links(MATH)
    assert len(links) > 25
    for names, module in links:
        for name in names:
            assert has(module, name), f"{name} is not in dd.{module}"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda text: text.splitlines()[0][3:20])
def test_every_name_of_a_section_is_in_a_module_linked_there(section):
    modules = {module for _, module in code_links(section)}
    for name in NAME.findall(section):
        if not name.startswith("test_"):
            assert any(has(module, name) for module in modules), name


def test_every_numbered_formula_is_followed_by_the_function_that_implements_it():
    numbers = [int(n) for n in re.findall(r"\\tag\{(\d+)\}", MATH)]
    assert numbers == list(range(1, len(numbers) + 1))
    for section in SECTIONS:
        for part in re.split(r"\\tag\{", section)[1:]:
            rest = section[section.index("\\tag{" + part) :]
            assert any(names for names, _ in code_links(rest)), part[:4]


@pytest.mark.parametrize("name", re.findall(r"`(test_\w+)`", MATH))
def test_every_test_that_is_cited_exists(name):
    assert any(f"def {name}(" in path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


def test_the_tables_of_results_are_made_of_what_was_measured():
    """As `python -m train.results` would write them now."""
    md = (ROOT / "docs" / "results.md").read_text()
    assert page(md, current(results.read())) == md


@pytest.mark.parametrize("name", ROWS)
def test_the_readmes_table_is_what_was_measured_of_the_shipped_weights(name):
    (row,) = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| {name} |")]
    written = [cell.strip() for cell in row.split("|")[2:-1]]
    records, expected = results.read(), []
    for checkpoint in ("digits", "fashion"):
        folder = ROOT / "checkpoints" / checkpoint
        sha256, config = checkpoints.sha256(folder / "model.safetensors"), checkpoints.read_config(folder)
        process, sampler = ROWS[name]
        own = sampling_temperature(config, traits(process))
        cells = (
            results.find_samples(records, sha256, process, sampler, calls, "cosine", 1.0, *own)
            for calls in (10, 25, 100)
        )
        expected.append(f"{results.find_bound(records, sha256, process)['nll_nats']:.1f}")
        expected.append(" / ".join(f"{cell['fid']:.2f}" if cell else "–" for cell in cells))
    assert written == expected
