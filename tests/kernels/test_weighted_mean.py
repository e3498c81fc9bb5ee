"""The compiled weighted mean beside an expression in float64: every window, what counts, both layouts, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold import kernels
from twofold.kernels import weighted_mean
from twofold.space.windows import Window

needs_library = pytest.mark.skipif(not kernels.available(), reason=kernels.reason())


@st.composite
def cases(draw):
    """A window whose taps are mostly on the map, a shape that it fits, what counts, the layout, a seed."""
    side = draw(st.sampled_from([2, 3, 5]))
    kernel = draw(st.one_of(st.just((side, side)), st.tuples(st.integers(1, 7), st.integers(1, 9))))
    stride = draw(st.one_of(st.sampled_from([(1, 1), (2, 2), kernel]), st.tuples(st.integers(1, 4), st.integers(1, 4))))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3)]))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel for _ in range(2))
    least = [max(d * (k - 1) + 1 - padding[2 * n] - padding[2 * n + 1], d) for n, (k, d) in enumerate(zip(kernel, dilation, strict=True))]
    shape = draw(st.integers(0, 3)), draw(st.sampled_from([1, 3, 5, 9, 20])), *(draw(st.integers(n, n + 30)) for n in least)
    divisor = draw(st.sampled_from([None, None, 3.0]))
    window = Window(kernel, stride, padding, dilation, draw(st.booleans()))
    return window, shape, draw(st.booleans()), divisor, draw(st.booleans()), draw(st.integers(0, 10**6))


def along(axis, size, window, weights, count_padding):
    """An axis of the law as a matrix (P, H) of weights, and what each window is divided by (P)."""
    before, after = window.sides()[axis]
    g = torch.tensor(weights, dtype=torch.float64)
    first = torch.arange(window.output_size(size)[axis]) * window.stride[axis] - before
    place_PI = first[:, None] + torch.arange(window.kernel[axis]) * window.dilation[axis]
    matrix = ((place_PI[:, :, None] == torch.arange(size[axis])) * g[:, None]).sum(1)
    counts = (place_PI >= -before) & (place_PI < size[axis] + after) if count_padding else (place_PI >= 0) & (place_PI < size[axis])
    return matrix, (counts * g).sum(1)


def agree(window, shape, count_padding, divisor, last, seed, whole=False):
    numbers = torch.Generator().manual_seed(seed)
    draw = (lambda *n: torch.randint(-4, 5, n, generator=numbers).float()) if whole else (lambda *n: torch.randn(n, generator=numbers))
    weights = tuple([1.0] * k if whole else (torch.rand(k, generator=numbers) + 0.1).tolist() for k in window.kernel)
    layout = torch.channels_last if last else torch.contiguous_format
    size = shape[2:]
    x, dy = draw(*shape).contiguous(memory_format=layout), draw(*shape[:2], *window.output_size(size)).contiguous(memory_format=layout)
    (rows, n_rows), (across, n_across) = (along(axis, size, window, weights[axis], count_padding) for axis in (0, 1))
    n = n_rows[:, None] * n_across if divisor is None else divisor
    assert weighted_mean.unfit(x) == ""
    y = weighted_mean.forward(x, window, weights, count_padding, divisor)
    dx = weighted_mean.backward(dy, window, size, weights, count_padding, divisor)
    for mine, theirs, like in ((y, rows @ x.double() @ across.T / n, x), (dx, rows.T @ (dy.double() / n) @ across, dy)):
        allowed = (0 if whole and mine is y else 1e-6) * (theirs.abs().max() if theirs.numel() else 0)
        expected = theirs.float() if whole and mine is y else theirs
        assert mine.shape == theirs.shape and ((mine - expected).abs() <= allowed).all(), (
            window,
            shape,
            count_padding,
            divisor,
            last,
            seed,
        )
        assert mine.is_contiguous(memory_format=layout) or like.is_contiguous()


@needs_library
@given(case=cases())
@settings(max_examples=300, deadline=None)
def test_the_compiled_form_is_the_law(case):
    agree(*case)


FIXED = [
    (Window((side, side), (stride, stride), (side // 2,) * 4), (2, channels, height, width), count_padding, None, last, 3, whole)
    for side, stride in ((2, 2), (3, 1), (3, 2), (5, 2), (6, 6), (7, 2))
    for channels, height, width in ((1, 9, 28), (6, 12, 16), (33, 7, 67))
    for count_padding, last, whole in ((True, False, True), (False, False, False), (False, True, True), (True, True, False))
]


def in_a_process_of_its_own():
    for case in FIXED:
        agree(*case)


@needs_library
def test_fixed_cases_and_means_of_whole_numbers_that_are_rounded_once():
    in_a_process_of_its_own()


@needs_library
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("side", [3, 6])
def test_nan_reaches_the_windows_that_see_it_and_nothing_else(layout, side):
    window = Window((side, side), (2, 2), (1, 1, 1, 1))
    x = torch.randn(2, 5, 12, 40)
    x[1, 2, 5, 39] = float("nan")
    y = weighted_mean.forward(x.contiguous(memory_format=layout), window, ([1.0] * side, [0.5] * side), True)
    assert y.isnan().equal(F.max_pool2d(F.pad(x, (1, 1, 1, 1)), side, 2).isnan()) and y.isnan().any()


@needs_library
def test_a_gradient_that_lies_strangely_in_memory():
    window, weights = Window((2, 2), (2, 2)), ([1.0, 2.0], [3.0, 4.0])
    dy = torch.randn(2, 3, 4, 5)
    strange = torch.randn(2, 3, 4, 10)[..., ::2].copy_(dy)
    assert weighted_mean.backward(strange, window, (8, 10), weights, True).equal(weighted_mean.backward(dy, window, (8, 10), weights, True))


X = torch.zeros(1, 2, 4, 4)
UNFIT = {
    "signals": (X[0], "needs maps of four axes (B, C, H, W), not of 3"),
    "double": (X.double(), "needs float32 on the CPU, not float64 on cpu"),
    "transposed": (X.transpose(2, 3), "needs a contiguous map in the order (B, C, H, W), or channels last"),
}


@needs_library
@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_told(name):
    x, reason = UNFIT[name]
    assert weighted_mean.unfit(x) == reason


GEOMETRY, ONES, NONE = [2, 2, 2, 2, 2, 2, 0, 0, 1, 1], [1.0, 1.0], [0, 0, 0, 0]
BROKEN = {
    "weights": (X, GEOMETRY, [1.0], ONES, NONE, 0.0, "expected 2 and 2 weights and 4 sides, got 1, 2 and 4"),
    "sides": (X, GEOMETRY, ONES, ONES, [0], 0.0, "expected 2 and 2 weights and 4 sides, got 2, 2 and 1"),
    "windows": (X, [0, *GEOMETRY[1:]], ONES, ONES, NONE, 0.0, "a size of 0 is out of range"),
    "layout": (X.transpose(2, 3), GEOMETRY, ONES, ONES, NONE, 0.0, "without gaps in memory"),
}


@needs_library
@pytest.mark.parametrize("name", BROKEN)
def test_the_operator_guards_its_memory(name):
    *arguments, words = BROKEN[name]
    with pytest.raises(ValueError, match=words):
        torch.ops.twofold.mean_pool2d(*arguments)


@needs_library
def test_backward_guards_its_memory():
    with pytest.raises(ValueError, match="do not belong together"):
        torch.ops.twofold.mean_pool2d_backward(X, GEOMETRY, ONES, ONES, NONE, 0.0, 4, 4)
