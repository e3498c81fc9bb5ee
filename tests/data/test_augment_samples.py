"""Boxes and points go where the picture goes; what does not fit together is refused in a sentence."""

import re

import numpy as np
import pytest
import torch

from twofold.data.augment_geometry import Moves
from twofold.data.augment_samples import Course, Samples, check, check_pictures, move_boxes, move_points

H, W = 20, 30


def course(across=False, down=False, shift=(0, 0)):
    return Course(Moves((H, W), np.array([across]), np.array([down]), np.array([shift]), None, None), None)


def box(*values):
    return (torch.tensor([values], dtype=torch.float32),)


MOVED = {
    "still": (course(), (2, 3, 10, 9), (2, 3, 10, 9), True),
    "flipped": (course(across=True), (2, 3, 10, 9), (20, 3, 28, 9), True),
    "upside down": (course(down=True), (2, 3, 10, 9), (2, 11, 10, 17), True),
    "shifted, then flipped": (course(across=True, shift=(5, 1)), (2, 3, 10, 9), (15, 4, 23, 10), True),
    "half outside": (course(shift=(-6, 0)), (2, 3, 10, 9), (0, 3, 4, 9), True),
    "nearly gone": (course(shift=(-9, 0)), (0, 3, 10, 9), (0, 3, 1, 9), False),
    "under a pixel": (course(shift=(0, -8)), (0, 0, 10, 8.5), (0, 0, 10, 0.5), False),
    "gone": (course(shift=(25, 0)), (20, 3, 28, 9), (30, 3, 30, 9), False),
}


@pytest.mark.parametrize("name", MOVED)
def test_boxes_by_hand(name):
    way, given, wanted, kept = MOVED[name]
    (boxes,), (keeps,) = move_boxes(box(*given), way, 0.11)
    assert boxes[0].tolist() == pytest.approx(wanted) and keeps.tolist() == [kept]


def test_points_leave_the_picture_and_hidden_ones_stay_hidden():
    points = (torch.tensor([[1.5, 2.5], [29.5, 2.5], [5.0, 5.0]]),)
    visible = (torch.tensor([True, True, False]),)
    (moved,), (seen,) = move_points(points, visible, course(shift=(3, 0)), ())
    assert moved.tolist() == [[4.5, 2.5], [32.5, 2.5], [8.0, 5.0]] and seen.tolist() == [True, False, False]
    (_,), (seen,) = move_points(points, None, course(shift=(3, 0)), ())
    assert seen.tolist() == [True, False, True]


@pytest.mark.parametrize(("across", "down", "swapped"), [(0, 0, False), (1, 0, True), (0, 1, True), (1, 1, False)])
def test_partners_change_places_in_a_mirror(across, down, swapped):
    points = (torch.tensor([[1.0, 2.0], [29.0, 2.0]]),)
    (plain,), _ = move_points(points, None, course(bool(across), bool(down)), ())
    (paired,), (seen,) = move_points(points, (torch.tensor([True, False]),), course(bool(across), bool(down)), (1, 0))
    assert torch.equal(paired, plain.flip(0) if swapped else plain) and seen.tolist() == [not swapped, swapped]


def test_pictures_without_boxes_and_points_are_fine():
    none = (torch.zeros(0, 4),)
    (boxes,), (kept,) = move_boxes(none, course(), 0.1)
    (points,), (seen,) = move_points((torch.zeros(0, 2),), None, course(), ())
    assert boxes.shape == (0, 4) and kept.shape == (0,) and points.shape == (0, 2) and seen.shape == (0,)
    assert move_boxes((), course(), 0.1) == ((), ())


X = torch.zeros(1, 3, H, W, dtype=torch.uint8)
BAD = {
    "axes": (lambda: check_pictures(X[0]), "augment pictures: expected (B, C=1 or 3, H, W), got (3, 20, 30). One picture? picture[None]."),
    "channels": (lambda: check_pictures(X.repeat(1, 2, 1, 1)), "got (1, 6, 20, 30)"),
    "kind": (lambda: check_pictures(X.long()), "augment pictures: expected uint8 (0 to 255) or float32 (0 to 1), got int64."),
    "bytes": (lambda: check_pictures(X.float() + 200), "got values from 200 to 200. Bytes as floats? Divide by 255."),
    "normalised": (lambda: check_pictures(X.float() - 1), "got values from -1 to -1. Normalised already? Augment before that."),
    "nan": (lambda: check_pictures(X.float() * torch.nan), "from 0 to 1, got values from nan to nan."),
    "mask size": (
        lambda: check(Samples(X, torch.zeros(1, H, W + 1).long())),
        "augment masks: expected (1, 20, 30), one value for each pixel",
    ),
    "mask kind": (
        lambda: check(Samples(X, torch.zeros(1, H, W))),
        "augment masks: expected whole numbers, got float32. Class numbers? masks.long().",
    ),
    "count": (lambda: check(Samples(X, boxes=())), "augment boxes: expected one tensor for each of the 1 pictures, got 0."),
    "box shape": (
        lambda: check(Samples(X, boxes=(torch.zeros(3, 5),))),
        "augment boxes[0]: expected floating point (N, 4), got float32 (3, 5).",
    ),
    "box kind": (lambda: check(Samples(X, boxes=(torch.zeros(3, 4).long(),))), "got int64 (3, 4)"),
    "box outside": (
        lambda: check(Samples(X, boxes=box(2, 3, 31, 9))),
        "row 0: expected x1 < x2 within 0 to 30 and y1 < y2 within 0 to 20, got (2, 3, 31, 9).",
    ),
    "box turned": (
        lambda: check(Samples(X, boxes=box(20, 3, 5, 9))),
        "got (20, 3, 5, 9). x, y, width, height? Add the first two to the last two.",
    ),
    "box nan": (lambda: check(Samples(X, boxes=box(1, 3, float("nan"), 9))), "got (1, 3, nan, 9)"),
    "point": (
        lambda: check(Samples(X, points=(torch.tensor([[1.0, float("inf")]]),))),
        "augment points[0]: expected finite numbers, got [1.0, inf].",
    ),
    "visible": (
        lambda: check(Samples(X, points=(torch.zeros(2, 2),), visible=(torch.ones(3).bool(),))),
        "augment visible: expected one truth value",
    ),
    "partners": (
        lambda: check(Samples(X, points=(torch.zeros(2, 2),)), (0, 2)),
        "augment partners: expected an order of the 2 points of picture 0, got [0, 2].",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
