"""The compiled Lp pooling beside its law in float64: every p, sign and size of numbers, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold import kernels
from twofold.kernels import power_pool
from twofold.space.windows import Window

needs_library = pytest.mark.skipif(not kernels.available(), reason=kernels.reason())
POWERS = (1.0, 1.3, 2.0, 2.3, 3.0, 4.0, 17.5)


@st.composite
def cases(draw):
    """A window, a shape that it fits, p, the size of the numbers, a seed."""
    kernel = draw(st.one_of(st.sampled_from([(2, 2), (3, 3)]), st.tuples(st.integers(1, 5), st.integers(1, 5))))
    stride = draw(st.one_of(st.sampled_from([(1, 1), (2, 2), kernel]), st.tuples(st.integers(1, 4), st.integers(1, 4))))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3)]))
    padding = draw(st.tuples(*[st.integers(0, 3)] * 4))
    least = [max(d * (k - 1) + 1 - padding[2 * n] - padding[2 * n + 1], 1) for n, (k, d) in enumerate(zip(kernel, dilation, strict=True))]
    shape = (
        draw(st.integers(0, 2)),
        draw(st.integers(1, 3)),
        draw(st.integers(least[0], least[0] + 8)),
        draw(st.integers(least[1], least[1] + 40)),
    )
    scale = draw(st.sampled_from([1.0, 1.0, 1e30, 1e-30]))
    return (
        Window(kernel, stride, padding, dilation, draw(st.booleans())),
        shape,
        draw(st.sampled_from(POWERS)),
        scale,
        draw(st.integers(0, 10**6)),
    )


def columns(x, window):
    """What tap k of window (p,q) sees, (B, C, K, P, Q)."""
    framed = F.pad(x, window.frame(x.shape[2:]))
    seen = F.unfold(framed, window.kernel, window.dilation, 0, window.stride)
    return seen.reshape(*x.shape[:2], window.taps, *window.output_size(x.shape[2:]))


def reference(x, dy, window, p):
    """The law in float64: y, and dx as what every tap receives, folded back by autograd."""
    x = x.double().requires_grad_()
    seen = columns(x, window)
    largest = seen.detach().abs().amax(2, keepdim=True)
    y = ((seen.detach().abs() / largest.where(largest > 0, 1)) ** p).sum(2) ** (1 / p) * largest.squeeze(2)
    ratio = seen.detach().abs() / y.where(y > 0, 1).unsqueeze(2)
    share = torch.where(seen == 0, 0, seen.detach().sign() * ratio ** (p - 1)) * dy.double().unsqueeze(2)
    return y, torch.autograd.grad(seen, x, share)[0]


def agree(window, shape, p, scale, seed):
    numbers = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=numbers) * scale * 10 ** (2 * torch.randn(shape, generator=numbers)).clamp(-3, 3)
    if seed % 3 == 0:
        x[torch.rand(shape, generator=numbers) < 0.5] = 0
    dy = torch.randn(*shape[:2], *window.output_size(shape[2:]), generator=numbers)
    assert power_pool.unfit(x, window, p) == ""
    y = power_pool.forward(x, window, p)
    dx = power_pool.backward(dy, x, y, window, p)
    expected, gradient = reference(x, dy, window, p)
    assert ((y - expected).abs() <= 1e-6 * expected).all(), (window, shape, p, scale, seed)
    spread = F.pad(dy.abs(), (0, 0)).max() if dy.numel() else 0
    assert ((dx - gradient).abs() <= (1e-6 + 1e-7 * p) * spread * window.taps).all(), (window, shape, p, scale, seed)


@needs_library
@given(case=cases())
@settings(max_examples=300, deadline=None)
def test_the_compiled_form_is_the_law(case):
    agree(*case)


FIXED = [
    (Window((side, side), (stride, stride), (pad,) * 4), (2, 2, height, width), p, 1.0, 3)
    for side, stride, pad in ((2, 2, 0), (3, 2, 1), (3, 1, 1), (3, 3, 0))
    for height, width in ((7, 7), (12, 28), (5, 67))
    for p in POWERS
]


def in_a_process_of_its_own():
    for case in FIXED:
        agree(*case)


@needs_library
def test_fixed_cases():
    in_a_process_of_its_own()


@needs_library
@pytest.mark.parametrize("p", [*POWERS, 300.0])
def test_one_tap_is_its_size_and_equal_taps_are_a_root(p):
    x = torch.tensor([[[[-3.0, 5e-39, 1e38, 0.0, -1e-45]]]])
    single = Window((1, 1))
    y = power_pool.forward(x, single, p)
    torch.testing.assert_close(y, x.abs(), rtol=2e-7, atol=0)
    torch.testing.assert_close(power_pool.backward(torch.ones_like(y), x, y, single, p)[..., [0, 2]], torch.tensor([[[[-1.0, 1.0]]]]))
    alike = power_pool.forward(torch.full((1, 1, 3, 3), -7.0), Window((3, 3)), p)
    assert abs(alike.item() / (7 * 9 ** (1 / p)) - 1) < 3e-7


@needs_library
@pytest.mark.parametrize("p", POWERS)
def test_nan_and_infinity_are_seen(p):
    x = torch.tensor([[[[1.0, float("nan"), 2.0, 3.0, float("-inf"), 4.0, 0.0, 0.0]]]])
    window = Window((1, 2), (1, 2))
    y = power_pool.forward(x, window, p)
    assert y.isnan().flatten().tolist() == [True, False, False, False]
    assert y.flatten()[2:].tolist() == [float("inf"), 0.0]
    dx = power_pool.backward(torch.ones_like(y), x, y, window, p).flatten()
    assert (dx[0].isnan() or p == 1) and dx[5] == (p == 1) and dx[6:].tolist() == [0, 0] and not dx[2:4].isnan().any()


@needs_library
def test_pixels_that_no_window_sees_receive_nothing_even_if_they_are_nan():
    x = torch.full((1, 1, 5, 5), float("nan"))
    x[..., :4, :4] = 1
    for p in POWERS:
        for window in (Window((2, 2), (2, 2)), Window((2, 1), (1, 3), (0, 0, 0, 0), (3, 1))):
            y = power_pool.forward(x, window, p)
            dx = power_pool.backward(torch.ones_like(y), x, y, window, p)
            seen = columns(torch.ones_like(x).requires_grad_(), window)
            assert dx[..., 4, :].isnan().any() == (window.dilation[0] == 3 and p > 1)
            assert not dx[..., :, [1, 2] if window.stride[1] == 3 else [4]].any() and seen.numel()


X = torch.ones(1, 2, 4, 4)
UNFIT = {
    "signals": (X[0], 2.0, "needs maps of four axes (B, C, H, W), not of 3"),
    "infinity": (X, float("inf"), "needs a finite power"),
    "double": (X.double(), 2.0, "needs float32 on the CPU, not float64 on cpu"),
    "layout": (X.to(memory_format=torch.channels_last), 2.0, "needs a contiguous map in the order (B, C, H, W)"),
}


@needs_library
@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_told(name):
    x, p, reason = UNFIT[name]
    assert power_pool.unfit(x, Window((2, 2)), p) == reason


GEOMETRY = [2, 2, 2, 2, 2, 2, 0, 0, 1, 1]
BROKEN = {
    "power": (X, GEOMETRY, 0.5, "expected an exponent of at least 1, got 0.5"),
    "number": (X, GEOMETRY[:9], 2.0, "expected 10 numbers of geometry, got 9"),
    "layout": (X.to(memory_format=torch.channels_last), GEOMETRY, 2.0, "expected contiguous float32 maps"),
}


@needs_library
@pytest.mark.parametrize("name", BROKEN)
def test_the_operator_guards_its_memory(name):
    *arguments, words = BROKEN[name]
    with pytest.raises(ValueError, match=words):
        torch.ops.twofold.power_pool2d(*arguments)


@needs_library
def test_backward_guards_its_memory():
    y = torch.ones(1, 2, 2, 2)
    with pytest.raises(ValueError, match="do not belong together"):
        torch.ops.twofold.power_pool2d_backward(y, X, X, GEOMETRY, 2.0)
