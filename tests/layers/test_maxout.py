"""Maxout: the witnesses over any axis, NumPy loops, ties, NaN, and wrong variants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import twofold
from twofold.layers import maxout as page
from twofold.layers.check import Case, check, check_differences, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.layers.maxout import Maxout, maxout

X = noise(3, 6, 4, seed=1)


def by_groups(x, pieces, axis):
    groups = torch.split(x, pieces, axis)
    return torch.cat([group.amax(axis, keepdim=True) for group in groups], axis)


CASES = {
    "two": (X, 2, 1),
    "three": (X, 3, 1),
    "one each": (X, 1, 1),
    "all": (X, 6, 1),
    "last axis": (X, 2, 2),
    "rows": (noise(4, 6, seed=2), 3, 1),
    "maps": (noise(2, 4, 3, 5, seed=3), 2, 1),
    "channels last": (noise(2, 4, 3, 5, seed=3).detach().contiguous(memory_format=torch.channels_last).requires_grad_(), 2, 1),
    "transposed": (X.detach().transpose(1, 2).requires_grad_(), 2, 2),
    "sliced": (noise(3, 12, seed=4).detach()[:, ::2].requires_grad_(), 2, 1),
    "expanded": (noise(1, 6, seed=5).detach().expand(3, 6).requires_grad_(), 2, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    check(Case(maxout, CASES[name], by_groups))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_drawn_shapes_by_loops(data):
    pieces, groups, axis = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3)), data.draw(st.integers(0, 2))
    shape = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=2))
    shape.insert(axis, pieces * groups)
    x = noise(*shape, seed=data.draw(st.integers(0, 99)))
    y, saved = maxout.explain(x, pieces, axis)
    dx = maxout.plain.backward(noise(*y.shape, seed=7, grad=False), saved)
    for place in np.ndindex(*y.shape):
        group = tuple(slice(p * pieces, (p + 1) * pieces) if a == axis else p for a, p in enumerate(place))
        values = x.detach().numpy()[group]
        assert y[place].item() == values.max() and saved.winner[place].item() == values.argmax()
        expected = np.where(np.arange(pieces) == values.argmax(), noise(*y.shape, seed=7, grad=False)[place].item(), 0)
        assert np.array_equal(dx.numpy()[group], expected)


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_the_first_of_equals_wins_and_nan_is_seen(route):
    x = torch.tensor([[0.0, 0.0, float("nan"), 5.0, float("-inf"), -9.0]], requires_grad=True)
    with twofold.route(route):
        y = Maxout(2)(x)
    (dx,) = torch.autograd.grad(y, x, torch.tensor([[1.0, 2.0, 3.0]]))
    assert y[0, 0] == 0 and y[0, 1].isnan() and y[0, 2] == -9
    assert dx.tolist() == [[1, 0, 2, 0, 0, 3]]


def test_many_pieces_need_a_wider_winner():
    x = torch.zeros(1, 300)
    x[0, 299] = 1
    assert maxout.explain(x, 300, 1)[1].winner.tolist() == [[299]]


def test_it_bends_as_the_activations_that_it_holds():
    x = noise(3, 5, grad=False)
    pair = torch.stack([x, -x], 2).flatten(1)
    assert torch.equal(Maxout(2)(pair), x.abs())
    assert torch.equal(Maxout(2, dim=-1)(torch.stack([x, 0 * x], 2).flatten(1)), x.relu())


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_an_empty_batch(route):
    layer = Maxout(2)
    with twofold.route(route):
        assert layer(torch.zeros(0, 6, 3)).shape == (0, 3, 3)
    assert layer.last_route == route and repr(layer) == "Maxout(pieces=2, dim=1)"


MUTANTS = {
    "groups that interleave": (
        lambda x, k, a: page.forward(x.unflatten(a, (k, -1)).transpose(a, a + 1).flatten(a, a + 1), k, a),
        page.backward,
    ),
    "the smallest": (lambda x, k, a: (-page.forward(-x, k, a)[0], page.forward(-x, k, a)[1]), page.backward),
    "pieces in reverse": (page.forward, lambda dy, s: page.backward(dy, s._replace(winner=s.pieces - 1 - s.winner.int()))),
    "a gradient for all": (page.forward, lambda dy, s: dy.repeat_interleave(s.pieces, s.axis)),
    "shared among the pieces": (page.forward, lambda dy, s: dy.repeat_interleave(s.pieces, s.axis) / s.pieces),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_variants_are_caught(name):
    case = Case(differentiable(*MUTANTS[name]), CASES["two"], by_groups)
    with pytest.raises(AssertionError):
        check_expression(case)
    if MUTANTS[name][0] is page.forward:
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(case)


BAD = {
    "no pieces": (lambda: Maxout(0), "Maxout: expected pieces to be a whole number of at least 1, got 0."),
    "half an axis": (lambda: Maxout(2, 0.5), "Maxout: expected dim, the axis of the features, to be a whole number, got 0.5."),
    "axis": (lambda: Maxout(2)(torch.zeros(4)), "Maxout input: expected an axis dim=1, got (4,): it has 1 axes. Features last?"),
    "features": (
        lambda: Maxout(3)(torch.zeros(2, 4)),
        "Maxout input: expected a multiple of pieces=3 along axis 1, got (2, 4): 4 features.",
    ),
    "bytes": (lambda: Maxout(2)(torch.zeros(2, 4, dtype=torch.uint8)), "expected floating point, got uint8. Bytes?"),
    "list": (lambda: Maxout(2)([1.0]), "Maxout input: expected a torch tensor, got list."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
