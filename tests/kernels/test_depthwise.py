"""The compiled depthwise correlation beside PyTorch's own in float64: every size of kernel, stride and padding, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold import kernels
from twofold.kernels import depthwise
from twofold.space.windows import Window

needs_library = pytest.mark.skipif(not kernels.available(), reason=kernels.reason())


@st.composite
def cases(draw):
    """A window; (B, C, M, H, W) of which it fits, with M filters for each channel; whether there is a bias; a seed."""
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    side = draw(st.sampled_from([2, 3, 5]))
    dense, free = st.just((side, side)), st.tuples(st.integers(1, 6), st.integers(1, 6))
    kernel, stride = draw(st.one_of(dense, free)), draw(st.one_of(st.sampled_from([(1, 1), (2, 2)]), pairs))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3)]))
    padding = draw(st.tuples(*[st.integers(0, 4)] * 4))
    least = [max(d * (k - 1) + 1 - padding[2 * n] - padding[2 * n + 1], 1) for n, (k, d) in enumerate(zip(kernel, dilation, strict=True))]
    size = draw(st.integers(least[0], least[0] + 9)), draw(st.integers(least[1], least[1] + 40))
    counts = draw(st.integers(0, 3)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3]))
    return Window(kernel, stride, padding, dilation), (*counts, *size), draw(st.booleans()), draw(st.integers(0, 10**6))


def given_arrays(shape, window, has_bias, seed, whole):
    """x, weight, bias, dy; of whole numbers if asked for, so that sums are exact."""
    batch, channels, multiplier, *size = shape
    numbers = torch.Generator().manual_seed(seed)
    sizes = [(batch, channels, *size), (channels * multiplier, 1, *window.kernel), (channels * multiplier,)]
    sizes.append((batch, channels * multiplier, *window.output_size(tuple(size))))
    x, weight, bias, dy = (
        torch.randint(-4, 5, n, generator=numbers).float() if whole else torch.randn(n, generator=numbers) for n in sizes
    )
    return x, weight, bias if has_bias else None, dy


def reference(x, weight, bias, dy, window):
    """y and the gradients of x, weight and bias by PyTorch, in float64."""
    inputs = [t.double().requires_grad_() for t in (x, weight, bias) if t is not None]
    top, bottom, left, right = window.padding
    framed = F.pad(inputs[0], (left, right, top, bottom))
    y = F.conv2d(framed, *inputs[1:], stride=window.stride, dilation=window.dilation, groups=x.shape[1])
    return y.detach(), *torch.autograd.grad(y, inputs, dy.double())


def agree(window, shape, has_bias, seed, whole):
    x, weight, bias, dy = given_arrays(shape, window, has_bias, seed, whole)
    assert depthwise.unfit(x, weight, bias, window, x.shape[1]) == ""
    dx, dweight, dbias = depthwise.backward(dy, x, weight, window)
    ours = (depthwise.forward(x, weight, bias, window), dx, dweight, *([dbias] if has_bias else []))
    without_signs = reference(*(None if t is None else t.abs() for t in (x, weight, bias, dy)), window)
    for mine, theirs, most in zip(ours, reference(x, weight, bias, dy, window), without_signs, strict=True):
        assert mine.shape == theirs.shape and mine.is_contiguous()
        assert ((mine - theirs).abs() <= (0 if whole else 2e-6) * most).all(), (window, shape, has_bias, seed, whole)


@needs_library
@given(case=cases(), whole=st.booleans())
@settings(max_examples=300, deadline=None)
def test_the_compiled_form_is_the_law(case, whole):
    agree(*case, whole)


# Narrow, one vector, several with a rest; more rows than stay in the cache; a map for every branch of the kernels.
FIXED = [
    (Window((side, side), (stride, stride), (side // 2,) * 4, (dilation, dilation)), (2, 2, multiplier, height, width), True, 3, whole)
    for side, stride, dilation, multiplier in (
        (3, 1, 1, 1),
        (3, 2, 1, 1),
        (5, 1, 1, 1),
        (5, 2, 1, 1),
        (2, 2, 1, 1),
        (3, 1, 2, 2),
        (4, 3, 1, 1),
    )
    for height, width in ((7, 7), (12, 28), (19, 67), (3, 40))
    for whole in (False, True)
]
FIXED.append((Window((3, 3), (1, 1), (1, 1, 1, 1)), (1, 1, 1, 300, 301), False, 4, True))


def in_a_process_of_its_own():
    for case in FIXED:
        agree(*case)


@needs_library
def test_fixed_cases():
    in_a_process_of_its_own()


@needs_library
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_nan_reaches_what_sees_it_and_nothing_else(stride):
    window = Window((3, 3), (stride, stride), (1, 1, 1, 1))
    x, weight, _, dy = given_arrays((2, 3, 1, 11, 38), window, False, 1, False)
    x[0, 1, 4, 37] = float("nan")
    ours = (depthwise.forward(x, weight, None, window), *depthwise.backward(dy, x, weight, window)[:2])
    for mine, theirs in zip(ours, reference(x, weight, None, dy, window), strict=True):
        assert mine.isnan().equal(theirs.isnan())
    assert ours[2].isnan().any() and not ours[2].isnan().all()


@needs_library
def test_what_nobody_wants_is_not_computed():
    window = Window((3, 3), (1, 1), (1, 1, 1, 1))
    x, weight, _, dy = given_arrays((2, 3, 2, 5, 6), window, False, 1, False)
    dx, dweight, dbias = depthwise.backward(dy, x, weight, window)
    only_dx, none, neither = depthwise.backward(dy, x, weight, window, wants_weight=False)
    assert none is neither is None and only_dx.equal(dx)
    nothing, only_dweight, only_dbias = depthwise.backward(
        dy.transpose(2, 3).contiguous().transpose(2, 3), x, weight, window, wants_input=False
    )
    assert nothing is None and only_dweight.equal(dweight) and only_dbias.equal(dbias)


X, W = torch.zeros(1, 4, 5, 5), torch.zeros(4, 1, 3, 3)
UNFIT = {
    "signals": (X[0], W, None, 4, "needs maps of four axes (B, C, H, W), not of 3"),
    "groups": (X, W, None, 2, "needs a group for every channel, not 2 for 4"),
    "weight": (X, W.double(), None, 4, "needs float32 on the CPU, not float64 on cpu"),
    "bias": (X, W, torch.zeros(8)[::2], 4, "needs a contiguous map in the order (B, C, H, W)"),
    "layout": (X.to(memory_format=torch.channels_last), W, None, 4, "needs a contiguous map in the order (B, C, H, W)"),
}


@needs_library
@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_told(name):
    *arguments, groups, reason = UNFIT[name]
    assert depthwise.unfit(*arguments, Window((3, 3)), groups) == reason


GEOMETRY = [3, 3, 3, 3, 1, 1, 0, 0, 1, 1]
BROKEN = {
    "number": (X, W, None, GEOMETRY[:9], "expected 10 numbers of geometry, got 9"),
    "stride": (X, W, None, [*GEOMETRY[:4], 0, *GEOMETRY[5:]], "a size of 0 is out of range"),
    "padding": (X, W, None, [*GEOMETRY[:6], -1, *GEOMETRY[7:]], "padding of -1 is out of range"),
    "overflow": (X, W, None, [2**30, 2**30, *GEOMETRY[2:]], "a map or a kernel of 2147483648 numbers or more"),
    "reach": (X, W, None, [*GEOMETRY[:8], 2**31 - 1, 2**31 - 1], "are too large"),
    "kernel": (X, W[:, :, :2].contiguous(), None, GEOMETRY, "do not belong together"),
    "filters": (X, W[:3], None, GEOMETRY, "do not belong together"),
    "bias": (X, W, torch.zeros(3), GEOMETRY, "a contiguous float32 bias of one number for each filter"),
}


@needs_library
@pytest.mark.parametrize("name", BROKEN)
def test_the_operator_guards_its_memory(name):
    *arguments, words = BROKEN[name]
    with pytest.raises(ValueError, match=words):
        torch.ops.twofold.depthwise2d(*arguments)


@needs_library
def test_backward_guards_its_memory():
    with pytest.raises(ValueError, match="do not belong together"):
        torch.ops.twofold.depthwise2d_backward(torch.zeros(1, 4, 2, 3), X, W, GEOMETRY, True, True)
