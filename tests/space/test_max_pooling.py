"""Max pooling along one, two and three axes: the four witnesses, NumPy loops, the edges where libraries go wrong, and mutants."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn as torch_nn
from torch.nn import functional as F

import twofold
from twofold import kernels
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, check_routes, check_rows, noise
from twofold.layers.differentiable import differentiable
from twofold.space import max_pooling, windows
from twofold.space.max_pooling import MaxPool1d, MaxPool2d, MaxPool3d, max_pool, max_pool_with_places
from twofold.space.pooling import misses
from twofold.space.windows import Window

INFINITY = float("inf")
TORCH = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def by_torch(x, window, places=False):
    pool = TORCH[window.axes]
    return pool(x, window.kernel, window.stride, window.padding[::2], window.dilation, window.ceil, return_indices=places)


def pixels(window, size, p):
    """The pixels (tap, place) of window p that lie on the map."""
    for k, tap in enumerate(np.ndindex(*window.kernel)):
        place = [n * s - a + i * d for n, s, a, i, d in zip(p, window.stride, window.padding[::2], tap, window.dilation, strict=True)]
        if all(0 <= h < length for h, length in zip(place, size, strict=True)):
            yield k, tuple(place)


def by_loops(x, window, dy=None):
    """(y, winning tap, flat place, dx): the first of the largest wins, or the first NaN."""
    size = x.shape[2:]
    y = np.zeros((*x.shape[:2], *window.output_size(size)), x.dtype)
    winner, flat, dx = np.zeros(y.shape, int), np.zeros(y.shape, int), np.zeros(x.shape)
    for at in np.ndindex(*y.shape):
        best = None
        for tap, place in pixels(window, size, at[2:]):
            value = x[*at[:2], *place]
            if best is None or value > best or (np.isnan(value) and not np.isnan(best)):
                best, winner[at], where = value, tap, place
        y[at], flat[at] = best, np.ravel_multi_index(where, size)
        dx[*at[:2], *where] += 0 if dy is None else dy[at]
    return y, winner, flat, dx


MAP = {1: (2, 3, 9), 2: (2, 2, 4, 6), 3: (2, 1, 3, 4, 5)}
WINDOWS = {
    "signal": Window((2,), (2,)),
    "signal, all settings": Window((3,), (2,), (1, 1), (2,), ceil=True),
    "side by side": Window((2, 2), (2, 2)),
    "not square": Window((3, 2), (1, 2)),
    "overlapping": Window((3, 3), (2, 2), (1, 1, 1, 1)),
    "gaps": Window((1, 2), (3, 3)),
    "dilated": Window((2, 3), (1, 2), (1, 1, 1, 1), (3, 2)),
    "ceil": Window((2, 3), (2, 2), ceil=True),
    "ceil and padding": Window((2, 3), (3, 2), (1, 1, 1, 1), ceil=True),
    "one tap": Window((1, 1), (2, 1)),
    "whole map": Window((4, 6), (4, 6)),
    "volume": Window((2, 2, 2), (1, 2, 2)),
    "volume, all settings": Window((1, 3, 2), (1, 2, 3), (0, 0, 1, 1, 1, 1), (1, 1, 2), ceil=True),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_witnesses(name):
    window = WINDOWS[name]
    x = noise(*MAP[window.axes])
    check(Case(max_pool, (x, window), by_torch))
    for witness in (check_expression, check_routes, check_rows):
        witness(Case(max_pool_with_places, (x, window), lambda x, window: by_torch(x, window, places=True)))
    assert max_pool.explain(x, window)[1].winner_BCP.dtype == torch.uint8


@st.composite
def settings_and_maps(draw):
    """A window with every kind of padding, and a small map of whole numbers with many ties that it fits."""
    axes = draw(st.integers(1, 3))
    each = lambda least, most: tuple(draw(st.integers(least, most)) for _ in range(axes))  # noqa: E731
    kernel, stride, dilation = each(1, 4 if axes < 3 else 2), each(1, 4), each(1, 3)
    kind = draw(st.sampled_from(["none", "half", "sides", "sides"]))
    before = tuple(draw(st.integers(0, {"none": 0, "half": k // 2, "sides": k + 1}[kind])) for k in kernel)
    after = tuple(draw(st.integers(0, k + 1)) if kind == "sides" else b for b, k in zip(before, kernel, strict=True))
    sides = tuple(side for pair in zip(before, after, strict=True) for side in pair)
    window = Window(kernel, stride, sides, dilation, draw(st.booleans()))
    least = [max(spread - b - a, 1) for spread, b, a in zip(window.spread, before, after, strict=True)]
    size = tuple(n + draw(st.integers(0, 4)) for n in least)
    assume(not any(misses(window, axis, size[axis], number) for axis, number in enumerate(window.output_size(size))))
    batch, seed = draw(st.integers(0, 2)), draw(st.integers(0, 10**6))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-3, 4, (batch, draw(st.integers(1, 2)), *size), generator=generator).float()
    special = draw(st.sampled_from([None, None, -INFINITY, INFINITY]))
    if special is not None:
        x[torch.rand(x.shape, generator=generator) < 0.6] = special
    return window, x


@given(case=settings_and_maps())
@settings(max_examples=200, deadline=None)
def test_every_route_is_the_loops_exactly(case):
    window, x = case
    dy = (torch.arange(np.prod((*x.shape[:2], *window.output_size(x.shape[2:])))) % 7 - 3.0).reshape(
        *x.shape[:2], *window.output_size(x.shape[2:])
    )
    y, winner, flat, dx = (torch.from_numpy(part) for part in by_loops(x.numpy(), window, dy.numpy()))
    assert torch.equal(max_pool.explain(x, window)[1].winner_BCP.long(), winner)
    for dtype in (torch.float32, torch.float64):
        leaf = x.to(dtype).requires_grad_()
        for route in max_pool.routes(leaf, window):
            ours = max_pool.by(route, leaf, window)
            placed, places = max_pool_with_places.by(route, leaf, window)
            for got in (ours, placed):
                assert torch.equal(got, y.to(dtype)), route
                assert torch.equal(torch.autograd.grad(got, leaf, dy.to(dtype))[0], dx.to(dtype)), route
            assert torch.equal(places, flat), route


def test_many_taps_need_a_wider_winner():
    x = noise(1, 2, 18, 17)
    window = Window((16, 16), (1, 1), (3, 3, 2, 2))
    check_routes(Case(max_pool, (x, window), by_torch))
    saved = max_pool.explain(x, window)[1]
    assert saved.winner_BCP.dtype == torch.int32
    assert np.array_equal(saved.winner_BCP.numpy(), by_loops(x.detach().numpy(), window)[1])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_of_equal_values_the_first_wins_on_every_route(axes):
    x = torch.zeros(1, 1, *[4] * axes, requires_grad=True)
    window = Window((2,) * axes, (2,) * axes)
    for route in max_pool.routes(x, window):
        (dx,) = torch.autograd.grad(max_pool.by(route, x, window).sum(), x)
        expected = torch.zeros_like(dx)
        expected[(..., *[slice(None, None, 2)] * axes)] = 1
        assert torch.equal(dx, expected), route


@pytest.mark.parametrize("sides", [(1, 1, 1, 1), (0, 1, 1, 2), (2, 2, 2, 2), (2, 0, 0, 2)])
@pytest.mark.parametrize("fill", [-1.0, -INFINITY])
def test_padding_never_wins(fill, sides):
    x = torch.full((1, 1, 3, 5), fill, requires_grad=True)
    window = Window((3, 3), (2, 2), sides)
    for route in max_pool.routes(x, window):
        y = max_pool.by(route, x, window)
        (dx,) = torch.autograd.grad(y.sum(), x)
        assert y.eq(fill).all() and dx.sum() == y.numel(), route


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_nan_passes_through_and_the_first_is_the_winner(axes):
    row = torch.tensor([1.0, float("nan"), 3.0, float("nan"), INFINITY, 0.0]).reshape(1, 1, *[1] * (axes - 1), 6).requires_grad_()
    ones = (1,) * (axes - 1)
    window, whole = Window((*ones, 3), (*ones, 3)), Window((*ones, 6))
    for route in max_pool.routes(row, window):
        assert max_pool.by(route, row, window).isnan().all(), route
    for route in set(max_pool.routes(row, whole)) - {"vendor"}:  # of several NaN torch takes the last
        (dx,) = torch.autograd.grad(max_pool.by(route, row, whole).sum(), row)
        assert dx.flatten().tolist() == [0, 1, 0, 0, 0, 0], route


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
@pytest.mark.parametrize("sides", [1, (1, 0, 1, 1)])
def test_whole_numbers_may_be_pooled(dtype, sides):
    x = (torch.arange(20) + (100 if dtype == torch.uint8 else -20)).to(dtype).reshape(1, 1, 4, 5)
    expected = by_loops(x.numpy(), MaxPool2d(3, 2, sides).window())
    for route in ("plain", "vendor", "auto"):
        with twofold.route(route):
            y, places = MaxPool2d(3, 2, sides, return_indices=True)(x)
            assert y.dtype == dtype and np.array_equal(y.numpy(), expected[0]) and np.array_equal(places.numpy(), expected[2])
            assert torch.equal(MaxPool2d(3, 2, sides)(x), y), route
            signals, (y, places) = x[0, :, :, :4].transpose(0, 1), MaxPool1d(2, return_indices=True)(x[0, :, :, :4].transpose(0, 1))
            assert torch.equal(y, signals[..., 1::2]) and places.tolist() == [[[1, 3]]] * 4 and torch.equal(MaxPool1d(2)(signals), y)


@pytest.mark.parametrize("route", ["plain", "vendor", "auto"])
def test_an_empty_batch_and_one_pixel(route):
    for axes, layer in ((1, MaxPool1d), (2, MaxPool2d), (3, MaxPool3d)):
        with twofold.route(route):
            x = torch.zeros(0, 3, *[4] * axes, requires_grad=True)
            y, places = layer(2, return_indices=True)(x)
            assert y.shape == places.shape == (0, 3, *[2] * axes) and torch.autograd.grad(y.sum(), x)[0].shape == x.shape
            assert layer(1)(torch.full((1, 1, *[1] * axes), 3.0)).flatten().tolist() == [3.0]


def layouts(x):
    """The same numbers, lying differently in memory."""
    wide = torch.zeros(*x.shape[:3], 2 * x.shape[3])
    wide[..., ::2] = x
    last = x.to(memory_format=torch.channels_last)
    return x, last, x.transpose(2, 3).contiguous().transpose(2, 3), wide[..., ::2], x[:1].expand_as(x)


def test_the_layout_in_memory_does_not_matter():
    layer = MaxPool2d(3, 2, 1)
    for x in layouts(noise(2, 3, 8, 9, dtype=torch.float32, grad=False)):
        with twofold.route("plain"):
            expected = layer(x.contiguous())
        assert torch.equal(layer(x), expected)
    chosen = [max_pool.choose(x, WINDOWS["overlapping"]) for x in layouts(torch.zeros(2, 3, 8, 9))]
    fast = "native" if kernels.available() else "vendor"
    assert chosen == [fast, fast, "vendor", "vendor", "vendor"]


@pytest.mark.parametrize("name", ["signal, all settings", "overlapping", "volume"])
def test_second_order_is_that_of_a_selection(name):
    window = WINDOWS[name]
    x = noise(*MAP[window.axes], dtype=torch.float32)

    def second(pool):
        (dx,) = torch.autograd.grad((pool(x) ** 3).sum(), x, create_graph=True)
        return torch.autograd.grad((dx**2).sum(), x)[0]

    expected = second(lambda x: by_torch(x, window))
    for route in max_pool.routes(x, window):
        assert torch.allclose(second(lambda x, route=route: max_pool.by(route, x, window)), expected, rtol=1e-5), route


OPTIONS = [
    (1, {"kernel_size": 2}),
    (1, {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True}),
    (2, {"kernel_size": 2}),
    (2, {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}),
    (2, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    (2, {"kernel_size": [2, 3], "dilation": (3, 1)}),
    (3, {"kernel_size": (2, 3, 1), "stride": 2, "padding": (1, 1, 0), "ceil_mode": True}),
]


@pytest.mark.parametrize("route", ["plain", "vendor", "auto"])
@pytest.mark.parametrize("indices", [False, True])
@pytest.mark.parametrize(("axes", "options"), OPTIONS)
def test_it_stands_in_for_torch(axes, options, indices, route):
    ours, theirs = (getattr(module, f"MaxPool{axes}d")(**options, return_indices=indices) for module in (max_pooling, torch_nn))
    size = (8, 9, 7)[:axes]
    for x in (noise(2, 3, *size), noise(3, *size, dtype=torch.float32)):
        with twofold.route(route):
            check_drop_in(ours, theirs, x)
            if indices:
                assert torch.equal(ours(x)[1], theirs(x)[1])


def test_the_exporter_and_the_compiler_take_every_size():
    x = torch.randn(2, 3, 9, 8)
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=4, max=40)}
    exported = torch.export.export(MaxPool2d(3, 2, 1), (x,), dynamic_shapes=(sizes,)).module()
    other = torch.randn(5, 3, 11, 8)
    assert torch.equal(exported(other), MaxPool2d(3, 2, 1)(other))
    for layer, n in ((MaxPool1d(3, 2, 1), 1), (MaxPool2d(3, 2, "same_upper", return_indices=True), 2)):
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        for x in (torch.randn(2, 3, *[9] * n), torch.randn(5, 3, *[12] * n)):
            assert all(torch.equal(a, b) for a, b in zip(compiled(x), layer(x), strict=True))


def saved_with(**changes):
    def forward(x, window):
        y, saved = max_pooling.max_forward(x, window)
        return y, saved._replace(**{name: change(saved) for name, change in changes.items()})

    return differentiable(forward, max_pooling.max_backward)


def padding_takes_part(x, window):
    return max_pooling.max_forward(F.pad(x, (1, 1, 1, 1)), Window(window.kernel, window.stride))


def cropped(dy, saved):
    return max_pooling.max_backward(dy, saved)[:, :, 1:-1, 1:-1]


def no_adding_up(dy, saved):
    return max_pooling.max_backward(dy, saved) / max_pooling.max_backward(torch.ones_like(dy), saved).clamp(1)


def moved(dy, saved):
    return max_pooling.max_backward(dy, saved._replace(window=Window((3, 3), (2, 2), (0, 2, 1, 1))))


MUTANTS = {
    "the tap transposed": saved_with(winner_BCP=lambda s: s.winner_BCP % s.window.kernel[0] * s.window.kernel[1] + s.winner_BCP // 3),
    "the next tap": saved_with(winner_BCP=lambda s: (s.winner_BCP + 1) % s.window.taps),
    "the winner of another channel": saved_with(winner_BCP=lambda s: s.winner_BCP.roll(1, 1)),
    "padding takes part": differentiable(padding_takes_part, cropped),
    "padding on the wrong side in backward": differentiable(max_pooling.max_forward, moved),
    "dx to all that are equal or not": differentiable(
        max_pooling.max_forward,
        lambda dy, saved: windows.fold(dy[:, :, None].expand(-1, -1, saved.window.taps, -1, -1), saved.window, saved.size),
    ),
    "dx not added up": differentiable(max_pooling.max_forward, no_adding_up),
    "dx doubled": differentiable(max_pooling.max_forward, lambda dy, saved: 2 * max_pooling.max_backward(dy, saved)),
    "dx turned": differentiable(max_pooling.max_forward, lambda dy, saved: max_pooling.max_backward(dy.flip(2), saved)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_maximum_is_caught(name):
    wrong = Case(MUTANTS[name], (noise(2, 3, 5, 7), WINDOWS["overlapping"]), by_torch)
    with pytest.raises((AssertionError, RuntimeError)):
        check_expression(wrong)
    if name != "padding takes part":  # a pair that is wrong but consistent: finite differences cannot know
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(wrong)
