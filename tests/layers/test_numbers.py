"""Settings that are numbers: what passes, and the sentence for what does not."""

import numpy as np
import pytest

from twofold.layers.numbers import expect_number


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2), np.int64(3)])
def test_numbers_of_any_kind_pass(value):
    expect_number("Layer", "alpha", value, least=0.5, above=0)


BAD = {
    "nan": (float("nan"), {}, "Layer: expected alpha to be a finite number, got nan."),
    "infinite": (float("inf"), {}, "a finite number, got inf."),
    "bool": (True, {}, "a finite number, got True."),
    "text": ("1", {}, "a finite number, got '1'."),
    "too small": (-1, {"least": 0, "cause": "Why not."}, "a finite number of at least 0, got -1. Why not."),
    "on the bound": (0, {"above": 0}, "a finite number above 0, got 0."),
}


@pytest.mark.parametrize("name", BAD)
def test_anything_else_is_refused(name):
    value, bounds, message = BAD[name]
    with pytest.raises(ValueError) as error:
        expect_number("Layer", "alpha", value, **bounds)
    assert str(error.value).endswith(message)
