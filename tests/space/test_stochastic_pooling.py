"""Stochastic pooling: the witnesses of both laws, NumPy loops over drawn windows, frequencies, generators, and wrong variants."""

from math import inf, nan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import twofold
from twofold.layers.check import Case, check, check_differences, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.space import stochastic_pooling as page
from twofold.space.stochastic_pooling import StochasticPool1d, StochasticPool2d, StochasticPool3d, expected_pool, stochastic_pool
from twofold.space.windows import Window, fold, unfold


def look(x, window):
    """columns_BCPK, every axis read by a matrix of ones and zeros."""
    size = x.shape[2:]
    for axis, count in enumerate(window.output_size(size)):
        reads = torch.zeros(count, window.kernel[axis], size[axis], dtype=x.dtype)
        for p, i in np.ndindex(*reads.shape[:2]):
            place = p * window.stride[axis] - window.padding[2 * axis] + i * window.dilation[axis]
            if 0 <= place < size[axis]:
                reads[p, i, place] = 1
        x = torch.tensordot(x, reads, dims=([2], [2]))
    axes = window.axes
    return x.permute(0, 1, *range(2, 2 + 2 * axes, 2), *range(3, 2 + 2 * axes, 2)).flatten(2 + axes)


def by_searching(x, u, window):
    a = look(x, window).relu()
    upto = (a / a.sum(-1, keepdim=True).clamp(min=1e-300)).cumsum(-1).detach()
    tap = torch.searchsorted(upto, u.unsqueeze(-1), right=True).clamp(max=window.taps - 1)
    return a.gather(-1, tap).squeeze(-1)


def by_weights(x, window):
    a = look(x, window).relu()
    return torch.einsum("...k,...k->...", a, a / a.sum(-1, keepdim=True).clamp(min=1e-300))


WINDOWS = {
    "side by side": (noise(2, 2, 4, 6, seed=1), Window((2, 2), (2, 2))),
    "not square": (noise(2, 2, 4, 6, seed=1), Window((3, 2), (1, 2))),
    "dilated": (noise(2, 2, 4, 6, seed=1), Window((2, 3), (1, 2), (1, 1, 1, 1), (3, 2))),
    "ceil, uneven padding": (noise(2, 2, 4, 6, seed=1), Window((2, 3), (3, 2), (1, 0, 0, 2), ceil=True)),
    "sequences": (noise(3, 2, 7, seed=1), Window((3,), (2,), (1, 2))),
    "volumes": (noise(2, 1, 3, 4, 3, seed=1), Window((2, 1, 2), (1, 2, 1), (1, 0, 0, 0, 0, 1))),
    "nothing above 0": (noise(2, 2, 4).detach().abs().neg().requires_grad_(), Window((2,), (2,))),
    "transposed": (noise(2, 2, 4, 6, seed=1).detach().transpose(2, 3).requires_grad_(), Window((2, 2), (2, 2))),
    "expanded": (noise(2, 1, 4, 6, seed=1).detach().expand(2, 2, 4, 6).requires_grad_(), Window((2, 2), (2, 2))),
}


def uniform(x, window, seed=3):
    shape = (*x.shape[:2], *window.output_size(x.shape[2:]))
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


@pytest.mark.parametrize("name", WINDOWS)
def test_witnesses(name):
    x, window = WINDOWS[name]
    check(Case(stochastic_pool, (x, uniform(x, window), window), by_searching, row_arguments=(0, 1)))
    check(Case(expected_pool, (x, window), by_weights))


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
@given(maps_and_windows())
def test_drawn_windows_by_loops(drawn):
    (x, window), values = drawn, drawn[0].detach().numpy()
    u = uniform(x, window)
    (drawn_y, drawn_saved), (mean_y, mean_saved) = stochastic_pool.explain(x, u, window), expected_pool.explain(x, window)
    dy = noise(*mean_y.shape, seed=5, grad=False)
    drawn_dx, mean_dx = np.zeros(values.shape), np.zeros(values.shape)
    for place in np.ndindex(*mean_y.shape):
        a = {}
        for tap in np.ndindex(*window.kernel):
            pixel = tuple(
                p * s - b + i * d for p, s, b, i, d in zip(place[2:], window.stride, window.padding[::2], tap, window.dilation, strict=True)
            )
            if all(0 <= h < n for h, n in zip(pixel, x.shape[2:], strict=True)) and values[(*place[:2], *pixel)] > 0:
                a[(*place[:2], *pixel)] = values[(*place[:2], *pixel)]
        total = sum(a.values())
        mean = sum(v * v for v in a.values()) / total if a else 0
        assert mean_y[place].item() == pytest.approx(mean, rel=1e-12)
        reached, winner = 0.0, None
        for pixel, v in a.items():
            mean_dx[pixel] += dy[place].item() * (2 * v - mean) / total
            reached += v
            if winner is None and reached > u[place].item() * total:
                winner = pixel
                drawn_dx[pixel] += dy[place].item()
        assert drawn_y[place].item() == (0 if winner is None else a[winner])
    assert np.allclose(stochastic_pool.plain.backward(dy, drawn_saved).numpy(), drawn_dx, rtol=0, atol=1e-12)
    assert np.allclose(expected_pool.plain.backward(dy, mean_saved).detach().numpy(), mean_dx, rtol=0, atol=1e-11)


def test_a_tap_is_drawn_as_often_as_it_is_large_and_the_mean_is_what_use_gives():
    x = torch.tensor([[1.0, 0.0, 3.0, -8.0, 4.0]]).expand(1, 20000, 5)
    layer = StochasticPool1d(5, generator=torch.Generator().manual_seed(0))
    y = layer(x).flatten()
    for value, share in ((1, 1 / 8), (3, 3 / 8), (4, 4 / 8)):
        assert (y == value).double().mean().item() == pytest.approx(share, abs=4 * (share * (1 - share) / 20000) ** 0.5)
    use = layer.eval()(x[:, :1]).item()
    assert use == pytest.approx(26 / 8) and y.mean().item() == pytest.approx(use, abs=4 * 0.97 / 20000**0.5)


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_the_ends_of_the_draw_never_give_a_tap_without_probability(u):
    x = torch.tensor([[[-1.0, 0.1, 0.7, 0.3, 0.0]]], requires_grad=True)
    y = stochastic_pool(x, torch.full((1, 1, 1), u), Window((5,), (5,)))
    y.backward(torch.ones_like(y))
    assert y.item() == pytest.approx(0.1 if u == 0 else 0.3) and x.grad is not None
    assert x.grad.flatten().tolist() == ([0, 1, 0, 0, 0] if u == 0 else [0, 0, 0, 1, 0])


@pytest.mark.parametrize("training", [True, False])
def test_large_values_infinity_and_nan(training):
    x = torch.tensor([[[3e38, 3e38, nan, 1.0, 1e-38, 1e-38, -inf, 2.0, 1.0, inf]]])
    y = StochasticPool1d(2).train(training)(x).flatten()
    assert y[0] == 3e38 and y[1].isnan() and y[2].item() == pytest.approx(1e-38) and y[3] == 2
    assert y[4] == inf or (not training and y[4].isnan())


def test_many_taps_need_a_wider_winner():
    x = torch.zeros(1, 1, 300)
    x[..., 299] = 1
    saved = stochastic_pool.explain(x, torch.zeros(1, 1, 1), Window((300,), (300,)))[1]
    assert saved.drawn_BCP.tolist() == [[[299]]] and saved.drawn_BCP.dtype == torch.int32


def test_the_same_generator_draws_the_same_and_the_route_does_not_matter():
    x = noise(2, 3, 8, 8, grad=False).float()
    draws = []
    for route in ("plain", "vendor", "auto"):
        layer = StochasticPool2d(3, 2, 1, generator=torch.Generator().manual_seed(4))
        with twofold.route(route):
            draws.append(layer(x))
        assert layer.last_route == "plain"
    assert torch.equal(draws[0], draws[1]) and torch.equal(draws[0], draws[2])
    torch.manual_seed(1)
    first = StochasticPool2d(2)(x)
    assert not torch.equal(first, StochasticPool2d(2)(x))


@pytest.mark.parametrize("training", [True, False])
def test_with_and_without_batch_in_half_precision_and_its_text(training):
    layer = StochasticPool3d((2, 1, 2), ceil_mode=True).train(training)
    x = noise(2, 3, 4, 2, 5, grad=False)
    assert layer(x[1]).shape == layer(x)[1].shape == (3, 2, 2, 3) and layer(x[:0]).shape == (0, 3, 2, 2, 3)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    assert repr(layer) == "StochasticPool3d(kernel_size=(2, 1, 2), stride=(2, 1, 2), padding=0, ceil_mode=True, dilation=1)"


def mean_shares(share):
    """A backward pass of the mean with other shares."""

    def backward(dy, saved):
        x, y, window = saved
        a = unfold(x, window).relu()
        total = a.sum(2, keepdim=True).clamp(min=1e-300)
        return fold(dy.unsqueeze(2) * share(a, y.unsqueeze(2), total) * (a > 0), window, x.shape[2:])

    return backward


def other_draw(change):
    return lambda x, u, window: page.drawn_forward(*change(x, u, window), window)


MUTANTS = {
    "each tap as likely": (other_draw(lambda x, u, w: ((x > 0) * 1.0, u)), page.drawn_backward),
    "drawn from the end": (other_draw(lambda x, u, w: (x, 1 - u)), page.drawn_backward),
    "below 0 by its size": (other_draw(lambda x, u, w: (x.abs(), u)), page.drawn_backward),
    "another tap learns": (
        page.drawn_forward,
        lambda dy, s: page.drawn_backward(dy, s._replace(drawn_BCP=(s.drawn_BCP + 1) % s.window.taps)),
    ),
    "an empty window learns": (
        page.drawn_forward,
        lambda dy, s: page.drawn_backward(dy, s._replace(drawn_BCP=s.drawn_BCP % s.window.taps)),
    ),
    "the plain mean": (lambda x, w: (unfold(x, w).relu().mean(2), page.mean_forward(x, w)[1]), page.mean_backward),
    "padding counts": (lambda x, w: (page.mean_forward(x, w)[0] * 0.9, page.mean_forward(x, w)[1]), page.mean_backward),
    "weights held still": (page.mean_forward, mean_shares(lambda a, y, total: a / total)),
    "without the factor 2": (page.mean_forward, mean_shares(lambda a, y, total: (a - y) / total)),
    "without y": (page.mean_forward, mean_shares(lambda a, y, total: 2 * a / total)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_variants_are_caught(name):
    forward, backward = MUTANTS[name]
    x, window = WINDOWS["nothing above 0" if name.startswith("an empty") else "ceil, uneven padding"]
    if "mean" in backward.__qualname__ or forward is page.mean_forward:
        case = Case(differentiable(forward, backward), (x, window), by_weights)
    else:
        case = Case(differentiable(forward, backward), (x, uniform(x, window), window), by_searching)
    with pytest.raises(AssertionError):
        check_expression(case)
    if forward in (page.drawn_forward, page.mean_forward):
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(case)


def test_bad_input():
    with pytest.raises(ValueError, match="StochasticPool2d input: expected floating point, got uint8. Bytes"):
        StochasticPool2d(2)(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
