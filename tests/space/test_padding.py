"""Padding that continues the map: the four witnesses, and how far it can go."""

import pytest
from torch.nn import functional as F

from twofold.layers.check import Case, check, noise
from twofold.layers.differentiable import differentiable
from twofold.space import padding
from twofold.space.padding import MODES, expect_room, pad2d, source


def by_torch(x, sides, mode):
    top, bottom, left, right = sides
    return F.pad(x, (left, right, top, bottom), mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides", [(1, 2, 3, 0), (0, 0, 0, 0), (3, 3, 4, 4)])
def test_witnesses(mode, sides):
    check(Case(pad2d, (noise(2, 3, 4, 5), sides, mode), by_torch, linear=True))


def test_a_pixel_is_the_only_one_to_replicate():
    assert source(1, 2, 1, "replicate").tolist() == [0, 0, 0, 0]
    assert source(3, 3, 3, "circular").tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]


def test_the_wrong_side_is_caught():
    def swapped(x, sides, mode):
        return padding.forward(x, (sides[1], sides[0], sides[2], sides[3]), mode)

    with pytest.raises(AssertionError):
        check(Case(differentiable(swapped, padding.backward), (noise(2, 3, 4, 5), (1, 2, 3, 0), "reflect"), by_torch))


BAD = {
    "reflect": ((4, 9), (4, 0, 0, 0), "reflect", 'padding of 4 rows in mode "reflect" needs maps of at least 5 rows, got 4'),
    "circular": ((4, 9), (0, 0, 0, 10), "circular", 'padding of 10 columns in mode "circular" needs maps of at least 10 columns, got 9'),
}


@pytest.mark.parametrize("name", BAD)
def test_too_far(name):
    size, sides, mode, message = BAD[name]
    with pytest.raises(ValueError) as error:
        expect_room("Conv2d input", size, sides, mode)
    assert f"Conv2d input: {message}" in str(error.value)
    expect_room("Conv2d input", size, sides, "replicate")
