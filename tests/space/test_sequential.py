"""Fused layers: the same law as their parts one by one, and when they must stay apart."""

import copy

import pytest
import torch
from torch import nn as torch_nn
from torch.nn import functional as F

import twofold
from twofold import kernels, nn
from twofold.layers.check import Case, check, check_expression, noise
from twofold.layers.differentiable import Native, differentiable
from twofold.space import fused, fused_norm
from twofold.space.fused import convolve_relu_pool
from twofold.space.windows import Window

needs_library = pytest.mark.skipif(not kernels.available(), reason=kernels.reason() or "built")
POOL = Window((2, 2), (2, 2))


def convolved_by_torch(x, weight, bias, window, pool):
    y = F.conv2d(x, weight, bias, window.stride, window.padding[::2], window.dilation).relu()
    return y if pool is None else F.max_pool2d(y, pool.kernel, pool.stride, pool.padding[::2])


def normalised_by_torch(x, scale, shift, mean, variance, eps, pool):
    y = F.batch_norm(x, mean, variance, scale, shift, mean is None, 0.0, eps).relu()
    return y if pool is None else F.max_pool2d(y, pool.kernel, pool.stride)


def without_statistics(forward, backward):
    """y alone: the statistics are told, not differentiated."""

    def only_y(*arguments):
        results, saved = forward(*arguments)
        return results[0], saved

    return only_y, lambda dy, saved: backward((dy, None, None), saved)


NORM = differentiable(
    *without_statistics(fused_norm.forward, fused_norm.backward),
    native=Native(lambda *a: fused_norm.compiled(*a)[0], None, fused_norm.unfit),
)


CONVOLVED = {
    "pooled": (noise(2, 2, 7, 6), noise(3, 2, 3, 2, seed=1), noise(3, seed=2), Window((3, 2), padding=(1, 1, 0, 0)), POOL),
    "overlapping": (noise(2, 1, 8, 7), noise(2, 1, 2, 2, seed=1), None, Window((2, 2)), Window((3, 3), (2, 2), (1,))),
    "not pooled": (noise(2, 3, 5, 6), noise(2, 3, 3, 3, seed=1), noise(2, seed=2), Window((3, 3), (2, 1)), None),
}
NORMALISED = {
    "batch, pooled": (noise(3, 2, 4, 5), noise(2, seed=1), noise(2, seed=2), None, None, 1e-5, POOL),
    "batch": (noise(3, 2, 3, 2), noise(2, seed=1), None, None, None, 1e-3, None),
    "given": (noise(2, 3, 4, 4), None, None, noise(3, seed=3, grad=False), noise(3, seed=4, grad=False).abs(), 1e-5, POOL),
}


@pytest.mark.parametrize("name", CONVOLVED)
def test_witnesses_of_convolution(name):
    check(Case(convolve_relu_pool, CONVOLVED[name], convolved_by_torch))


@pytest.mark.parametrize("name", NORMALISED)
def test_witnesses_of_normalisation(name):
    check(Case(NORM, NORMALISED[name], normalised_by_torch, rows=False))


def without_relu(dy, saved):
    off = saved.activation.off_BFP
    return fused.backward(dy, saved._replace(activation=saved.activation._replace(off_BFP=torch.zeros_like(off))))


def spread_evenly(dy, saved):
    wide = dy.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return fused.backward(wide, saved._replace(activation=saved.activation._replace(pool=None)))


MUTANTS = {
    "ReLU forgotten backward": (fused.forward, without_relu),
    "pool forgotten backward": (fused.forward, spread_evenly),
    "no gradient of the bias": (fused.forward, lambda dy, saved: (*fused.backward(dy, saved)[:2], None)),
    "ReLU forgotten": (lambda x, w, b, window, pool: fused.forward(x, w, b + 9, window, pool), fused.backward),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_variant_is_caught(name):
    x, weight, bias = noise(2, 2, 6, 6), noise(3, 2, 3, 3, seed=1), noise(3, seed=2)
    case = Case(differentiable(*MUTANTS[name]), (x, weight, bias, Window((3, 3), padding=(1,)), POOL), convolved_by_torch)
    with pytest.raises(AssertionError):
        check_expression(case)


def test_statistics_that_are_held_still_are_caught():
    def backward(dy, saved):
        return fused_norm.backward(dy, saved._replace(by_batch=not saved.by_batch))

    still = differentiable(*without_statistics(fused_norm.forward, backward))
    with pytest.raises(AssertionError):
        check_expression(Case(still, NORMALISED["batch"], normalised_by_torch))


def net(n):
    torch.manual_seed(0)
    return n.Sequential(
        n.Conv2d(1, 6, 5, padding=2), n.ReLU(), n.MaxPool2d(2),
        n.Conv2d(6, 8, 3, bias=False), n.BatchNorm2d(8), n.ReLU(), n.MaxPool2d(3, 2, 1),
        n.Conv2d(8, 8, 3), n.ReLU(), n.Flatten(), n.Linear(8 * 13 * 13, 3),
    )  # fmt: skip


def step(model, x):
    x = x.clone().requires_grad_()
    y = model(x)
    return [y, *torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum(), [x, *model.parameters()])]


@pytest.mark.parametrize("name", NORMALISED)
def test_the_statistics_are_told(name):
    arguments = NORMALISED[name]
    for route in fused_norm.norm_relu_pool.routes(*arguments):
        _, mean, variance = fused_norm.norm_relu_pool.by(route, *arguments)
        x = arguments[0]
        wanted = (x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)) if arguments[3] is None else arguments[3:5]
        assert torch.allclose(mean, wanted[0]) and torch.allclose(variance, wanted[1])


@needs_library
def test_a_fused_net_learns_what_torchs_net_learns():
    ours, theirs, x = net(nn), net(torch_nn), torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    theirs.load_state_dict(ours.state_dict())
    for mode in (True, False):
        ours.train(mode)
        theirs.train(mode)
        for a, b in zip(step(ours, x), step(theirs, x), strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
        for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
            assert torch.allclose(a, b, rtol=1e-5)
    assert [layer.last_route for layer in ours[:9]] == ["fused"] * 3 + ["native"] + ["fused"] * 5


@needs_library
def test_second_derivatives_pass_through_fused_layers():
    ours, theirs = net(nn).eval(), net(torch_nn).eval()
    theirs.load_state_dict(ours.state_dict())
    x, results = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1)), []
    for model in (ours, theirs):
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(model(leaf).square().sum(), leaf, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), [leaf, model[0].weight, model[4].weight]))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item())


@needs_library
def test_a_hook_sees_every_layer():
    model, seen = net(nn), []
    model[0].register_forward_hook(lambda layer, inputs, output: seen.append(output.shape))
    model(torch.zeros(2, 1, 64, 64))
    assert seen == [(2, 6, 64, 64)] and model[0].last_route != "fused" and model[4].last_route == "fused"


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_another_route_keeps_the_layers_apart(route):
    model = net(nn)
    with twofold.route(route):
        model(torch.zeros(2, 1, 64, 64))
    assert {layer.last_route for layer in model if hasattr(layer, "last_route")} == {route}


@needs_library
def test_what_the_compiled_form_lacks_runs_layer_by_layer():
    x = torch.randn(2, 1, 64, 64)
    for model, images in [
        (net(nn).double(), x.double()),
        (net(nn), x.expand(2, 1, 64, 64).to(memory_format=torch.channels_last).transpose(2, 3)),
        (nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, padding_mode="reflect"), nn.ReLU()), x),
        (nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2, return_indices=True)), x),
    ]:
        model(images)
        assert model[0].last_route != "fused"
    with torch.autocast("cpu", torch.bfloat16):
        model = net(nn)
        assert model(x).dtype == torch.bfloat16 and model[0].last_route == "vendor"


def test_small_maps_are_normalised_apart():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU())
    model(torch.randn(3, 2, 3, 3))
    assert [layer.last_route for layer in model] == ["vendor", "vendor"]


def test_settings_and_layers_may_change_between_calls():
    model = net(nn)
    x = torch.randn(2, 1, 64, 64)
    model(x)
    model[2] = nn.AvgPool2d(2)
    model[0].padding = (2, 2)
    expected = copy.deepcopy(model)
    with twofold.route("vendor"):
        wanted = expected.eval()(x)
    assert torch.allclose(model.eval()(x), wanted, atol=1e-5)


def test_bad_input_is_named_by_the_layer_it_reaches():
    with pytest.raises(ValueError, match="Conv2d input: expected"):
        net(nn)(torch.zeros(2, 3, 64, 64))
    with pytest.raises(ValueError, match="MaxPool2d input: the kernel 9x9 does not fit"):
        nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(9))(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="BatchNorm2d input: expected more than one value a channel"):
        nn.Sequential(nn.BatchNorm2d(2), nn.ReLU())(torch.zeros(1, 2, 1, 1))
