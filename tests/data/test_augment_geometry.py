"""The maps: one is the inverse of the other, each amount stays in its range, and what cannot be is refused."""

import numpy as np
import pytest

from twofold.data.augment_draws import Draws
from twofold.data.augment_geometry import Geometry

SIZE = (20, 30)
FULL = Geometry("both", rotate=180, scale=0.5, shear=40, shift=0.2, crop=4, resized_crop=0.2)


def draw(geometry, count=400, size=SIZE):
    return geometry.draw(Draws(0, 0, np.arange(count)), *size)


def mapped(map_B23, points_2):
    return (map_B23[:, :, :2] * np.asarray(points_2, dtype=float)).sum(2) + map_B23[:, :, 2]


def test_backward_undoes_forward():
    moves = draw(FULL)
    there = mapped(moves.forward(), (3.5, 11.0))
    back = (moves.backward()[:, :, :2] * there[:, None]).sum(2) + moves.backward()[:, :, 2]
    np.testing.assert_allclose(back, np.broadcast_to((3.5, 11.0), back.shape), atol=1e-9)


def test_rotation_is_about_the_middle_counter_clockwise_as_one_sees_it():
    moves = draw(Geometry(rotate=90))
    np.testing.assert_allclose(mapped(moves.forward(), (15, 10)), np.tile((15.0, 10.0), (400, 1)), atol=1e-9)
    moved = mapped(moves.forward(), (17, 10)) - (15, 10)
    angle = np.degrees(np.arctan2(-moved[:, 1], moved[:, 0]))  # rows count downwards
    assert angle.min() == pytest.approx(-90, abs=3) and angle.max() == pytest.approx(90, abs=3)
    np.testing.assert_allclose(np.hypot(*moved.T), 2)


LINEAR = {
    "scale": (Geometry(scale=0.25), lambda m: m[:, 0, 0], 0.75, 1.25),
    "shear": (Geometry(shear=45), lambda m: m[:, 0, 1], -1, 1),
    "shift": (Geometry(shift=0.1), lambda m: m[:, 0, 2], -3, 3),
    "shift down": (Geometry(shift=0.1), lambda m: m[:, 1, 2], -2, 2),
    "crop": (Geometry(crop=5), lambda m: m[:, 1, 2], -5, 5),
    "crop, a share": (Geometry(crop=0.2), lambda m: m[:, 0, 2], -6, 6),
    "flip": (Geometry("horizontal"), lambda m: m[:, 0, 0], -1, 1),
    "flip vertical": (Geometry("vertical"), lambda m: m[:, 1, 1], -1, 1),
}


@pytest.mark.parametrize("name", LINEAR)
def test_amounts_fill_their_range(name):
    geometry, of, low, high = LINEAR[name]
    found = of(draw(geometry).forward())
    assert found.min() >= low - 1e-12 and found.max() <= high + 1e-12
    assert found.min() == pytest.approx(low, abs=0.02 * (high - low)) and found.max() == pytest.approx(high, abs=0.02 * (high - low))
    assert found.mean() == pytest.approx((low + high) / 2, abs=0.08 * (high - low))


def test_a_resized_crop_is_a_window_within_the_picture():
    backward = draw(Geometry(resized_crop=0.3)).backward()
    first, last = mapped(backward, (0, 0)), mapped(backward, (30, 20))
    assert (first >= -1e-9).all() and (last <= np.array([30, 20]) + 1e-9).all()
    sides = (last - first) / (30, 20)
    assert 0.25 < sides.prod(1).min() < 0.35 and sides.prod(1).max() > 0.9
    shape = sides[:, 0] / sides[:, 1]
    assert shape.min() >= 3 / 4 - 1e-9 and shape.max() <= 4 / 3 + 1e-9


def test_what_is_drawn_for_one_transform_does_not_hang_on_the_others():
    alone, together = draw(Geometry(crop=4)), draw(Geometry("both", crop=4, rotate=10))
    np.testing.assert_array_equal(alone.shift_B2, together.shift_B2)


BAD = {
    "negative": (lambda: Geometry(rotate=-5), "augment rotate: expected a number from 0 to 180 (degrees to either side), got -5."),
    "steep": (lambda: Geometry(shear=80), "augment shear: expected a number from 0 to 60 (degrees to either side), got 80."),
    "nan": (lambda: Geometry(scale=float("nan")), "augment scale: expected a number from 0 to 0.9"),
    "share": (lambda: Geometry(shift=3), "augment shift: expected a number from 0 to 0.9 (a share of each side), got 3."),
    "area": (lambda: Geometry(resized_crop=2), "augment resized-crop: expected a number from 0 to 1 (the least share of the area), got 2."),
    "half": (lambda: Geometry(crop=2.5), "augment crop: expected whole pixels, or a share of each side if below 1, got 2.5."),
    "endless": (lambda: Geometry(crop=float("inf")), "augment crop: expected a number from 0 (pixels of padding"),
    "way": (lambda: Geometry("sideways"), 'augment flip: expected "horizontal", "vertical", "both" or "alternate", got \'sideways\'.'),
    "large": (lambda: draw(Geometry(crop=20)), "augment crop=20: expected moves of fewer pixels than the height 20, got 20. Take less."),
    "both": (
        lambda: draw(Geometry(crop=12, shift=0.4)),
        "augment shift=0.4 crop=12: expected moves of fewer pixels than the height 20, got 20",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)


def test_an_alternate_flip_shows_both_sides_in_two_epochs():
    numbers_B = np.arange(1000)
    first, second, third = (Geometry("alternate").draw(Draws(3, epoch, numbers_B), 8, 8).across_B for epoch in range(3))
    assert (first != second).all()
    assert (first == third).all()
    assert 400 < first.sum() < 600
