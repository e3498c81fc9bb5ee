"""The tensors of a batch, whatever it is made of, and what in them is no number."""

import math

import torch

from twofold.tasks.language import Window
from twofold.train.leaves import finite, item_axis, tensors


def test_every_tensor_is_found_by_its_path():
    one, two = torch.ones(1), torch.zeros(2)
    assert list(tensors(Window(one, two, True))) == ["x_TB", "y_TB"]
    assert tensors([{"a": (one, None)}, "text", two]) == {"0.a.0": one, "2": two}
    assert tensors(one) == {"": one} and tensors(None) == {}


def test_the_letters_of_a_name_tell_the_axis_where_there_are_as_many_as_axes():
    x = torch.zeros(2, 3, 4)
    assert [item_axis(name, x) for name in ("x_BTD", "batch.x_TBD", "x_TDU", "x_B", "x", "")] == [0, 1, None, 0, 0, 0]
    assert item_axis("loss", torch.zeros(())) is None


def test_only_real_and_complex_numbers_can_be_broken():
    assert finite("nan") and finite(torch.tensor([1, 2])) and finite(torch.empty(0)) and finite(torch.ones(2, dtype=torch.bfloat16))
    assert not any(finite(torch.tensor([1.0, value])) for value in (math.nan, math.inf, -math.inf, complex(0, math.nan)))
