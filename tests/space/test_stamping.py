"""Stamping, the operation of transposed convolution: the four witnesses, loops, zero-stuffing, the adjoint, whole numbers, mutants."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from twofold.layers.check import Case, check, check_adjoint, check_expression, check_message, noise
from twofold.layers.differentiable import differentiable
from twofold.space import correlation, stamping
from twofold.space.correlation import correlate, turned
from twofold.space.stamping import map_size, transposed
from twofold.space.windows import Window

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def by_stuffing(x, weight, bias, window, groups, extra):
    """A full convolution of x, with s - 1 zeros between its pixels, cut to size."""
    axes = window.axes
    stuffed = x.new_zeros(*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], window.stride, strict=True)))
    stuffed[:, :, *(slice(None, None, s) for s in window.stride)] = x
    around = [side for s, n in zip(reversed(window.spread), reversed(extra), strict=True) for side in (s - 1, s - 1 + max(n, 0))]
    by_group = turned(weight).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    whole = CONVOLUTIONS[axes](F.pad(stuffed, around), by_group, bias, 1, 0, window.dilation, groups)
    size = map_size(x.shape[2:], window, extra)
    return whole[:, :, *(slice(before, before + n) for before, n in zip(window.padding[::2], size, strict=True))]


def by_loops(x, weight, bias, window, groups, extra, dy):
    """(y, dx, dweight, dbias): every product once."""
    size = map_size(x.shape[2:], window, extra)
    maps, per_group, *kernel = weight.shape
    y = np.zeros((x.shape[0], per_group * groups, *size)) + bias.reshape(-1, *[1] * window.axes)
    dx, dweight = np.zeros_like(x), np.zeros_like(weight)
    for b, f, *p in np.ndindex(*x.shape):
        for c, *tap in np.ndindex(per_group, *kernel):
            steps = zip(p, window.stride, window.padding[::2], tap, window.dilation, strict=True)
            h = [n * s - before + i * d for n, s, before, i, d in steps]
            if all(0 <= place < n for place, n in zip(h, size, strict=True)):
                channel = f // (maps // groups) * per_group + c
                y[b, channel, *h] += weight[f, c, *tap] * x[b, f, *p]
                dx[b, f, *p] += weight[f, c, *tap] * dy[b, channel, *h]
                dweight[f, c, *tap] += x[b, f, *p] * dy[b, channel, *h]
    return y, dx, dweight, dy.sum((0, *range(2, dy.ndim)))


def case(x, weight, window, groups=1, extra=(0, 0), bias=True):
    channels = weight[1] * groups
    return noise(*x, seed=1), noise(*weight, seed=2), noise(channels, seed=3) if bias else None, window, groups, extra


CASES = {
    "plain": case((1, 2, 2, 3), (2, 2, 3, 2), Window((3, 2))),
    "no bias": case((2, 2, 2, 3), (2, 2, 3, 1), Window((3, 1), (2, 1)), bias=False),
    "stride and padding": case((2, 2, 2, 2), (2, 1, 3, 2), Window((3, 2), (2, 3), (1, 1, 0, 0))),
    "extra": case((2, 1, 2, 3), (1, 2, 3, 2), Window((3, 2), (2, 3), (1, 1, 0, 0)), extra=(1, 2)),
    "extra beyond the stride": case((1, 2, 2, 3), (2, 2, 2, 2), Window((2, 2), dilation=(3, 2)), extra=(2, 1)),
    "four-sided padding": case((2, 1, 2, 3), (1, 2, 3, 3), Window((3, 3), (2, 1), (0, 2, 2, 1))),
    "stride beyond the kernel": case((2, 2, 2, 3), (2, 2, 1, 2), Window((1, 2), (3, 4)), extra=(0, 2)),
    "padding beyond the kernel": case((1, 2, 5, 6), (2, 2, 1, 2), Window((1, 2), padding=(1, 2, 2, 3))),
    "everything": case((1, 4, 2, 3), (4, 2, 3, 2), Window((3, 2), (2, 1), (1, 0, 0, 1), (1, 2)), 2, (1, 0)),
    "last window over the edge": case((2, 2, 2, 3), (2, 2, 2, 3), Window((2, 3), (2, 2), ceil=True), extra=(-1, 0)),
    "one pixel": case((2, 3, 1, 1), (3, 2, 1, 1), Window((1, 1))),
    "signal": case((2, 4, 4), (4, 3, 3), Window((3,), (2,), (1, 2), (2,)), 2, (1,)),
    "volume": case((1, 2, 2, 3, 2), (2, 2, 2, 1, 3), Window((2, 1, 3), (2, 1, 1), (1, 0, 0, 0, 1, 1)), 1, (0, 0, 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    check(Case(transposed, CASES[name], by_stuffing, linear=CASES[name][2] is None))


def several(axes, low, high):
    return st.tuples(*[st.integers(low, high)] * axes)


@st.composite
def configurations(draw):
    """Any configuration: one pixel, strides beyond the kernel, empty batches, odd layouts."""
    axes = draw(st.sampled_from([1, 2, 2, 3]))
    window = Window(
        draw(several(axes, 1, {1: 5, 2: 3, 3: 2}[axes])),
        draw(several(axes, 1, 3)),
        draw(several(2 * axes, 0, 2)),
        draw(several(axes, 1, 2)),
    )
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(window.stride, window.dilation, strict=True))
    lows = [
        max(1, -(-(before + after - spread - more + 1) // s) + 1)
        for s, (before, after), spread, more in zip(window.stride, window.sides(), window.spread, extra, strict=True)
    ]
    counts = [draw(st.integers(low, low + {1: 6, 2: 3, 3: 1}[axes])) for low in lows]
    groups, batch = draw(st.integers(1, 3)), draw(st.sampled_from([0, 1, 2, 3]))
    maps, channels = groups * draw(st.integers(1, 2)), draw(st.integers(1, 2))
    return (
        (batch, maps, *counts),
        (maps, channels, *window.kernel),
        window,
        groups,
        extra,
        draw(st.integers(0, 10**6)),
        draw(st.integers(0, 2)),
    )


def laid_out(x, layout):
    """The same numbers, lying differently in memory."""
    if layout == 1:
        return x.transpose(-1, 1).contiguous().transpose(-1, 1)  # channels last, more or less
    return torch.stack([x, x], -1)[..., 0] if layout == 2 else x


def drawn(*shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@given(configurations())
@settings(max_examples=100, deadline=None)
def test_plain_is_what_loops_say_and_every_route_is_plain(configuration):
    x_shape, weight_shape, window, groups, extra, seed, layout = configuration
    channels, size = weight_shape[1] * groups, map_size(x_shape[2:], window, extra)
    x, weight, bias, dy = drawn(x_shape, weight_shape, (channels,), (x_shape[0], channels, *size), seed=seed)
    truth = by_loops(*(t.numpy() for t in (x, weight, bias)), window, groups, extra, dy.numpy())
    for dtype, bounds in ((torch.float64, {"plain": 1e-12, "vendor": 1e-11}), (torch.float32, {"plain": 1e-5, "vendor": 1e-5})):
        for route, bound in bounds.items():
            leaves = [laid_out(x, layout), laid_out(weight, layout), bias]
            leaves = [t.to(dtype).detach().requires_grad_() for t in leaves]
            y = transposed.by(route, *leaves, window, groups, extra)
            for got, wanted in zip((y, *torch.autograd.grad(y, leaves, laid_out(dy, layout).to(dtype))), truth, strict=True):
                most = max(1.0, np.abs(wanted).max(initial=0))
                assert np.allclose(got.detach().numpy(), wanted, rtol=0, atol=bound * most), (route, dtype)


@given(configurations())
@settings(max_examples=100, deadline=None)
def test_it_is_the_adjoint_of_correlation(configuration):
    """<correlate(x, W), y> = <x, transposed(y, W)>, for every map that leads to so many windows."""
    y_shape, weight_shape, window, groups, extra, seed, _ = configuration
    size = map_size(y_shape[2:], window, extra)
    assume(window.output_size(size) == y_shape[2:])  # else more windows fit than there are: no correlation made this
    y, weight, x = drawn(y_shape, weight_shape, (y_shape[0], weight_shape[1] * groups, *size), seed=seed)
    left = (correlate(x, weight, None, window, groups) * y).sum()
    right = (x * transposed(y, weight, None, window, groups, extra)).sum()
    assert torch.allclose(left, right, rtol=1e-11, atol=1e-10)
    dx = correlation.backward(y, correlation.forward(x, weight, None, window, groups)[1])[0]
    assert torch.allclose(stamping.forward(y, weight, None, window, groups, extra)[0], dx, rtol=1e-12, atol=1e-12)


def test_whole_numbers_are_stamped_exactly_on_every_route():
    dice, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(200):
        kernel, counts, groups = (tuple(map(int, dice.integers(1, 4, n))) for n in (2, 2, 1))
        window = Window(kernel, *(tuple(map(int, dice.integers(low, 3, n))) for low, n in ((1, 2), (0, 4), (1, 2))))
        shapes = (2, 2 * groups[0], *counts), (2 * groups[0], 2, *kernel), (2 * groups[0],)
        if min(map_size(counts, window, (0, 0))) < 1:
            continue
        values = [torch.randint(-8, 9, shape, generator=generator).float() for shape in shapes]
        results = []
        for route in ("plain", "vendor"):
            leaves = [t.clone().requires_grad_() for t in values]
            y = transposed.by(route, *leaves, window, groups[0], (0, 0))
            results.append([y, *torch.autograd.grad(y, leaves, (torch.arange(y.numel()) % 7 - 3).float().reshape(y.shape))])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True)), (shapes, window)


def changed(**changes):
    """The pair with some of its steps replaced."""

    def same(value):
        return value

    def forward(x, weight, bias, window, groups, extra):
        x, weight, window, extra = (
            changes.get(name, same)(value) for name, value in (("x", x), ("weight", weight), ("window", window), ("extra", extra))
        )
        return stamping.forward(x, weight, bias, window, groups, extra)

    def backward(dy, saved):
        return tuple(changes.get(name, same)(d) for name, d in zip(("dx", "dweight", "dbias"), stamping.backward(dy, saved), strict=True))

    return differentiable(forward, backward)


def other_sides(window):
    sides = tuple(side for before, after in window.sides() for side in (after, before))
    return Window(window.kernel, window.stride, sides, window.dilation)


MUTANTS = {
    "kernel turned": changed(weight=turned),
    "kernel turned in rows": changed(weight=lambda w: w.flip(2)),
    "maps permuted": changed(weight=lambda w: w.flip(0)),
    "channels permuted": changed(weight=lambda w: w.flip(1)),
    "groups in the wrong order": changed(x=lambda x: x.roll(2, 1)),
    "padding on the wrong side": changed(window=other_sides),
    "stride and dilation exchanged": changed(window=lambda w: Window(w.kernel, w.dilation, w.padding, w.stride)),
    "extra forgotten": changed(extra=lambda extra: (0, 0)),
    "extra along the other axis": changed(extra=lambda extra: extra[::-1]),
    "extra before": changed(window=lambda w: Window(w.kernel, w.stride, (0, 3, 0, 1), w.dilation)),
    "dx turned": changed(dx=lambda d: d.flip(2)),
    "dx of one group": changed(dx=lambda d: torch.cat([d[:, :2], 0 * d[:, 2:]], 1)),
    "dweight turned": changed(dweight=turned),
    "dweight a mean": changed(dweight=lambda d: d / 2),
    "no dbias": changed(dbias=lambda d: None),
    "dbias a mean": changed(dbias=lambda d: d / 7),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_variant_is_caught(name):
    check_expression(Case(transposed, CASES["everything"], by_stuffing))
    with pytest.raises(AssertionError):
        check_expression(Case(MUTANTS[name], CASES["everything"], by_stuffing))


def test_a_wrong_adjoint_is_caught():
    with pytest.raises(AssertionError, match="<Ax,y>"):
        check_adjoint(Case(MUTANTS["dx turned"], CASES["no bias"], by_stuffing, linear=True))


def test_more_columns_than_can_be_counted():
    x, weight = torch.empty(1, 1, 1).expand(1, 1, 2**16), torch.empty(1, 2, 2**15)
    check_message(
        lambda: transposed.by("plain", x, weight, None, Window((2**15,)), 1, (0,)),
        "transposed: expected columns of at most 2147483647 numbers",
    )
