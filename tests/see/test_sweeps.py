"""The picture of a sweep: each trial where its values and its score put it."""

import pytest

from twofold.see.style import png_bytes
from twofold.see.sweeps import Dot, sweep_picture

DOTS = [
    Dot(0, {"learning_rate": 0.1, "config.units": 8, "optimizer": "sgd"}, "complete", 0.5),
    Dot(1, {"learning_rate": 0.001, "config.units": 16, "optimizer": "adam"}, "pruned", 0.9),
    Dot(2, {"learning_rate": 0.01, "config.units": 8, "optimizer": "adam"}, "complete", 0.75),
    Dot(3, {"learning_rate": 0.02, "config.units": 8, "optimizer": "adam"}, "failed", None),
    Dot(4, {"learning_rate": 0.03, "config.units": 16, "optimizer": "sgd"}, "complete", 0.625),
]


def data(axes, label):
    return next(line for line in axes.lines if line.get_label() == label).get_xydata().tolist()


def test_scores_by_trial_and_by_each_setting():
    figure = sweep_picture(DOTS, "accuracy", "Sweep of digits", ["learning_rate"])
    order, rate, units, optimizer = figure.axes
    assert (
        data(order, "complete") == [[0, 50], [2, 75], [4, 62.5]]
        and data(order, "pruned") == [[1, 90]]
        and data(order, "failed") == [[3, 0]]
    )
    assert data(order, "best so far") == [[0, 50], [2, 75], [4, 75], [4, 75]] and data(order, "best") == [[2, 75]]
    assert data(rate, "complete") == [[0.1, 50], [0.01, 75], [0.03, 62.5]] and rate.get_xscale() == "log"
    assert data(units, "best") == [[8, 75]] and units.get_xlabel() == "units" and units.get_xscale() == "linear"
    assert [tick.get_text() for tick in optimizer.get_xticklabels()] == ["adam", "sgd"] and data(optimizer, "best") == [[0, 75]]
    told = "3 complete (blue), 1 pruned (hollow), 1 failed (cross); best 75.00 %, trial 2"
    assert told in [text.get_text() for text in order.texts] and order.get_ylabel() == "accuracy (%)"


def test_of_a_loss_the_smallest_is_best():
    order = sweep_picture(DOTS, "loss", "x").axes[0]
    assert data(order, "best") == [[0, 0.5]] and data(order, "best so far")[-1] == [4, 0.5]


@pytest.mark.parametrize("dots", [[], [DOTS[3]], [DOTS[0]._replace(score=float("nan"))]])
def test_where_no_trial_has_a_score_that_is_said(dots):
    assert any(f"None of {len(dots)} trials has a score" in text.get_text() for text in sweep_picture(dots, "loss", "x").texts)


def test_a_sweep_of_many_settings_and_odd_names_is_drawn():
    dots = [Dot(n, {f"config.$a_{k}$": "word " * 20 for k in range(15)}, "complete", float(n)) for n in range(3)]
    figure = sweep_picture(dots, "loss", "x")
    assert len(figure.axes) == 13 and png_bytes(figure) == png_bytes(sweep_picture(dots, "loss", "x"))
