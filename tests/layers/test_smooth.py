"""Smooth activations: the witnesses, SciPy's special functions, large numbers in every precision, and wrong variants."""

import math

import numpy as np
import pytest
import torch
from torch import nn as torch_nn

import twofold
from twofold.layers import smooth as page
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.layers.smooth import ELU, GELU, SiLU, Softplus

X = (2 * noise(4, 3, 5, seed=1)).detach().requires_grad_()
NORMAL = torch.distributions.Normal(0.0, 1.0)
EXPRESSIONS = {  # operation: (options, the same by other means)
    "elu": ((0.7,), lambda x, alpha: x.clamp(min=0) + alpha * (torch.exp(-torch.relu(-x)) - 1)),
    "gelu": ((), lambda x: x * NORMAL.cdf(x)),
    "gelu_tanh": ((), lambda x: x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))),
    "silu": ((), lambda x: x / (1 + torch.exp(-x))),
    "softplus": ((1.5, 4.0), lambda x, beta, threshold: torch.where(1.5 * x > 4, x, torch.logaddexp(x * beta, 0 * x) / beta)),
}
SHAPES = {
    "row": noise(4, seed=2),
    "maps": X,
    "transposed": X.detach().transpose(0, 2).requires_grad_(),
    "sliced": noise(4, 6, seed=3).detach()[:, ::2].requires_grad_(),
    "expanded": noise(4, 1, seed=4).detach().expand(4, 3).requires_grad_(),
    "steep": (10 * noise(2, 4, seed=5)).detach().requires_grad_(),
}
LAYERS = {
    "elu": (ELU, torch_nn.ELU, (0.7,)),
    "elu, falling": (ELU, torch_nn.ELU, (-0.7,)),
    "gelu": (GELU, torch_nn.GELU, ()),
    "gelu by tanh": (GELU, torch_nn.GELU, ("tanh",)),
    "silu": (SiLU, torch_nn.SiLU, ()),
    "softplus": (Softplus, torch_nn.Softplus, ()),
    "softplus, steep": (Softplus, torch_nn.Softplus, (2.0, 3.0)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_witnesses(name, shape):
    options, expression = EXPRESSIONS[name]
    check(Case(getattr(page, name), (SHAPES[shape], *options), expression))


def test_values_by_python():
    x = np.linspace(-6, 6, 49)
    expected = {
        "elu": [v if v > 0 else 0.7 * math.expm1(v) for v in x],
        "gelu": [v * math.erfc(-v / math.sqrt(2)) / 2 for v in x],
        "gelu_tanh": [v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in x],
        "silu": [v / (1 + math.exp(-v)) for v in x],
        "softplus": [v if 1.5 * v > 4 else math.log1p(math.exp(1.5 * v)) / 1.5 for v in x],
    }
    for name, values in expected.items():
        y, _ = getattr(page, name).explain(torch.from_numpy(x), *EXPRESSIONS[name][0])
        assert np.allclose(y.numpy(), values, rtol=1e-12, atol=1e-15), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_extremes_and_nan_are_the_same_on_both_routes(name, dtype):
    ours, _, settings = LAYERS[name]
    results = []
    for route in ("plain", "vendor"):
        x = torch.tensor([-1e4, -90.0, -20.0, -0.0, 0.0, 1.5, 20.0, 90.0, 1e4, float("nan")], dtype=dtype).requires_grad_()
        with twofold.route(route):
            y = ours(*settings)(x)
        y.backward(torch.arange(1.0, 11, dtype=dtype))
        results.append((y, x.grad))
    for plain, vendor in zip(*results, strict=True):
        assert torch.allclose(plain, vendor, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert results[0][0][:9].isfinite().all() and results[0][1][:9].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_first_and_second_derivative_stay_finite_far_out(name, dtype):
    x = torch.tensor([-1e4, -2000.0, 2000.0, 1e4], dtype=dtype, requires_grad=True)
    y = getattr(page, name).by("plain", x, *EXPRESSIONS[name][0])
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (ddx,) = torch.autograd.grad(dx.sum(), x)
    assert dx.tolist() == [0, 0, 1, 1] and ddx.tolist() == [0, 0, 0, 0]
    assert y[2:].tolist() == x[2:].tolist()


def test_small_values_keep_their_digits():
    x = torch.tensor([-1e-12], dtype=torch.float64)
    assert page.elu.explain(x, 1.0)[0].item() == pytest.approx(-1e-12, rel=1e-11)
    far = torch.tensor([-30.0], dtype=torch.float64)
    assert page.softplus.explain(far, 1.0, 20.0)[0].item() == pytest.approx(math.exp(-30), rel=1e-12)
    assert page.gelu.explain(far, *())[0].item() == pytest.approx(-15 * math.erfc(30 / math.sqrt(2)), rel=1e-9)


def test_the_slope_of_elu_at_zero_is_alpha():
    for route in ("plain", "vendor"):
        x = torch.zeros(1, requires_grad=True)
        with twofold.route(route):
            ELU(0.25)(x).sum().backward()
        assert x.grad is not None and x.grad.item() == 0.25


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("name", LAYERS)
def test_stands_in_for_torch(name, route):
    ours, theirs, settings = LAYERS[name]
    layer = ours(*settings)
    with twofold.route(route):
        check_drop_in(layer, theirs(*settings), X)
        assert layer(torch.zeros(0, 3)).shape == (0, 3)
    assert layer.last_route == route


@pytest.mark.parametrize("name", ["elu", "elu, falling", "silu"])
def test_x_is_overwritten_only_where_torch_does_and_is_asked(name):
    ours, theirs, settings = LAYERS[name]
    x = torch.tensor([-2.0, 3.0])
    expected = theirs(*settings)(x)
    layer = ours(*settings, inplace=True)
    assert repr(layer) == repr(theirs(*settings, inplace=True))
    with twofold.route("plain"):
        assert torch.allclose(layer(x), expected) and x.tolist() == [-2, 3]
    assert torch.allclose(layer(x), expected) and torch.equal(x, torch.tensor([-2.0, 3])) == ("falling" in name)


MUTANTS = {
    "elu without alpha": (page.elu_forward, lambda dy, s: page.elu_backward(dy, s._replace(alpha=1.0)), "elu"),
    "elu, alpha everywhere": (lambda x, alpha: page.elu_forward(x * alpha, 1.0), page.elu_backward, "elu"),
    "gelu without its density": (page.gelu_forward, lambda dy, x: dy * NORMAL.cdf(x), "gelu"),
    "gelu by a logistic": (lambda x: (x * torch.sigmoid(1.702 * x), x), page.gelu_backward, "gelu"),
    "gelu with the tanh's derivative": (page.gelu_forward, page.gelu_tanh_backward, "gelu"),
    "gelu turned round": (lambda x: (-page.gelu_forward(-x)[0], x), page.gelu_backward, "gelu"),
    "tanh form without its cube": (lambda x: (x / 2 * (1 + torch.tanh(page.K * x)), x), page.gelu_tanh_backward, "gelu_tanh"),
    "tanh form with the exact derivative": (page.gelu_tanh_forward, page.gelu_backward, "gelu_tanh"),
    "silu without x": (page.silu_forward, lambda dy, x: dy * torch.sigmoid(x), "silu"),
    "silu's x kept inside": (page.silu_forward, lambda dy, x: dy * x * torch.sigmoid(x) * (1 - torch.sigmoid(x)), "silu"),
    "softplus without beta": (lambda x, b, t: page.softplus_forward(x, 1.0, t), page.softplus_backward, "softplus"),
    "softplus, the threshold of x": (lambda x, b, t: page.softplus_forward(x, b, t * b), page.softplus_backward, "softplus"),
    "softplus with beta once more": (page.softplus_forward, lambda dy, s: page.softplus_backward(dy, s) * s.beta, "softplus"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_variants_are_caught(name):
    forward, backward, right = MUTANTS[name]
    options, expression = EXPRESSIONS[right]
    case = Case(differentiable(forward, backward), (X, *options), expression)
    with pytest.raises(AssertionError):
        check_expression(case)
    if forward is getattr(page, f"{right}_forward"):
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(case)


BAD = {
    "alpha": (lambda: ELU(float("inf")), "ELU: expected alpha to be a finite number, got inf."),
    "form": (lambda: GELU("erf"), 'GELU: expected approximate to be "none" (exact) or "tanh", got \'erf\'.'),
    "beta": (lambda: Softplus(0), "Softplus: expected beta to be a finite number above 0, got 0. The law divides by it."),
    "threshold": (lambda: Softplus(1, None), "Softplus: expected threshold to be a finite number, got None."),
    **{
        f"whole numbers into {layer!r}": (
            lambda layer=layer: layer(torch.zeros(2, dtype=torch.int64)),
            "expected floating point, got int64.",
        )
        for layer in (ELU(), GELU(), SiLU(), Softplus())
    },
    **{
        f"list into {layer!r}": (lambda layer=layer: layer([1.0]), "input: expected a torch tensor, got list.")
        for layer in (ELU(), GELU(), SiLU(), Softplus())
    },
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
