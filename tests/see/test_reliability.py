"""The reliability diagram draws what was measured: the bars, the confidence, the gap, and how many pictures stand behind each."""

import pytest
import torch

from twofold.see.reliability import reliability
from twofold.see.style import png_bytes
from twofold.tasks.calibration import Calibration, measure

FOUND = Calibration(0.1, 0.3, 0.2, 0.5, (0, 30, 60, 10), (0.0, 0.6, 0.5, 1.0), (0.0, 0.4, 0.7, 0.9))


def test_the_bars_are_what_was_measured():
    figure = reliability([("Before", FOUND)])
    above, below = figure.axes
    bars, gaps = above.containers
    assert [bar.get_height() for bar in bars] == [0.6, 0.5, 1.0]  # no bar for an empty bin
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([0.375, 0.625, 0.875])
    assert [(bar.get_y(), bar.get_height()) for bar in gaps] == [pytest.approx(each) for each in ((0.4, 0.2), (0.5, 0.2), (0.9, 0.1))]
    lines = [segments for each in above.collections for segments in [[line[0][1] for line in each.get_segments()]]]
    assert lines == [[0.6, 0.5, 1.0], [0.4, 0.7, 0.9]]
    assert [bar.get_height() for bar in below.containers[0]] == pytest.approx([0, 30, 60, 10])
    assert above.get_title("left") == "Before" and above.texts[0].get_text() == "ECE 10.0 %, largest gap 30.0 %, loss 0.500"


def test_before_and_after_stand_side_by_side_and_the_picture_repeats():
    z, y = torch.tensor([[3.0, 0.0]] * 10), torch.tensor([0] * 7 + [1] * 3)
    panels = [("Before", measure(z, y)), ("With temperature 3.54", measure(z, y, 3.54))]
    figure = reliability(panels)
    assert [axes.get_title("left") for axes in figure.axes[:2]] == ["Before", "With temperature 3.54"]
    assert png_bytes(figure, 40) == png_bytes(reliability(panels), 40)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="reliability: expected 1 to 3 diagrams, got 0"):
        reliability([])
    with pytest.raises(ValueError, match="reliability: expected as many bins in every diagram, got 4, 15"):
        reliability([("a", FOUND), ("b", measure(torch.zeros(1, 2), torch.tensor([0])))])
