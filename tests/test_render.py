"""Grids of images as one picture."""

import numpy as np
import torch

from dd.render import tile, to_image


def test_images_stand_side_by_side_with_gaps_between_and_a_last_row_that_may_be_short():
    images = torch.arange(1.0, 6.0).view(5, 1, 1).expand(5, 3, 4)
    picture = tile(images, columns=2, gap=1, background=0.0)
    assert picture.shape == (3 * 4 - 1, 2 * 5 - 1)
    assert picture[::4, ::5].tolist() == [[1, 2], [3, 4], [5, 0]]
    assert bool((picture[3] == 0).all())
    assert bool((picture[:, 4] == 0).all())


def test_colours_stay_together():
    images = torch.rand(2, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    picture = tile(images, columns=2)
    assert torch.equal(picture[:, :3], images[0])
    assert torch.equal(picture[:, 5:], images[1])


def test_a_pixel_is_a_square_of_its_grey_and_what_is_beyond_is_clamped():
    enlarged = np.asarray(to_image(torch.tensor([[0.0, 0.5], [1.0, 7.0]]), scale=2))
    assert enlarged.tolist() == [[0, 0, 128, 128]] * 2 + [[255] * 4] * 2
