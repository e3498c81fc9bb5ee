"""Gaussian pooling: the witnesses, NumPy loops over drawn windows, the correlation that it is, extreme sigma, and wrong variants."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import twofold
from twofold.layers.check import Case, check, check_differences, check_expression, check_routes, noise
from twofold.layers.differentiable import differentiable
from twofold.space import gaussian_pooling as page
from twofold.space.gaussian_pooling import GaussianPool1d, GaussianPool2d, GaussianPool3d, gaussian_pool
from twofold.space.windows import Window, fold


def matrix(window, size, sigma, count_padding, axis):
    """What one axis does: row p holds the weights of window p."""
    rows = np.zeros((window.output_size(size)[axis], size[axis]))
    before, after = window.sides()[axis]
    for p in range(len(rows)):
        total = 0.0
        for i in range(window.kernel[axis]):
            place = p * window.stride[axis] - before + i * window.dilation[axis]
            weight = math.exp(-(((i - (window.kernel[axis] - 1) / 2) * window.dilation[axis] / sigma[axis]) ** 2) / 2)
            on_map = 0 <= place < size[axis]
            total += weight * (on_map or (count_padding and -before <= place < size[axis] + after))
            if on_map:
                rows[p, place] = weight
        rows[p] /= total
    return torch.from_numpy(rows)


def by_matrices(x, window, sigma, count_padding):
    size = tuple(x.shape[2:])
    for axis in range(window.axes):
        x = torch.tensordot(x, matrix(window, size, sigma, count_padding, axis).to(x.dtype), dims=([2], [1]))
    return x


WINDOWS = {
    "side by side": (noise(2, 2, 4, 6), Window((2, 2), (2, 2)), (0.6, 0.6)),
    "not square": (noise(2, 3, 4, 6), Window((3, 2), (1, 2)), (0.7, 1.3)),
    "padded": (noise(2, 2, 4, 6), Window((3, 3), (2, 2), (1, 1, 2, 1)), (0.7, 1.3)),
    "dilated": (noise(2, 2, 4, 6), Window((2, 3), (1, 2), (1, 1, 1, 1), (3, 2)), (2.0, 1.0)),
    "ceil": (noise(2, 2, 4, 6), Window((2, 3), (3, 2), (1, 0, 0, 2), ceil=True), (0.6, 0.8)),
    "sequences": (noise(3, 2, 7), Window((3,), (2,), (1, 2)), (0.8,)),
    "volumes": (noise(2, 1, 3, 4, 3), Window((2, 1, 3), (1, 2, 1), (1, 0, 0, 0, 0, 1)), (0.5, 0.5, 0.9)),
    "one tap": (noise(2, 2, 4, 3), Window((1, 1), (2, 1)), (1.0, 1.0)),
    "transposed": (noise(2, 2, 4, 6).detach().transpose(2, 3).requires_grad_(), Window((3, 2), (2, 1)), (0.7, 1.3)),
    "channels last": (
        noise(2, 2, 4, 6).detach().contiguous(memory_format=torch.channels_last).requires_grad_(),
        Window((3, 2)),
        (0.7, 1.3),
    ),
    "expanded": (noise(2, 1, 4, 6).detach().expand(2, 2, 4, 6).requires_grad_(), Window((3, 2)), (0.7, 1.3)),
}


@pytest.mark.parametrize("count_padding", [False, True])
@pytest.mark.parametrize("name", WINDOWS)
def test_witnesses(name, count_padding):
    check(Case(gaussian_pool, (*WINDOWS[name], count_padding), by_matrices, linear=True))


@st.composite
def maps_and_windows(draw):
    axes = draw(st.integers(1, 3))
    kernel, stride = (tuple(draw(st.integers(1, 3)) for _ in range(axes)) for _ in "ks")
    dilation = tuple(draw(st.integers(1, 2)) for _ in range(axes))
    spread = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = tuple(draw(st.integers(0, width - 1)) for width in spread for _ in "ba")
    window = Window(kernel, stride, padding, dilation, draw(st.booleans()))
    size = [max(d, w - a - b) + draw(st.integers(0, 3)) for d, w, (a, b) in zip(dilation, spread, window.sides(), strict=True)]
    sigma = tuple(draw(st.floats(0.3, 4)) for _ in range(axes))
    return noise(draw(st.integers(1, 2)), draw(st.integers(1, 2)), *size, seed=draw(st.integers(0, 99))), window, sigma


@settings(max_examples=200, deadline=None)
@given(maps_and_windows(), st.booleans())
def test_drawn_windows_by_loops(drawn, count_padding):
    (x, window, sigma), values = drawn, drawn[0].detach().numpy()
    size = x.shape[2:]
    y, saved = gaussian_pool.explain(x, window, sigma, count_padding)
    dy = noise(*y.shape, seed=5, grad=False)
    dx = np.zeros(values.shape)
    for place in np.ndindex(*y.shape):
        weights, total = {}, 0.0
        for tap in np.ndindex(*window.kernel):
            pixel = tuple(
                p * s - a + i * d for p, s, a, i, d in zip(place[2:], window.stride, window.padding[::2], tap, window.dilation, strict=True)
            )
            far = sum(((i - (k - 1) / 2) * d / s) ** 2 for i, k, d, s in zip(tap, window.kernel, window.dilation, sigma, strict=True))
            weight = math.exp(-far / 2)
            if all(0 <= h < n for h, n in zip(pixel, size, strict=True)):
                weights[(*place[:2], *pixel)] = weight
                total += weight
            elif count_padding and all(-a <= h < n + b for h, n, (a, b) in zip(pixel, size, window.sides(), strict=True)):
                total += weight
        assert y[place].item() == pytest.approx(sum(w * values[pixel] for pixel, w in weights.items()) / total, rel=1e-12, abs=1e-12)
        for pixel, weight in weights.items():
            dx[pixel] += dy[place].item() * weight / total
    assert np.allclose(gaussian_pool.plain.backward(dy, saved).numpy(), dx, rtol=0, atol=1e-12)
    check_routes(Case(gaussian_pool, (x, window, sigma, count_padding), by_matrices))


def test_it_is_a_depthwise_correlation():
    x = noise(2, 3, 7, 8, grad=False)
    line = torch.tensor([math.exp(-0.5 / 0.9**2), 1.0, math.exp(-0.5 / 0.9**2)], dtype=torch.float64)
    kernel = torch.outer(line, line) / line.sum() ** 2
    expected = F.conv2d(x, kernel.expand(3, 1, 3, 3), None, 2, 1, 1, 3)
    assert torch.allclose(GaussianPool2d(3, 2, 1, count_include_pad=True, sigma=0.9)(x), expected, rtol=0, atol=1e-14)


def test_a_constant_map_stays_as_it_is_up_to_its_edge_unless_padding_counts():
    x = torch.full((1, 1, 5, 5), 3.0, dtype=torch.float64)
    assert torch.allclose(GaussianPool2d(3, 2, 1, True)(x), torch.tensor(3.0, dtype=torch.float64), rtol=1e-14)
    corner = GaussianPool2d(3, 2, 1, count_include_pad=True)(x)[0, 0, 0, 0].item()
    near = math.exp(-1 / (2 * 0.75**2))  # sigma: a quarter of three pixels
    assert corner == pytest.approx(3 * ((1 + near) / (1 + 2 * near)) ** 2, rel=1e-13)


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_sigma_may_be_extreme(route):
    x = torch.tensor([[[5.0, 1.0, 9.0, 3.0]]])
    with twofold.route(route):
        assert GaussianPool1d(3, 3, sigma=1e6)(x).tolist() == [[[pytest.approx(5)]]]  # the plain average
        assert GaussianPool1d(3, 1, 1, sigma=1e-3)(x).tolist() == x.tolist()  # the centre alone
        assert GaussianPool1d(2, 2, sigma=1e-3)(x).tolist() == [[[3, 6]]]  # two are as near
        assert gaussian_pool(x, Window((4,), (4,), (3, 1)), (1e-3,))[0, 0, 0].item() == 5  # the nearest that is left


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_layers_with_and_without_batch_and_their_text(route):
    layer = GaussianPool3d((2, 1, 2), sigma=(1.0, 2.0, 1.0), dilation=(1, 1, 2))
    x = noise(2, 3, 4, 2, 5, grad=False)
    with twofold.route(route):
        assert torch.allclose(layer(x)[1], layer(x[1]), rtol=1e-13)
        assert layer(x[:0]).shape == (0, 3, 2, 2, 2)
        y = GaussianPool1d(2)(torch.tensor([[[1.0, float("nan"), 3.0, 5.0]]]))
    assert layer.last_route == route and y[0, 0, 0].isnan() and y[0, 0, 1] == 4
    assert repr(layer) == (
        "GaussianPool3d(kernel_size=(2, 1, 2), stride=(2, 1, 2), padding=0, ceil_mode=False, count_include_pad=False, "
        "sigma=(1.0, 2.0, 1.0), dilation=(1, 1, 2))"
    )


def weighed(change):
    def forward(x, window, sigma, count_padding):
        y, saved = page.forward(*change(x, window, sigma, count_padding))
        return y, page.Saved(window, saved.size, sigma, count_padding)

    return forward


MUTANTS = {
    "a plain average": (weighed(lambda x, w, s, c: (x, w, (1e6, 1e6), c)), page.backward),
    "the axes exchanged": (weighed(lambda x, w, s, c: (x, w, s[::-1], c)), page.backward),
    "r in place of r^2 / 2": (weighed(lambda x, w, s, c: (x, w, tuple(t / 2**0.5 for t in s), c)), page.backward),
    "padding counted otherwise": (weighed(lambda x, w, s, c: (x, w, s, not c)), page.backward),
    "weights not normalised": (lambda x, w, s, c: (page.forward(x, w, s, c)[0] * 2, page.forward(x, w, s, c)[1]), page.backward),
    "gradient of the plain average": (page.forward, lambda dy, s: page.backward(dy, s._replace(sigma=(1e6, 1e6)))),
    "gradient counted otherwise": (page.forward, lambda dy, s: page.backward(dy, s._replace(count_padding=not s.count_padding))),
    "windows in reverse": (page.forward, lambda dy, s: fold(dy.unsqueeze(2) * page.weights(dy, s).flip(1), s.window, s.size)),
    "taps in reverse": (page.forward, lambda dy, s: fold(dy.unsqueeze(2) * page.weights(dy, s).flip(0), s.window, s.size)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_variants_are_caught(name):
    case = Case(differentiable(*MUTANTS[name]), (*WINDOWS["padded"], False), by_matrices)
    with pytest.raises(AssertionError):
        check_expression(case)
    if MUTANTS[name][0] is page.forward:
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(case)


BAD = {
    "sigma": (
        lambda: GaussianPool2d(3, sigma=0),
        "GaussianPool2d: expected sigma to be a finite number above 0, got 0. It is a distance in pixels.",
    ),
    "sigmas": (
        lambda: GaussianPool2d(3, sigma=(1, 2, 3)),
        "expected sigma to be one number or one for each of the axes H W, got (1, 2, 3).",
    ),
    "whole numbers": (
        lambda: GaussianPool1d(2)(torch.zeros(1, 2, 4, dtype=torch.int64)),
        "GaussianPool1d input: expected floating point, got int64.",
    ),
    "missed": (
        lambda: GaussianPool1d(2, 1, 1, dilation=4)(torch.zeros(1, 1, 3)),
        "GaussianPool1d input: a window of 2 taps with dilation 4 misses all 3 steps of the map",
    ),
    "missed by the operation": (
        lambda: gaussian_pool(torch.zeros(1, 1, 1), Window((2,), (1,), (2, 2)), (1.0,)),
        "gaussian_pool: a window of 2",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
