"""Whole moves: by hand, the two forms against each other and against the resampling, and twice flipped is as before."""

import numpy as np
import pytest
import torch

from twofold.data.augment_geometry import Moves
from twofold.data.augment_warp import warp
from twofold.data.augment_whole import gather, mirrored, move_whole, windows


def moves(size, across, down, shift):
    return Moves(size, np.array(across, dtype=bool), np.array(down, dtype=bool), np.array(shift), None, None)


def drawn(size, count, reach, seed=0):
    random = np.random.default_rng(seed)
    limits = np.minimum(reach, np.array(size[::-1]) - 1)
    return moves(size, random.random(count) < 0.5, random.random(count) < 0.5, random.integers(-limits, limits + 1, (count, 2)))


PICTURE = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8)[None, None]
BY_HAND = {
    "right": ((0, 0, (1, 0)), "zeros", [[9, 1, 2], [9, 4, 5]]),
    "up": ((0, 0, (0, -1)), "zeros", [[4, 5, 6], [9, 9, 9]]),
    "mirror": ((0, 0, (1, 0)), "reflect", [[2, 1, 2], [5, 4, 5]]),
    "flipped": ((1, 0, (0, 0)), "zeros", [[3, 2, 1], [6, 5, 4]]),
    "upside down": ((0, 1, (0, 0)), "zeros", [[4, 5, 6], [1, 2, 3]]),
    "moved, then flipped": ((1, 0, (1, 0)), "zeros", [[2, 1, 9], [5, 4, 9]]),
}


@pytest.mark.parametrize("form", [gather, windows, move_whole])
@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(form, name):
    (across, down, shift), edge, wanted = BY_HAND[name]
    assert form(PICTURE, moves((2, 3), [across], [down], [shift]), edge, 9)[0, 0].tolist() == wanted


@pytest.mark.parametrize("edge", ["zeros", "reflect"])
@pytest.mark.parametrize(
    ("shape", "kind"),
    [((7, 3, 9, 12), torch.uint8), ((5, 1, 1, 6), torch.float32), ((4, 1, 5, 5), torch.int64), ((3, 3, 96, 80), torch.uint8)],
)
def test_copying_windows_is_the_law(edge, shape, kind):
    x = torch.randint(0, 256, shape).to(kind)
    how = drawn(shape[2:], shape[0], 4)
    assert torch.equal(windows(x, how, edge, 3), gather(x, how, edge, 3))
    channels_last = x.to(memory_format=torch.channels_last)
    assert torch.equal(windows(channels_last, how, edge, 3), gather(x, how, edge, 3))


@pytest.mark.parametrize("edge", ["zeros", "reflect"])
@pytest.mark.parametrize("size", [(9, 12), (8, 8), (1, 7)])
def test_the_resampling_does_the_same_where_all_is_whole(edge, size):
    x, masks = torch.randint(0, 256, (16, 3, *size), dtype=torch.uint8), torch.randint(0, 9, (16, *size), dtype=torch.uint8)
    how = drawn(size, 16, 3)
    pictures, labels = warp(x, masks, how, None, edge, 255)
    assert torch.equal(pictures, gather(x, how, edge))
    assert torch.equal(labels, gather(masks[:, None], how, edge, 255)[:, 0])


def test_flipped_twice_is_as_before_and_the_given_stays():
    x = torch.randint(0, 256, (6, 3, 5, 8), dtype=torch.uint8)
    before, how = x.clone(), moves((5, 8), [0, 1, 0, 1, 1, 0], [0, 0, 1, 1, 0, 1], np.zeros((6, 2), dtype=int))
    assert torch.equal(windows(windows(x, how, "zeros"), how, "zeros"), before)
    assert torch.equal(x, before)


def test_mirrors_stand_on_the_outermost_middles():
    wanted = np.pad(np.arange(5), 12, mode="reflect")
    assert mirrored(np.arange(-12, 17), 5).tolist() == wanted.tolist()
    assert mirrored(np.array([-3, 0, 4]), 1).tolist() == [0, 0, 0]
