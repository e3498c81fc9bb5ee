"""The geometry of sliding windows: sizes, im2col and its adjoint, and what cannot be."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from twofold.layers.check import noise
from twofold.space.windows import LIMIT, Window, fold, unfold, whole_numbers


@st.composite
def windows(draw):
    def pair(least, most):
        return st.tuples(st.integers(least, most), st.integers(least, most))

    kernel = draw(pair(1, 4))
    sides = tuple(draw(st.integers(0, 3)) for _ in range(4))
    return Window(kernel, draw(pair(1, 4)), sides, draw(pair(1, 3)), draw(st.booleans()))


def count_by_walking(size, before, after, taps, stride, dilation, ceil):
    """Step by step, as long as the window lies in the padded axis; with ceil as long as something was left over and it begins in time."""
    reach = dilation * (taps - 1)
    number, start = 0, -before
    while (start - stride + reach < size + after - 1 and start < size) if ceil else start + reach < size + after:
        number, start = number + 1, start + stride
    return number


@given(window=windows(), size=st.tuples(st.integers(1, 12), st.integers(1, 12)))
@settings(max_examples=500, deadline=None)
def test_the_number_of_windows_is_that_of_walking(window, size):
    top, bottom, left, right = window.padding
    walked = [
        count_by_walking(n, before, after, *axis, window.ceil)
        for n, before, after, axis in zip(
            size, (top, left), (bottom, right), zip(window.kernel, window.stride, window.dilation, strict=True), strict=True
        )
    ]
    if min(walked) >= 1:
        assert window.output_size(size) == tuple(walked)
    else:
        with pytest.raises(ValueError, match="does not fit into the padded map"):
            window.output_size(size)


@given(window=windows(), size=st.tuples(st.integers(1, 9), st.integers(1, 9)))
@settings(max_examples=150, deadline=None)
def test_unfold_puts_every_tap_where_the_law_says_and_fold_is_its_adjoint(window, size):
    try:
        rows, columns = window.output_size(size)
    except ValueError:
        return
    x = noise(2, 3, *size, grad=False)
    got = unfold(x, window, fill=7.0)
    expected = np.full((2, 3, window.taps, rows, columns), 7.0)
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            for p in range(rows):
                for q in range(columns):
                    h = p * window.stride[0] - window.padding[0] + i * window.dilation[0]
                    w = q * window.stride[1] - window.padding[2] + j * window.dilation[1]
                    if 0 <= h < size[0] and 0 <= w < size[1]:
                        expected[:, :, i * window.kernel[1] + j, p, q] = x.numpy()[:, :, h, w]
    assert np.array_equal(got.numpy(), expected)

    y = noise(*got.shape, seed=1, grad=False)
    zeros_outside = unfold(x, window)
    assert torch.allclose((zeros_outside * y).sum(), (x * fold(y, window, size)).sum(), rtol=1e-12, atol=1e-10)


def test_fold_agrees_with_torch():
    columns = noise(2, 3, 6, 4, 5, grad=False)
    window = Window((3, 2), (2, 1), (1, 1, 1, 1), (1, 2))
    ours = fold(columns, window, (8, 5))
    theirs = F.fold(columns.reshape(2, 18, 20), (8, 5), (3, 2), dilation=(1, 2), padding=1, stride=(2, 1))
    assert torch.allclose(ours, theirs, rtol=1e-14)


def test_a_column_that_lies_in_no_window_gets_no_gradient():
    window = Window((2, 2), (2, 2))
    dx = fold(torch.ones(1, 1, 4, 2, 2), window, (5, 4))
    assert dx.shape == (1, 1, 5, 4) and dx[0, 0, 4].tolist() == [0, 0, 0, 0] and dx[0, 0, :4].eq(1).all()


def test_ceil_drops_a_window_that_would_begin_in_the_padding_behind():
    assert Window((2, 2), (3, 3), (1, 1, 1, 1), ceil=True).output_size((3, 4)) == (2, 2)
    assert Window((3, 3), (2, 2), ceil=True).output_size((2, 2)) == (1, 1)


def test_a_window_is_a_value():
    window = Window((3, 2), (2, 1))
    assert window == Window((3, 2), (2, 1)) and hash(window) == hash(Window((3, 2), (2, 1)))
    assert pickle.loads(pickle.dumps(window)) == window  # noqa: S301 - our own bytes
    assert whole_numbers("Layer", "stride", np.int64(2), 2, 1) == (2, 2)


BAD = {
    "kernel 0": (lambda: Window((0, 1)), "Window: expected kernel to be one whole number or two, from 1 to 2147483647, got (0, 1)."),
    "half a step": (lambda: Window((2, 2), stride=(1, 2.5)), "Window: expected stride"),
    "padding -1": (lambda: Window((2, 2), padding=(0, 0, -1, 0)), "expected padding to be one whole number or 4, from 0 to"),
    "truth": (lambda: Window((True, 2)), "got (True, 2)"),
    "three": (lambda: Window((2, 2), stride=(2, 2, 2)), "got (2, 2, 2)"),
    "overflow": (lambda: Window((2, 2), dilation=(1, 2**62)), f"from 1 to {LIMIT}, got (1, {2**62})"),
    "does not fit": (
        lambda: Window((5, 5), dilation=(2, 2)).output_size((4, 6), "Conv2d input"),
        "Conv2d input: the kernel 5x5 (dilated 9x9) does not fit into the padded map 4x6 (map 4x6, padding 0+0, 0+0). "
        "Use larger maps, more padding, or fewer layers that shrink the map before this one.",
    ),
    "empty map": (lambda: Window((1, 1), padding=(1, 1, 1, 1)).output_size((0, 5)), "expected maps of at least 1x1, got 0x5."),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
