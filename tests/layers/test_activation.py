"""Activations: the witnesses, the laws of softmax, large and broken numbers, and work in place."""

import numpy as np
import pytest
import torch
from torch import nn as torch_nn

import twofold
from twofold.layers import activation as page
from twofold.layers.activation import LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, noise
from twofold.layers.differentiable import differentiable

X = noise(4, 3, 5, seed=1)
EXPRESSIONS = {
    "relu": lambda x: (x + x.abs()) / 2,
    "tanh": lambda x: 1 - 2 / (torch.exp(2 * x) + 1),
    "sigmoid": lambda x: (torch.tanh(x / 2) + 1) / 2,
}
ALONG = {
    "softmax": lambda x, axis: torch.exp(x - torch.logsumexp(x, axis, keepdim=True)),
    "log_softmax": lambda x, axis: x - torch.logsumexp(x, axis, keepdim=True),
}
SHAPES = {
    "row": noise(4, seed=2),
    "maps": X,
    "transposed": X.detach().transpose(0, 2).requires_grad_(),
    "sliced": noise(4, 6, seed=3).detach()[:, ::2].requires_grad_(),
    "expanded": noise(4, 1, seed=4).detach().expand(4, 3).requires_grad_(),
    "steep": (10 * noise(2, 4, seed=5)).detach().requires_grad_(),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_witnesses(name, shape):
    check(Case(getattr(page, name), (SHAPES[shape],), EXPRESSIONS[name]))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("name", ALONG)
def test_witnesses_along_an_axis(name, axis):
    check(Case(getattr(page, name), (X, axis), ALONG[name], rows=axis != 0))


@pytest.mark.parametrize("name", ALONG)
def test_witnesses_of_one_row_and_of_one_class(name):
    check(Case(getattr(page, name), (noise(4, seed=2), 0), ALONG[name], rows=False))
    check(Case(getattr(page, name), (noise(4, 1, seed=2), 1), ALONG[name]))


def test_values_by_numpy():
    x = X.detach().numpy()
    shares = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    expected = {"relu": np.maximum(x, 0), "tanh": np.tanh(x), "sigmoid": 1 / (1 + np.exp(-x))}
    for name, values in expected.items():
        assert np.allclose(getattr(page, name).explain(X)[0].numpy(), values, rtol=0, atol=1e-14)
    assert np.allclose(page.softmax.explain(X, 1)[0].numpy(), shares, rtol=0, atol=1e-14)
    assert np.allclose(page.log_softmax.explain(X, 1)[0].numpy(), np.log(shares), rtol=0, atol=1e-13)


def test_softmax_shares_sum_to_one_and_know_no_common_shift():
    y = page.softmax.explain(X, 1)[0]
    assert torch.allclose(y.sum(1), torch.ones(4, 5, dtype=torch.float64), rtol=0, atol=1e-14)
    assert torch.allclose(page.softmax.explain(X + 1000, 1)[0], y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ALONG)
def test_the_gradient_of_a_softmax_sums_to_zero(name):
    x = X.detach().requires_grad_()
    y = getattr(page, name).by("plain", x, 1)
    (dx,) = torch.autograd.grad(y, x, noise(*y.shape, seed=9, grad=False))
    assert torch.allclose(dx.sum(1), torch.zeros(4, 5, dtype=torch.float64), rtol=0, atol=1e-13)


EXTREME = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [float("-inf"), 0.0, 1.0], [float("nan"), 0.0, 1.0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layer", [ReLU(), Tanh(), Sigmoid(), Softmax(1), LogSoftmax(1)], ids=repr)
def test_extremes_and_nan_are_the_same_on_both_routes(layer, dtype):
    results = []
    for route in ("plain", "vendor"):
        x = EXTREME.detach().to(dtype, copy=True).requires_grad_()
        with twofold.route(route):
            y = layer(x)
        y.backward(torch.tensor([1.0, 2.0, 4.0], dtype=dtype).expand(4, 3))
        results.append((y, x.grad))
    for plain, vendor in zip(*results, strict=True):
        assert torch.allclose(plain, vendor, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert results[0][0][:2].isfinite().all()


def test_the_derivative_of_relu_at_zero_is_zero():
    for route in ("plain", "vendor"):
        x = torch.tensor([-0.0, 0.0, 1.0], requires_grad=True)
        with twofold.route(route):
            ReLU()(x).sum().backward()
        assert x.grad is not None and x.grad.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
@pytest.mark.parametrize("layer", [ReLU(), Tanh(), Sigmoid(), Softmax(1), LogSoftmax(1)], ids=repr)
def test_empty_input_gives_empty_output(layer, shape):
    for route in ("plain", "vendor"):
        with twofold.route(route):
            assert layer(torch.zeros(shape)).shape == shape


def test_relu_overwrites_only_where_torch_does_and_is_asked():
    layer = ReLU(inplace=True)
    x = torch.tensor([-1.0, 2.0])
    with twofold.route("plain"):
        assert layer(x).tolist() == [0.0, 2.0] and x.tolist() == [-1.0, 2.0]
    assert layer(x) is x and x.tolist() == [0.0, 2.0]


def test_relu_takes_whole_numbers():
    for route in ("plain", "vendor"):
        with twofold.route(route):
            y = ReLU()(torch.tensor([-3, 4]))
        assert y.tolist() == [0, 4] and y.dtype == torch.int64


DROP_IN = {
    "relu": (ReLU, torch_nn.ReLU, {}),
    "tanh": (Tanh, torch_nn.Tanh, {}),
    "sigmoid": (Sigmoid, torch_nn.Sigmoid, {}),
    "softmax": (Softmax, torch_nn.Softmax, {"dim": 1}),
    "softmax, last axis": (Softmax, torch_nn.Softmax, {"dim": -1}),
    "log softmax": (LogSoftmax, torch_nn.LogSoftmax, {"dim": 1}),
}


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("name", DROP_IN)
def test_stands_in_for_torch(name, route):
    ours, theirs, options = DROP_IN[name]
    layer = ours(**options)
    with twofold.route(route):
        check_drop_in(layer, theirs(**options), X)
    assert layer.last_route == route


def test_relu_in_place_reads_as_torchs():
    assert repr(ReLU(inplace=True)) == repr(torch_nn.ReLU(inplace=True))


MUTANTS = {
    "relu lets all gradients pass": (page.relu_forward, lambda dy, off: dy, "relu"),
    "relu turned round": (page.relu_forward, lambda dy, off: torch.where(off, dy, 0), "relu"),
    "tanh' = 1 - y": (page.tanh_forward, lambda dy, y: dy * (1 - y), "tanh"),
    "tanh' of sigmoid": (page.tanh_forward, page.sigmoid_backward, "tanh"),
    "sigmoid without y": (page.sigmoid_forward, lambda dy, y: dy * (1 - y), "sigmoid"),
    "sigmoid of -x": (lambda x: page.sigmoid_forward(-x), page.sigmoid_backward, "sigmoid"),
    "softmax as if each were alone": (page.softmax_forward, lambda dy, s: dy * s.y * (1 - s.y), "softmax"),
    "softmax without its sum": (page.softmax_forward, lambda dy, s: dy * s.y, "softmax"),
    "softmax along another axis": (lambda x, axis: page.softmax_forward(x, 0), page.softmax_backward, "softmax"),
    "softmax summed along another axis": (
        page.softmax_forward,
        lambda dy, s: page.softmax_backward(dy, s._replace(axis=0)),
        "softmax",
    ),
    "log softmax without its sum": (page.log_softmax_forward, lambda dy, s: dy, "log_softmax"),
    "log softmax without its power": (
        page.log_softmax_forward,
        lambda dy, s: dy - s.y * dy.sum(s.axis, keepdim=True),
        "log_softmax",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_variants_are_caught(name):
    forward, backward, right = MUTANTS[name]
    arguments = (X,) if right in EXPRESSIONS else (X, 1)
    case = Case(differentiable(forward, backward), arguments, (EXPRESSIONS | ALONG)[right])
    with pytest.raises(AssertionError):
        check_expression(case)
    if "another axis" not in name or "summed" in name:  # a softmax along a wrong axis has the gradient of what it computes
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(case)


BAD = {
    "no axis": (lambda: Softmax(), "Softmax: expected dim, the axis along which the values share, got None. Choose dim=1 for logits"),
    "no axis, log": (lambda: LogSoftmax(), "LogSoftmax: expected dim"),
    "half an axis": (lambda: Softmax(0.5), "got 0.5"),
    "axis": (lambda: Softmax(2)(torch.zeros(2, 3)), "Softmax input: expected an axis dim=2, got (2, 3): its axes are -2..1."),
    "whole numbers": (lambda: Softmax(1)(torch.zeros(2, 3, dtype=torch.int64)), "Softmax input: expected floating point, got int64."),
    "bytes": (lambda: Sigmoid()(torch.zeros(2, dtype=torch.uint8)), "Sigmoid input: expected floating point, got uint8. Bytes?"),
    "tanh": (lambda: Tanh()(torch.zeros(2, dtype=torch.int64)), "Tanh input: expected floating point, got int64."),
    "bool": (lambda: ReLU()(torch.tensor([True])), "ReLU input: expected real numbers, got bool."),
    "complex": (lambda: ReLU()(torch.zeros(2, dtype=torch.complex64)), "ReLU input: expected real numbers, got complex64."),
    **{
        f"list into {layer!r}": (lambda layer=layer: layer([1.0]), "input: expected a torch tensor, got list.")
        for layer in (ReLU(), Tanh(), Sigmoid(), Softmax(1), LogSoftmax(1))
    },
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
