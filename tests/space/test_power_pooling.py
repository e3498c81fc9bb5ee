"""Lp pooling: the witnesses for every kind of p, NumPy loops over drawn windows, the cases that torch gets wrong, and wrong variants."""

from math import inf, nan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn as torch_nn

import twofold
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.space import power_pooling as page
from twofold.space.power_pooling import LPPool1d, LPPool2d, LPPool3d, power_pool
from twofold.space.windows import Window, fold, unfold


def by_matrices(x, window, power):
    """Every axis read by a matrix of ones and zeros, then torch's own norm of a vector."""
    for axis, count in enumerate(window.output_size(x.shape[2:]) if x.dim() == 2 + window.axes else ()):
        reads = torch.zeros(count, window.kernel[axis], x.shape[2], dtype=x.dtype)
        for p, i in np.ndindex(*reads.shape[:2]):
            place = p * window.stride[axis] - window.padding[2 * axis] + i * window.dilation[axis]
            if 0 <= place < x.shape[2]:
                reads[p, i, place] = 1
        x = torch.tensordot(x, reads, dims=([2], [2]))
    taps = tuple(range(3, x.dim(), 2))
    return x.abs().amax(taps) if power == inf else torch.linalg.vector_norm(x, power, taps)


WINDOWS = {
    "side by side": (noise(2, 2, 4, 6), Window((2, 2), (2, 2))),
    "not square": (noise(2, 2, 4, 6), Window((3, 2), (1, 2))),
    "dilated": (noise(2, 2, 4, 6), Window((2, 3), (1, 2), (1, 1, 1, 1), (3, 2))),
    "ceil, uneven padding": (noise(2, 2, 4, 6), Window((2, 3), (3, 2), (1, 0, 0, 2), ceil=True)),
    "sequences": (noise(3, 2, 7), Window((3,), (2,), (1, 2))),
    "volumes": (noise(2, 1, 3, 4, 3), Window((2, 1, 2), (1, 2, 1), (1, 0, 0, 0, 0, 1))),
    "one tap": (noise(2, 2, 4, 3), Window((1, 1), (2, 1))),
    "transposed": (noise(2, 2, 4, 6).detach().transpose(2, 3).requires_grad_(), Window((2, 2), (2, 2))),
    "channels last": (noise(2, 2, 4, 6).detach().contiguous(memory_format=torch.channels_last).requires_grad_(), Window((2, 2), (2, 2))),
    "expanded": (noise(2, 1, 4, 6).detach().expand(2, 2, 4, 6).requires_grad_(), Window((2, 2), (2, 2))),
}


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 2.3, 3.0, 12.0, inf])
@pytest.mark.parametrize("name", WINDOWS)
def test_witnesses(name, power):
    check(Case(power_pool, (*WINDOWS[name], power), by_matrices, second_order=power in (1.5, 3.0, inf)))


def seen(window, size, place):
    """The pixels of the window that lie on the map."""
    for tap in np.ndindex(*window.kernel):
        pixel = tuple(
            p * s - a + i * d for p, s, a, i, d in zip(place, window.stride, window.padding[::2], tap, window.dilation, strict=True)
        )
        if all(0 <= h < length for h, length in zip(pixel, size, strict=True)):
            yield pixel


@st.composite
def maps_and_windows(draw):
    axes = draw(st.integers(1, 3))
    kernel, stride = (tuple(draw(st.integers(1, 3)) for _ in range(axes)) for _ in "ks")
    dilation = tuple(draw(st.integers(1, 2)) for _ in range(axes))
    spread = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = tuple(draw(st.integers(0, width - 1)) for width in spread for _ in "ba")
    window = Window(kernel, stride, padding, dilation, draw(st.booleans()))
    size = [max(1, w - a - b) + draw(st.integers(0, 3)) for w, (a, b) in zip(spread, window.sides(), strict=True)]
    return noise(draw(st.integers(1, 2)), draw(st.integers(1, 2)), *size, seed=draw(st.integers(0, 99))), window


@settings(max_examples=200, deadline=None)
@given(maps_and_windows(), st.sampled_from([1.0, 1.7, 2.0, 3.0, 7.5, inf]))
def test_drawn_windows_by_loops(drawn, power):
    (x, window), values = drawn, drawn[0].detach().numpy()
    y, saved = power_pool.explain(x, window, power)
    dy = noise(*y.shape, seed=5, grad=False)
    dx = np.zeros(values.shape)
    for place in np.ndindex(*y.shape):
        pixels = [(*place[:2], *pixel) for pixel in seen(window, x.shape[2:], place[2:])]
        sizes = np.array([abs(values[pixel]) for pixel in pixels] or [0.0])
        expected = sizes.max() if power == inf else (sizes**power).sum() ** (1 / power)
        assert y[place].item() == pytest.approx(expected, rel=1e-12)
        for number, pixel in enumerate(pixels):
            share = number == sizes.argmax() if power == inf else (sizes[number] / expected) ** (power - 1)
            dx[pixel] += dy[place].item() * np.sign(values[pixel]) * share
    assert np.allclose(power_pool.plain.backward(dy, saved).detach().numpy(), dx, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("power", "expected"), [(1, 4), (2, 2), (2.3, 4 ** (1 / 2.3)), (3, 1.5874010519681994), (inf, 1)])
def test_signs_do_not_matter_whatever_p(power, expected):
    x = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]], dtype=torch.float64)
    assert LPPool2d(power, 2)(x).item() == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("power", [1.5, 2, 3.3, 50, 1000])
@pytest.mark.parametrize("unit", [1e-38, 1e-20, 1e20, 1e37])
def test_large_and_tiny_values_neither_overflow_nor_vanish(unit, power):
    x = torch.tensor([[[3.0, -4.0, 0.0, 1.0]]]).mul(unit).requires_grad_()
    y = LPPool1d(power, 4)(x)
    y.backward(torch.ones_like(y))
    assert y.item() / unit == pytest.approx((3.0**power + 4.0**power + 1) ** (1 / power) if power < 100 else 4, rel=2e-6)
    assert x.grad is not None and x.grad[0, 0, 1].item() == pytest.approx(-((4 / (y.item() / unit)) ** (power - 1)), rel=1e-4)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 3.0, inf])
def test_an_empty_window_has_no_slope_and_no_bend(power):
    x = torch.zeros(1, 1, 4, dtype=torch.float64, requires_grad=True)
    y = power_pool(x, Window((2,), (2,)), power)
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert y.tolist() == [[[0, 0]]] and dx.tolist() == [[[0] * 4]]
    assert not dx.requires_grad or torch.autograd.grad(dx.sum(), x)[0].tolist() == [[[0] * 4]]
    traced = torch.func.grad(lambda x: power_pool(x, Window((2,), (2,)), power).sum())(torch.tensor([[[0.0, 0.0, 0.0, -2.0]]]))
    assert traced.tolist() == [[[0, 0, 0, -1]]]


def test_of_equal_sizes_the_first_wins_at_infinity():
    x = torch.tensor([[[-2.0, 2.0, 1.0, -1.0]]], requires_grad=True)
    LPPool1d(inf, 2)(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[[-1, 0, 1, 0]]]


@pytest.mark.parametrize("power", [1.0, 2.5, inf])
def test_nan_and_infinity_are_passed_on_in_their_window_alone(power):
    y = LPPool1d(power, 2)(torch.tensor([[[nan, 1.0, -inf, 1.0, 3.0, 0.0]]]))
    assert y[0, 0].isnan().tolist() == [True, False, False] and y[0, 0, 1:].tolist() == [inf, pytest.approx(3)]


@pytest.mark.parametrize(
    ("ours", "theirs", "settings", "shape"),
    [
        (LPPool1d, torch_nn.LPPool1d, (2.0, 3, 2), (2, 3, 8)),
        (LPPool1d, torch_nn.LPPool1d, (4, 2, None, True), (3, 8)),
        (LPPool2d, torch_nn.LPPool2d, (2.0, (3, 2), (2, 1)), (2, 3, 7, 8)),
        (LPPool2d, torch_nn.LPPool2d, (inf, 3, 2, True), (2, 3, 7, 8)),
        (LPPool2d, torch_nn.LPPool2d, (4.0, 2), (3, 6, 8)),
        (LPPool3d, torch_nn.LPPool3d, (2.0, (2, 1, 2), 1), (2, 3, 3, 4, 2)),
    ],
)
def test_stands_in_for_torch_where_torch_is_right(ours, theirs, settings, shape):
    layer = ours(*settings)
    check_drop_in(layer, theirs(*settings), noise(*shape))
    assert layer.last_route == "plain"


def test_what_torch_lacks():
    layer = LPPool2d(1, 3, 1, True, padding=(1, 0), dilation=(1, 2))
    assert repr(layer) == "LPPool2d(norm_type=1, kernel_size=3, stride=1, ceil_mode=True, padding=(1, 0), dilation=(1, 2))"
    with twofold.route("vendor"):  # there is none, so it is ours
        assert LPPool1d(1, 2, padding=(1, 0))(torch.tensor([[[1.0, 2, 4]]])).tolist() == [[[1, 6]]]
        assert LPPool1d(1, 2, padding="same_upper")(torch.tensor([[[1.0, 2, 4]]])).tolist() == [[[3, 4]]]
    last = LPPool1d(2, 2, ceil_mode=True)(torch.tensor([[[3.0, -4.0, 7.0]]]))
    assert last.tolist() == [[[5, 7]]]  # torch: 7 sqrt 2


def test_a_setting_that_is_changed_counts_from_the_next_call():
    layer = LPPool1d(1, 2)
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    assert layer(x).tolist() == [[[3, 7]]]
    layer.kernel_size, layer.norm_type = 4, 2
    assert layer(x).item() == pytest.approx(30**0.5)


def test_an_empty_batch():
    x = torch.zeros(0, 3, 4, 4, requires_grad=True)
    y = LPPool2d(3, 2)(x)
    y.sum().backward()
    assert y.shape == (0, 3, 2, 2) and x.grad is not None and x.grad.shape == x.shape


def changed(share):
    """A backward pass with another share of every tap."""

    def backward(dy, saved):
        x, y, window, power = saved
        columns = unfold(x, window)
        return fold(dy.unsqueeze(2) * share(columns, y.unsqueeze(2), power), window, x.shape[2:])

    return backward


MUTANTS = {
    "as torch has it": (lambda x, w, p: (unfold(x, w).pow(p).sum(2) ** (1 / p), page.forward(x, w, p)[1]), page.backward),
    "the mean": (lambda x, w, p: (page.forward(x, w, p)[0] / w.taps ** (1 / p), page.forward(x, w, p)[1]), page.backward),
    "without the root": (lambda x, w, p: (page.forward(x, w, p)[0] ** p, page.forward(x, w, p)[1]), page.backward),
    "padding of ones": (lambda x, w, p: ((unfold(x, w, 1).abs() ** p).sum(2) ** (1 / p), page.forward(x, w, p)[1]), page.backward),
    "without the sign": (page.forward, changed(lambda x, y, p: (x.abs() / y) ** (p - 1))),
    "power p": (page.forward, changed(lambda x, y, p: x.sign() * (x.abs() / y) ** p)),
    "not divided by y": (page.forward, changed(lambda x, y, p: x.sign() * x.abs() ** (p - 1))),
    "times p": (page.forward, changed(lambda x, y, p: p * x.sign() * (x.abs() / y) ** (p - 1))),
    "taps in reverse": (page.forward, changed(lambda x, y, p: (x.sign() * (x.abs() / y) ** (p - 1)).flip(2))),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_variants_are_caught(name):
    case = Case(differentiable(*MUTANTS[name]), (*WINDOWS["ceil, uneven padding"], 3.0), by_matrices)
    with pytest.raises(AssertionError):
        check_expression(case)
    if MUTANTS[name][0] is page.forward:
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(case)


POWER = "expected norm_type, the power p, of at least 1 (float('inf') for the largest absolute value), got "
BAD = {
    "p 0": (lambda: LPPool2d(0, 2), f"LPPool2d: {POWER}0: at 0 the root 1/p does not exist"),
    "p below 1": (lambda: LPPool1d(0.5, 2), f"LPPool1d: {POWER}0.5"),
    "p below 0": (lambda: LPPool3d(-inf, 2), f"LPPool3d: {POWER}-inf"),
    "p nan": (lambda: LPPool2d(nan, 2), f"{POWER}nan"),
    "p text": (lambda: LPPool2d("2", 2), f"{POWER}'2'"),
    "kernel": (lambda: LPPool2d(2, 0), "LPPool2d: expected kernel_size to be one whole number or two, from 1 to 2147483647, got 0."),
    "padding": (lambda: LPPool1d(2, 2, padding=2), "LPPool1d: expected padding of at most half the kernel 2, got 2"),
    "dilation": (lambda: LPPool3d(2, 3, dilation=2**62), "LPPool3d: expected dilation to be one whole number or 3, from 1 to 2147483647"),
    "whole numbers": (lambda: LPPool2d(2, 2)(torch.zeros(1, 2, 4, 4).long()), "LPPool2d input: expected floating point, got int64."),
    "rank": (lambda: LPPool2d(2, 2)(torch.zeros(4, 4)), "LPPool2d input: expected (B, C, H, W), got (4, 4): 2 axes, not 4."),
    "too small": (lambda: LPPool2d(2, 3)(torch.zeros(1, 1, 5, 2)), "LPPool2d input: the kernel 3x3 does not fit into the padded map 5x2"),
    "columns": (
        lambda: LPPool2d(2, 16, 1)(torch.zeros(1).expand(512, 512, 32, 32)),  # it takes no room
        "power_pool: expected columns of at most 2147483647 numbers, got 512x512x256x17x17 = 19394461696.",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
