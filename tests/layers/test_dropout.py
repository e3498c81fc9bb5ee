"""Dropout: the pair for a given mask, the law of the mean, the draw, and when nothing is dropped."""

import pytest
import torch
from torch import nn as torch_nn

import twofold
from twofold.layers import dropout as page
from twofold.layers.check import Case, check, check_adjoint, check_differences, check_drop_in, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.layers.dropout import Dropout, draw, dropout

X = noise(4, 5, 3, seed=1)
KEEP = noise(4, 5, 3, seed=2, grad=False) > 0.3


def expression(x, keep, p):
    return torch.where(keep, x / (1 - p) if p < 1 else x * 0, 0)


CASES = {
    "half": (X, KEEP, 0.5),
    "little": (X, KEEP, 0.1),
    "none": (X, torch.ones_like(KEEP), 0.0),
    "all": (X, torch.zeros_like(KEEP), 1.0),
    "transposed": (X.detach().transpose(0, 2).requires_grad_(), KEEP.transpose(0, 2), 0.25),
    "expanded": (noise(4, 1, seed=3).detach().expand(4, 3).requires_grad_(), KEEP[:, 0], 0.25),
    "one axis": (X.detach()[:, 0, 0].requires_grad_(), KEEP[:, 0, 0], 0.75),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    check(Case(dropout, CASES[name], expression, linear=True, row_arguments=(0, 1)))


MUTANTS = {
    "not divided": (lambda x, keep, p: (x * keep, page.Saved(keep, p)), page.backward),
    "divided by p": (lambda x, keep, p: (x * keep / p, page.Saved(keep, p)), page.backward),
    "the mask turned round": (lambda x, keep, p: page.forward(x, ~keep, p), page.backward),
    "the gradient of what was dropped": (page.forward, lambda dy, saved: dy / (1 - saved.p)),
    "the gradient not divided": (page.forward, lambda dy, saved: dy * saved.keep),
    "the gradient divided twice": (page.forward, lambda dy, saved: page.backward(dy, saved) / (1 - saved.p)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_variants_are_caught(name):
    case = Case(differentiable(*MUTANTS[name]), (X, KEEP, 0.3), expression, linear=True)
    with pytest.raises(AssertionError):
        check_expression(case)
    if name != "the mask turned round":  # which is a right pair of another mask
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(case)
        with pytest.raises(AssertionError):
            check_adjoint(case)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_mean_is_that_of_the_input(p):
    n = 100_000
    for route in ("plain", "vendor"):
        torch.manual_seed(0)
        with twofold.route(route):
            y = Dropout(p)(torch.full((n,), 3.0, dtype=torch.float64))
        deviation = 3 * (p / (1 - p) / n) ** 0.5
        assert abs(y.mean().item() - 3) < 5 * deviation
        assert torch.allclose(y[y != 0], y.new_tensor(3 / (1 - p)), rtol=1e-14)


@pytest.mark.parametrize("p", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_that_is_kept(p, dtype):
    n = 100_000
    keep = draw(torch.zeros(n, dtype=dtype), p, torch.Generator().manual_seed(1))
    assert keep.dtype == torch.bool
    assert abs(keep.double().mean().item() - (1 - p)) <= 5 * (p * (1 - p) / n) ** 0.5


def test_neighbours_are_dropped_independently():
    n = 100_000
    keep = draw(torch.zeros(n), 0.5, torch.Generator().manual_seed(1)).double() - 0.5
    for step in (1, 2, 7):
        assert abs((keep[step:] * keep[:-step]).mean().item()) < 5 * 0.25 / n**0.5


def test_a_seed_repeats_the_mask_and_every_call_draws_anew():
    x = torch.ones(200)
    layer = Dropout(0.5)
    for route in ("plain", "vendor"):
        with twofold.route(route):
            torch.manual_seed(3)
            first, second = layer(x), layer(x)
            torch.manual_seed(3)
            assert torch.equal(layer(x), first)
        assert not torch.equal(first, second)


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_the_gradient_passes_where_the_value_did(route):
    x = noise(50, seed=4).detach().requires_grad_()
    layer = Dropout(0.4)
    with twofold.route(route):
        y = layer(x)
    y.sum().backward()
    assert layer.last_route == route
    assert x.grad is not None and torch.allclose(x.grad * x, y, rtol=1e-14)
    assert 0 < (x.grad == 0).sum() < 50


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_nothing_is_dropped_in_evaluation_nor_at_zero(route):
    with twofold.route(route):
        assert Dropout(0.5).eval()(X) is X
        assert torch.equal(Dropout(0.0)(X), X)
        assert Dropout(0.5).eval()(torch.tensor([3])).tolist() == [3]


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_all_is_dropped_at_one(route):
    x = torch.ones(20, requires_grad=True)
    with twofold.route(route):
        y = Dropout(1.0)(x)
    y.sum().backward()
    assert y.count_nonzero() == 0
    assert x.grad is not None and x.grad.count_nonzero() == 0


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_an_empty_batch_stays_empty(route):
    with twofold.route(route):
        assert Dropout(0.5)(torch.zeros(0, 3)).shape == (0, 3)


def test_the_plain_form_never_works_in_place():
    x = torch.ones(100)
    with twofold.route("plain"):
        Dropout(0.5, inplace=True)(x)
    assert x.sum() == 100
    assert Dropout(0.5, inplace=True)(x) is x


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("inplace", [False, True])
def test_stands_in_for_torch(route, inplace):
    with twofold.route(route):
        check_drop_in(Dropout(0.3, inplace).eval(), torch_nn.Dropout(0.3, inplace).eval(), X)


def test_the_compiler_sees_one_graph():
    layer, x = Dropout(0.5), torch.ones(50)
    y = torch.compile(layer, backend="eager", fullgraph=True)(x)
    assert 0 < y.count_nonzero() < 50 and torch.equal(y, 2 * (y != 0))


BAD = {
    "per cent": (lambda: Dropout(50), "Dropout: expected p, the probability of being dropped, from 0 to 1, got 50. Per cent? p=0.5"),
    "negative": (lambda: Dropout(-0.1), "got -0.1"),
    "NaN": (lambda: Dropout(float("nan")), "got nan"),
    "text": (lambda: Dropout("half"), "got 'half'"),
    "tokens": (lambda: Dropout(0.5)(torch.zeros(2, dtype=torch.int64)), "Dropout input: expected floating point, got int64."),
    "list": (lambda: Dropout(0.5)([1.0]), "Dropout input: expected a torch tensor, got list."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
