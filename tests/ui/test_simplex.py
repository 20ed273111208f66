"""What the tab Simplex sends to the page."""

import base64
import json

import gradio as gr
import numpy as np
import pytest

from dd.triangle.simulation import MAX_PARTICLES, Settings, simulate
from dd.ui.simplex import DIRECTIONS, encode, show


def test_it_holds_the_run():
    run = simulate("Wright-Fisher", Settings(particles=50, steps=20))
    panel = encode(run)
    raw = np.frombuffer(base64.b64decode(panel["paths"]), "<u2").reshape(21, 50, 2) / 65535
    assert np.abs(raw - run.paths[..., :2].numpy()).max() < 1e-5
    corner = np.frombuffer(base64.b64decode(panel["corner"]), "u1")
    assert (corner == run.paths[-1].argmax(1).numpy()).all()
    keys, (nx, ny) = panel["keys"], panel["grid"]
    assert len(base64.b64decode(panel["density"])) == len(keys) * nx * ny * 2
    assert keys[0] == 0
    assert keys[-1] == 20
    assert (
        len(base64.b64decode(panel["field"]["selection"]))
        == len(keys) * panel["field"]["nx"] * panel["field"]["ny"] * 4
    )


def test_same_seed_same_message_and_it_is_compact():
    controls = ("D3PM absorbing", "Gaussian on one-hots", DIRECTIONS[1], "native", 40, 2000, 1, 1, 1, 1, 1, 1, 7)
    first = show(*controls)
    assert first == show(*controls)
    assert [p["title"] for p in json.loads(first)["panels"]] == ["D3PM absorbing", "Gaussian on one-hots"]
    assert len(first) < 3e6


@pytest.mark.parametrize(
    ("at", "value"), [(6, 0), (6, float("nan")), (5, 10**9), (5, None), (4, 0), (12, -3), (12, 1.5)]
)
def test_bad_controls_get_a_sentence(at, value):
    controls = ["Wright-Fisher", "none", DIRECTIONS[0], "native", 40, 100, 1, 1, 1, 1, 1, 1, 0]
    controls[at] = value
    with pytest.raises(gr.Error, match=r"[A-Z].*\."):
        show(*controls)


def test_all_weights_zero_get_a_sentence():
    with pytest.raises(gr.Error, match="weight"):
        show("Wright-Fisher", "none", DIRECTIONS[0], "native", 40, MAX_PARTICLES, 1, 1, 1, 0, 0, 0, 0)
