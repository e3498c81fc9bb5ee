"""The compiled linear layer: whole numbers exactly, real ones beside float64, every instruction set, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F

from twofold import kernels
from twofold.kernels import dense, nodes

pytestmark = pytest.mark.skipif(not kernels.available(), reason=kernels.reason())

SIZES = [(1, 1, 1), (2, 3, 5), (4, 16, 4), (5, 17, 9), (8, 33, 31), (9, 100, 10), (16, 400, 120), (64, 84, 10)]


def law(x, weight, bias, relu):
    y = F.linear(x, weight, bias)
    return F.relu(y) if relu else y


def agree(rows, features, units, relu, with_bias, whole, seed=0):
    numbers = torch.Generator().manual_seed(seed)
    draw = (lambda *n: torch.randint(-8, 9, n, generator=numbers).float()) if whole else (lambda *n: torch.randn(n, generator=numbers))
    x, weight, bias = draw(rows, features), draw(units, features), draw(units) if with_bias else None
    dy = draw(rows, units)
    given = [t.requires_grad_() for t in (x, weight, bias) if t is not None]
    mine = nodes.dense(x, weight, bias, relu)
    theirs = law(*(None if t is None else t.double() for t in (x, weight, bias)), relu)
    # where ReLU meets a sum that rounding may push over 0, its gradient is of no use as a judge
    dy = torch.where(theirs.detach().abs() < 1e-4, 0, dy) if relu and not whole else dy
    found = [mine, *torch.autograd.grad(mine, given, dy)]
    for a, b in zip(found, [theirs, *torch.autograd.grad(theirs, given, dy.double())], strict=True):
        allowed = 0 if whole else 1e-5 * float(b.detach().abs().max())
        assert (a - b).abs().max() <= allowed, (rows, features, units, relu, with_bias, whole)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("relu", [False, True])
def test_the_compiled_form_is_the_law(size, relu):
    for with_bias in (False, True):
        for whole in (False, True):
            agree(*size, relu, with_bias, whole)


def in_a_process_of_its_own():
    for size in SIZES:
        agree(*size, relu=True, with_bias=True, whole=True)


def test_nan_passes_through_relu_and_reaches_what_depends_on_it():
    x = torch.tensor([[1.0, float("nan")], [-1.0, 2.0]], requires_grad=True)
    weight = torch.ones(3, 2, requires_grad=True)
    y = nodes.dense(x, weight, None, relu=True)
    assert y.isnan().tolist() == [[True] * 3, [False] * 3]
    y.sum().backward()
    assert weight.grad[:, 1].isnan().all() and x.grad.tolist() == [[3.0, 3.0], [3.0, 3.0]]


def test_what_is_frozen_gets_no_gradient_and_nothing_else_changes():
    x, weight, bias = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)
    for wanted in ("x", "weight", "bias"):
        named = {"x": x.clone(), "weight": weight.clone(), "bias": bias.clone()}
        named[wanted].requires_grad_()
        nodes.dense(*named.values(), True).sum().backward()
        expected = named[wanted].detach().clone().requires_grad_()
        law(*{**named, wanted: expected}.values(), True).sum().backward()
        torch.testing.assert_close(named[wanted].grad, expected.grad)
        assert all(t.grad is None for name, t in named.items() if name != wanted)


def test_second_derivatives():
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*n, requires_grad=True) for n in ((3, 4), (5, 4), (5,)))
    found = []
    for compute in (lambda: nodes.dense(x, weight, bias, True), lambda: law(x, weight, bias, True)):
        (dx,) = torch.autograd.grad(compute().pow(2).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(dx.pow(2).sum(), [x, weight, bias]))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_when_it_is_worth_it():
    weight, bias = torch.zeros(120, 400, requires_grad=True), torch.zeros(120)
    assert dense.worth(torch.zeros(8, 400), weight, bias)
    assert not dense.worth(torch.zeros(512, 400), weight, bias)
    assert not dense.worth(torch.zeros(8, 400), weight.detach(), bias)
    assert not dense.worth(torch.zeros(2, 8, 400), weight, bias)
    with torch.no_grad():
        assert not dense.worth(torch.zeros(8, 400), weight, bias)


X, W, B = torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(4)


def test_what_does_not_fit_is_told():
    assert dense.unfit(X[None], W, B) == "needs rows: an input of two axes"
    assert dense.unfit(X.double(), W, B) == "needs float32 on the CPU, not float64 on cpu"


BROKEN = {
    "features": (lambda: torch.ops.twofold.linear(X, torch.zeros(4, 2), B, False), "weight and x do not fit"),
    "bias": (lambda: torch.ops.twofold.linear(X, W, torch.zeros(3), False), "bias does not fit"),
    "layout": (lambda: torch.ops.twofold.linear(torch.zeros(3, 2).t(), W, B, False), "expected x to be a contiguous float32 matrix"),
    "gradient": (lambda: torch.ops.twofold.linear_backward(X, X, W, True, True, True), "dy, x and weight do not fit"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_operator_guards_its_memory(name):
    call, words = BROKEN[name]
    with pytest.raises(ValueError, match=words):
        call()
