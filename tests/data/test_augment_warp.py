"""One resampling: known rotations and scales come out as they must; masks are never mixed."""

import numpy as np
import pytest
import torch

from twofold.data.augment_draws import Draws
from twofold.data.augment_geometry import Geometry, Moves
from twofold.data.augment_warp import to_kind, warp


def linear(size, matrix, count=1):
    nothing = np.zeros(count, dtype=bool)
    middle = np.tile(np.array(size[::-1]) / 2, (count, 1))
    return Moves(
        size, nothing, nothing, np.zeros((count, 2), dtype=np.int64), np.tile(np.array(matrix, dtype=float), (count, 1, 1)), middle
    )


@pytest.mark.parametrize("edge", ["zeros", "reflect"])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_quarter_turn_is_exact(edge, kind):
    x = torch.randint(0, 256, (1, 3, 9, 9), dtype=torch.uint8)
    x = x if kind == torch.uint8 else x / 255
    turned, mask = warp(x, x[:, 0].mul(7).long(), linear((9, 9), [[0, 1], [-1, 0]]), None, edge)
    torch.testing.assert_close(turned, x.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    assert turned.dtype == kind and torch.equal(mask, x[:, 0].mul(7).long().rot90(1, (1, 2)))


def test_twice_as_large_is_the_bilinear_mean_of_neighbours():
    x = torch.arange(16.0).view(1, 1, 4, 4) / 16
    y, _ = warp(x, None, linear((4, 4), [[2, 0], [0, 2]]), None, "zeros")
    wanted = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")[:, :, 2:6, 2:6]
    torch.testing.assert_close(y, wanted, atol=1e-6, rtol=0)


def test_outside_is_zero_or_a_mirror_and_for_masks_what_is_wanted():
    x, mask = torch.full((1, 1, 8, 8), 200, dtype=torch.uint8), torch.full((1, 8, 8), 2**40)
    half = linear((8, 8), [[0.5, 0], [0, 0.5]])
    y, labels = warp(x, mask, half, None, "zeros", 255)
    assert y[0, 0, 0, 0] == 0 and y[0, 0, 4, 4] == 200
    assert sorted(labels.unique().tolist()) == [255, 2**40]
    y, labels = warp(x, mask, half, None, "reflect", 255)
    assert (y == 200).all() and (labels == 2**40).all()


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.bool])
def test_masks_keep_their_labels_and_go_with_the_picture(kind):
    mask = torch.zeros(30, 40, 40, dtype=torch.uint8)
    mask[:, 8:30, 12:33] = 1
    moves = Geometry("both", rotate=40, scale=0.2, shear=15, crop=4).draw(Draws(0, 0, np.arange(30)), 40, 40)
    y, labels = warp(mask[:, None] * 200, mask.to(kind), moves, None, "zeros")
    assert labels.dtype == kind and set(labels.unique().tolist()) <= {0, 1}
    sure = (y[:, 0] == 0) | (y[:, 0] == 200)  # away from the edge of the square
    assert sure.float().mean() > 0.85 and torch.equal(labels[sure].bool(), y[:, 0][sure] == 200)


def test_bytes_are_rounded_and_kept_within_their_range():
    assert to_kind(torch.tensor([-3.0, 0.4, 0.5, 99.49, 254.7, 300.0]), torch.uint8).tolist() == [0, 0, 1, 99, 255, 255]
    assert to_kind(torch.tensor([-0.5, 0.25, 1.5]), torch.float32).tolist() == [0.0, 0.25, 1.0]
