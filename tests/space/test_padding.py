"""Padding that continues the map: the four witnesses, and how far it can go."""

import pytest
from torch.nn import functional as F

from twofold.layers.check import Case, check, noise
from twofold.layers.differentiable import differentiable
from twofold.space import padding
from twofold.space.padding import MODES, expect_room, last_first, pad, sides_of, source


def by_torch(x, sides, mode):
    return F.pad(x, last_first(sides), mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides", [(1, 2, 3, 0), (0, 0, 0, 0), (3, 3, 4, 4)])
def test_witnesses(mode, sides):
    check(Case(pad, (noise(2, 3, 4, 5), sides, mode), by_torch, linear=True))


@pytest.mark.parametrize("mode", MODES)
def test_signals_and_volumes(mode):
    check(Case(pad, (noise(2, 3, 5), (2, 1), mode), by_torch, linear=True))
    check(Case(pad, (noise(1, 2, 3, 4, 2), (1, 2, 3, 0, 1, 1), mode), by_torch, linear=True))


def test_words_give_as_many_windows_as_they_promise():
    for n in range(1, 12):
        for k, s, d in [(1, 1, 1), (2, 1, 1), (3, 2, 1), (4, 3, 2), (2, 5, 1), (5, 2, 2)]:
            for word in ("same", "same_upper", "same_lower", "full", "valid"):
                before, after = sides_of("Conv1d", word, (k,), (s,), (d,), (n,))
                room = n + before + after - d * (k - 1) - 1
                number = room // s + 1 if room >= 0 else 0
                wanted = {"full": (n + d * (k - 1) - 1) // s + 1, "valid": max(0, (n - d * (k - 1) - 1) // s + 1)}.get(word, -(-n // s))
                assert number == wanted, (word, n, k, s, d)
                assert (before - after in (0, 1)) if word == "same_lower" else (after - before in (0, 1))


def test_a_pixel_is_the_only_one_to_replicate():
    assert source(1, 2, 1, "replicate").tolist() == [0, 0, 0, 0]
    assert source(3, 3, 3, "circular").tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]


def test_the_wrong_side_is_caught():
    def swapped(x, sides, mode):
        return padding.forward(x, (sides[1], sides[0], sides[2], sides[3]), mode)

    with pytest.raises(AssertionError):
        check(Case(differentiable(swapped, padding.backward), (noise(2, 3, 4, 5), (1, 2, 3, 0), "reflect"), by_torch))


BAD = {
    "reflect": ((4, 9), (4, 0, 0, 0), "reflect", 'padding of 4 in mode "reflect" needs maps of at least 5 along axis 2, got 4'),
    "circular": ((4, 9), (0, 0, 0, 10), "circular", 'padding of 10 in mode "circular" needs maps of at least 10 along axis 3, got 9'),
}


@pytest.mark.parametrize("name", BAD)
def test_too_far(name):
    size, sides, mode, message = BAD[name]
    with pytest.raises(ValueError) as error:
        expect_room("Conv2d input", size, sides, mode)
    assert f"Conv2d input: {message}" in str(error.value)
    expect_room("Conv2d input", size, sides, "replicate")
