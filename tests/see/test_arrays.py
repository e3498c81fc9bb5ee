"""Lists, arrays and tensors of any kind come out as the same array."""

import numpy as np
import pytest
import torch

from twofold.see.arrays import array, whole_numbers

VALUES = [[1.0, 2.0], [3.0, 4.5]]


@pytest.mark.parametrize(
    "values",
    [VALUES, np.array(VALUES), torch.tensor(VALUES, requires_grad=True), torch.tensor(VALUES, dtype=torch.bfloat16)],
    ids=["list", "array", "with gradient", "bfloat16"],
)
def test_every_source_gives_the_same_array(values):
    assert array(values).tolist() == VALUES


def test_bytes_stay_bytes():
    assert array(torch.zeros(2, dtype=torch.uint8)).dtype == np.uint8


@pytest.mark.parametrize("values", [[2, 0], [2.0, 0.0], torch.tensor([2, 0]), np.array([2, 0], np.uint8)])
def test_whole_numbers_are_kept(values):
    assert whole_numbers(values, "counts").tolist() == [2, 0]
    assert whole_numbers(values, "counts").dtype == np.int64


def test_booleans_count_as_0_and_1_and_nothing_is_nothing():
    assert whole_numbers([True, False], "counts").tolist() == [1, 0]
    assert whole_numbers([], "counts").shape == (0,)


@pytest.mark.parametrize("wrong", [0.5, float("nan"), float("inf")])
def test_a_share_is_no_count(wrong):
    with pytest.raises(ValueError, match=rf"counts: expected whole numbers, got {wrong}\. Give counts or class indices"):
        whole_numbers([1, wrong], "counts")


def test_words_are_no_counts():
    with pytest.raises(ValueError, match=r"truth: expected whole numbers, got <U3 values such as .*'cat'"):
        whole_numbers(["cat", "dog"], "truth")
