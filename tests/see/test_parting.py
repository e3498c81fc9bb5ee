"""Where training and validation part: the epoch, what does not count as parting, and the sentence."""

import math

import pytest

from twofold.see.parting import parting


def rows(*losses):
    return [{"epoch": epoch, "train": {"loss": t}, "validation": {"loss": v}} for epoch, (t, v) in enumerate(losses, 1)]


OVER = [(2.0, 2.0), (1.0, 1.0), (0.5, 1.2), (0.4, 0.9), (0.3, 1.1), (0.2, 1.3), (0.1, 1.5)]


def test_they_part_where_the_validation_was_best():
    found = parting(rows(*OVER))
    assert found.epoch == 4 and found.train == (0.4, pytest.approx(0.15)) and found.validation == (0.9, pytest.approx(1.4))
    assert found.told() == (
        "After epoch 4 training and validation part: the training loss falls on, from 0.4 to 0.15, and the validation loss rises, "
        "from 0.9 to 1.4."
    )


NOT_PARTING = {
    "nothing": [],
    "still falling": [(2.0, 2.0), (1.0, 1.5), (0.5, 1.2)],
    "one epoch after": OVER[:5],
    "level": [(2.0, 1.0), (1.0, 1.005), (0.5, 1.004), (0.2, 1.006)],
    "both rise": [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)],
    "no number": [(1.0, math.nan), (0.5, math.nan), (0.2, math.inf)],
}


@pytest.mark.parametrize("losses", NOT_PARTING.values(), ids=NOT_PARTING)
def test_what_is_no_parting(losses):
    assert parting(rows(*losses)) is None


def test_of_equals_the_last_and_rows_without_a_loss_are_left_out():
    found = parting(rows((2.0, 1.0), (1.0, math.nan), (0.9, 1.0), (0.5, 1.2), (math.nan, 9.0), (0.3, 1.4)))
    assert found.epoch == 3 and found.validation == (1.0, 1.4)
    assert parting([{"epoch": 1, "train": {"loss": None}}, {"step": 3}]) is None


def test_losses_below_zero_part_too():
    assert parting(rows((0.0, -1.0), (-2.0, -0.9), (-3.0, -0.5))).epoch == 1
