"""LocalResponseNorm: the witnesses for odd and even sizes, NumPy loops, the paper's constants, and wrong variants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn as torch_nn

import twofold
from twofold.layers import local_response as page
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.layers.local_response import LocalResponseNorm, local_response

X = noise(2, 5, 3, 2, seed=1)
SETTINGS = (3, 2.0, 0.75, 1.5)


def by_matrix(x, size, alpha, beta, k):
    """The neighbours as a band of ones: row c has them from c - size // 2 to c + (size - 1) // 2."""
    band = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype).tril((size - 1) // 2).triu(-(size // 2))
    return x / torch.pow(k + alpha / size * torch.einsum("cj,bj...->bc...", band, x.square()), beta)


CASES = {
    "maps": (X, *SETTINGS),
    "even": (X, 4, 1.0, 0.5, 1.0),
    "two": (X, 2, 1.0, 1.3, 2.0),
    "one": (X, 1, 1.0, 0.75, 1.0),
    "more than there are": (X, 13, 3.0, 0.75, 1.0),
    "k 0": (X, 3, 2.0, 0.75, 0.0),
    "beta 0": (X, 3, 2.0, 0.0, 1.0),
    "beta below 0": (X, 3, 2.0, -0.5, 1.0),
    "one channel": (noise(2, 1, 3, seed=2), *SETTINGS),
    "sequences": (noise(2, 4, 3, seed=2), *SETTINGS),
    "volumes": (noise(2, 4, 2, 1, 3, seed=2), *SETTINGS),
    "volumes, transposed": (noise(2, 4, 2, 1, 3, seed=2).detach().transpose(3, 4).requires_grad_(), *SETTINGS),
    "channels last": (X.detach().contiguous(memory_format=torch.channels_last).requires_grad_(), *SETTINGS),
    "sliced": (noise(2, 10, 3, seed=3).detach()[:, ::2].requires_grad_(), *SETTINGS),
    "expanded": (noise(2, 1, 3, seed=3).detach().expand(2, 5, 3).requires_grad_(), *SETTINGS),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    check(Case(local_response, CASES[name], by_matrix))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 7), st.integers(1, 8), st.floats(0, 3), st.floats(-1, 2), st.floats(0.1, 3), st.integers(0, 99))
def test_drawn_settings_by_loops(channels, size, alpha, beta, k, seed):
    x = noise(2, channels, 2, seed=seed)
    check_expression(Case(local_response, (x, size, alpha, beta, k), by_matrix))
    y, values = local_response.explain(x, size, alpha, beta, k)[0], x.detach().numpy()
    for b, c, h in np.ndindex(2, channels, 2):
        near = range(max(0, c - size // 2), min(channels - 1, c + (size - 1) // 2) + 1)
        held = k + alpha / size * sum(values[b, j, h] ** 2 for j in near)
        assert y[b, c, h].item() == pytest.approx(values[b, c, h] / held**beta, rel=1e-12)


def test_the_constants_of_the_paper():
    x = 100 * noise(1, 8, 1, grad=False)
    y = LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)(x)
    for i in range(8):
        total = sum(x[0, j, 0].item() ** 2 for j in range(max(0, i - 2), min(7, i + 2) + 1))
        assert y[0, i, 0].item() == pytest.approx(x[0, i, 0].item() / (2 + 1e-4 * total) ** 0.75, rel=1e-12)


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("options", [{"size": 2}, {"size": 3, "alpha": 2.0, "beta": 0.5, "k": 1.5}, {"size": 9, "alpha": 3.0}])
def test_stands_in_for_torch(options, route):
    layer = LocalResponseNorm(**options)
    with twofold.route(route):
        for x in (X, noise(2, 5, 3, seed=4), noise(2, 5, 2, 1, 3, seed=5), noise(0, 5, 3)):
            check_drop_in(layer, torch_nn.LocalResponseNorm(**options), x)
    assert layer.last_route == route


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_nan_reaches_its_neighbours_alone(route):
    x = torch.ones(1, 5, 2)
    x[0, 0, 0] = float("nan")
    with twofold.route(route):
        y = LocalResponseNorm(3, alpha=1.0)(x)
    assert y.isnan().nonzero().tolist() == [[0, 0, 0], [0, 1, 0]]


def other_sum(before, after):
    """A backward pass that asks other channels."""

    def backward(dy, saved):
        x, y, held, size, share, beta = saved
        return dy * held**-beta - 2 * beta * share * x * page.near(dy * y / held, before, after)

    return backward


MUTANTS = {  # of size 4: two channels before, one behind
    "neighbours on the wrong side": (
        lambda x, n, a, b, k: (x * (k + a / n * page.near(x * x, 1, 2)) ** -b, page.forward(x, n, a, b, k)[1]),
        page.backward,
    ),
    "alpha not divided": (lambda x, n, a, b, k: page.forward(x, n, a * n, b, k), page.backward),
    "divided by those that exist": (
        lambda x, n, a, b, k: (x * (k + a * page.near(x * x, 2, 1) / page.near(x * 0 + 1, 2, 1)) ** -b, page.forward(x, n, a, b, k)[1]),
        page.backward,
    ),
    "k forgotten": (lambda x, n, a, b, k: page.forward(x, n, a, b, 0.0), page.backward),
    "the sum not mirrored": (page.forward, other_sum(2, 1)),
    "itself alone": (page.forward, other_sum(0, 0)),
    "without the second term": (page.forward, lambda dy, s: dy * s.held_BCH**-s.beta),
    "without the factor 2": (page.forward, lambda dy, s: (page.backward(dy, s) + dy * s.held_BCH**-s.beta) / 2),
    "beta forgotten": (page.forward, lambda dy, s: dy * s.held_BCH**-s.beta + (page.backward(dy, s) - dy * s.held_BCH**-s.beta) / s.beta),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_variants_are_caught(name):
    case = Case(differentiable(*MUTANTS[name]), CASES["even"], by_matrix)
    with pytest.raises(AssertionError):
        check_expression(case)
    if MUTANTS[name][0] is page.forward:
        with pytest.raises((AssertionError, RuntimeError)):
            check_differences(case)


BAD = {
    "size": (lambda: LocalResponseNorm(0), "LocalResponseNorm: expected size to be a whole number of at least 1, got 0."),
    "alpha": (
        lambda: LocalResponseNorm(3, alpha=-1),
        "expected alpha to be a finite number of at least 0, got -1. A sum below 0 has no power.",
    ),
    "beta": (lambda: LocalResponseNorm(3, beta=float("nan")), "expected beta to be a finite number, got nan."),
    "k": (lambda: LocalResponseNorm(3, k=-1), "expected k to be a finite number of at least 0, got -1."),
    "rows": (
        lambda: LocalResponseNorm(3)(torch.zeros(2, 4)),
        "input: expected (B, C, H, ...), got (2, 4): 2 axes, not 3 or more. Features (B, C) without maps? x.unsqueeze(2).",
    ),
    "bytes": (lambda: LocalResponseNorm(3)(torch.zeros(2, 4, 1, dtype=torch.uint8)), "Convert and scale: x.float() / 255."),
    "list": (lambda: LocalResponseNorm(3)([1.0]), "LocalResponseNorm input: expected a torch tensor, got list."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
