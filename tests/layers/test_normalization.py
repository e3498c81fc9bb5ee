"""Batch normalisation: the witnesses in training and in use, the laws of the gradient, and running statistics equal to torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn as torch_nn

import twofold
from twofold.layers import normalization as page
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.layers.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d, batch_norm, running_norm

EPS = 1e-3
X = (2 * noise(3, 2, 4, 5, seed=1) + 1).detach().requires_grad_()
SCALE, SHIFT = noise(2, seed=2), noise(2, seed=3)
MEAN, VARIANCE = noise(2, seed=4, grad=False), noise(2, seed=5, grad=False).square() + 0.5


def by_rows(x, scale, shift, eps):
    """One channel a row, its statistics by torch's own; scale and shift folded into one slope and one offset."""
    rows = x.transpose(0, 1).reshape(x.shape[1], -1)
    return by_line(x, scale, shift, rows.mean(1), rows.var(1, correction=0), eps)


def by_line(x, scale, shift, mean, variance, eps):
    slope = (variance + eps) ** -0.5 * (1 if scale is None else scale)
    offset = (0 if shift is None else shift) - mean * slope
    return torch.einsum("bc...,c->bc...", x, slope) + offset.reshape(1, -1, *(1,) * (x.dim() - 2))


CASES = {
    "plain": (X, SCALE, SHIFT, EPS),
    "no scale": (X, None, SHIFT, EPS),
    "no shift": (X, SCALE, None, EPS),
    "neither": (X, None, None, EPS),
    "frozen input": (X.detach(), SCALE, SHIFT, EPS),
    "frozen scale": (X, SCALE.detach(), SHIFT.detach(), EPS),
    "large eps": (X, SCALE, SHIFT, 2.5),
    "one image": (X.detach()[:1].requires_grad_(), SCALE, SHIFT, EPS),
    "one pixel": (X.detach()[:, :, :1, :1].requires_grad_(), SCALE, SHIFT, EPS),
    "one channel": (noise(2, 1, 3, 2, seed=6), noise(1, seed=7), noise(1, seed=8), EPS),
    "two values": (noise(2, 3, 1, 1, seed=6), noise(3, seed=7), noise(3, seed=8), EPS),
    "rows": (noise(5, 2, seed=6), SCALE, SHIFT, EPS),
    "rows, one channel": (noise(5, 1, seed=6), noise(1, seed=7), noise(1, seed=8), EPS),
    "sequences": (noise(3, 2, 4, seed=6), SCALE, SHIFT, EPS),
    "volumes": (noise(2, 2, 3, 1, 2, seed=6), SCALE, SHIFT, EPS),
    "channels last": (X.detach().contiguous(memory_format=torch.channels_last).requires_grad_(), SCALE, SHIFT, EPS),
    "transposed": (X.detach().transpose(2, 3).requires_grad_(), SCALE, SHIFT, EPS),
    "sliced": (X.detach()[:, :, ::2, 1:4].requires_grad_(), SCALE, SHIFT, EPS),
    "expanded": (noise(3, 2, 1, 4, seed=9).detach().expand(3, 2, 3, 4).requires_grad_(), SCALE, SHIFT, EPS),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses_in_training(name):
    check(Case(batch_norm, CASES[name], by_rows, rows=False))


@pytest.mark.parametrize("name", CASES)
def test_witnesses_in_use(name):
    x, scale, shift, eps = CASES[name]
    C = x.shape[1]
    mean, variance = noise(C, seed=4, grad=False), noise(C, seed=5, grad=False).square() + 0.5
    check(Case(running_norm, (x, scale, shift, mean, variance, eps), by_line))


def test_the_answer_knows_no_shift_nor_scale_of_the_input():
    y, _ = batch_norm.explain(X, SCALE, SHIFT, 1e-12)
    moved, _ = batch_norm.explain(X * 7 + 100, SCALE, SHIFT, 1e-12)
    assert torch.allclose(moved, y, rtol=0, atol=1e-10)
    normal, _ = batch_norm.explain(X, None, None, 1e-12)
    assert torch.allclose(normal.mean((0, 2, 3)), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-14)
    assert torch.allclose(normal.var((0, 2, 3), correction=0), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-10)


def test_the_gradient_is_orthogonal_to_one_and_to_the_normalised_values():
    _, saved = page.batch_forward(X.detach(), SCALE.detach(), SHIFT.detach(), 1e-12)
    dx, _, _ = page.batch_backward(noise(*X.shape, seed=9, grad=False), saved)
    for direction in (torch.ones_like(dx), saved.normal_BCH):
        assert torch.allclose((dx * direction).sum((0, 2, 3)), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-10)


OPTIONS = {
    "plain": {},
    "momentum": {"momentum": 0.3, "eps": 0.1},
    "cumulative": {"momentum": None},
    "no affine": {"affine": False},
    "not tracked": {"track_running_stats": False},
    "nothing": {"affine": False, "track_running_stats": False},
    "no shift": {"bias": False},
    "momentum zero": {"momentum": 0.0},
}


def pair(**options):
    """Ours and torch's with the same, distinct weights."""
    if options.get("bias") is False and "bias" not in torch_nn.BatchNorm2d.__init__.__kwdefaults__:
        pytest.skip("this torch has no batch normalisation without bias")
    layers = BatchNorm2d(2, dtype=torch.float64, **options), torch_nn.BatchNorm2d(2, dtype=torch.float64, **options)
    for layer in layers:
        for values, number in ((layer.weight, 2), (layer.bias, 3)):
            if values is not None:
                values.data.copy_(noise(2, seed=number))
    return layers


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("name", OPTIONS)
def test_stands_in_for_torch(name, route):
    ours, theirs = pair(**OPTIONS[name])
    with twofold.route(route):
        check_drop_in(ours, theirs, X)
        check_drop_in(ours.eval(), theirs.eval(), X)
    assert ours.last_route == route


RANKS = {
    "rows": (BatchNorm1d, torch_nn.BatchNorm1d, (5, 2)),
    "sequences": (BatchNorm1d, torch_nn.BatchNorm1d, (3, 2, 4)),
    "volumes": (BatchNorm3d, torch_nn.BatchNorm3d, (2, 2, 3, 1, 2)),
}


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("name", RANKS)
def test_every_rank_stands_in_for_torch_and_remembers_the_same(name, route):
    ours, theirs, shape = RANKS[name]
    pair = ours(2, momentum=0.3, dtype=torch.float64), theirs(2, momentum=0.3, dtype=torch.float64)
    for layer in pair:
        for number, weight in enumerate(layer.parameters()):
            weight.data.copy_(noise(2, seed=number))
    with twofold.route(route):
        check_drop_in(*pair, noise(*shape, seed=1))
        check_drop_in(pair[0].eval(), pair[1].eval(), noise(*shape, seed=2))
        for value, expected in zip(pair[0].buffers(), pair[1].buffers(), strict=True):
            assert torch.allclose(value, expected, rtol=1e-12)
        assert pair[0](torch.zeros(0, *shape[1:], dtype=torch.float64)).shape == (0, *shape[1:])
    assert pair[0].last_route == route


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.lists(st.integers(1, 3), max_size=3), st.integers(0, 99))
def test_drawn_shapes_by_loops(rows, channels, size, seed):
    x, scale, shift = noise(rows, channels, *size, seed=seed), noise(channels, seed=seed + 1), noise(channels, seed=seed + 2)
    check_expression(Case(batch_norm, (x, scale, shift, EPS), by_rows))
    y, values = batch_norm.explain(x, scale, shift, EPS)[0], x.detach().numpy()
    for c in range(channels):
        mean = sum(values[:, c].flatten()) / values[:, c].size
        rate = (sum((values[:, c].flatten() - mean) ** 2) / values[:, c].size + EPS) ** -0.5
        assert np.allclose(y.numpy()[:, c], (values[:, c] - mean) * rate * scale[c].item() + shift[c].item(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("name", OPTIONS)
def test_running_statistics_are_torchs_after_every_batch(name, route):
    ours, theirs = pair(**OPTIONS[name])
    for batch in range(4):
        x = 3 * noise(2, 2, 3, 4, seed=10 + batch, grad=False) + batch
        if batch == 2:  # in use nothing is remembered
            ours.eval(), theirs.eval()
        with twofold.route(route):
            y = ours(x)
        assert torch.allclose(y, theirs(x), rtol=0, atol=1e-12)
        for (key, value), expected in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert value.dtype == expected.dtype and torch.allclose(value, expected, rtol=0, atol=1e-12), key
        ours.train(), theirs.train()


def test_second_order_and_backward_remember_nothing_more():
    layer = BatchNorm2d(2).double()
    with twofold.route("plain"):
        y = layer(X)
        (dx,) = torch.autograd.grad(y.square().sum(), X, create_graph=True)
        dx.square().sum().backward()
    assert layer.num_batches_tracked is not None and layer.num_batches_tracked.item() == 1
    assert torch.allclose(layer.running_mean, 0.1 * X.detach().mean((0, 2, 3)), rtol=1e-12)
    assert torch.allclose(layer.running_var, 0.9 + 0.1 * X.detach().var((0, 2, 3)), rtol=1e-12)


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (3, 2, 0, 4)])
def test_an_empty_batch_teaches_and_remembers_nothing(route, shape):
    layer = BatchNorm2d(2)
    x = torch.zeros(shape, requires_grad=True)
    with twofold.route(route):
        y = layer(x)
    y.sum().backward()
    assert y.shape == shape and x.grad is not None and x.grad.shape == shape
    assert all(w.grad is not None and w.grad.count_nonzero() == 0 for w in layer.parameters())
    assert layer.running_mean is not None and layer.running_mean.tolist() == [0.0, 0.0]
    assert layer.running_var is not None and layer.running_var.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_a_constant_channel_gives_the_shift_and_nan_stays_in_its_channel(route):
    layer = BatchNorm2d(2)
    layer.bias.data.copy_(torch.tensor([3.0, 4.0]))
    x = torch.full((2, 2, 3, 3), 7.0)
    with twofold.route(route):
        assert torch.allclose(layer(x)[:, 0], torch.tensor(3.0), atol=1e-3)
        x[0, 0, 0, 0] = float("nan")
        y = layer(x)
    assert y[:, 0].isnan().all() and torch.allclose(y[:, 1], torch.tensor(4.0), atol=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_half_precision_maps_meet_weights_of_full(training):
    layer = BatchNorm2d(2).train(training)
    x = X.detach().bfloat16()
    results = []
    for route in ("plain", "vendor"):
        with twofold.route(route):
            results.append(layer(x))
    assert results[0].dtype == results[1].dtype == torch.bfloat16
    assert torch.allclose(*results, rtol=2e-2, atol=2e-2)


def without(term):
    """The gradient in training with one of its three terms left out."""

    def backward(dy, saved):
        n, r = saved.normal_BCH, page.on_maps(page.slope(saved), dy)
        terms = [dy, -page.on_maps(dy.mean((0, 2, 3)), dy), -n * page.on_maps((dy * n).mean((0, 2, 3)), dy)]
        _, dscale, dshift = page.running_backward(dy, saved)
        return sum(t for i, t in enumerate(terms) if i != term) * r, dscale, dshift

    return backward


def changed(place, change):
    def backward(dy, saved):
        gradients = list(page.batch_backward(dy, saved))
        gradients[place] = change(gradients[place])
        return tuple(gradients)

    return backward


def unbiased(x, scale, shift, eps):
    variance = x.var((0, 2, 3))
    return page.running_forward(x, scale, shift, x.mean((0, 2, 3)), variance, eps)


def image_by_image(x, scale, shift, eps):
    y = torch.cat([page.batch_forward(image, scale, shift, eps)[0] for image in x.split(1)])
    return y, page.batch_forward(x, scale, shift, eps)[1]


MUTANTS = {
    "without dy": (page.batch_forward, without(0)),
    "without the term of the mean": (page.batch_forward, without(1)),
    "without the term of the variance": (page.batch_forward, without(2)),
    "as if the statistics were given": (page.batch_forward, page.running_backward),
    "without the rate": (page.batch_forward, changed(0, lambda dx: dx * page.on_maps(page.statistics(X)[1] + EPS, dx) ** 0.5)),
    "dscale averaged": (page.batch_forward, changed(1, lambda d: d / 60)),
    "dshift averaged": (page.batch_forward, changed(2, lambda d: d / 60)),
    "dscale without gradient": (page.batch_forward, changed(1, lambda d: None)),
    "channels reversed": (page.batch_forward, changed(2, lambda d: d.flip(0))),
    "the unbiased variance": (unbiased, page.batch_backward),
    "each image alone": (image_by_image, page.batch_backward),
    "eps outside the root": (
        lambda x, scale, shift, eps: page.running_forward(x, scale, shift, x.mean((0, 2, 3)), (page.statistics(x)[1].sqrt() + eps) ** 2, 0),
        page.batch_backward,
    ),
    "shift before scale": (lambda x, scale, shift, eps: page.batch_forward(x, scale, shift * scale, eps), page.batch_backward),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_variants_are_caught(name):
    case = Case(differentiable(*MUTANTS[name]), CASES["plain"], by_rows, rows=False)
    with pytest.raises(AssertionError):
        check_expression(case)
    if MUTANTS[name][0] is page.batch_forward:
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(case)


BAD = {
    "channels": (
        lambda: BatchNorm2d(3)(torch.zeros(2, 4, 5, 6)),
        "BatchNorm2d input: expected (B, C=3, H, W), got (2, 4, 5, 6): C is 4, not 3.",
    ),
    "channels last": (lambda: BatchNorm2d(3)(torch.zeros(2, 5, 6, 3)), "C is 5, not 3. Channels last? x.permute(0, 3, 1, 2)."),
    "one image": (lambda: BatchNorm2d(3)(torch.zeros(3, 5, 6)), "got (3, 5, 6): 3 axes, not 4. One image? x.unsqueeze(0)."),
    "features": (lambda: BatchNorm2d(3)(torch.zeros(2, 3)), "2 axes, not 4. Features without maps? That is BatchNorm1d."),
    "one value": (
        lambda: BatchNorm2d(3)(torch.zeros(1, 3, 1, 1)),
        "BatchNorm2d input: expected more than one value a channel, to take the variance of, got (1, 3, 1, 1): B H W = 1. Train with",
    ),
    "one value, not tracked": (lambda: BatchNorm2d(3, track_running_stats=False).eval()(torch.zeros(1, 3, 1, 1)), "B H W = 1"),
    "channels of rows": (lambda: BatchNorm1d(3)(torch.zeros(2, 4)), "BatchNorm1d input: expected (B, C=3), got (2, 4): C is 4, not 3."),
    "sequences, channels last": (
        lambda: BatchNorm1d(3)(torch.zeros(2, 5, 3)),
        "expected (B, C=3, T), got (2, 5, 3): C is 5, not 3. Channels last? x.permute(0, 2, 1).",
    ),
    "one row of features": (
        lambda: BatchNorm1d(3)(torch.zeros(3)),
        "expected (B, C=3, T), got (3,): 1 axes, not 3. One row? x.unsqueeze(0).",
    ),
    "maps into rows": (lambda: BatchNorm1d(3)(torch.zeros(2, 3, 4, 5)), "4 axes, not 3. Maps? That is BatchNorm2d."),
    "one row to learn from": (lambda: BatchNorm1d(3)(torch.zeros(1, 3)), "got (1, 3): B = 1. Train with a batch of at least 2"),
    "one step to learn from": (lambda: BatchNorm1d(3)(torch.zeros(1, 3, 1)), "got (1, 3, 1): B T = 1."),
    "volumes, channels last": (lambda: BatchNorm3d(3)(torch.zeros(2, 4, 5, 6, 3)), "Channels last? x.permute(0, 4, 1, 2, 3)."),
    "one volume": (
        lambda: BatchNorm3d(3)(torch.zeros(3, 4, 5, 6)),
        "expected (B, C=3, D, H, W), got (3, 4, 5, 6): 4 axes, not 5. One volume?",
    ),
    "volumes into maps": (lambda: BatchNorm2d(3)(torch.zeros(2, 3, 4, 5, 6)), "5 axes, not 4. Volumes? That is BatchNorm3d."),
    "bytes": (lambda: BatchNorm2d(3)(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)), "Convert and scale: x.float() / 255."),
    "dtype": (lambda: BatchNorm2d(3)(torch.zeros(2, 3, 4, 4).double()), "expected float32, the dtype of the weights, got float64."),
    "dtype of the statistics": (lambda: BatchNorm2d(3, affine=False)(torch.zeros(2, 3, 4, 4).double()), "got float64."),
    "list": (lambda: BatchNorm2d(3)([1.0]), "BatchNorm2d input: expected a torch tensor, got list."),
    "no channels": (lambda: BatchNorm2d(0), "BatchNorm2d: expected num_features to be a whole number of at least 1, got 0."),
    "eps": (lambda: BatchNorm2d(3, eps=0.0), "expected eps, which is added to the variance, to be above 0, got 0.0."),
    "momentum": (lambda: BatchNorm2d(3, momentum=10), "expected momentum, the weight of the new batch, from 0 to 1 or None, got 10."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)


def test_one_value_a_channel_is_right_in_use():
    layer = BatchNorm2d(2).eval()
    for route in ("plain", "vendor"):
        with twofold.route(route):
            assert torch.allclose(layer(torch.ones(1, 2, 1, 1)), torch.tensor((1 + 1e-5) ** -0.5))
