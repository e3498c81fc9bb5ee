"""A linear map with its ReLU: the four witnesses."""

import pytest

from twofold.layers.check import Case, check, noise
from twofold.layers.linear_relu import linear_relu

CASES = {
    "rows": (noise(5, 3, seed=1), noise(4, 3, seed=2), noise(4, seed=3)),
    "no bias": (noise(5, 3, seed=1), noise(4, 3, seed=2), None),
    "time axis": (noise(2, 5, 3, seed=1), noise(4, 3, seed=2), noise(4, seed=3)),
    "frozen input": (noise(5, 3, seed=1, grad=False), noise(4, 3, seed=2), noise(4, seed=3)),
}


def expression(x, weight, bias):
    """The sum of the equation, and what of it is above 0."""
    a = (x.unsqueeze(-2) * weight).sum(-1)
    a = a if bias is None else a + bias
    return a * (a > 0)


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    check(Case(linear_relu, CASES[name], expression))
