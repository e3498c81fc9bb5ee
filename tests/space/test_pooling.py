"""Pooling: the four witnesses, NumPy loops, the edges where libraries go wrong, and wrong variants that must be caught."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn as torch_nn
from torch.nn import functional as F

import twofold
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, check_routes, check_rows, noise
from twofold.layers.differentiable import differentiable
from twofold.space import pooling, windows
from twofold.space.pooling import AvgPool2d, MaxPool2d, avg_pool2d, max_pool2d, max_pool2d_with_places
from twofold.space.windows import Window

INFINITY = float("inf")


def by_torch(x, window):
    return F.max_pool2d(x, window.kernel, window.stride, window.padding[::2], window.dilation, window.ceil)


def with_places(x, window):
    return F.max_pool2d(x, window.kernel, window.stride, window.padding[::2], window.dilation, window.ceil, return_indices=True)


def pixels(window, size, p, q):
    """The pixels (tap, h, w) of window (p, q) that lie on the map."""
    for i, j in np.ndindex(*window.kernel):
        h = p * window.stride[0] - window.padding[0] + i * window.dilation[0]
        w = q * window.stride[1] - window.padding[2] + j * window.dilation[1]
        if 0 <= h < size[0] and 0 <= w < size[1]:
            yield i * window.kernel[1] + j, h, w


def max_by_loops(x, window):
    """(y, winner): the first of the largest, or the first NaN."""
    size = x.shape[2:]
    y = np.zeros((*x.shape[:2], *window.output_size(size)))
    winner = np.zeros(y.shape, dtype=int)
    for b, c, p, q in np.ndindex(*y.shape):
        best = None
        for tap, h, w in pixels(window, size, p, q):
            value = x[b, c, h, w]
            if best is None or value > best or (np.isnan(value) and not np.isnan(best)):
                best, winner[b, c, p, q] = value, tap
        y[b, c, p, q] = best
    return y, winner


def average_by_loops(x, window, count_padding=True, divisor=None):
    size = x.shape[2:]
    y = np.zeros((*x.shape[:2], *window.output_size(size)))
    top, bottom, left, right = window.padding
    framed = (size[0] + top + bottom, size[1] + left + right)
    whole = Window(window.kernel, window.stride, dilation=window.dilation)
    for b, c, p, q in np.ndindex(*y.shape):
        inside = list(pixels(window, size, p, q))
        number = len(list(pixels(whole, framed, p, q))) if count_padding else len(inside)
        y[b, c, p, q] = sum(x[b, c, h, w] for _, h, w in inside) / (divisor or number)
    return y


WINDOWS = {
    "side by side": Window((2, 2), (2, 2)),
    "not square": Window((3, 2), (1, 2)),
    "overlapping": Window((3, 3), (2, 2), (1, 1, 1, 1)),
    "gaps": Window((1, 2), (3, 3)),
    "dilated": Window((2, 3), (1, 2), (1, 1, 1, 1), (3, 2)),
    "ceil": Window((2, 3), (2, 2), ceil=True),
    "ceil and padding": Window((2, 3), (3, 2), (1, 1, 1, 1), ceil=True),
    "one tap": Window((1, 1), (2, 1)),
    "whole map": Window((4, 6), (4, 6)),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_witnesses_of_the_maximum(name):
    x = noise(2, 2, 4, 6)
    check(Case(max_pool2d, (x, WINDOWS[name]), by_torch))
    for witness in (check_expression, check_routes, check_rows):
        witness(Case(max_pool2d_with_places, (x, WINDOWS[name]), with_places))
    y, saved = max_pool2d.explain(x, WINDOWS[name])
    expected, winner = max_by_loops(x.detach().numpy(), WINDOWS[name])
    assert np.array_equal(y.numpy(), expected) and np.array_equal(saved.winner_BCPQ.numpy(), winner)
    assert saved.winner_BCPQ.dtype == torch.uint8


@pytest.mark.parametrize(("count_padding", "divisor"), [(True, None), (False, None), (True, 3)])
@pytest.mark.parametrize("name", WINDOWS)
def test_witnesses_of_the_average(name, count_padding, divisor):
    window, x = WINDOWS[name], noise(2, 2, 4, 6)

    def expression(x, window, count_padding, divisor):
        rows = [average_weights(window, x.shape[2:], axis, count_padding, divisor) for axis in (0, 1)]
        return torch.einsum("bchw,ph,qw->bcpq", x, *rows) / (divisor or 1)

    check(Case(avg_pool2d, (x, window, count_padding, divisor), expression, linear=True))
    y, _ = avg_pool2d.explain(x, window, count_padding, divisor)
    assert np.allclose(y.numpy(), average_by_loops(x.detach().numpy(), window, count_padding, divisor), rtol=1e-12)


def average_weights(window, size, axis, count_padding, divisor):
    """The matrix that averages along one axis: an average over a rectangle is one over its rows and one over its columns."""
    number, before, after = window.output_size(size)[axis], *window.padding[2 * axis : 2 * axis + 2]
    matrix = torch.zeros(number, before + size[axis] + after, dtype=torch.float64)
    for p in range(number):
        places = [p * window.stride[axis] + i * window.dilation[axis] for i in range(window.kernel[axis])]
        matrix[p, [place for place in places if place < matrix.shape[1]]] = 1
    whole, matrix = matrix.sum(1, keepdim=True), matrix[:, before : before + size[axis]]
    return matrix if divisor else matrix / (whole if count_padding else matrix.sum(1, keepdim=True))


def test_many_taps_need_a_wider_winner():
    x = noise(1, 2, 18, 17)
    window = Window((16, 16), (1, 1), (3, 3, 2, 2))
    check_routes(Case(max_pool2d, (x, window), by_torch))
    saved = max_pool2d.explain(x, window)[1]
    assert saved.winner_BCPQ.dtype == torch.int32
    assert np.array_equal(saved.winner_BCPQ.numpy(), max_by_loops(x.detach().numpy(), window)[1])


def routes(x, window):
    return max_pool2d.routes(x, window)


def test_of_equal_values_the_first_wins_on_every_route():
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    window = Window((2, 2), (2, 2))
    for route in routes(x, window):
        (dx,) = torch.autograd.grad(max_pool2d.by(route, x, window).sum(), x)
        assert dx[0, 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]], route


@pytest.mark.parametrize("fill", [-1.0, -INFINITY])
def test_padding_never_wins(fill):
    x = torch.full((1, 1, 3, 5), fill, requires_grad=True)
    window = Window((3, 3), (2, 2), (1, 1, 1, 1))
    for route in routes(x, window):
        y = max_pool2d.by(route, x, window)
        (dx,) = torch.autograd.grad(y.sum(), x)
        assert y.eq(fill).all() and dx.sum() == y.numel(), route


def test_nan_passes_through_and_the_first_is_the_winner():
    row = [1.0, float("nan"), 3.0, float("nan"), INFINITY, 0.0]
    x = torch.tensor(row).reshape(1, 1, 1, 6).requires_grad_()
    window = Window((1, 3), (1, 3))
    for route in routes(x, window):
        assert max_pool2d.by(route, x, window).isnan().all(), route
    for route in set(routes(x, Window((1, 6)))) - {"vendor"}:  # of several NaN torch takes the last
        (dx,) = torch.autograd.grad(max_pool2d.by(route, x, Window((1, 6))), x, torch.ones(1, 1, 1, 1))
        assert dx.flatten().tolist() == [0, 1, 0, 0, 0, 0], route


def test_whole_numbers_may_be_pooled():
    x = torch.arange(-20, 0).reshape(1, 1, 4, 5)
    for route in ("plain", "vendor"):
        with twofold.route(route):
            assert MaxPool2d(3, 2, 1)(x).tolist() == [[[[-14, -12, -11], [-4, -2, -1]]]], route


@pytest.mark.parametrize("layer", [MaxPool2d(2), AvgPool2d(2)])
@pytest.mark.parametrize("route", ["plain", "auto"])
def test_an_empty_batch_and_one_pixel(layer, route):
    with twofold.route(route):
        assert layer(torch.zeros(0, 3, 4, 6)).shape == (0, 3, 2, 3)
        assert type(layer)(1)(torch.full((1, 1, 1, 1), 3.0)).tolist() == [[[[3.0]]]]


def layouts(x):
    """The same numbers, lying differently in memory."""
    wide = torch.zeros(*x.shape[:3], 2 * x.shape[3])
    wide[..., ::2] = x
    return (
        x,
        x.to(memory_format=torch.channels_last),
        x.transpose(2, 3).contiguous().transpose(2, 3),
        wide[..., ::2],
        x[:1].expand_as(x),
    )


@pytest.mark.parametrize("layer", [MaxPool2d(3, 2, 1), AvgPool2d(3, 2, 1)])
def test_the_layout_in_memory_does_not_matter(layer):
    for x in layouts(noise(2, 3, 8, 9, dtype=torch.float32, grad=False)):
        with twofold.route("plain"):
            expected = layer(x.contiguous())
        assert torch.allclose(layer(x), expected, rtol=1e-5, atol=1e-6)
    assert max_pool2d.choose(layouts(torch.zeros(2, 3, 8, 9))[1], WINDOWS["overlapping"]) == "vendor"


def test_second_order_of_the_maximum_is_that_of_a_selection():
    x = noise(1, 2, 6, 7, dtype=torch.float32)
    for route in routes(x, WINDOWS["overlapping"]):
        y = max_pool2d.by(route, x, WINDOWS["overlapping"])
        (dx,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
        (ddx,) = torch.autograd.grad((dx**2).sum(), x)
        z = by_torch(x, WINDOWS["overlapping"])
        (dz,) = torch.autograd.grad((z**3).sum(), x, create_graph=True)
        assert torch.allclose(ddx, torch.autograd.grad((dz**2).sum(), x)[0], rtol=1e-5), route


MAX_OPTIONS = [
    {"kernel_size": 2},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": [2, 3], "dilation": (3, 1)},
]


@pytest.mark.parametrize("route", ["plain", "vendor", "auto"])
@pytest.mark.parametrize("indices", [False, True])
@pytest.mark.parametrize("options", MAX_OPTIONS)
def test_the_maximum_stands_in_for_torch(options, indices, route):
    ours, theirs = (module(**options, return_indices=indices) for module in (MaxPool2d, torch_nn.MaxPool2d))
    for x in (noise(2, 3, 8, 9), noise(3, 8, 9, dtype=torch.float32)):
        with twofold.route(route):
            check_drop_in(ours, theirs, x)
            if indices:
                assert torch.equal(ours(x)[1], theirs(x)[1])


AVERAGE_OPTIONS = [
    {"kernel_size": 2},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 1), "count_include_pad": False},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": (2, 3), "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
    {"kernel_size": 2, "divisor_override": 7},
]


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("options", AVERAGE_OPTIONS)
def test_the_average_stands_in_for_torch(options, route):
    for x in (noise(2, 3, 8, 9), noise(3, 8, 9)):
        with twofold.route(route):
            check_drop_in(AvgPool2d(**options), torch_nn.AvgPool2d(**options), x)


def test_an_average_may_be_dilated():
    layer = AvgPool2d(2, 1, dilation=(1, 3))
    x = torch.arange(10.0).reshape(1, 1, 2, 5)
    assert layer(x).tolist() == [[[[4.0, 5.0]]]]
    assert repr(layer) == "AvgPool2d(kernel_size=2, stride=1, padding=0, dilation=(1, 3))"


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_the_maximum_of_whole_numbers_is_exact_on_every_route(data):
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    stride = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    rows, columns = data.draw(st.integers(0, kernel[0] // 2)), data.draw(st.integers(0, kernel[1] // 2))
    window = Window(kernel, stride, (rows, rows, columns, columns), ceil=data.draw(st.booleans()))
    size = tuple(data.draw(st.integers(k, 10)) for k in kernel)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    x = torch.randint(-3, 4, (2, 2, *size), generator=generator).float().requires_grad_()  # many ties on purpose
    results = []
    for route in routes(x, window):
        y = max_pool2d.by(route, x, window)
        results.append((y, *torch.autograd.grad(y, x, (torch.arange(y.numel()) % 7 - 3.0).reshape(y.shape))))
    y, winner = max_by_loops(x.detach().numpy(), window)
    assert np.array_equal(results[0][0].detach().numpy(), y)
    assert np.array_equal(max_pool2d.explain(x, window)[1].winner_BCPQ.numpy(), winner)
    assert all(torch.equal(a, b) for result in results[1:] for a, b in zip(result, results[0], strict=True))


def saved_with(**changes):
    def forward(x, window):
        y, saved = pooling.max_forward(x, window)
        return y, saved._replace(**{name: change(saved) for name, change in changes.items()})

    return differentiable(forward, pooling.max_backward)


def padding_takes_part(x, window):
    y, saved = pooling.max_forward(F.pad(x, (1, 1, 1, 1)), Window(window.kernel, window.stride))
    return y, saved


def cropped(dy, saved):
    return pooling.max_backward(dy, saved)[:, :, 1:-1, 1:-1]


def no_adding_up(dy, saved):
    dx = pooling.max_backward(dy, saved)
    return dx / pooling.max_backward(torch.ones_like(dy), saved).clamp(1)


MAX_MUTANTS = {
    "the tap transposed": saved_with(winner_BCPQ=lambda s: s.winner_BCPQ % s.window.kernel[0] * s.window.kernel[1] + s.winner_BCPQ // 3),
    "the next tap": saved_with(winner_BCPQ=lambda s: (s.winner_BCPQ + 1) % s.window.taps),
    "the winner of another channel": saved_with(winner_BCPQ=lambda s: s.winner_BCPQ.roll(1, 1)),
    "padding takes part": differentiable(padding_takes_part, cropped),
    "dx to all that are equal or not": differentiable(
        pooling.max_forward,
        lambda dy, saved: windows.fold(dy[:, :, None].expand(-1, -1, saved.window.taps, -1, -1), saved.window, saved.size),
    ),
    "dx not added up": differentiable(pooling.max_forward, no_adding_up),
    "dx doubled": differentiable(pooling.max_forward, lambda dy, saved: 2 * pooling.max_backward(dy, saved)),
    "dx turned": differentiable(pooling.max_forward, lambda dy, saved: pooling.max_backward(dy.flip(2), saved)),
}


@pytest.mark.parametrize("name", MAX_MUTANTS)
def test_a_wrong_maximum_is_caught(name):
    wrong = Case(MAX_MUTANTS[name], (noise(2, 3, 5, 7), WINDOWS["overlapping"]), by_torch)
    with pytest.raises((AssertionError, RuntimeError)):
        check_expression(wrong)
    if name != "padding takes part":  # a pair that is wrong but consistent: finite differences cannot know
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(wrong)


def average_by_torch(x, window, count_padding):
    return F.avg_pool2d(x, window.kernel, window.stride, window.padding[::2], window.ceil, count_padding)


AVERAGE_MUTANTS = {
    "padding counted": differentiable(lambda x, w, _: pooling.average_forward(x, w, True), pooling.average_backward),
    "always by all taps": differentiable(lambda x, w, _: pooling.average_forward(x, w, True, w.taps), pooling.average_backward),
    "dx by all taps": differentiable(
        pooling.average_forward, lambda dy, saved: pooling.average_backward(dy, saved._replace(divisor=saved.window.taps))
    ),
    "dx not divided": differentiable(pooling.average_forward, lambda dy, saved: pooling.average_backward(dy, saved._replace(divisor=1))),
}


@pytest.mark.parametrize("name", AVERAGE_MUTANTS)
def test_a_wrong_average_is_caught(name):
    arguments = (noise(2, 3, 5, 7), WINDOWS["ceil and padding"], False)
    with pytest.raises(AssertionError):
        check_expression(Case(AVERAGE_MUTANTS[name], arguments, average_by_torch))


BAD = {
    "two axes": (lambda: MaxPool2d(2)(torch.zeros(4, 4)), "MaxPool2d input: expected (B, C, H, W), got (4, 4): 2 axes, not 4."),
    "list": (lambda: MaxPool2d(2)([1.0]), "MaxPool2d input: expected a torch tensor, got list."),
    "truth": (lambda: MaxPool2d(2)(torch.zeros(1, 1, 4, 4) > 0), "MaxPool2d input: expected real numbers, got bool. Use x.float()."),
    "too small": (
        lambda: MaxPool2d(2)(torch.zeros(1, 1, 1, 4)),
        "MaxPool2d input: the kernel 2x2 does not fit into the padded map 1x4 (map 1x4, padding 0+0, 0+0). Use larger maps",
    ),
    "empty map": (lambda: AvgPool2d(2)(torch.zeros(1, 1, 0, 4)), "AvgPool2d input: expected maps of at least 1x1, got 0x4."),
    "taps that miss": (
        lambda: MaxPool2d(2, 1, 1, dilation=3)(torch.zeros(1, 1, 2, 5)),
        "MaxPool2d input: a window of 2 taps with dilation 3 misses all 2 rows of the map. Use a dilation of at most 2.",
    ),
    "kernel 0": (lambda: MaxPool2d(0), "MaxPool2d: expected kernel_size to be one whole number or two, from 1 to 2147483647, got 0."),
    "kernel 2.5": (lambda: AvgPool2d(2.5), "AvgPool2d: expected kernel_size to be one whole number or two"),
    "overflow": (lambda: MaxPool2d(2, dilation=2**62), "MaxPool2d: expected dilation to be one whole number or two"),
    "large stride": (lambda: AvgPool2d(2, stride=2**40), "AvgPool2d: expected stride to be one whole number or two"),
    "padding": (
        lambda: MaxPool2d((3, 2), padding=(1, 2)),
        "MaxPool2d: expected padding of at most half the kernel 3x2, got (1, 2): windows at the edge would hold padding alone.",
    ),
    "padding -1": (lambda: AvgPool2d(2, padding=-1), "AvgPool2d: expected padding to be one whole number or two, from 0 to"),
    "divisor": (
        lambda: AvgPool2d(2, divisor_override=0),
        "AvgPool2d: expected divisor_override to be a whole number of at least 1, got 0.",
    ),
    "bytes": (lambda: AvgPool2d(2)(torch.zeros(1, 1, 4, 4, dtype=torch.uint8)), "Bytes? Convert and scale: x.float() / 255."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_sizes_at_the_limit_do_no_harm():
    far = 2**31 - 1
    assert MaxPool2d(1, stride=far, dilation=far)(torch.ones(1, 1, 3, 4)).tolist() == [[[[1.0]]]]
    assert AvgPool2d(1, stride=far)(torch.ones(1, 1, 3, 4)).tolist() == [[[[1.0]]]]
    with pytest.raises(ValueError, match="does not fit"):
        MaxPool2d(far)(torch.ones(1, 1, 3, 4))
