"""Linear: the four witnesses, and what only a linear map has to answer."""

import pytest
import torch
from torch import nn as torch_nn

from twofold import nn
from twofold.layers.check import Case, check, check_drop_in, noise
from twofold.layers.linear import linear


def expression(x, weight, bias):
    """The sum of the equation, written with an explicit feature axis."""
    y = (x.unsqueeze(-2) * weight).sum(-1)
    return y if bias is None else y + bias


CASES = {
    "rows": (noise(5, 3, seed=1), noise(4, 3, seed=2), noise(4, seed=3)),
    "no bias": (noise(5, 3, seed=1), noise(4, 3, seed=2), None),
    "time axis": (noise(2, 5, 3, seed=1), noise(4, 3, seed=2), noise(4, seed=3)),
    "one feature": (noise(2, 1, seed=1), noise(1, 1, seed=2), noise(1, seed=3)),
    "frozen input": (noise(5, 3, seed=1, grad=False), noise(4, 3, seed=2), noise(4, seed=3)),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    arguments = CASES[name]
    check(Case(linear, arguments, expression, linear=arguments[2] is None))


@pytest.mark.parametrize("bias", [True, False])
def test_stands_in_for_torch(bias):
    check_drop_in(nn.Linear(3, 4, bias=bias).double(), torch_nn.Linear(3, 4, bias=bias).double(), noise(5, 3))


def test_an_empty_batch_has_zero_weight_gradient():
    layer = nn.Linear(3, 4)
    layer(torch.zeros(0, 3)).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.count_nonzero() == 0


BAD = {
    "features": (lambda: nn.Linear(3, 4)(torch.zeros(2, 5)), "Linear input: expected (B, D=3), got (2, 5): D is 5, not 3."),
    "maps": (lambda: nn.Linear(3, 4)(torch.zeros(2, 3, 4, 4)), "Feature maps? Flatten them first: x.flatten(1)."),
    "bytes": (lambda: nn.Linear(3, 4)(torch.zeros(2, 3, dtype=torch.uint8)), "Convert and scale: x.float() / 255."),
    "tokens": (lambda: nn.Linear(3, 4)(torch.zeros(2, 3, dtype=torch.int64)), "Put an Embedding in front"),
    "dtype": (
        lambda: nn.Linear(3, 4)(torch.zeros(2, 3).double()),
        "Linear input: expected float32, the dtype of the weights, got float64.",
    ),
    "list": (lambda: nn.Linear(3, 4)([1.0, 2.0]), "Linear input: expected a torch tensor, got list."),
    "construction": (lambda: nn.Linear(3, 0), "Linear: expected out_features to be a whole number of at least 1, got 0."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
