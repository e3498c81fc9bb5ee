"""The picture of the range test: its lines are the losses, its marks the rates, and what diverged is beyond the edge."""

import re

import pytest

from twofold.see.rates import rates
from twofold.see.style import png_bytes

ACROSS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
LOSSES, SMOOTHED = [2.0, 2.1, 1.0, 0.4, 90.0], [2.0, 2.05, 1.5, 1.0, 9.0]


def lines(figure):
    (axes,) = figure.axes
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def test_the_lines_are_the_losses_and_the_marks_lie_on_the_smoothed_one():
    figure = rates(ACROSS, LOSSES, SMOOTHED, 5e-3, 1e-2, 10**-2.5)
    drawn = lines(figure)
    assert drawn["loss"] == (ACROSS, LOSSES) and drawn["smoothed"] == (ACROSS, SMOOTHED)
    assert drawn["suggested"][0] == [5e-3, 5e-3]
    assert drawn["steepest"] == ([1e-2], pytest.approx([1.5]))
    assert drawn["a tenth of the lowest"] == ([10**-2.5], pytest.approx([(2.05 + 1.5) / 2]))
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "learning rate (logarithmic)", "loss")
    assert "suggested: 5.0e-03" in [text.get_text() for text in axes.texts]
    low, high = axes.get_ylim()
    assert low < 0.4 and 2.1 < high < 3  # the 90 of the last step would make all else a line
    assert png_bytes(figure, 50) == png_bytes(rates(ACROSS, LOSSES, SMOOTHED, 5e-3, 1e-2, 10**-2.5), 50)


@pytest.mark.parametrize("losses", [[2.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
def test_a_loss_that_never_falls_has_no_mark_and_says_so(losses):
    figure = rates(ACROSS[:3], losses, losses)
    assert lines(figure).keys() == {"loss", "smoothed"}
    assert "the loss falls nowhere: nothing to suggest" in [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), "rates: expected rates that rise from above 0, got none."),
        (([0.0, 1.0], [1, 1], [1, 1]), "rates: expected rates that rise from above 0, got 0, 1."),
        (([1.0, 0.1], [1, 1], [1, 1]), "rates: expected rates that rise from above 0, got 1, 0.1. In the order of the test?"),
        (([0.1, 1.0], [1], [1, 1]), "rates: expected a loss and a smoothed loss for each of 2 rates, got 1 and 2."),
    ],
)
def test_what_cannot_be_drawn(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        rates(*arguments)
