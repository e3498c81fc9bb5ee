"""The lines are the numbers of the log, and the best one is ringed."""

import math

import numpy as np
import pytest

from twofold.see.curves import curves
from twofold.see.style import png_bytes


def rows(count, metric="accuracy", validation=True):
    parts = ("train", "validation") if validation else ("train",)
    return [
        {"epoch": e, "step": 10 * e, **{part: {"loss": 2 / e + k, metric: 1 - 1 / (e + k + 1)} for k, part in enumerate(parts)}}
        for e in range(1, count + 1)
    ]


def line(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


@pytest.mark.parametrize("count", [1, 2, 40, 1000])
def test_the_lines_are_the_losses_over_the_epochs_and_the_accuracy_in_percent(count):
    history = rows(count)
    loss, accuracy = curves(history).axes
    for part in ("train", "validation"):
        assert line(loss, part).get_xdata().tolist() == [row["epoch"] for row in history]
        assert line(loss, part).get_ydata().tolist() == [row[part]["loss"] for row in history]
        assert line(accuracy, part).get_ydata().tolist() == pytest.approx([100 * row[part]["accuracy"] for row in history])


def test_panels_have_titles_axes_units_and_names_at_the_lines():
    loss, accuracy = curves(rows(5)).axes
    assert (loss.get_title("left"), loss.get_xlabel(), loss.get_ylabel()) == ("Loss", "epoch", "loss")
    assert (accuracy.get_title("left"), accuracy.get_xlabel(), accuracy.get_ylabel()) == ("Accuracy", "epoch", "accuracy (%)")
    assert {"train", "validation"} <= {text.get_text() for text in loss.texts}


def test_bits_per_character_are_drawn_as_they_are():
    _, bits = curves(rows(3, "bits_per_character")).axes
    assert bits.get_ylabel() == "bits per character"
    assert line(bits, "train").get_ydata().tolist() == pytest.approx([1 / 2, 2 / 3, 3 / 4])


def test_the_best_validation_is_the_lowest_loss_and_the_highest_accuracy():
    history = rows(4)
    history[1]["validation"] = {"loss": 0.25, "accuracy": 0.9875}
    loss, accuracy = curves(history).axes
    assert line(loss, "best").get_xydata().tolist() == [[2, 0.25]]
    assert line(accuracy, "best").get_xydata().tolist() == [[2, 98.75]]
    assert "best validation: 0.25, epoch 2" in [text.get_text() for text in loss.texts]
    assert "best validation: 98.75 %, epoch 2" in [text.get_text() for text in accuracy.texts]


def test_where_they_part_the_losses_have_a_line_and_a_word():
    history = rows(9)
    for row in history[3:]:
        row["validation"]["loss"] = row["epoch"]
    loss, accuracy = curves(history).axes
    assert [line.get_xdata() for line in loss.lines if line.get_label() == "parting"] == [[3, 3]]
    assert "here they part: epoch 3" in [text.get_text() for text in loss.texts]
    for axes in (accuracy, *curves(rows(9)).axes):
        assert all(line.get_label() != "parting" for line in axes.lines) and not any("part" in text.get_text() for text in axes.texts)


def test_without_validation_nothing_is_ringed_and_no_line_is_named_for_it():
    loss, _ = curves(rows(5, validation=False)).axes
    assert [text.get_text() for text in loss.texts if text.get_text()] == ["train"]
    assert all(line.get_label() != "best" for line in loss.lines)


def test_a_log_of_losses_alone_has_one_panel():
    assert len(curves(rows(3, "something_else")).axes) == 1


@pytest.mark.parametrize("broken", [math.nan, math.inf, None])
def test_what_is_not_finite_leaves_a_gap_and_is_never_best(broken):
    history = rows(6)
    for row in (history[2], history[4]):
        row["train"]["loss"] = row["validation"]["loss"] = broken
    loss = curves(history).axes[0]
    assert np.isnan(line(loss, "validation").get_ydata()).tolist() == [False, False, True, False, True, False]
    assert line(loss, "best").get_xdata().tolist() == [6]


def test_a_point_between_two_gaps_of_a_long_log_is_a_dot():
    history = rows(100)
    history[49]["train"]["loss"] = history[51]["train"]["loss"] = math.nan
    dots = [line.get_xdata().tolist() for line in curves(history).axes[0].lines if line.get_marker() == "o"]
    assert [51] in dots


def test_a_log_without_one_finite_loss_says_so():
    loss = curves([{"epoch": 1, "train": {"loss": math.nan}}]).axes[0]
    assert "no finite value" in [text.get_text() for text in loss.texts]


def test_one_epoch_has_one_tick():
    assert curves(rows(1)).axes[0].get_xticks().tolist() == [1]


def test_epochs_are_whole_numbers_on_the_axis():
    ticks = curves(rows(3)).axes[0].get_xticks()
    assert (ticks == np.round(ticks)).all()


@pytest.mark.parametrize(("last", "scale"), [(0.041, "linear"), (0.039, "log")])
def test_losses_that_differ_by_more_than_50_are_logarithmic(last, scale):
    history = [{"epoch": 1, "train": {"loss": 2.0}}, {"epoch": 2, "train": {"loss": last}}]
    assert curves(history).axes[0].get_yscale() == scale


def test_names_of_lines_that_end_together_stand_apart():
    history = [{"epoch": e, "train": {"loss": 1 / e}, "validation": {"loss": 1 / e}} for e in (1, 2, 3)]
    heights = [text.xy[1] for text in curves(history).axes[0].texts if text.get_text() in ("train", "validation")]
    assert abs(heights[0] - heights[1]) == pytest.approx(0.06)


def test_rows_within_an_epoch_are_drawn_over_their_steps():
    history = [{"epoch": 1, "step": step, "train": {"loss": 1 / step}} for step in (10, 20, 30)]
    axes = curves(history).axes[0]
    assert axes.get_xlabel() == "step"
    assert line(axes, "train").get_xdata().tolist() == [10, 20, 30]


def test_the_same_log_gives_the_same_bytes():
    assert png_bytes(curves(rows(9)), 50) == png_bytes(curves(rows(9)), 50)


def test_no_row_is_refused():
    with pytest.raises(ValueError, match=r"curves history: expected at least one row, got none\. Has the run finished"):
        curves([])


def test_two_runs_in_one_log_are_refused():
    with pytest.raises(ValueError, match=r"increasing epoch or step, got epochs 1, 2, 1, 2\. Two runs in one log\?"):
        curves(rows(2) + rows(2))
