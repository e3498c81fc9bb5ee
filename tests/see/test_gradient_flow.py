"""The picture of how far the gradient reaches: what its lines are, and what it says."""

import math

import pytest

from twofold.see.gradient_flow import gradient_flow
from twofold.see.style import png_bytes


def rows(count=1, factor=0.5, T=10):
    return [{"step": 100 * (n + 1), "reach": [3.0 * factor**k for k in range(T)]} for n in range(count)]


def lines(figure):
    return {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].get_lines()}


def test_a_line_is_the_share_of_what_is_there_at_lag_1():
    figure = gradient_flow(rows(2))
    assert lines(figure) == {f"step {step}": pytest.approx([0.5**k for k in range(10)]) for step in (100, 200)}
    axes = figure.axes[0]
    assert axes.get_yscale() == "log" and axes.get_xlabel() == "steps back in time"
    assert axes.texts[0].get_text() == "at step 200, less than 1 % of it arrives 8 steps back"  # 2^-7 < 0.01, and lag 1 comes first


def test_what_arrives_at_the_far_end_is_said():
    assert gradient_flow(rows(factor=0.9)).axes[0].texts[0].get_text() == "at step 100, 38.7 % of it arrive 10 steps back"


def test_six_lines_are_drawn_at_most_the_first_and_the_last_among_them():
    drawn = list(lines(gradient_flow(rows(40))))
    assert len(drawn) == 6 and drawn[0] == "step 100" and drawn[-1] == "step 4,000"


def test_what_is_no_number_or_too_small_leaves_a_gap():
    (values,) = lines(gradient_flow([{"step": 1, "reach": [1.0, None, 1e-30, 0.0, 0.1]}])).values()
    assert [math.isnan(value) for value in values] == [False, True, True, True, False]


def test_the_same_rows_give_the_same_bytes():
    assert png_bytes(gradient_flow(rows(3)), 50) == png_bytes(gradient_flow(rows(3)), 50)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "gradient_flow rows: expected at least one row, got none"),
        ([{"step": 7, "reach": [None, 1.0]}], r"expected a norm above 0 at lag 1, got \[None\] at step 7"),
        ([{"step": 7, "reach": []}], r"got \[\] at step 7"),
    ],
)
def test_what_cannot_be_drawn_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        gradient_flow(given)
