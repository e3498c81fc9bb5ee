"""The maps are the gates, with the units in one order by how much they move."""

import numpy as np
import pytest
import torch

from twofold.see.gates import activity, gates
from twofold.see.style import png_bytes

TEXT = "To be\n"


def values(T=6, U=4, low=0.0):
    return np.random.default_rng(0).uniform(low, 1, (T, U))


def maps(figure):
    return [np.ma.getdata(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def test_activity_is_the_sum_over_the_gates_of_the_deviation_over_the_steps():
    one, two = values(), values(low=-1)
    expected = [one[:, u].std() + two[:, u].std() for u in range(4)]
    np.testing.assert_allclose(activity({"a": one, "b": two}), expected)


def test_the_liveliest_unit_is_on_top_in_every_map():
    still, lively = np.full(6, 0.9), np.array([0, 1, 0, 1, 0, 1.0])
    one, two = np.stack([still, lively], 1), np.stack([still, still], 1)
    drawn = maps(gates({"input": one, "forget": torch.tensor(two)}, TEXT))
    np.testing.assert_array_equal(drawn[0], [lively, still])
    np.testing.assert_array_equal(drawn[1], [still, still])


def test_gates_run_from_0_to_1_and_signed_values_about_zero():
    figure = gates({"input": values(), "candidate": values(low=-1), "state": 3 * values(low=-1) - 2}, TEXT)
    limits = [axes.images[0].get_clim() for axes in figure.axes if axes.images]
    top = abs(3 * values(low=-1) - 2).max()
    assert limits == [(0, 1), (-1, 1), (-top, top)]


def test_titles_names_and_the_text_on_the_axis():
    figure = gates({"input": values(), "forget": values()}, TEXT)
    first, last = [axes for axes in figure.axes if axes.images]
    assert first.get_title("left") == "Gates over time"
    assert first.texts[0].get_text() == "all 4 units, the liveliest on top; 6 characters; the colour is the value"
    assert (first.get_ylabel(), last.get_ylabel(), last.get_xlabel()) == ("input", "forget", "character read")
    assert "".join(tick.get_text() for tick in last.get_xticklabels()) == "To␣be↵"


def test_32_units_and_80_steps_are_drawn_at_most():
    figure = gates({"input": values(100, 48)}, "x" * 100)
    assert maps(figure)[0].shape == (32, 80)
    said = figure.axes[0].texts[0].get_text()
    assert said.startswith("the 32 liveliest of 48 units, the liveliest on top; the first 80 of 100 characters")


def test_values_that_are_not_finite_are_left_out_of_the_order():
    broken = values()
    broken[0, 0] = np.nan
    assert np.isfinite(activity({"input": broken})).all()
    assert png_bytes(gates({"input": broken}, TEXT), 50).startswith(b"\x89PNG")


def test_the_same_gates_give_the_same_bytes():
    assert png_bytes(gates({"a": values()}, TEXT), 50) == png_bytes(gates({"a": values()}, TEXT), 50)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({}, "gates saved_gates: expected at least one gate, got none"),
        ({"input": np.zeros((2, 6, 4))}, r"gates input: expected \(T, U\), .*got \(2, 6, 4\)\. Give one row of the batch"),
        ({"input": np.zeros((6, 0))}, r"gates input: expected \(T, U\), none of them 0, got \(6, 0\)"),
        ({"a": np.zeros((6, 4)), "b": np.zeros((6, 3))}, r"gates b: expected \(T, U\) = \(6, 4\) as the first gate has, got \(6, 3\)"),
        ({"a": np.zeros((5, 4))}, "gates text: expected T=5 characters, one a step, got 6"),
    ],
)
def test_what_does_not_fit_is_refused(saved, message):
    with pytest.raises(ValueError, match=message):
        gates(saved, TEXT)
