"""Tiles lie inside the sheet, apart from each other, and pictures keep their shape."""

import numpy as np
import pytest

from twofold.see.sheet import Form, Head, put, sheet

HEAD = Head("Title", "below")


@pytest.mark.parametrize(("count", "columns", "aspect"), [(1, 8, 1.0), (7, 3, 0.5), (64, 12, 2.0), (16, 16, 7.0)])
def test_tiles_lie_inside_and_apart(count, columns, aspect):
    layout = sheet(count, columns, Form(aspect, 2.0, 0.1, 0.5, 2), HEAD)
    width, height = layout.figure.get_size_inches()
    assert len(layout.boxes) == count
    assert len({box.left for box in layout.boxes}) == min(columns, count)
    for box in layout.boxes:
        assert box.width / box.height == pytest.approx(aspect)
        assert 0 < box.left < box.left + box.width < width <= 10 + 1e-9
        assert 0 < box.top < box.top + box.height < height - 0.5
    lefts, tops = sorted({box.left for box in layout.boxes}), sorted({box.top for box in layout.boxes})
    assert np.diff(lefts) == pytest.approx(layout.boxes[0].width + 0.1)
    assert (np.diff(tops) > layout.boxes[0].height + 0.1).all()


def test_rows_are_filled_from_left_to_right():
    boxes = sheet(5, 3, Form(1.0, 2.0, 0.1), HEAD).boxes
    assert [(box.left > boxes[0].left, box.top > boxes[0].top) for box in boxes] == [
        (False, False), (True, False), (True, False), (False, True), (True, True),
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(20, 64), (64, 20), (8, 8)])
def test_a_picture_is_centred_and_not_stretched(shape):
    layout = sheet(1, 1, Form(2.0, 2.0, 0.1), HEAD)
    box = layout.boxes[0]
    left, right, bottom, top = put(layout.axes, box, np.zeros(shape)).get_extent()
    assert (right - left) / (bottom - top) == pytest.approx(shape[1] / shape[0])
    assert (left + right, top + bottom) == pytest.approx((2 * box.left + box.width, 2 * box.top + box.height))
    assert right - left == pytest.approx(box.width) or bottom - top == pytest.approx(box.height)


def test_the_title_and_the_line_beneath_it_are_there_and_cut_to_the_sheet():
    axes = sheet(1, 1, Form(1.0, 1.0, 0.1), Head("T" * 300, "b" * 300)).axes
    assert axes.get_title("left").endswith("T…")
    assert axes.texts[0].get_text().endswith("b…")
