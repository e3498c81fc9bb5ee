"""The bridge to autograd and the routes: values, second order, memory, and what is refused."""

import threading

import pytest
import torch
from torch import nn as torch_nn

import twofold
from twofold.layers.activation import tanh
from twofold.layers.differentiable import Native, Other, differentiable
from twofold.layers.linear import Linear, linear
from twofold.layers.routes import routes_taken


def square_forward(x):
    half = x * 0.5  # a floating-point intermediate on purpose: second order must start anew from x
    return 4 * half * half, half


def square_backward(dy, half):
    return 4 * half * dy


square = differentiable(square_forward, square_backward)


def test_gradients_of_gradients_see_the_intermediates():
    x = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    (dx,) = torch.autograd.grad(square(x), x, create_graph=True)
    (ddx,) = torch.autograd.grad(dx, x)
    assert (dx.item(), ddx.item()) == (6.0, 2.0)


def test_saved_tensors_are_guarded_against_changes_in_place():
    x = torch.ones(3, requires_grad=True)
    weight = torch.ones(1, 3)
    with twofold.route("plain"):
        y = linear(x, weight, None)
    weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_only_needed_gradients_are_returned():
    x, weight = torch.ones(2, 3), torch.ones(1, 3, requires_grad=True)
    with twofold.route("plain"):
        linear(x, weight, None).sum().backward()
    assert x.grad is None
    assert weight.grad is not None and weight.grad.tolist() == [[2.0, 2.0, 2.0]]


def test_without_gradients_nothing_is_kept():
    with torch.no_grad(), twofold.route("plain"):
        y = Linear(3, 2)(torch.ones(1, 3))
    assert not y.requires_grad


SEQUENCE = torch.ones(1, 1, 3)  # rows alone would have a compiled form


def test_the_route_is_the_one_of_the_innermost_block():
    layer = Linear(3, 2)
    seen = []
    for names in (["plain"], ["plain", "vendor"], []):
        with twofold.route(names[0] if names else "auto"), twofold.route(names[-1] if names else "auto"):
            layer(SEQUENCE)
        seen.append(layer.last_route)
    assert seen == ["plain", "vendor", "vendor"]


def test_the_route_of_one_thread_is_not_that_of_another():
    layer = Linear(3, 2)
    with twofold.route("plain"):
        thread = threading.Thread(target=lambda: layer(SEQUENCE))
        thread.start()
        thread.join()
    assert layer.last_route == "vendor"


def test_routes_taken_are_counted():
    model = torch_nn.Sequential(Linear(3, 2), Linear(2, 2), torch_nn.ReLU())
    assert routes_taken(model) == {}
    model(SEQUENCE)
    assert routes_taken(model) == {"vendor": 2}


def test_a_native_pair_is_taken_where_it_fits_and_refused_with_its_reason():
    calls = []

    def counted(x):
        calls.append("native")
        return square_forward(x)

    def unfit(x):
        return "" if x.dtype == torch.float32 else f"needs float32, not {x.dtype}"

    operation = differentiable(square_forward, square_backward, vendor=lambda x: x * x, native=Native(counted, square_backward, unfit))
    x = torch.tensor(3.0, requires_grad=True)
    (dx,) = torch.autograd.grad(operation(x), x)
    assert (dx.item(), calls) == (6.0, ["native"])
    assert operation.choose(x.double()) == "vendor"
    with twofold.route("native"), pytest.raises(ValueError, match=r'route "native": needs float32, not torch.float64'):
        operation(x.double())


def test_an_operation_without_the_route_keeps_the_choice_of_auto():
    with twofold.route("native"):
        assert tanh.choose(torch.ones(1, 3)) == "vendor"


def test_an_operation_without_the_form_keeps_the_choice_of_auto():
    operation = differentiable(square_forward, square_backward, vendor=lambda x: x * x)
    for name in ("auto", "vendor bf16", "vendor channels last"):
        with twofold.route(name):
            assert operation.decide(torch.ones(1, 3)) == ("vendor", "only one")


def test_contenders_are_those_that_serve_and_are_permitted():
    others = {
        "by table": Other(lambda x: x * x),
        "by half": Other(lambda x: x * x, reduced=True),
        "by whole": Other(lambda x: x * x, unfit=lambda x: "needs whole numbers"),
    }
    native = Native(square_forward, square_backward, lambda x: "" if x.dtype == torch.float32 else "needs float32")
    operation = differentiable(square_forward, square_backward, vendor=lambda x: x * x, native=native, others=others)
    x = torch.full((3,), 3.0)
    assert list(operation.contenders(x)) == ["vendor", "native", "by table"] and operation.decide(x) == ("native", "rule")
    with twofold.precision("bf16"):
        assert list(operation.contenders(x.double())) == ["vendor", "by table", "by half"]
        assert all(run(x).tolist() == [9, 9, 9] for run in operation.contenders(x).values())
    assert list(differentiable(square_forward, square_backward, others=others).contenders(x)) == ["plain", "by table"]
    for name, route in {"by table": "by table", "by half": "by half", "by whole": "native"}.items():
        with twofold.route(name):
            assert operation.choose(x) == route


def test_a_misspelt_route_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="got 'plane'. Did you mean \"plain\""), twofold.route("plane"):
        pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_computes_the_plain_form_in_the_wider_precision(dtype):
    layer = Linear(3, 2)
    x = torch.ones(1, 3, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16), twofold.route("plain"):
        y = layer(x)
    y.sum().backward()
    assert y.dtype == torch.float32
    assert x.grad is not None and x.grad.dtype == dtype
    assert torch.allclose(x.grad.float(), layer.weight.sum(0), rtol=1e-2)


def test_function_transforms_see_through_the_plain_form():
    weight = torch.randn(2, 3)
    with twofold.route("plain"):
        gradient = torch.func.grad(lambda x: linear(x, weight, None).sum())(torch.ones(3))
    assert torch.allclose(gradient, weight.sum(0))


def test_the_compiler_sees_one_graph():
    model = torch_nn.Sequential(Linear(3, 4), Linear(4, 2))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    x = torch.randn(5, 1, 3)
    assert torch.equal(compiled(x), model(x))


def test_more_gradients_than_arguments_are_our_own_mistake():
    wrong = differentiable(square_forward, lambda dy, half: (dy, dy))
    with pytest.raises(AssertionError, match="2 gradients for 1 arguments"):
        wrong(torch.tensor(1.0, requires_grad=True)).backward()


def test_backward_inside_autocast_keeps_the_precision_of_forward():
    layer, x = Linear(64, 8), torch.randn(32, 64)
    gradients = []
    for inside in (True, False):
        layer.zero_grad()
        with twofold.route("plain"), torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
            layer(x).square().sum().backward()
        gradients.append(layer.weight.grad.clone())
    assert torch.allclose(*gradients, rtol=1e-6)


def test_what_is_saved_in_a_list_is_refused():
    operation = differentiable(lambda x: (x * x, [x]), lambda dy, saved: 2 * saved[0] * dy)
    with pytest.raises(AssertionError, match="saved may hold tuples, not list"):
        operation(torch.ones(2, requires_grad=True))
