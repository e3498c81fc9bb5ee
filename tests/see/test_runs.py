"""Runs are compared by the number that counts, the best are named, and names never touch."""

import math

import numpy as np
import pytest

from twofold.see.runs import COLOURS, GAP, NAMED, _apart, compare, headline, said, standing
from twofold.see.style import png_bytes


def rows(values, key="accuracy"):
    return [{"epoch": e, "validation": {"loss": 1 / e, key: value}} for e, value in enumerate(values, 1)]


def lines(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def test_the_headline_is_the_first_metric_that_is_there():
    assert headline({"loss": 1.0, "accuracy": 0.5}) == "accuracy" and headline({"loss": 1, "odd": 2}) == "loss" and headline({}) is None
    assert (said("accuracy", 0.12345), said("bits_per_character", 1.23456), said("odd", 2.0)) == ("12.35 %", "1.235", "2")


@pytest.mark.parametrize(
    ("history", "key", "best"),
    [
        (rows([0.5, 0.9, 0.9, 0.8]), "", ("accuracy", 0.9, 3)),  # of equals the last
        (rows([0.5, 0.9]), "loss", ("loss", 0.5, 2)),
        (rows([2.0, 1.0, 3.0], "bits_per_character"), "", ("bits_per_character", 1.0, 2)),
        (rows([math.nan, 0.5, math.inf]), "", ("accuracy", 0.5, 2)),
        ([{"epoch": 1}, *rows([0.5])], "", ("accuracy", 0.5, 1)),
        (rows([0.5]), "no such", None),
        ([], "", None),
    ],
)
def test_the_best_epoch(history, key, best):
    assert standing(history, key) == best


def test_the_lines_are_the_scores_and_the_best_is_named_first():
    (axes,) = compare({"a": rows([0.5, 0.7]), "b": rows([0.6, 0.9, 0.8]), "c": []}).axes
    drawn = lines(axes)
    assert set(drawn) == {"a", "b"} and drawn["b"].get_color() == COLOURS[0] and drawn["a"].get_color() == COLOURS[1]
    assert drawn["b"].get_xdata().tolist() == [1, 2, 3] and drawn["b"].get_ydata().tolist() == pytest.approx([60, 90, 80])
    assert {text.get_text() for text in axes.texts} >= {"b  90.00 %", "a  70.00 %"}
    assert axes.get_ylabel() == "validation accuracy (%)" and axes.get_xlabel() == "epoch"


def test_only_the_best_have_a_colour_and_a_name():
    (axes,) = compare({f"run {n}": rows([n / 20]) for n in range(NAMED + 4)}).axes
    named = [text for text in axes.texts if text.get_text().startswith("run")]
    assert len(named) == NAMED and {text.get_color() for text in named} == set(COLOURS)
    assert any("the best 8 of 12 runs have a colour" in text.get_text() for text in axes.texts)
    heights = sorted(text.xy[1] for text in named)
    assert min(np.diff(heights)) > GAP - 1e-9 and heights[0] >= 0


def test_runs_of_another_metric_have_a_panel_of_their_own():
    figure = compare({"a": rows([0.5]), "b": rows([2.0, 1.0], "perplexity"), "c": rows([3.0], "perplexity")})
    assert [axes.get_title("left") for axes in figure.axes] == ["Perplexity", "Accuracy"]
    for axes in figure.axes:  # every name beside its own panel
        assert all(-0.05 <= text.xy[1] <= 1.05 for text in axes.texts)


def test_where_nothing_can_be_compared_that_is_said():
    figure = compare({"a": [], "b": rows([math.nan], "odd")[:0], "c": [{"epoch": 1, "validation": {"loss": math.nan}}]})
    assert any("No run has finished an epoch" in text.get_text() for text in figure.texts)


def test_names_of_any_kind_are_drawn_the_same_each_time():
    history = {"$x_1$ % 写真 " + "long " * 40: rows([0.5, 0.6]), "b": rows([0.6])}
    assert png_bytes(compare(history)) == png_bytes(compare(history))


@pytest.mark.parametrize("heights", [[0.5], [1.0, 1.0, 1.0], [0.0, 0.0, 0.01], [0.2, 0.9, 0.21]])
def test_heights_are_moved_apart_in_their_order(heights):
    placed = _apart(heights)
    assert len(placed) == len(heights) and min(placed) >= 0 and all(np.diff(sorted(placed)) > GAP - 1e-9)
    assert all(placed[i] > placed[j] for i in range(len(heights)) for j in range(len(heights)) if heights[i] > heights[j])
