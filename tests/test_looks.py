"""How points of the simplex become pictures."""

import numpy as np
import torch

from dd import checkpoints
from dd.looks import MASK, Decoded, GreyLevels, masked
from dd.networks.vqvae import VqVae
from dd.runs import Models, Recipe, Run
from tests.tiny import write_checkpoint

VQVAE = {"K": 8, "colours": 1, "d": 4, "channels": [8, 8], "encoder": [1, 1], "decoder": [1, 1]}


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
    config = {"name": "codes-vqvae", "architecture": "vqvae", "network": VQVAE, "data": {"source": "folder"}}
    torch.manual_seed(0)
    checkpoints.save(tmp_path / "codes-vqvae", checkpoints.build(config).state_dict(), config)
    sha256 = checkpoints.load(tmp_path / "codes-vqvae").sha256
    data = {"source": "codes", "K": 8, "grid": [6, 6], "vqvae": "codes-vqvae", "vqvae_sha256": sha256}
    network = {"K": 8, "channels": [8, 8], "blocks": [1, 1], "classes": 2}
    write_checkpoint(tmp_path / "codes", data=data, network=network)
    run = Run(Recipe("codes", steps=3, images=2), Models(tmp_path))
    assert run.exhaust()[0].shape == (2, 6, 6)
    assert run.views[-1][0].guess.shape == (2, 24, 24)
