"""Adaptive pooling: the four witnesses, NumPy loops, torch, edges, messages, and wrong variants."""

from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn as torch_nn
from torch.nn import functional as F

import twofold
from twofold.layers.check import RELATIVE, Case, check, check_drop_in, check_expression, check_message, check_routes, check_rows, noise
from twofold.layers.differentiable import differentiable
from twofold.space import adaptive
from twofold.space.adaptive import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    adaptive_average_pool,
    adaptive_max_pool,
    adaptive_max_pool_with_places,
)

INFINITY, NAN = float("inf"), float("nan")
AVERAGES = {1: AdaptiveAvgPool1d, 2: AdaptiveAvgPool2d, 3: AdaptiveAvgPool3d}
MAXIMA = {1: AdaptiveMaxPool1d, 2: AdaptiveMaxPool2d, 3: AdaptiveMaxPool3d}


def box(size, counts, p):
    """Window p of the map."""
    return tuple(slice(n * H // P, -(-(n + 1) * H // P)) for n, H, P in zip(p, size, counts, strict=True))


def by_slices(x, counts, pool):
    parts = [pool(x[:, :, *box(x.shape[2:], counts, p)].flatten(2)) for p in np.ndindex(*counts)]
    return torch.stack(parts, 2).unflatten(2, counts)


def mean_of_slices(x, counts):
    return by_slices(x, counts, lambda part: part.mean(2))


def largest_of_slices(x, counts):
    return by_slices(x, counts, lambda part: part.max(2).values)


CASES = {
    "divides": ((2, 2, 6), (3,)),
    "overlaps": ((2, 3, 7), (3,)),
    "larger than the map": ((2, 1, 3), (5,)),
    "map": ((2, 2, 5, 4), (3, 2)),
    "one": ((2, 2, 3, 4), (1, 1)),
    "the map itself": ((1, 2, 3, 4), (3, 4)),
    "volume": ((2, 1, 3, 4, 2), (2, 3, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    shape, counts = CASES[name]
    check(Case(adaptive_average_pool, (noise(*shape), counts), mean_of_slices, linear=True))
    check(Case(adaptive_max_pool, (noise(*shape), counts), largest_of_slices))
    torchs = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}[len(counts)]
    for witness in (check_expression, check_routes, check_rows):
        witness(Case(adaptive_max_pool_with_places, (noise(*shape), counts), lambda x, counts: torchs(x, counts, return_indices=True)))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_route_is_the_loops(data):
    axes = data.draw(st.integers(1, 3))
    size, counts = (tuple(data.draw(st.integers(1, 8 if axes < 3 else 5)) for _ in range(axes)) for _ in range(2))
    batch, seed = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 1000))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-3, 4, (batch, 2, *size), generator=generator).double()
    if seed % 3 == 0:
        x[torch.rand(x.shape, generator=generator) < 0.6] = -INFINITY
    dy = torch.randint(-3, 4, (batch, 2, *counts), generator=generator).double()
    mean, top, flat, dmean, dtop = (np.zeros(s) for s in (dy.shape, dy.shape, dy.shape, x.shape, x.shape))
    for b, c, *p in np.ndindex(*dy.shape):
        window = (b, c, *box(size, counts, p))
        part = x[window].numpy()
        mean[b, c, *p], top[b, c, *p] = part.mean(), part.max()
        first = np.unravel_index(part.argmax(), part.shape)  # NumPy says: the first of several
        where = tuple(s.start + i for s, i in zip(window[2:], first, strict=True))
        flat[b, c, *p] = np.ravel_multi_index(where, size)
        dtop[b, c, *where] += dy[b, c, *p].item()
        dmean[window] += dy[b, c, *p].item() / part.size
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        leaf = x.to(dtype).requires_grad_()
        for route in ("plain", "vendor"):
            y = adaptive_average_pool.by(route, leaf, counts)
            wanted, (dx,) = torch.from_numpy(mean), torch.autograd.grad(y, leaf, dy.to(dtype))
            room = {"rtol": RELATIVE[dtype], "atol": 20 * RELATIVE[dtype]}
            assert torch.allclose(y.double(), wanted, **room) and torch.allclose(dx.double(), torch.from_numpy(dmean), **room), route
            for y in (adaptive_max_pool.by(route, leaf, counts), adaptive_max_pool_with_places.by(route, leaf, counts)[0]):
                assert np.array_equal(y.detach().double().numpy(), top), route
                if dtype != torch.bfloat16:
                    assert np.array_equal(torch.autograd.grad(y, leaf, dy.to(dtype))[0].numpy(), dtop), route
            assert np.array_equal(adaptive_max_pool_with_places.by(route, leaf, counts)[1].numpy(), flat), route


OPTIONS = [(1, 4), (1, (3,)), (2, 3), (2, (None, 5)), (2, [9, 10]), (3, (2, None, 3)), (3, 1)]


@pytest.mark.parametrize("route", ["plain", "vendor", "auto"])
@pytest.mark.parametrize(("axes", "size"), OPTIONS)
def test_it_stands_in_for_torch(axes, size, route):
    for x in (noise(2, 3, *(8, 9, 7)[:axes]), noise(3, *(8, 9, 7)[:axes])):
        with twofold.route(route):
            check_drop_in(AVERAGES[axes](size), getattr(torch_nn, f"AdaptiveAvgPool{axes}d")(size), x)
            for indices in (False, True):
                theirs = getattr(torch_nn, f"AdaptiveMaxPool{axes}d")(size, return_indices=indices)
                check_drop_in(MAXIMA[axes](size, return_indices=indices), theirs, x)
                if indices:
                    assert torch.equal(MAXIMA[axes](size, True)(x)[1], theirs(x)[1])


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_edges(route):
    with twofold.route(route):
        for axes in (1, 2, 3):
            for layer in (AVERAGES[axes](2), MAXIMA[axes](2)):
                x = torch.zeros(0, 3, *[4] * axes, requires_grad=True)
                assert layer(x).shape == (0, 3, *[2] * axes) and torch.autograd.grad(layer(x).sum(), x)[0].shape == x.shape
                assert layer(torch.full((1, 1, *[1] * axes), 3.0)).flatten().tolist() == [3.0] * 2**axes
        row = torch.tensor([[[1.0, NAN, 2.0, 4.0, INFINITY, 5.0, 2.0, NAN, NAN]]], requires_grad=True)
        assert str(AdaptiveAvgPool1d(4)(row[..., :8]).tolist()) == "[[[nan, 3.0, inf, nan]]]"
        assert str(AdaptiveMaxPool1d(4)(row[..., :8]).tolist()) == "[[[nan, 4.0, inf, nan]]]"
        (dx,) = torch.autograd.grad(AdaptiveMaxPool1d(1)(row).sum(), row)
        assert dx.flatten().tolist() == ([0, 1] + [0] * 7 if route == "plain" else [0] * 8 + [1])  # torch: the last NaN
        whole = torch.arange(-9, 0).reshape(1, 1, 3, 3)
        assert AdaptiveMaxPool2d(2, True)(whole)[0].tolist() == [[[[-5, -4], [-2, -1]]]]
        x = noise(2, 3, 8, 9, dtype=torch.float32, grad=False)
        for layer in (AdaptiveAvgPool2d((3, 4)), AdaptiveMaxPool2d((3, 4))):
            for other in (x.to(memory_format=torch.channels_last), x.mT.contiguous().mT, x[:1].expand_as(x), x[..., ::2]):
                assert torch.allclose(layer(other), layer(other.contiguous()), rtol=1e-5, atol=1e-6)


X = torch.zeros(1, 2, 4, 4)
BAD = {
    "empty map": (
        lambda: AdaptiveAvgPool2d(2)(torch.zeros(1, 3, 0, 4)),
        "AdaptiveAvgPool2d input: expected at least one channel and maps of at least 1x1, got (1, 3, 0, 4).",
    ),
    "empty signal": (lambda: AdaptiveMaxPool1d(2)(torch.zeros(1, 3, 0)), "AdaptiveMaxPool1d input: expected at least one channel"),
    "no channel": (lambda: AdaptiveMaxPool2d(2)(torch.zeros(1, 0, 3, 4)), "got (1, 0, 3, 4)."),
    "rank": (lambda: AdaptiveMaxPool2d(2)(X[0, 0]), "AdaptiveMaxPool2d input: expected (B, C, H, W), got (4, 4): 2 axes, not 4."),
    "whole numbers": (lambda: AdaptiveAvgPool2d(2)(X.int()), "AdaptiveAvgPool2d input: expected floating point, got int32."),
    "truth": (lambda: AdaptiveMaxPool2d(2)(X > 0), "AdaptiveMaxPool2d input: expected real numbers, got bool."),
    "zero": (
        lambda: AdaptiveAvgPool2d(0),
        "AdaptiveAvgPool2d: expected output_size to be a whole number or 2 of them, from 1 to 2147483647 (None keeps a size), got 0.",
    ),
    "three": (lambda: AdaptiveAvgPool2d((1, 2, 3)), "got (1, 2, 3)."),
    "half": (lambda: AdaptiveMaxPool1d(2.5), "AdaptiveMaxPool1d: expected output_size to be a whole number, from 1"),
    "overflow": (
        lambda: AdaptiveAvgPool2d(2**20)(X),
        "AdaptiveAvgPool2d input: expected outputs of at most 2147483647 numbers, got 1x2x1048576x1048576 =",
    ),
    "columns": (
        lambda: adaptive_max_pool.by("plain", torch.zeros(1).expand(1, 1, 3, 3), (2**16, 2**15)),
        "adaptive pooling: expected columns of at most 2147483647 numbers, got 1x1x2x2x65536x32768 =",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    check_message(*BAD[name])


def other_windows(first, end):
    """Adaptive averaging with other bounds of the windows."""

    def matrix(H, P):
        rows = torch.zeros(P, H, dtype=torch.float64)
        for p in range(P):
            rows[p, max(first(p, H, P), 0) : end(p, H, P)] = 1
        return rows / rows.sum(1, keepdim=True)

    def forward(x, counts):
        rows = [matrix(H, P) for H, P in zip(x.shape[2:], counts, strict=True)]
        return torch.einsum("bchw,ph,qw->bcpq", x, *rows), (*rows,)

    return differentiable(forward, lambda dy, saved: torch.einsum("bcpq,ph,qw->bchw", dy, *saved))


def undivided(dy, saved):
    return adaptive.average_backward(dy * 2, saved)


MUTANTS = {
    "windows side by side": (other_windows(lambda p, H, P: p * (H // P), lambda p, H, P: (p + 1) * (H // P)), mean_of_slices),
    "the end rounded down": (other_windows(lambda p, H, P: p * H // P, lambda p, H, P: (p + 1) * H // P), mean_of_slices),
    "the begin rounded up": (other_windows(lambda p, H, P: -(-p * H // P), lambda p, H, P: -(-(p + 1) * H // P)), mean_of_slices),
    "dx not divided": (differentiable(adaptive.average_forward, undivided), mean_of_slices),
    "dx where the last won": (
        differentiable(
            adaptive.max_forward, lambda dy, saved: adaptive.max_backward(dy, saved._replace(place_BCP=saved.place_BCP.flip(2)))
        ),
        largest_of_slices,
    ),
    "dx of another channel": (
        differentiable(adaptive.max_forward, lambda dy, saved: adaptive.max_backward(dy.roll(1, 1), saved)),
        largest_of_slices,
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_pooling_is_caught(name):
    operation, expression = MUTANTS[name]
    with pytest.raises(AssertionError):
        check_expression(Case(operation, (noise(2, 3, 7, 5), (3, 4)), expression))


def test_the_largest_window_is_no_larger_than_it_says():
    for H in range(1, 30):
        for P in range(1, 30):
            taps = adaptive.taps_of((H,), (P,), torch.device("cpu"))
            held = [list(range(H))[box((H,), (P,), (p,))[0]] for p in range(P)]
            assert [taps.place_KP[:, p][taps.inside_KP[:, p]].tolist() for p in range(P)] == held
            assert prod(adaptive.largest((H,), (P,))) <= max(map(len, held)) + 1
