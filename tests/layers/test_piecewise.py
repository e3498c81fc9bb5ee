"""Activations made of straight lines: the witnesses, the side taken at every kink, work in place, and learnt slopes."""

import pytest
import torch
from torch import nn as torch_nn

import twofold
from twofold.layers import piecewise as page
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.layers.piecewise import Hardsigmoid, Hardswish, Hardtanh, LeakyReLU, PReLU, ReLU6

X = (3 * noise(4, 3, 5, seed=1)).detach().requires_grad_()
EXPRESSIONS = {  # operation: (options, the same by other means)
    "leaky_relu": ((0.3,), lambda x, slope: x.clamp(min=0) + slope * x.clamp(max=0)),
    "hardtanh": ((-1.0, 2.5), lambda x, low, high: (((x - low).abs() - (x - high).abs()) + low + high) / 2),
    "hardsigmoid": ((), lambda x: ((x + 3).abs() - (x - 3).abs() + 6) / 12),
    "hardswish": ((), lambda x: x * ((x + 3).abs() - (x - 3).abs() + 6) / 12),
}
SHAPES = {
    "row": (5 * noise(4, seed=2)).detach().requires_grad_(),
    "maps": X,
    "transposed": X.detach().transpose(0, 2).requires_grad_(),
    "sliced": noise(4, 6, seed=3).detach()[:, ::2].requires_grad_(),
    "expanded": (4 * noise(4, 1, seed=4)).detach().expand(4, 3).requires_grad_(),
}
LAYERS = {
    "leaky relu": (LeakyReLU, torch_nn.LeakyReLU, (0.3,)),
    "leaky relu, falling": (LeakyReLU, torch_nn.LeakyReLU, (-0.3,)),
    "hardtanh": (Hardtanh, torch_nn.Hardtanh, (-1.0, 2.5)),
    "relu6": (ReLU6, torch_nn.ReLU6, ()),
    "hardsigmoid": (Hardsigmoid, torch_nn.Hardsigmoid, ()),
    "hardswish": (Hardswish, torch_nn.Hardswish, ()),
    "prelu": (PReLU, torch_nn.PReLU, (1,)),
    "prelu, by channel": (PReLU, torch_nn.PReLU, (3,)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_witnesses(name, shape):
    options, expression = EXPRESSIONS[name]
    check(Case(getattr(page, name), (SHAPES[shape], *options), expression))


def prelu_by_line(x, slope):
    slope = slope.reshape(1, -1, *(1,) * (x.dim() - 2)) if slope.numel() > 1 else slope
    return x.clamp(min=0) + slope * x.clamp(max=0)


@pytest.mark.parametrize("slopes", [1, 3])
@pytest.mark.parametrize("shape", ["maps", "sliced", "expanded"])
def test_witnesses_of_learnt_slopes(shape, slopes):
    check(Case(page.prelu, (SHAPES[shape], noise(slopes, seed=6)), prelu_by_line))


def test_a_single_slope_serves_any_shape():
    check(Case(page.prelu, (SHAPES["row"], noise(1, seed=6)), prelu_by_line))
    with twofold.route("plain"):
        assert PReLU(init=0.5)(torch.tensor(-2.0)).item() == -1


KINKS = torch.tensor([-1e4, -3.0, -1.0, -0.0, 0.0, 2.5, 3.0, 6.0, 1e4, float("inf"), float("nan")])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_kinks_extremes_and_nan_are_the_same_on_both_routes(name, dtype):
    ours, _, settings = LAYERS[name]
    layer = ours(*settings).to(dtype)
    results = []
    for route in ("plain", "vendor"):
        x = KINKS.to(dtype).repeat(2, 3, 1).requires_grad_()
        with twofold.route(route):
            y = layer(x)
        y.backward(torch.arange(1.0, 12, dtype=dtype).expand_as(y))
        results.append((y, x.grad))
    for plain, vendor in zip(*results, strict=True):
        assert torch.allclose(plain, vendor, rtol=1e-6, atol=1e-7, equal_nan=True)
    assert results[0][0][..., :9].isfinite().all() and results[0][1][..., :9].isfinite().all()


SLOPES = {  # at -3, -1, 0, 2.5, 3, 6
    "leaky relu": [0.3, 0.3, 0.3, 1, 1, 1],
    "hardtanh": [0, 0, 1, 0, 0, 0],
    "relu6": [0, 0, 0, 1, 1, 0],
    "hardsigmoid": [0, 1 / 6, 1 / 6, 1 / 6, 0, 0],
    "hardswish": [0, 1 / 6, 1 / 2, 4 / 3, 1, 1],
}


@pytest.mark.parametrize("name", SLOPES)
def test_the_slope_at_the_kinks_is_the_one_that_the_page_says(name):
    ours, _, settings = LAYERS[name]
    x = torch.tensor([-3, -1, 0, 2.5, 3, 6], dtype=torch.float64, requires_grad=True)
    with twofold.route("plain"):
        (dx,) = torch.autograd.grad(ours(*settings)(x).sum(), x)
    assert torch.allclose(dx, torch.tensor(SLOPES[name], dtype=torch.float64), rtol=1e-14)


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("name", LAYERS)
def test_stands_in_for_torch(name, route):
    ours, theirs, settings = LAYERS[name]
    pair = ours(*settings).double(), theirs(*settings).double()
    for layer in pair:
        for weight in layer.parameters():
            weight.data.copy_(noise(*weight.shape, seed=8))
    with twofold.route(route):
        check_drop_in(*pair, X.float() if name == "hardsigmoid" else X)  # torch's gradient of it is no better in float64
        assert pair[0](torch.zeros(0, 3, dtype=torch.float64)).shape == (0, 3)
    assert pair[0].last_route == route


@pytest.mark.parametrize("name", [n for n in LAYERS if "prelu" not in n])
def test_x_is_overwritten_only_where_torch_does_and_is_asked(name):
    ours, theirs, settings = LAYERS[name]
    x = torch.tensor([-5.0, -1.0, 7.0])
    expected = theirs(*settings)(x)
    layer = ours(*settings, inplace=True)
    assert repr(layer) == repr(theirs(*settings, inplace=True))
    with twofold.route("plain"):
        assert torch.allclose(layer(x), expected) and x.tolist() == [-5, -1, 7]
    assert torch.allclose(layer(x), expected) and torch.equal(x, torch.tensor([-5.0, -1, 7])) == ("falling" in name)


def test_a_falling_slope_asked_to_work_in_place_keeps_its_gradient():
    x = torch.tensor([-2.0, 3.0], requires_grad=True)
    LeakyReLU(-0.5, inplace=True)(x * 1).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [-0.5, 1]


def test_hardtanh_takes_the_older_names():
    with pytest.warns(FutureWarning, match="min_value"):
        layer = Hardtanh(min_value=-2.0)
    assert (layer.min_val, layer.max_val) == (-2, 1)


def wrong_slopes(change):
    def backward(dy, saved):
        dx, dslope = page.prelu_backward(dy, saved)
        return change(dx, dslope, dy, *saved)

    return backward


MUTANTS = {
    "leaky slope on the wrong side": (lambda x, s: page.leaky_relu_forward(-x, s), page.leaky_relu_backward, "leaky_relu"),
    "leaky slope forgotten": (page.leaky_relu_forward, lambda dy, s: torch.where(s.rising, dy, 0), "leaky_relu"),
    "hardtanh lets all pass": (page.hardtanh_forward, lambda dy, flat: dy, "hardtanh"),
    "hardtanh round 0": (lambda x, low, high: page.hardtanh_forward(x, -high, high), page.hardtanh_backward, "hardtanh"),
    "hardsigmoid without its sixth": (page.hardsigmoid_forward, lambda dy, on: torch.where(on, dy, 0), "hardsigmoid"),
    "hardsigmoid of another width": (lambda x: page.hardsigmoid_forward(1.2 * x), page.hardsigmoid_backward, "hardsigmoid"),
    "hardswish without x'": (page.hardswish_forward, lambda dy, x: dy * x * ((x > -3) & (x < 3)) / 6, "hardswish"),
    "hardswish, half the bend": (page.hardswish_forward, lambda dy, x: page.hardswish_backward(dy, x / 2), "hardswish"),
    "prelu slopes reversed": (lambda x, s: (page.prelu_forward(x, s.flip(0))[0], (x, s)), page.prelu_backward, "prelu"),
    "prelu slope learnt from the right": (
        page.prelu_forward,
        wrong_slopes(lambda dx, ds, dy, x, s: (dx, (dy * x).sum((0, 2)) - ds)),
        "prelu",
    ),
    "prelu slope averaged": (page.prelu_forward, wrong_slopes(lambda dx, ds, dy, x, s: (dx, ds / len(x))), "prelu"),
    "prelu slope not learnt": (page.prelu_forward, wrong_slopes(lambda dx, ds, dy, x, s: (dx, None)), "prelu"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_variants_are_caught(name):
    forward, backward, right = MUTANTS[name]
    if right == "prelu":
        case = Case(differentiable(forward, backward), (X, noise(3, seed=6)), prelu_by_line)
    else:
        options, expression = EXPRESSIONS[right]
        case = Case(differentiable(forward, backward), (X, *options), expression)
    with pytest.raises(AssertionError):
        check_expression(case)
    if forward in (page.hardswish_forward, page.prelu_forward):
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(case)


BAD = {
    "slope": (lambda: LeakyReLU(float("nan")), "LeakyReLU: expected negative_slope to be a finite number, got nan."),
    "bounds": (lambda: Hardtanh(2.0, 1.0), "Hardtanh: expected min_val below max_val, got 2.0 and 1.0."),
    "bound": (lambda: Hardtanh(max_val=float("inf")), "Hardtanh: expected max_val to be a finite number, got inf."),
    "no slopes": (lambda: PReLU(0), "PReLU: expected num_parameters to be a whole number of at least 1, got 0."),
    "init": (lambda: PReLU(init="0.1"), "PReLU: expected init to be a finite number, got '0.1'."),
    "channels": (lambda: PReLU(3)(torch.zeros(2, 4, 5)), "PReLU input: expected (B, C=3, ...), got (2, 4, 5): C is 4, not 3. num_param"),
    "no channels": (lambda: PReLU(3)(torch.zeros(3)), "got (3,): 1 axes, not 2 or more."),
    "dtype": (lambda: PReLU()(torch.zeros(2).double()), "PReLU input: expected float32, the dtype of the weights, got float64."),
    **{
        f"bytes into {layer!r}": (
            lambda layer=layer: layer(torch.zeros(2, dtype=torch.uint8)),
            "expected floating point, got uint8. Bytes?",
        )
        for layer in (LeakyReLU(), PReLU(), Hardtanh(), ReLU6(), Hardsigmoid(), Hardswish())
    },
    **{
        f"list into {layer!r}": (lambda layer=layer: layer([1.0]), "input: expected a torch tensor, got list.")
        for layer in (LeakyReLU(), PReLU(), Hardtanh(), ReLU6(), Hardsigmoid(), Hardswish())
    },
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
