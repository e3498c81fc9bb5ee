"""Correlation: the four witnesses in one, two and three axes, independent loops, the textbook's backward pass, wrong variants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import twofold
from twofold.layers.check import Case, check, check_adjoint, check_differences, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.space import correlation, windows
from twofold.space.algorithms import ALGORITHMS, correlate_by
from twofold.space.correlation import convolve, correlate, turned
from twofold.space.padding import last_first
from twofold.space.windows import Window, unfold

OPERATORS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def by_torch(x, weight, bias, window, groups=1):
    framed = F.pad(x, last_first(window.padding))
    return OPERATORS[window.axes](framed, weight, bias, window.stride, 0, window.dilation, groups)


def by_loops(x, weight, bias, window, groups, dy):
    """(y, dx, dweight, dbias): the sums of the law, one product at a time."""
    counts = window.output_size(x.shape[2:])
    filters, per_group, *kernel = weight.shape
    y, dx, dweight = np.zeros((x.shape[0], filters, *counts)), np.zeros_like(x), np.zeros_like(weight)
    for b, f, *p in np.ndindex(*y.shape):
        y[b, f, *p] = bias[f]
        for c, *tap in np.ndindex(per_group, *kernel):
            place = [
                n * s - before + i * d
                for n, s, (before, _), i, d in zip(p, window.stride, window.sides(), tap, window.dilation, strict=True)
            ]
            if all(0 <= h < size for h, size in zip(place, x.shape[2:], strict=True)):
                channel = f // (filters // groups) * per_group + c
                y[b, f, *p] += weight[f, c, *tap] * x[b, channel, *place]
                dx[b, channel, *place] += weight[f, c, *tap] * dy[b, f, *p]
                dweight[f, c, *tap] += dy[b, f, *p] * x[b, channel, *place]
    return y, dx, dweight, dy.sum((0, *range(2, dy.ndim)))


def case(x, weight, window, groups=1, bias=True):
    return noise(*x, seed=1), noise(*weight, seed=2), noise(weight[0], seed=3) if bias else None, window, groups


CASES = {
    "plain": case((2, 2, 5, 6), (3, 2, 3, 2), Window((3, 2))),
    "no bias": case((2, 2, 5, 6), (3, 2, 2, 3), Window((2, 3)), bias=False),
    "stride": case((2, 2, 6, 7), (3, 2, 3, 2), Window((3, 2), (2, 3))),
    "stride beyond the kernel": case((2, 2, 7, 5), (2, 2, 1, 2), Window((1, 2), (3, 1))),
    "padding": case((2, 2, 4, 5), (3, 2, 3, 2), Window((3, 2), padding=(2, 2, 1, 1))),
    "four-sided padding": case((2, 2, 4, 5), (3, 2, 3, 2), Window((3, 2), (1, 2), (0, 2, 1, 3))),
    "padding beyond the kernel": case((1, 2, 2, 3), (2, 2, 1, 2), Window((1, 2), padding=(3, 3, 2, 2))),
    "dilation": case((2, 2, 6, 7), (3, 2, 3, 2), Window((3, 2), dilation=(2, 3))),
    "everything": case((2, 4, 5, 3), (6, 2, 3, 2), Window((3, 2), (2, 1), (1, 2, 0, 2), (1, 2)), 2),
    "groups": case((2, 6, 4, 5), (4, 3, 2, 2), Window((2, 2)), 2),
    "depthwise with multiplier and stride": case((2, 3, 5, 4), (6, 1, 3, 2), Window((3, 2), (2, 1)), 3),
    "one pixel": case((2, 3, 1, 1), (2, 3, 1, 1), Window((1, 1))),
    "output of one": case((2, 2, 3, 4), (2, 2, 3, 4), Window((3, 4))),
    "last column dropped": case((2, 2, 5, 6), (2, 2, 2, 3), Window((2, 3), (2, 2))),
    "signal": case((2, 4, 9), (6, 2, 3), Window((3,), (2,), (1, 3), (2,)), 2),
    "volume": case((1, 2, 4, 3, 5), (2, 2, 2, 1, 3), Window((2, 1, 3), (2, 1, 1), (1, 0, 0, 1, 2, 0), (1, 1, 2))),
    "frozen input": (noise(2, 2, 4, 5, grad=False), *case((2, 2, 4, 5), (3, 2, 2, 3), Window((2, 3)))[1:]),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    x, weight, bias, window, groups = CASES[name]
    check(Case(correlate, (x, weight, bias, window, groups), by_torch, linear=bias is None))


def pairs(axes, low, high):
    return st.tuples(*[st.integers(low, high)] * axes)


@st.composite
def configurations(draw):
    """Any configuration: one-pixel maps, kernels as large as the map, strides beyond the kernel, empty batches, odd layouts."""
    axes = draw(st.sampled_from([1, 2, 2, 3]))
    most = {1: 12, 2: 6, 3: 4}[axes]
    kernel, dilation = draw(pairs(axes, 1, {1: 5, 2: 3, 3: 2}[axes])), draw(pairs(axes, 1, 2))
    window = Window(kernel, draw(pairs(axes, 1, 3)), draw(pairs(2 * axes, 0, 3)), dilation)
    size = [draw(st.integers(max(1, s - b - a), max(most, s))) for s, (b, a) in zip(window.spread, window.sides(), strict=True)]
    groups, batch = draw(st.integers(1, 3)), draw(st.sampled_from([0, 1, 2, 3]))
    channels, filters = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    return (
        (batch, channels, *size),
        (filters, channels // groups, *kernel),
        window,
        groups,
        draw(st.integers(0, 10**6)),
        draw(st.integers(0, 3)),
    )


def laid_out(x, layout):
    """The same numbers, lying differently in memory."""
    if layout == 1 and x.dim() > 1:
        return x.transpose(-1, 1).contiguous().transpose(-1, 1)  # channels last, more or less
    if layout == 2:
        return torch.stack([x, x], -1)[..., 0]
    return x.flip(0).contiguous().flip(0) if layout == 3 else x


def drawn(shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@given(configurations())
@settings(max_examples=500, deadline=None)
def test_plain_is_what_independent_loops_say(configuration):
    x_shape, weight_shape, window, groups, seed, layout = configuration
    x, weight, bias, dy = drawn(
        [x_shape, weight_shape, weight_shape[:1], (x_shape[0], weight_shape[0], *window.output_size(x_shape[2:]))], seed
    )
    truth = by_loops(*(t.numpy() for t in (x, weight, bias)), window, groups, dy.numpy())
    y, saved = correlation.forward(laid_out(x, layout), laid_out(weight, layout), bias, window, groups)
    for got, wanted in zip((y, *correlation.backward(laid_out(dy, layout), saved)), truth, strict=True):
        assert np.allclose(got.numpy(), wanted, rtol=1e-12, atol=1e-12)


@given(configurations())
@settings(max_examples=150, deadline=None)
def test_every_route_and_algorithm_is_the_definition(configuration):
    x_shape, weight_shape, window, groups, seed, layout = configuration
    for dtype, bound in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
        values = [t.to(dtype) for t in drawn([x_shape, weight_shape, weight_shape[:1]], seed)]
        dy = drawn([(x_shape[0], weight_shape[0], *window.output_size(x_shape[2:]))], seed + 1)[0].to(dtype)
        results = {}
        ways = {route: (correlate, route) for route in correlate.routes(*(laid_out(t, layout) for t in values), window, groups)}
        ways |= {name: (ALGORITHMS[name], "plain") for name in ("taps", "fourier")}
        if window.kernel == (3, 3) and window.stride == window.dilation == (1, 1):
            ways["winograd"] = ALGORITHMS["winograd"], "plain"
        for name, (operation, route) in ways.items():
            leaves = [laid_out(t, layout).detach().requires_grad_() for t in values]
            y = operation.by(route, *leaves, window, groups)
            results[name] = [y.detach(), *torch.autograd.grad(y, leaves, dy)]
        scale = [max(1.0, t.abs().max().item()) if t.numel() else 1.0 for t in results["plain"]]
        for name, result in results.items():
            for got, wanted, most in zip(result, results["plain"], scale, strict=True):
                assert torch.allclose(got, wanted, rtol=0, atol=bound * most), (name, dtype)


def exact_shapes(count, seed=0):
    """Shapes for exact arithmetic: every product and sum of small whole numbers is representable in float32."""
    dice = np.random.default_rng(seed)
    while count:
        axes = int(dice.choice([1, 2, 2, 2, 3]))
        groups, kernel = int(dice.integers(1, 4)), tuple(map(int, dice.integers(1, 4, axes)))
        window = Window(
            kernel, *(tuple(map(int, dice.integers(low, high, n))) for low, high, n in ((1, 4, axes), (0, 4, 2 * axes), (1, 3, axes)))
        )
        size = [int(dice.integers(max(1, s - a - b), 9)) for s, (a, b) in zip(window.spread, window.sides(), strict=True) if s - a - b < 9]
        if len(size) < axes:
            continue
        channels, filters = groups * int(dice.integers(1, 4)), groups * int(dice.integers(1, 4))
        yield (int(dice.integers(1, 4)), channels, *size), (filters, channels // groups, *kernel), window, groups
        count -= 1


def test_whole_numbers_are_correlated_exactly_on_every_route():
    generator = torch.Generator().manual_seed(0)
    for x_shape, weight_shape, window, groups in exact_shapes(2000):
        values = [torch.randint(-8, 9, shape, generator=generator).float() for shape in (x_shape, weight_shape, weight_shape[:1])]
        ways = [(correlate, route) for route in correlate.routes(*values, window, groups)] + [(ALGORITHMS["taps"], "plain")]
        results = []
        for operation, route in ways:
            leaves = [t.clone().requires_grad_() for t in values]
            y = operation.by(route, *leaves, window, groups)
            dy = (torch.arange(y.numel()) % 7 - 3).float().reshape(y.shape)
            results.append([y, *torch.autograd.grad(y, leaves, dy)])
        for result in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True)), (x_shape, weight_shape, window, groups)


@pytest.mark.parametrize(("stride", "size"), [((1, 1), (6, 7)), ((2, 2), (7, 8)), ((2, 3), (8, 9))])
def test_dx_is_the_full_correlation_of_dy_with_the_kernel_turned(stride, size):
    x, weight = noise(2, 3, *size, grad=False), noise(4, 3, 3, 2, seed=1, grad=False)
    window = Window((3, 2), stride)
    y, saved = correlation.forward(x, weight, None, window)
    dy = noise(*y.shape, seed=2, grad=False)
    dx, dweight, _ = correlation.backward(dy, saved)

    stuffed = dy.new_zeros(2, 4, (y.shape[2] - 1) * stride[0] + 1, (y.shape[3] - 1) * stride[1] + 1)
    stuffed[:, :, :: stride[0], :: stride[1]] = dy
    full = F.conv2d(F.pad(stuffed, (1, 1, 2, 2)), turned(weight).transpose(0, 1))
    missing = (0, size[1] - full.shape[3], 0, size[0] - full.shape[2])  # rows and columns that no window sees
    assert torch.allclose(dx, F.pad(full, missing), rtol=1e-12, atol=1e-12)

    seen = x[:, :, : stuffed.shape[2] + 2, : stuffed.shape[3] + 1]
    as_kernel = F.conv2d(seen.transpose(0, 1), stuffed.transpose(0, 1)).transpose(0, 1)
    assert torch.allclose(dweight, as_kernel, rtol=1e-12, atol=1e-12)


def test_the_kernel_is_not_flipped():
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    weight = torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]])
    with twofold.route("plain"):
        assert correlate(x, weight, None, Window((2, 2)))[0, 0, 0, 0].item() == 0 * 1 + 1 * 10 + 4 * 100 + 5 * 1000


def test_a_shifted_map_gives_a_shifted_answer():
    x, weight = noise(1, 2, 9, 9, grad=False), noise(3, 2, 3, 3, seed=1, grad=False)
    answer, shifted = (correlation.forward(m, weight, None, Window((3, 3)))[0] for m in (x, x.roll((1, 2), (2, 3))))
    assert torch.allclose(answer[:, :, :-1, :-2], shifted[:, :, 1:, 2:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("axes", "dilation"), [(1, 1), (2, 1), (2, 2), (3, 1)])
def test_convolution_is_correlation_with_the_kernel_turned(axes, dilation):
    x, weight = noise(2, 3, *(7, 8, 6)[:axes]), noise(4, 3, *(3, 2, 2)[:axes], seed=1)
    window = Window((3, 2, 2)[:axes], dilation=(dilation,))
    assert torch.equal(convolve(x, weight, None, window), correlate(x, weight.flip(*range(2, 2 + axes)), None, window))
    if axes == 1:
        assert np.allclose(
            convolve(x[:1, :1], weight[:1, :1], None, window).detach().numpy()[0, 0],
            np.convolve(x[0, 0].detach(), weight[0, 0].detach(), "valid"),
        )


def test_full_convolution_commutes_and_associates():
    one, two, three = (noise(1, 1, *size, seed=seed, grad=False) for seed, size in enumerate([(5, 4), (3, 2), (2, 3)]))

    def full(x, kernel):
        h, w = kernel.shape[2:]
        return convolve(x, kernel, None, Window((h, w), padding=(h - 1, h - 1, w - 1, w - 1)))

    assert torch.allclose(full(one, two), full(two, one), rtol=1e-12)
    assert torch.allclose(full(full(one, two), three), full(one, full(two, three)), rtol=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_backward_pass_is_the_textbooks(axes, stride, dilation):
    """dx: full convolution of dy, zeros put between; dweight: correlation of x with dy, as far apart as the stride."""
    size, kernel = (9, 10, 8)[:axes], (3, 2, 3)[:axes]
    x, weight = noise(2, 3, *size), noise(4, 3, *kernel, seed=1)
    window = Window(kernel, (stride,) * axes, dilation=(dilation,) * axes)
    y, saved = correlation.forward(x, weight, None, window)
    dy = noise(*y.shape, seed=2, grad=False)
    dx, dweight, _ = correlation.backward(dy, saved)
    with torch.no_grad():
        stuffed = dy.new_zeros(*y.shape[:2], *((n - 1) * stride + 1 for n in y.shape[2:]))
        stuffed[:, :, *[slice(None, None, stride)] * axes] = dy
        sides = tuple(side for s in window.spread for side in (s - 1, s - 1))
        full = convolve(stuffed, weight.transpose(0, 1), None, Window(kernel, (1,) * axes, sides, (dilation,) * axes))
        unseen = [n for a, b in zip(reversed(size), reversed(full.shape[2:]), strict=True) for n in (0, a - b)]
        assert torch.allclose(dx, F.pad(full, unseen), rtol=1e-11, atol=1e-11)
        shifts = correlate(x.transpose(0, 1), dy.transpose(0, 1), None, Window(y.shape[2:], (dilation,) * axes, (0,), (stride,) * axes))
        wanted = shifts.transpose(0, 1)[:, :, *(slice(0, k) for k in kernel)]
        assert torch.allclose(dweight, wanted, rtol=1e-11, atol=1e-11)


ALGORITHM_CASES = {
    "taps": CASES,
    "fourier": {
        name: CASES[name] for name in ("padding", "everything", "depthwise with multiplier and stride", "one pixel", "signal", "volume")
    },
    "winograd": {
        "even": case((2, 2, 6, 4), (3, 2, 3, 3), Window((3, 3), padding=(1, 1, 1, 1))),
        "odd, groups": case((1, 4, 5, 7), (2, 2, 3, 3), Window((3, 3), padding=(0, 2, 1, 0)), 2),
        "one window": case((2, 1, 3, 3), (2, 1, 3, 3), Window((3, 3)), bias=False),
    },
}


@pytest.mark.parametrize(("algorithm", "name"), [(algorithm, name) for algorithm, cases in ALGORITHM_CASES.items() for name in cases])
def test_witnesses_of_the_algorithms(algorithm, name):
    arguments = ALGORITHM_CASES[algorithm][name]
    check(Case(ALGORITHMS[algorithm], arguments, by_torch, linear=arguments[2] is None))


def test_spectra_of_many_blocks_join_without_a_seam():
    x, weight, window = noise(1, 2, 150, 90), noise(3, 2, 5, 4, seed=1), Window((5, 4), (1, 2), (2, 3, 0, 5))
    for got, wanted in zip(
        gradients(lambda *a: correlate_by("fourier", *a), x, weight, window), gradients(by_torch, x, weight, window), strict=True
    ):
        assert torch.allclose(got, wanted, rtol=0, atol=1e-10)


def gradients(operation, x, weight, window):
    y = operation(x, weight, None, window)
    return y, *torch.autograd.grad(y, (x, weight), noise(*y.shape, seed=5, grad=False))


def test_an_algorithm_that_cannot_serve_says_so():
    x, weight = noise(1, 1, 6, 6), noise(1, 1, 5, 5)
    with pytest.raises(ValueError, match="winograd: expected a 3x3 kernel with stride 1 and dilation 1"):
        correlate_by("winograd", x, weight, None, Window((5, 5)))
    with pytest.raises(ValueError, match="expected algorithm to be one of columns, taps, winograd, fourier, got 'fft'"):
        correlate_by("fft", x, weight, None, Window((5, 5)))


def changed(**changes):
    """The pair with some of its steps replaced."""

    def forward(x, weight, bias, window, groups=1):
        return correlation.forward(x, changes.get("weight", lambda w: w)(weight), bias, changes.get("window", lambda w: w)(window), groups)

    return differentiable(changes.get("forward", forward), changes.get("backward", correlation.backward))


def backward_with(**replacements):
    def backward(dy, saved):
        gradients = dict(zip(("dx", "dweight", "dbias"), correlation.backward(dy, saved), strict=True))
        gradients |= {name: replace(dy, saved, gradients[name]) for name, replace in replacements.items()}
        return tuple(gradients.values())

    return backward


def other_padding(window):
    sides = tuple(side for before, after in window.sides() for side in (after, before))
    return Window(window.kernel, window.stride, sides, window.dilation)


def dx_without_turning(dy, saved, dx):
    return correlation.backward(dy, saved._replace(weight_FCi=turned(saved.weight_FCi)))[0]


def dx_without_adding(dy, saved, dx):
    columns = unfold(dx, saved.window)
    return (
        windows.fold(columns, saved.window, dx.shape[2:])
        / windows.fold(torch.ones_like(columns), saved.window, dx.shape[2:]).clamp(1)
        * 0.5
    )


MUTANTS = {
    "kernel flipped": changed(weight=turned),
    "kernel flipped in rows": changed(weight=lambda w: w.flip(2)),
    "kernel transposed in channels": changed(weight=lambda w: w.flip(1)),
    "filters permuted": changed(weight=lambda w: w.flip(0)),
    "padding on the wrong side": changed(window=other_padding),
    "dx with the kernel flipped": changed(backward=backward_with(dx=dx_without_turning)),
    "dx averaged": changed(backward=backward_with(dx=dx_without_adding)),
    "dx shifted": changed(backward=backward_with(dx=lambda dy, saved, dx: dx.roll(1, 3))),
    "dweight flipped": changed(backward=backward_with(dweight=lambda dy, saved, d: turned(d))),
    "dweight of the first row alone": changed(
        backward=backward_with(dweight=lambda dy, saved, d: correlation.backward(dy[:1], saved._replace(x_BCH=saved.x_BCH[:1]))[1])
    ),
    "dweight a mean": changed(backward=backward_with(dweight=lambda dy, saved, d: d / dy.shape[0])),
    "no dbias": changed(backward=backward_with(dbias=lambda dy, saved, d: None)),
    "groups in the wrong order": changed(forward=lambda x, w, b, window, groups=1: correlation.forward(x.flip(1), w, b, window, groups)),
    "stride and dilation exchanged": changed(window=lambda w: Window(w.kernel, w.dilation, w.padding, w.stride)),
    "taps read column by column": changed(weight=lambda w: w.transpose(2, 3).reshape(w.shape)),
    "dx with the stride forgotten": changed(backward=backward_with(dx=lambda dy, saved, dx: dx[:, :, :1].expand_as(dx))),
    "dweight of one group alone": changed(
        backward=backward_with(dweight=lambda dy, saved, d: torch.cat([d[: d.shape[0] // 2], torch.zeros_like(d[d.shape[0] // 2 :])]))
    ),
    "dbias a mean": changed(backward=backward_with(dbias=lambda dy, saved, d: dy.mean((0, 2, 3)))),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_variant_is_caught(name):
    wrong = Case(MUTANTS[name], CASES["everything"], by_torch)
    with pytest.raises(AssertionError):
        check_expression(wrong)
    if name.startswith("d"):
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(wrong)


def test_a_wrong_adjoint_is_caught():
    x, weight, _, window, groups = CASES["everything"]
    with pytest.raises(AssertionError, match="<Ax,y>"):
        check_adjoint(Case(MUTANTS["dx with the kernel flipped"], (x, weight, None, window, groups), by_torch, linear=True))
