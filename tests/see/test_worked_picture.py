"""The picture of the worked convolution: its numbers, what it marks, and that all of it lies on the page."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from twofold.see import style
from twofold.see.worked import Example, work
from twofold.see.worked_picture import COOL, WARM, worked_picture


def drawn(figure):
    """(texts, the cells with this fill)"""
    axes = figure.axes[0]
    cells = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_fill()]
    return [text.get_text() for text in axes.texts], {
        color: sum(np.allclose(cell.get_facecolor()[:3], [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]) for cell in cells)
        for color in (WARM, COOL)
    }


def test_the_numbers_are_drawn_and_one_of_each_kind_is_followed():
    worked = work()
    texts, cells = drawn(worked_picture(worked))
    numbers = [text for text in texts if text.removeprefix("−").isdecimal()]
    matrices = (worked.padded, worked.weight, worked.y, worked.padded, worked.dy, worked.dweight, worked.stuffed, worked.weight)
    wanted = [str(n).replace("-", "−") for matrix in (*matrices, worked.turned, worked.dx) for n in matrix.flat]
    assert sorted(numbers) == sorted(wanted)
    assert cells == {WARM: 1 + 9 + 9 + 9 + 9 + 9 + 9, COOL: 1 + 3}  # the legend; then the windows and what they meet
    for line in (worked.forward_sums[1], worked.weight_sums[4], worked.input_sums[6], worked.dbias):
        assert str(line).replace("*", "·").replace("-", "−") in texts
    assert "↓ turned by 180°" in texts


@pytest.mark.parametrize("example", [Example(), Example(6, 4, 1, 2), Example(5, 2, 3, 0), Example(1, 1, 1, 0)], ids=str)
def test_no_text_leaves_the_page_or_is_too_small(example):
    figure = worked_picture(work(example))
    figure.canvas.draw()
    page = figure.bbox
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, text.get_text()
        assert text.get_fontsize() >= 10
    assert style.png_bytes(figure) == style.png_bytes(worked_picture(work(example)))
