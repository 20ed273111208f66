"""Colours that say which category, lane or cell is meant can be told apart, whoever looks at them."""

import re
from itertools import combinations

import numpy as np
import pytest

from dd.ui.app import CSS
from dd.ui.simplex import STATIC

SIMPLEX = (STATIC / "simplex.js").read_text()
VISION = {  # Machado, Oliveira & Fernandes (2009), severity 1, on linear RGB
    "every colour": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
APART = 25  # CIE76; 2.3 is just noticeable
CONTRAST = 3.0  # WCAG 2.1, 1.4.11: graphical objects against their background


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB, D65."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb.clip(0, 1)
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    f = np.where(xyz / [0.9505, 1.0, 1.089] > 0.008856, f, 7.787 * xyz / [0.9505, 1.0, 1.089] + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def palettes() -> dict[str, list[str]]:
    """Every set of colours that must be told apart, with its background as the key's second half."""
    out = {}
    for theme in ("light", "dark"):
        corner = re.search(theme + r": \{[^}]*?corner: \[([^\]]*)\]", SIMPLEX).group(1)
        back = re.search(theme + r": \{ back: '(#\w+)'", SIMPLEX).group(1)
        out[f"simplex {back}"] = re.findall(r"#\w{6}", corner)
    for rule, back in ((":root", "#ffffff"), (".dark", "#0f1118")):
        out[f"lanes {back}"] = re.findall(r"--dd-colour-\d: (#\w{6})", re.search(rf"{rule} \{{([^}}]*)", CSS).group(1))
    return out


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(("name", "colours"), palettes().items())
def test_colours_are_apart(name, colours, vision):
    assert len(colours) == (3 if name.startswith("simplex") else 4)
    for a, b in combinations(colours, 2):
        distance = np.linalg.norm(lab(VISION[vision] @ linear(a)) - lab(VISION[vision] @ linear(b)))
        assert distance >= APART, (a, b, distance)


@pytest.mark.parametrize(("name", "colours"), palettes().items())
def test_colours_stand_out_from_their_background(name, colours):
    back = luminance(name.split()[1])
    for colour in colours:
        low, high = sorted([luminance(colour), back])
        assert (high + 0.05) / (low + 0.05) >= CONTRAST, colour


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_density_reads_as_light_and_dark_alone(theme):
    ramp = re.search(theme + r": \{.*?ramp: \[([^\]]*)\]", SIMPLEX, re.S).group(1)
    levels = [lab(linear(colour))[0] for colour in re.findall(r"#\w{6}", ramp)]
    steps = np.diff(levels)
    assert (np.sign(steps) == np.sign(steps[0])).all()
    assert np.abs(steps).min() > 3
