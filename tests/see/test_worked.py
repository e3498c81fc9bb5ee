"""The worked convolution: every sum that is printed comes to the number beside it, and all numbers are autograd's."""

import re

import pytest
import torch
import torch.nn.functional as F

from twofold.see.worked import Example, work

EXAMPLES = [
    Example(),
    Example(4, 3, 1, 1),
    Example(5, 2, 3, 0),
    Example(6, 3, 2, 0),  # a row and a column that no window sees
    Example(6, 4, 3, 2),
    Example(3, 1, 1, 0),
    Example(2, 2, 1, 1, seed=7),
]


def told(page):
    """{name: (what the printed sum comes to, the number printed behind it)}"""
    found = {}
    for line in page.splitlines():
        parts = re.fullmatch(r"  (\w+(?:\[\d,\d\])?) = (.+) = (-?\d+)", line)
        if parts:
            name, terms, number = parts.groups()
            total = 0
            for term in terms.split(" + "):
                product = 1
                for factor in term.split("*"):
                    product *= int(factor.strip("()"))
                total += product
            assert name not in found
            found[name] = (total, int(number))
    return found


def autograd(worked):
    """The same numbers, by torch alone."""
    e = worked.example
    x, weight = (torch.tensor(m, dtype=torch.float64)[None, None].requires_grad_() for m in (worked.x, worked.weight))
    bias = torch.tensor([float(worked.bias)], dtype=torch.float64, requires_grad=True)
    y = F.conv2d(x, weight, bias, e.stride, e.padding)
    y.backward(torch.tensor(worked.dy, dtype=torch.float64)[None, None])
    return {"y": y[0, 0], "dW": weight.grad[0, 0], "dx": x.grad[0, 0], "db": bias.grad[0]}


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_every_printed_sum_is_its_number_and_autograds(example):
    worked = work(example)
    sums, truth = told(str(worked)), autograd(worked)
    wanted = {f"{name}[{i},{j}]": int(values[i, j]) for name, values in truth.items() if name != "db" for i, j in places(values)}
    wanted["db"] = int(truth["db"])
    assert {name: total for name, (total, _) in sums.items()} == wanted
    assert {name: number for name, (_, number) in sums.items()} == wanted


def places(values):
    return [(i, j) for i in range(values.shape[0]) for j in range(values.shape[1])]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_the_matrices_are_autograds_and_zeros_are_only_those_that_were_added(example):
    worked, truth = work(example), autograd(work(example))
    for matrix, name in ((worked.y, "y"), (worked.dweight, "dW"), (worked.dx, "dx")):
        assert torch.equal(torch.tensor(matrix).double(), truth[name].detach())
    assert all(matrix.all() for matrix in (worked.x, worked.weight, worked.dy))
    assert (worked.turned == worked.weight[::-1, ::-1]).all() and worked.stuffed.shape[0] == example.size + example.kernel - 1


def test_the_page_says_the_laws_and_how_zeros_were_put():
    page = str(work(Example(6, 3, 2, 0))).splitlines()
    assert "FORWARD    y[p,q] = sum over i,j of X[2p+i, 2q+j] * W[i,j] + b" in page
    assert "of the kernel: dW[i,j] = sum over p,q of X[2p+i, 2q+j] * dy[p,q]    (the correlation of x with dy)" in page
    assert "D is dy with 1 zero between its rows and columns and 2 zeros before and 3 zeros behind; V is W turned by 180 degrees" in page


def test_the_seed_says_the_numbers():
    assert str(work(Example(seed=3))) == str(work(Example(seed=3))) != str(work(Example(seed=4)))
    plain = work().to_dict()
    assert plain["size"] == 5 and plain["y"] == work().y.tolist() and len(plain["sums"]) == 9 + 9 + 25 + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 7}, "worked example: expected size from 1 to 6, got 7. It has to fit on a page."),
        ({"kernel": 0}, "worked example: expected kernel from 1 to 4, got 0"),
        ({"stride": 0}, "worked example: expected stride from 1 to 3, got 0"),
        ({"padding": 3}, "worked example: expected padding from 0 to 2, got 3"),
        ({"kernel": 1}, "worked example: expected padding from 0 to 0, got 1"),
        ({"seed": -1}, "worked example: expected seed of at least 0, got -1."),
        ({"size": 2, "kernel": 4, "padding": 0}, "worked example: the kernel 4x4 does not fit into the padded map 2x2"),
    ],
)
def test_an_example_that_does_not_fit_is_refused(settings, message):
    with pytest.raises(ValueError) as refused:
        Example(**settings)
    assert str(refused.value).startswith(message)
