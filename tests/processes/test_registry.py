"""The registry: what a process is, it says itself, so that a new one is one line."""

import pytest

from dd.models import Models
from dd.processes import EVERY, OWN_NETWORK, REGISTRY, suits, traits
from dd.processes.gaussian import Gaussian
from dd.processes.pixels import Pixels
from dd.recipe import Lane, Recipe
from dd.runs import Run
from dd.ui.controls import process_choices, tempered
from tests.tiny import write_checkpoint


def test_processes_say_themselves_what_they_are() -> None:
    assert [name for name in EVERY if traits(name).ordered] == ["d3pm-gaussian"]
    assert [name for name in EVERY if not traits(name).categorical] == ["ddpm"]
    assert [name for name in EVERY if "bound" not in traits(name).losses] == ["ddpm"]
    assert [name for name in EVERY if not suits(name, {"vqvae": "photos"})] == ["d3pm-gaussian"]
    assert all(suits(name, {}) for name in EVERY)


@pytest.mark.parametrize(("registry", "kind"), [(REGISTRY, Gaussian), (OWN_NETWORK, Pixels)])
def test_a_new_process_is_one_line(tmp_path, monkeypatch, registry: dict, kind: type) -> None:
    """Any callable makes it: it is offered, checked and run."""
    name = f"new-{kind.name}"  # built processes are kept by name
    new = type("New", (kind,), {"name": name})
    for known in (registry, EVERY):
        monkeypatch.setitem(known, name, lambda K, cells: new(K, cells))
    write_checkpoint(tmp_path / "tiny")
    network = {"channels": [8, 8], "blocks": [1, 1], "classes": 10}
    write_checkpoint(tmp_path / "noise", architecture="noise-unet", network=network)
    models = Models(tmp_path)
    assert (name, name) in process_choices(models, "tiny")
    assert ((name, name) in process_choices(models, "tiny", inpaint=True)) == (kind is Gaussian)
    assert tempered(name) == (kind is Gaussian)
    run = Run(Recipe("tiny", (Lane(name, "ddpm"),), steps=2, images=1, temperature=0.5), models)
    assert run.recipe.temperature == (0.5 if kind is Gaussian else 1.0)
    assert run.exhaust()[0].shape == (1, 28, 28)
