"""Average pooling along one, two and three axes: the four witnesses, NumPy loops, torch, and mutants."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn as torch_nn

import twofold
from twofold.layers.check import RELATIVE, Case, check, check_drop_in, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.space import average_pooling
from twofold.space.average_pooling import AvgPool1d, AvgPool2d, AvgPool3d, average_pool, backward, forward
from twofold.space.pooling import misses
from twofold.space.windows import Window

LAYERS = {1: AvgPool1d, 2: AvgPool2d, 3: AvgPool3d}


def by_loops(x, window, count_padding, divisor, dy):
    """(y, dx); the divisor counts, one tap after another, what lies on the map or on the padding that was asked for."""
    size, sides = x.shape[2:], window.sides()
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for at in np.ndindex(*y.shape):
        inside, counted = [], 0
        for tap in np.ndindex(*window.kernel):
            corner = zip(at[2:], window.stride, sides, tap, window.dilation, strict=True)
            place = tuple(p * s - before + i * d for p, s, (before, _), i, d in corner)
            if all(0 <= h < length for h, length in zip(place, size, strict=True)):
                inside.append(place)
            counted += all(-a <= h < length + b for h, length, (a, b) in zip(place, size, sides, strict=True))
        number = divisor or (counted if count_padding else len(inside))
        for place in inside:
            y[at] += x[*at[:2], *place] / number
            dx[*at[:2], *place] += dy[at] / number
    return y, dx


MAP = {1: (2, 3, 9), 2: (2, 2, 4, 6), 3: (2, 1, 3, 4, 5)}
WINDOWS = {
    "signal": Window((3,), (2,), (1, 1), ceil=True),
    "signal, dilated": Window((3,), (2,), (0, 1), (2,)),
    "not square": Window((3, 2), (1, 2)),
    "overlapping": Window((3, 3), (2, 2), (1, 1, 1, 1)),
    "dilated": Window((2, 3), (1, 2), (1, 1, 1, 1), (3, 2)),
    "ceil and padding": Window((2, 3), (3, 2), (1, 1, 1, 1), ceil=True),
    "ceil and four sides": Window((2, 3), (3, 2), (1, 0, 2, 3), ceil=True),
    "gaps": Window((1, 2), (3, 3)),
    "whole map": Window((4, 6), (4, 6)),
    "volume": Window((2, 3, 2), (2, 2, 3), (1, 1, 1, 1, 1, 1), ceil=True),
    "volume, dilated": Window((2, 1, 2), (1, 2, 2), (1, 0, 0, 0, 1, 2), (2, 1, 3)),
}


def by_matrices(x, window, count_padding=True, divisor=None):
    """An average over a box is one along each of its axes."""
    for axis, (number, (before, after)) in enumerate(zip(window.output_size(x.shape[2:]), window.sides(), strict=True)):
        size = MAP[window.axes][2 + axis]
        matrix = torch.zeros(number, before + size + after, dtype=x.dtype)
        for p in range(number):
            places = [p * window.stride[axis] + i * window.dilation[axis] for i in range(window.kernel[axis])]
            matrix[p, [place for place in places if place < matrix.shape[1]]] = 1
        counted, matrix = matrix.sum(1, keepdim=True), matrix[:, before : before + size]
        matrix = matrix if divisor else matrix / (counted if count_padding else matrix.sum(1, keepdim=True))
        x = (x.movedim(2 + axis, -1) @ matrix.T).movedim(-1, 2 + axis)
    return x / (divisor or 1)


@pytest.mark.parametrize(("count_padding", "divisor"), [(True, None), (False, None), (True, 3)])
@pytest.mark.parametrize("name", WINDOWS)
def test_witnesses(name, count_padding, divisor):
    window = WINDOWS[name]
    check(Case(average_pool, (noise(*MAP[window.axes]), window, count_padding, divisor), by_matrices, linear=True))


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_every_route_is_the_loops(data):
    draw = data.draw
    axes = draw(st.integers(1, 3))
    kernel = tuple(draw(st.integers(1, 4 if axes < 3 else 2)) for _ in range(axes))
    dilation = tuple(draw(st.sampled_from([1, 1, 2, 3])) for _ in range(axes)) if draw(st.booleans()) else (1,) * axes
    stride = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    before = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    after = tuple(draw(st.integers(0, k + 1)) for k in kernel) if draw(st.booleans()) else before
    window = Window(kernel, stride, tuple(n for pair in zip(before, after, strict=True) for n in pair), dilation, draw(st.booleans()))
    size = tuple(max(s - b - a, 1) + draw(st.integers(0, 4)) for s, b, a in zip(window.spread, before, after, strict=True))
    counts = window.output_size(size)
    assume(not any(misses(window, axis, size[axis], number) for axis, number in enumerate(counts)))
    shape = draw(st.integers(0, 2)), draw(st.integers(1, 2))
    options = draw(st.sampled_from([(True, None), (False, None), (True, 5)]))
    x, dy = noise(*shape, *size), noise(*shape, *counts, seed=1, grad=False)
    expected = by_loops(x.detach().numpy(), window, *options, dy.numpy())
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        leaf = x.detach().to(dtype).requires_grad_()
        bound = {torch.float64: 1e-12}.get(dtype, RELATIVE[dtype])
        for route in average_pool.routes(leaf, window, *options):
            y = average_pool.by(route, leaf, window, *options)
            (dx,) = torch.autograd.grad(y, leaf, dy.to(dtype))
            for got, wanted in zip((y, dx), expected, strict=True):
                wanted = torch.from_numpy(wanted)
                room = bound * max([1.0, *wanted.abs().flatten().tolist()])
                assert torch.allclose(got.double(), wanted, rtol=0, atol=room), (route, dtype, window)


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_rounding_up_gives_33_windows_of_98_pixels_and_counts_what_exists(route):
    x = torch.ones(1, 1, 98, 98)
    with twofold.route(route):
        y = AvgPool2d(3, ceil_mode=True)(x)
        assert y.shape == (1, 1, 33, 33) and torch.allclose(y, torch.ones(()))  # the last windows hold 2 rows: divided by 2, not by 3
        assert AvgPool2d(3)(x).shape == (1, 1, 32, 32)
        padded = AvgPool2d(4, 3, padding=1, ceil_mode=True)(x[..., :97, :97])
        assert padded.shape == (1, 1, 33, 33)
        assert torch.allclose(padded[0, 0, 0, 0], torch.tensor(9 / 16))  # padding counts,
        assert torch.allclose(padded[0, 0, -1, -1], torch.tensor(4 / 9))  # what rounding up adds does not: 3x3 taps, 2x2 on the map
        assert torch.allclose(AvgPool2d(4, 3, 1, ceil_mode=True, count_include_pad=False)(x[..., :97, :97]), torch.ones(()))


OPTIONS = [
    (1, {"kernel_size": 2}),
    (1, {"kernel_size": (3,), "stride": 2, "padding": (1,), "ceil_mode": True, "count_include_pad": False}),
    (2, {"kernel_size": 2}),
    (2, {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 1), "count_include_pad": False}),
    (2, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    (2, {"kernel_size": (2, 3), "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}),
    (2, {"kernel_size": 2, "divisor_override": 7}),
    (3, {"kernel_size": 2}),
    (3, {"kernel_size": (3, 2, 3), "stride": 2, "padding": 1, "ceil_mode": True}),
    (3, {"kernel_size": (3, 2, 3), "stride": (2, 1, 3), "padding": (0, 1, 1), "ceil_mode": True, "count_include_pad": False}),
]


@pytest.mark.parametrize("route", ["plain", "vendor", "auto"])
@pytest.mark.parametrize(("axes", "options"), OPTIONS)
def test_it_stands_in_for_torch(axes, options, route):
    ours, theirs = (getattr(module, f"AvgPool{axes}d")(**options) for module in (average_pooling, torch_nn))
    size = (8, 9, 7)[:axes]
    for x in (noise(2, 3, *size), noise(3, *size)):
        with twofold.route(route):
            check_drop_in(ours, theirs, x)


def test_an_average_may_be_dilated():
    layer = AvgPool2d(2, 1, dilation=(1, 3))
    x = torch.arange(10.0).reshape(1, 1, 2, 5)
    assert layer(x).tolist() == [[[[4.0, 5.0]]]]
    assert repr(layer) == "AvgPool2d(kernel_size=2, stride=1, padding=0, dilation=(1, 3))"
    assert AvgPool1d(2, dilation=2, divisor_override=4)(x[0]).tolist() == [[[0.5, 1.5], [3.0, 4.0]]]


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_infinities_and_nan_stay_in_their_windows(route):
    row = torch.tensor([[[1.0, float("inf"), 2.0, 4.0, float("nan"), 5.0, 1.0, 3.0]]])
    for dilation, expected in ((1, [float("inf"), 3.0, float("nan"), 2.0]), (2, [1.5, 4.5])):
        layer = AvgPool1d(2, 2 if dilation == 1 else 6, dilation=dilation)
        with twofold.route(route):
            got = layer(row if dilation == 1 else torch.tensor([[[1.0, float("inf"), 2.0, float("nan"), 0.0, 0.0, 4.0, 0.0, 5.0]]]))
        assert torch.equal(got.nan_to_num(-1.0), torch.tensor([[expected]]).nan_to_num(-1.0))


@pytest.mark.parametrize("route", ["plain", "vendor", "auto"])
def test_an_empty_batch_one_pixel_and_the_layout_in_memory(route):
    with twofold.route(route):
        for axes, layer in LAYERS.items():
            for dilation in (1, 2):
                x = torch.zeros(0, 3, *[4] * axes, requires_grad=True)
                y = layer(2, 2, dilation=dilation)(x)
                assert y.shape == (0, 3, *[3 - dilation] * axes) and torch.autograd.grad(y.sum(), x)[0].shape == x.shape
            assert layer(1)(torch.full((1, 1, *[1] * axes), 3.0)).flatten().tolist() == [3.0]
        x = noise(2, 3, 8, 9, dtype=torch.float32, grad=False)
        for dilation in (1, 2):
            layer = AvgPool2d(3, 2, 1, dilation=dilation)
            for other in (x.to(memory_format=torch.channels_last), x.mT.contiguous().mT, x[:1].expand_as(x), x[..., ::2]):
                assert torch.allclose(layer(other), layer(other.contiguous()), rtol=1e-5, atol=1e-6)


MUTANTS = {
    "padding counted": differentiable(lambda x, w, _: forward(x, w, True), backward),
    "always by all taps": differentiable(lambda x, w, _: forward(x, w, True, w.taps), backward),
    "dx by all taps": differentiable(forward, lambda dy, saved: backward(dy, saved._replace(divisor=saved.window.taps))),
    "dx not divided": differentiable(forward, lambda dy, saved: backward(dy, saved._replace(divisor=1))),
    "dx of the padding counted": differentiable(forward, lambda dy, saved: backward(dy, saved._replace(count_padding=True))),
    "padding on the wrong side": differentiable(
        lambda x, w, c: forward(x, Window(w.kernel, w.stride, (0, 1, 2, 3), ceil=True), c), backward
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_average_is_caught(name):
    arguments = (noise(*MAP[2]), WINDOWS["ceil and four sides"], False)
    check_expression(Case(average_pool, arguments, by_matrices))
    with pytest.raises((AssertionError, RuntimeError)):
        check_expression(Case(MUTANTS[name], arguments, by_matrices))
