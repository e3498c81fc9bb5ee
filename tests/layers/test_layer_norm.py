"""LayerNorm: the witnesses over one and several axes, NumPy loops, the laws of the gradient, and wrong variants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn as torch_nn

import twofold
from twofold.layers import layer_norm as page
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.layers.layer_norm import LayerNorm, layer_norm

EPS = 1e-3
X = (2 * noise(3, 4, 5, seed=1) + 1).detach().requires_grad_()
SCALE, SHIFT = noise(5, seed=2), noise(5, seed=3)


def by_rows(x, scale, shift, axes, eps):
    """The rows flat, their statistics by torch's own."""
    rows = x.flatten(-axes)
    variance, mean = torch.var_mean(rows, -1, correction=0, keepdim=True)
    y = ((rows - mean) / (variance + eps) ** 0.5).reshape(x.shape)
    return y * (1 if scale is None else scale) + (0 if shift is None else shift)


CASES = {
    "sequences": (X, SCALE, SHIFT, 1, EPS),
    "rows": (noise(4, 5, seed=6), SCALE, SHIFT, 1, EPS),
    "two axes": (X, noise(4, 5, seed=7), noise(4, 5, seed=8), 2, EPS),
    "no scale": (X, None, SHIFT, 1, EPS),
    "no shift": (X, SCALE, None, 1, EPS),
    "neither": (X, None, None, 1, EPS),
    "frozen input": (X.detach(), SCALE, SHIFT, 1, EPS),
    "large eps": (X, SCALE, SHIFT, 1, 2.5),
    "transposed": (X.detach().transpose(1, 2).requires_grad_(), noise(4, seed=7), noise(4, seed=8), 1, EPS),
    "sliced": (noise(3, 10, seed=9).detach()[:, ::2].requires_grad_(), SCALE, SHIFT, 1, EPS),
    "expanded": (noise(1, 5, seed=9).detach().expand(3, 5).requires_grad_(), SCALE, SHIFT, 1, EPS),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    check(Case(layer_norm, CASES[name], by_rows))


def test_witnesses_of_one_row_alone():
    check(Case(layer_norm, (noise(5, seed=4), SCALE, SHIFT, 1, EPS), by_rows, rows=False))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=2), st.lists(st.integers(2, 4), min_size=1, max_size=2), st.integers(0, 99))
def test_drawn_shapes_by_loops(leading, normalized, seed):
    x, scale, shift = noise(*leading, *normalized, seed=seed), noise(*normalized, seed=seed + 1), noise(*normalized, seed=seed + 2)
    arguments = (x, scale, shift, len(normalized), EPS)
    check_expression(Case(layer_norm, arguments, by_rows))
    y, _ = layer_norm.explain(*arguments)
    for place in np.ndindex(*leading):
        row = x.detach().numpy()[place]
        mean = sum(row.flatten()) / row.size
        variance = sum((row.flatten() - mean) ** 2) / row.size
        expected = (row - mean) / (variance + EPS) ** 0.5 * scale.detach().numpy() + shift.detach().numpy()
        assert np.allclose(y.numpy()[place], expected, rtol=0, atol=1e-12)


def test_a_row_knows_no_shift_nor_scale_and_its_gradient_is_orthogonal_to_both():
    y, saved = layer_norm.explain(X, SCALE, SHIFT, 1, 1e-12)
    assert torch.allclose(layer_norm.explain(7 * X + 100, SCALE, SHIFT, 1, 1e-12)[0], y, rtol=0, atol=1e-10)
    dx, _, _ = page.backward(noise(*X.shape, seed=9, grad=False), saved)
    for direction in (torch.ones_like(dx), saved.normal_BD):
        assert torch.allclose((dx * direction).sum(-1), torch.zeros(3, 4, dtype=torch.float64), rtol=0, atol=1e-10)


OPTIONS = {
    "number": (5, {}),
    "two axes": ((4, 5), {"eps": 0.1}),
    "size of a tensor": (torch.Size([5]), {}),
    "no affine": (5, {"elementwise_affine": False}),
    "no shift": ([4, 5], {"bias": False}),
}


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("name", OPTIONS)
def test_stands_in_for_torch(name, route):
    shape, options = OPTIONS[name]
    pair = [module(shape, dtype=torch.float64, **options) for module in (LayerNorm, torch_nn.LayerNorm)]
    for layer in pair:
        for number, weight in enumerate(layer.parameters()):
            weight.data.copy_(noise(*weight.shape, seed=number))
    with twofold.route(route):
        check_drop_in(*pair, X)
    assert pair[0].last_route == route


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_an_empty_batch_teaches_nothing_and_nan_stays_in_its_row(route):
    layer = LayerNorm(5)
    x = torch.zeros(0, 5, requires_grad=True)
    with twofold.route(route):
        layer(x).sum().backward()
        y = layer(torch.tensor([[float("nan"), 1, 2, 3, 4], [7.0] * 5]))
    assert x.grad is not None and x.grad.shape == (0, 5)
    assert all(w.grad is not None and w.grad.count_nonzero() == 0 for w in layer.parameters())
    assert y[0].isnan().all() and y[1].tolist() == [0] * 5


def test_half_precision_rows_meet_weights_of_full():
    layer, results = LayerNorm(5), []
    for route in ("plain", "vendor"):
        with twofold.route(route):
            results.append(layer(X.detach().bfloat16()))
    assert results[0].dtype == results[1].dtype == torch.bfloat16
    assert torch.allclose(*results, rtol=2e-2, atol=2e-2)


def wrong_rows(dx):
    """A backward pass with another gradient of x."""

    def backward(dy, saved):
        n, r = saved.normal_BD, saved.rate_B1
        dn = dy * saved.scale_D
        return dx(dn, n, r), *page.backward(dy, saved)[1:]

    return backward


def changed(place, change):
    def backward(dy, saved):
        gradients = list(page.backward(dy, saved))
        gradients[place] = change(gradients[place])
        return tuple(gradients)

    return backward


MUTANTS = {
    "without the term of the mean": (page.forward, wrong_rows(lambda dn, n, r: r * (dn - n * (dn * n).mean(-1, keepdim=True)))),
    "without the term of the variance": (page.forward, wrong_rows(lambda dn, n, r: r * (dn - dn.mean(-1, keepdim=True)))),
    "as if the statistics were given": (page.forward, wrong_rows(lambda dn, n, r: r * dn)),
    "scale after the terms": (page.forward, lambda dy, s: (page.backward(dy / s.scale_D, s)[0] * s.scale_D, *page.backward(dy, s)[1:])),
    "without the rate": (page.forward, lambda dy, s: (page.backward(dy, s)[0] / s.rate_B1, *page.backward(dy, s)[1:])),
    "dscale averaged": (page.forward, changed(1, lambda d: d / 12)),
    "dshift of a row": (page.forward, changed(2, lambda d: d.flip(0))),
    "dscale without gradient": (page.forward, changed(1, lambda d: None)),
    "the unbiased variance": (
        lambda x, scale, shift, axes, eps: (
            (x - x.mean(-1, keepdim=True)) * (x.var(-1, keepdim=True) + eps) ** -0.5 * scale + shift,
            page.forward(x, scale, shift, axes, eps)[1],
        ),
        page.backward,
    ),
    "all but the first axis": (
        lambda x, scale, shift, axes, eps: (
            page.standardize(x, (1, 2), eps)[0] * scale + shift,
            page.forward(x, scale, shift, axes, eps)[1],
        ),
        page.backward,
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_variants_are_caught(name):
    case = Case(differentiable(*MUTANTS[name]), CASES["sequences"], by_rows)
    with pytest.raises(AssertionError):
        check_expression(case)
    if MUTANTS[name][0] is page.forward:
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(case)


BAD = {
    "size": (lambda: LayerNorm(0), "LayerNorm: expected normalized_shape to be a whole number of at least 1, got 0."),
    "text": (lambda: LayerNorm("5"), "got '5'."),
    "one value": (
        lambda: LayerNorm((1, 1)),
        "expected normalized_shape of at least two values, got (1, 1): the variance of one value is 0",
    ),
    "no axis": (lambda: LayerNorm(()), "at least two values, got ()"),
    "eps": (lambda: LayerNorm(5, eps=0.0), "LayerNorm: expected eps, which is added to the variance, to be above 0, got 0.0."),
    "last axis": (
        lambda: LayerNorm(5)(torch.zeros(2, 5, 4)),
        "LayerNorm input: expected (..., 5), got (2, 5, 4): the last axes differ. LayerNorm counts from the last axis. Channels first?",
    ),
    "too few axes": (lambda: LayerNorm((4, 5))(torch.zeros(5)), "expected (..., 4, 5), got (5,)"),
    "bytes": (lambda: LayerNorm(5)(torch.zeros(2, 5, dtype=torch.uint8)), "Convert and scale: x.float() / 255."),
    "dtype": (lambda: LayerNorm(5)(torch.zeros(2, 5).double()), "expected float32, the dtype of the weights, got float64."),
    "list": (lambda: LayerNorm(5)([1.0]), "LayerNorm input: expected a torch tensor, got list."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
