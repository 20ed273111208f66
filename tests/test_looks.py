"""How points of the simplex become pictures."""

import contextlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from dd import checkpoints, looks
from dd.checkpoints import CheckpointError
from dd.looks import MASK, Decoded, GreyLevels, masked
from dd.models import Models
from dd.networks.vqvae import VqVae
from dd.processes import make_process
from dd.recipe import Lane, Recipe, RecipeError
from dd.runs import Run
from dd.ui.controls import process_choices
from tests.tiny import VQVAE, write_checkpoint, write_faces, write_vqvae


def test_corners_look_like_their_categories():
    cells = torch.arange(16).view(1, 4, 4)
    corners = torch.nn.functional.one_hot(cells, 16).movedim(-1, 1).float()
    greys = GreyLevels(16)
    assert np.array_equal(greys.of_cells(cells), greys.of_points(corners))
    assert greys.of_cells(cells).ravel()[[0, 15]].tolist() == [0, 254]


def test_corners_decode_like_their_codes():
    torch.manual_seed(0)
    look = Decoded(VqVae(**VQVAE).eval())
    codes = torch.randint(8, (2, 3, 5))
    corners = torch.nn.functional.one_hot(codes, 8).movedim(-1, 1).float()
    assert look.of_cells(codes).shape == (2, 12, 20)
    assert np.abs(look.of_cells(codes).astype(int) - look.of_points(corners)).max() <= 1


def test_mask_covers_whole_cells():
    mask = torch.zeros(1, 2, 2, dtype=torch.bool)
    mask[0, 0, 1] = True
    picture = masked(np.zeros((1, 8, 8), np.uint8), mask, 4)
    assert (picture[0, :4, 4:] == MASK).all()
    assert (picture == MASK).sum() == 16


def test_a_denoiser_of_codes_runs_and_is_shown_decoded(tmp_path):
    write_vqvae(tmp_path / "codes-vqvae")
    sha256 = checkpoints.load(tmp_path / "codes-vqvae").sha256
    data = {"source": "codes", "K": 8, "grid": [6, 6], "vqvae": "codes-vqvae", "vqvae_sha256": sha256}
    network = {"K": 8, "channels": [8, 8], "blocks": [1, 1], "classes": 2}
    write_checkpoint(tmp_path / "codes", data=data, network=network)
    run = Run(Recipe("codes", steps=3, images=2), Models(tmp_path))
    assert run.exhaust()[0].shape == (2, 6, 6)
    assert run.views[-1][0].guess.shape == (2, 24, 24)


def test_a_state_of_codes_looks_like_its_evidence_and_one_of_greys_like_itself():
    torch.manual_seed(0)
    process, generator = make_process("dirichlet", 8, 36), torch.Generator().manual_seed(0)
    x = process.prior((2, 6, 6), generator)
    look = Decoded(VqVae(**VQVAE).eval())
    points = torch.softmax(process.evidence(x, 0.3), 1)
    assert np.array_equal(look.of_state(process, x, 0.3), look.of_points(points))
    assert not np.array_equal(look.of_state(process, x, 0.3), look.of_points(x))
    assert np.array_equal(GreyLevels(8).of_state(process, x, 0.3), GreyLevels(8).of_points(x.float()))


class Elsewhere(torch.nn.Module):
    """A VQ-VAE on another device than the cells: it notes where its arguments are, and answers in zeros."""

    factor = 4

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(1, device="meta"))
        self.seen: list[str] = []

    def decode_mixture(self, p):
        self.seen.append(p.device.type)
        return torch.zeros(len(p), 1, 8, 8)

    def decode(self, cells):
        return self.decode_mixture(cells)

    def encode(self, x):
        return self.decode_mixture(x)[:, 0]


def test_points_codes_and_pictures_go_to_the_vqvae_s_device(monkeypatch):
    monkeypatch.setattr(looks, "autocast", lambda device: contextlib.nullcontext())
    vqvae = Elsewhere()
    look = Decoded(vqvae)
    assert look.of_points(torch.rand(3, 8, 2, 2)).shape == (3, 8, 8)
    assert look.of_cells(torch.zeros(3, 2, 2, dtype=torch.long)).shape == (3, 8, 8)
    assert look.read(Image.new("L", (9, 9)), 2, 2).device.type == "cpu"
    assert vqvae.seen == ["meta"] * 3


def test_processes_that_need_an_order_are_refused_for_codes(tmp_path):
    write_faces(tmp_path)
    models = Models(tmp_path)
    with pytest.raises(RecipeError, match="codes have none"):
        Run(Recipe("faces", (Lane("d3pm-gaussian", "ancestral"),), steps=3, images=2), models)
    assert "d3pm-gaussian" not in [name for _, name in process_choices(models, "faces")]
    write_checkpoint(tmp_path / "tiny")
    assert "d3pm-gaussian" in [name for _, name in process_choices(models, "tiny")]


def test_another_vqvae_than_the_denoiser_s_own_is_refused(tmp_path):
    write_vqvae(tmp_path / "codes-vqvae")
    data = {"source": "codes", "K": 8, "grid": [6, 6], "vqvae": "codes-vqvae", "vqvae_sha256": "0" * 64}
    write_checkpoint(tmp_path / "codes", data=data, network={"K": 8, "channels": [8], "blocks": [1], "classes": 0})
    with pytest.raises(CheckpointError, match="fetch the two together"):
        Run(Recipe("codes", steps=3, images=2), Models(tmp_path))


def test_a_drawing_is_read_light_on_dark():
    paper = Image.new("RGB", (100, 100), (230, 225, 215))
    ImageDraw.Draw(paper).line((50, 20, 50, 80), (40, 40, 60), 12)
    cells = GreyLevels(2).read(paper, 28, 28)
    assert cells[14, 14] == 1
    assert cells[:, :4].sum() == 0
    assert torch.equal(cells, GreyLevels(2).read(ImageOps.invert(paper), 28, 28))


def test_a_photograph_is_read_as_it_is():
    photo = Image.new("L", (64, 64), 200)
    ImageDraw.Draw(photo).rectangle((20, 20, 40, 40), 120)
    cells = GreyLevels(16, drawings=False).read(photo, 32, 32)
    assert (int(cells[0, 0]), int(cells[15, 15])) == (200 // 16, 120 // 16)


def test_codes_of_a_picture_decode_to_its_size_and_a_drawing_s_are_those_of_light_on_dark():
    torch.manual_seed(0)
    vqvae, photo = VqVae(**VQVAE).eval(), Image.new("RGB", (90, 40), "white")
    ImageDraw.Draw(photo).ellipse((35, 10, 55, 30), "black")
    look = Decoded(vqvae)
    assert look.read(photo, 6, 6).shape == (6, 6)
    drawn = Decoded(vqvae, drawings=True).read(photo, 6, 6)
    assert torch.equal(drawn, look.read(ImageOps.invert(photo), 6, 6))
    assert not torch.equal(drawn, look.read(photo, 6, 6))
