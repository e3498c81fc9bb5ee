"""Edge input is right: the layers on every route against loops in NumPy, values and gradients, where libraries are known to differ.

The loops share nothing with the package: a window is a list of taps, each with the pixel that it lies on, or none; a row of a sequence
is computed alone (time/recurrent_loops.py).
Empty batches, transposed, sliced and expanded input: test_harness.py; sequences of every kind: time/test_against_loops.py.
"""

from itertools import product
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import twofold
from twofold import nn


def along(size, kernel, stride, before, after, dilation, ceil):
    """For every window of one axis the places of its taps, from -before on, and whether they are on the map or its padding."""
    spread, whole, windows = dilation * (kernel - 1) + 1, before + size + after, []
    for start in range(0, whole, stride):
        fits = start + spread <= whole
        begins = start < before + size
        reaches_further = not windows or start - stride + spread < whole
        if fits or (ceil and begins and reaches_further):
            windows.append([(start + tap * dilation - before, start + tap * dilation < whole) for tap in range(kernel)])
    return windows


def look(size, kernel, stride, sides, dilation, ceil=False):
    """(p, [(tap, place or None, whether it is on the map or its padding)]) for every window."""
    axes = [along(*each, ceil) for each in zip(size, kernel, stride, *zip(*sides, strict=True), dilation, strict=True)]
    for p in np.ndindex(*map(len, axes)):
        taps = []
        for tap in np.ndindex(*kernel):
            spots = [axes[a][p[a]][tap[a]] for a in range(len(size))]
            place = tuple(h for h, _ in spots)
            on_map = all(0 <= h < n for h, n in zip(place, size, strict=True))
            taps.append((tap, place if on_map else None, all(inside for _, inside in spots)))
        yield p, taps


def correlate_loops(x, w, bias, dy, groups, *geometry):
    """y, dx, dW, dbias"""
    windows, each = list(look(x.shape[2:], w.shape[2:], *geometry)), w.shape[0] // groups
    y, dx, dw = np.zeros(dy.shape), np.zeros(x.shape), np.zeros(w.shape)
    for (p, taps), f in product(windows, range(w.shape[0])):
        channels = slice(f // each * w.shape[1], (f // each + 1) * w.shape[1])
        y[:, f, *p] = bias[f]
        for tap, place, _ in taps:
            if place is not None:
                seen, strength = x[:, channels, *place], w[f, :, *tap]
                y[:, f, *p] += seen @ strength
                dx[:, channels, *place] += np.outer(dy[:, f, *p], strength)
                dw[f, :, *tap] += dy[:, f, *p] @ seen
    return y, dx, dw, dy.sum(axis=(0, *range(2, dy.ndim)))


def average_loops(x, dy, count_padding, *geometry):
    """y, dx"""
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for p, taps in look(x.shape[2:], *geometry):
        seen = [place for _, place, _ in taps if place is not None]
        number = sum(inside for _, _, inside in taps) if count_padding else len(seen)
        for place in seen:
            y[:, :, *p] += x[:, :, *place] / number
            dx[:, :, *place] += dy[:, :, *p] / number
    return y, dx


def max_loops(x, dy, *geometry):
    """y, place, dx: the first of the largest wins, the first NaN over all numbers."""
    y, where, dx = np.zeros(dy.shape), np.zeros(dy.shape, np.int64), np.zeros(x.shape)
    for (p, taps), b, c in product(list(look(x.shape[2:], *geometry)), range(x.shape[0]), range(x.shape[1])):
        best = None
        for _, place, _ in taps:
            if place is not None and (best is None or x[b, c, *place] > x[b, c, *best] or np.isnan(x[b, c, *place])):
                best = place
                if np.isnan(x[b, c, *place]):
                    break
        y[b, c, *p], where[b, c, *p] = x[b, c, *best], np.ravel_multi_index(best, x.shape[2:])
        dx[b, c, *best] += dy[b, c, *p]
    return y, where, dx


def numbers(*shape, seed=0):
    """Normally distributed, and such as float32 has them."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def gradients(layer, x, route, dtype):
    """(outputs, dy, [dx, dparameters]) of the layer on the route."""
    x = torch.tensor(x, dtype=dtype, requires_grad=True)
    layer.to(dtype)
    with twofold.route(route):
        out = layer(x)
    y = out[0] if isinstance(out, tuple) else out
    dy = numbers(*y.shape, seed=1)
    found = torch.autograd.grad(y, [x, *layer.parameters()], torch.tensor(dy, dtype=dtype))
    return [part.detach().numpy() for part in (out if isinstance(out, tuple) else (out,))], dy, [part.numpy() for part in found]


def agree(got, wanted, dtype):
    near = 1e-12 if dtype is torch.float64 else 2e-5
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=near, atol=near)


ROUTES = pytest.mark.parametrize(
    ("route", "dtype"), [("plain", torch.float64), ("vendor", torch.float64), ("auto", torch.float32)], ids=["plain", "vendor", "auto"]
)
ONE, TWO = (1, 1), (2, 2)
NONE = ((0, 0), (0, 0))

# name: (layer, shape of the input, groups, stride, (before, after) of each axis, dilation)
CONVOLUTIONS = {
    "one output": (lambda: nn.Conv2d(2, 3, (4, 5)), (2, 2, 4, 5), 1, ONE, NONE, ONE),
    "one pixel": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 2, 1, 1), 1, ONE, ((1, 1), (1, 1)), ONE),
    "last column dropped": (lambda: nn.Conv2d(2, 3, 3, stride=2), (2, 2, 7, 8), 1, TWO, NONE, ONE),
    "spread as wide as the map": (lambda: nn.Conv2d(2, 3, 3, dilation=2), (2, 2, 5, 5), 1, ONE, NONE, TWO),
    "stride beyond the kernel": (lambda: nn.Conv2d(2, 3, 2, stride=5), (2, 2, 9, 13), 1, (5, 5), NONE, ONE),
    "padding beyond the kernel": (lambda: nn.Conv2d(2, 3, 2, padding=5), (2, 2, 3, 4), 1, ONE, ((5, 5), (5, 5)), ONE),
    "depthwise, two a channel, stride": (
        lambda: nn.DepthwiseConv2d(3, 3, multiplier=2, stride=2, padding=1),
        (2, 3, 7, 6),
        3,
        TWO,
        ((1, 1), (1, 1)),
        ONE,
    ),
    "batch of 17 signals": (lambda: nn.Conv1d(3, 2, 3, padding=1), (17, 3, 6), 1, (1,), ((1, 1),), (1,)),
    "same, even kernel": (lambda: nn.Conv2d(2, 3, 4, padding="same"), (2, 2, 5, 6), 1, ONE, ((1, 2), (1, 2)), ONE),
    "same, even kernel, stride": (lambda: nn.Conv2d(2, 3, 4, 2, padding="same"), (2, 2, 5, 6), 1, TWO, ((1, 2), (1, 2)), ONE),
    "same_upper": (lambda: nn.Conv2d(2, 3, 4, 2, padding="same_upper"), (2, 2, 5, 6), 1, TWO, ((1, 2), (1, 1)), ONE),
    "same_lower": (lambda: nn.Conv2d(2, 3, 4, 2, padding="same_lower"), (2, 2, 5, 6), 1, TWO, ((2, 1), (1, 1)), ONE),
    "one side only": (lambda: nn.Conv2d(2, 3, 3, padding=(2, 0, 0, 1)), (2, 2, 4, 4), 1, ONE, ((2, 0), (0, 1)), ONE),
    "volume of one plane": (lambda: nn.Conv3d(2, 3, (1, 2, 2)), (2, 2, 1, 3, 4), 1, (1, 1, 1), ((0, 0),) * 3, (1, 1, 1)),
}


@ROUTES
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name, route, dtype):
    build, shape, *geometry = CONVOLUTIONS[name]
    torch.manual_seed(0)
    layer, x = build().to(dtype), numbers(*shape)
    (y,), dy, found = gradients(layer, x, route, dtype)
    w, bias = (p.detach().double().numpy() for p in layer.parameters())
    agree([y, *found], correlate_loops(x, w, bias, dy, *geometry), dtype)


# name: (settings, shape of the map, kernel, stride, sides, dilation, ceil)
POOLS = {
    "one output": ({"kernel_size": (4, 3)}, (4, 3), (4, 3), (4, 3), NONE, ONE, False),
    "last row and column dropped": ({"kernel_size": 2}, (5, 7), TWO, TWO, NONE, ONE, False),
    "98 under 3 with ceil": ({"kernel_size": 3, "ceil_mode": True}, (8, 98), (3, 3), (3, 3), NONE, ONE, True),
    "ceil would begin in the padding": (
        {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
        (4, 7),
        TWO,
        (3, 3),
        ((1, 1), (1, 1)),
        ONE,
        True,
    ),
    "ceil and padding": (
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        (6, 8),
        (3, 3),
        TWO,
        ((1, 1), (1, 1)),
        ONE,
        True,
    ),
    "dilated": ({"kernel_size": 3, "stride": 1, "dilation": 2, "padding": 1}, (6, 7), (3, 3), ONE, ((1, 1), (1, 1)), TWO, False),
    "one side only": ({"kernel_size": 3, "stride": 2, "padding": (1, 0, 0, 1)}, (6, 6), (3, 3), TWO, ((1, 0), (0, 1)), ONE, False),
    "same, even kernel": ({"kernel_size": 2, "stride": 1, "padding": "same"}, (4, 5), TWO, ONE, ((0, 1), (0, 1)), ONE, False),
    "one pixel": ({"kernel_size": 2, "padding": 1}, (1, 1), TWO, TWO, ((1, 1), (1, 1)), ONE, False),
}


@ROUTES
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("name", POOLS)
def test_average_pooling(name, counted, route, dtype):
    settings, size, *geometry = POOLS[name]
    x = numbers(2, 3, *size)
    (y,), dy, found = gradients(nn.AvgPool2d(**settings, count_include_pad=counted), x, route, dtype)
    agree([y, *found], average_loops(x, dy, counted, *geometry), dtype)


def with_nan(x):
    x[:, :, ::2, 1::2] = np.nan
    return x


MAPS = {
    "numbers": lambda x: x,
    "all below zero": lambda x: -1 - np.abs(x),
    "ties": lambda x: np.round(x),
    "all equal": lambda x: np.zeros_like(x),
    "lowest": lambda x: np.full_like(x, -np.inf),
}


@ROUTES
@pytest.mark.parametrize("content", MAPS)
@pytest.mark.parametrize("name", POOLS)
def test_max_pooling(name, content, route, dtype):
    settings, size, *geometry = POOLS[name]
    x = MAPS[content](numbers(2, 3, *size))
    (y, places), dy, found = gradients(nn.MaxPool2d(**settings, return_indices=True), x, route, dtype)
    wanted, where, dx = max_loops(x, dy, *geometry)
    agree([y, places, *found], [wanted, where, dx], dtype)


@ROUTES
@pytest.mark.parametrize("name", POOLS)
def test_nan_passes_through_max_pooling(name, route, dtype):
    settings, size, *geometry = POOLS[name]
    x = with_nan(numbers(2, 3, *size))
    layer = nn.MaxPool2d(**settings)
    with twofold.route(route):
        y = layer(torch.tensor(x, dtype=dtype))
    agree([y.numpy()], max_loops(x, np.zeros(y.shape), *geometry)[:1], dtype)
    assert np.isnan(y.numpy()).any() or min(size) == 1


# Sequences. name: (what the loops call it, layer)

loops = SimpleNamespace(**run_path(str(Path(__file__).parent / "time" / "recurrent_loops.py")))
LAYERS = {
    "RNN": (loops.Kind("tanh"), lambda **options: nn.RNN(2, 3, **options)),
    "RNN, relu": (loops.Kind("relu"), lambda **options: nn.RNN(2, 3, nonlinearity="relu", **options)),
    "GRU": (loops.Kind("gru"), lambda **options: nn.GRU(2, 3, **options)),
    "GRU, reset before": (loops.Kind("gru", "before"), lambda **options: nn.GRU(2, 3, reset="before", **options)),
    "LSTM": (loops.Kind("lstm"), lambda **options: nn.LSTM(2, 3, **options)),
    "LSTM, projection": (loops.Kind("lstm"), lambda **options: nn.LSTM(2, 3, proj_size=2, **options)),
    "LSTM, peephole, coupled": (loops.Kind("lstm", coupled=True), lambda **options: nn.LSTM(2, 3, peephole=True, coupled=True, **options)),
    "LSTM, layer norm": (loops.Kind("lstm"), lambda **options: nn.LSTM(2, 3, layer_norm=True, **options)),
}
EVERY_LAYER = pytest.mark.parametrize("name", LAYERS)
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # torch says so once, in float32


def made(name, dtype, scale=1.0, **options):
    """The layer with distinct weights, and its weights in float64: one dictionary for each direction."""
    layer = LAYERS[name][1](**options)
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data = torch.tensor(scale * numbers(*parameter.shape, seed=seed)).to(dtype)
    found = {key: p.detach().double().numpy() for key, p in layer.named_parameters()}
    ends = ["_l0", "_l0_reverse"][: 1 + layer.bidirectional]
    return layer, [{key.removesuffix(end): w for key, w in found.items() if key.endswith(end)} for end in ends]


def starts(name, layer, rows, seed=9):
    """A state for every direction: [(h, c) or (h,)]"""
    widths = [getattr(layer, "proj_size", 0) or 3, 3][: LAYERS[name][0].tensors]
    return [tuple(numbers(rows, width, seed=seed + s) for width in widths) for s in range(1 + layer.bidirectional)]


def called(layer, x, states, route, dtype, lengths=None):
    """y and the final states, of the layer on the route."""
    given = [torch.tensor(np.stack([state[k] for state in states]), dtype=dtype) for k in range(len(states[0]))]
    with twofold.route(route):
        y, last = layer(x, given[0] if len(given) == 1 else tuple(given), lengths=lengths)
    return y, [*last] if isinstance(last, tuple) else [last]


def judged(name, own, x, states, lengths):
    """The same by the loops, and their `back`."""
    every = [loops.Layer(w, state, backwards=bool(s)) for s, (w, state) in enumerate(zip(own, states, strict=True))]
    y, finals, back = loops.run_stack(LAYERS[name][0], [every], x, lengths)
    return y, [np.stack([final[k] for final in finals]) for k in range(len(states[0]))], back


@ROUTES
@EVERY_LAYER
def test_no_steps_return_the_state(name, route, dtype):
    layer, _ = made(name, dtype, bidirectional=True)
    states = starts(name, layer, 4)
    x = torch.zeros(0, 4, 2, dtype=dtype, requires_grad=True)
    y, last = called(layer, x, states, route, dtype)
    assert y.shape == (0, 4, 2 * states[0][0].shape[1])
    agree([s.detach().numpy() for s in last], [np.stack([state[k] for state in states]) for k in range(len(last))], dtype)
    gradients = torch.autograd.grad(y.sum() + sum(s.sum() for s in last), [x, *layer.parameters()], allow_unused=True)
    assert all(g is None or not g.count_nonzero() for g in gradients)


@ROUTES
@EVERY_LAYER
def test_rows_of_any_length_in_any_order(name, route, dtype):
    """Rows stay in their order, the padding of y is 0 and that of x is never read, a state is that of the row's own last step."""
    layer, own = made(name, dtype, bidirectional=True)
    states, lengths = starts(name, layer, 5), (2, 0, 6, 3, 6)
    x = numbers(6, 5, 2)
    for row, length in enumerate(lengths):
        x[length:, row] = np.nan
    wanted, finals, back = judged(name, own, x, states, lengths)
    leaf = torch.tensor(x, dtype=dtype, requires_grad=True)
    y, last = called(layer, leaf, states, route, dtype, lengths)
    agree([y.detach().numpy(), *(s.detach().numpy() for s in last)], [wanted, *finals], dtype)
    assert all(not y[length:, row].count_nonzero() for row, length in enumerate(lengths))
    assert all(np.array_equal(s.detach()[d, 1].double(), states[d][k][1]) for k, s in enumerate(last) for d in (0, 1))
    dy = numbers(*wanted.shape, seed=1)
    dx, _ = back(dy, [tuple(np.zeros_like(s) for s in state) for state in states])
    found = torch.autograd.grad(y, [leaf, *layer.parameters()], torch.tensor(dy, dtype=dtype))
    agree([found[0].numpy()], [dx], dtype)
    assert all(part.isfinite().all() for part in found)


@ROUTES
@EVERY_LAYER
def test_a_state_carried_across_a_split_is_the_whole(name, route, dtype):
    layer, own = made(name, dtype)
    x, states = numbers(7, 3, 2), starts(name, layer, 3)
    wanted, finals, _ = judged(name, own, x, states, (7, 7, 7))
    parts, state = [], states
    for part in torch.tensor(x, dtype=dtype).split([1, 4, 0, 2]):
        y, last = called(layer, part, state, route, dtype)
        parts.append(y)
        state = [tuple(s[0].detach().double().numpy() for s in last)]
    agree([torch.cat(parts).detach().numpy(), *(s.detach().numpy() for s in last)], [wanted, *finals], dtype)


@ROUTES
@EVERY_LAYER
def test_nan_stays_in_its_own_sequence(name, route, dtype):
    layer, own = made(name, dtype)
    x, states = numbers(6, 3, 2), starts(name, layer, 3)
    wanted, finals, back = judged(name, own, x, states, (6, 6, 6))
    dy = numbers(*wanted.shape, seed=1)
    dx, _ = back(dy, [tuple(np.zeros_like(s) for s in state) for state in states])
    x[2, 1, 0] = np.nan
    leaf = torch.tensor(x, dtype=dtype, requires_grad=True)
    y, last = called(layer, leaf, states, route, dtype)
    (found,) = torch.autograd.grad(y, leaf, torch.tensor(dy, dtype=dtype))
    others = [0, 2]
    got = [y[:, others], *(s[:, others] for s in last), found[:, others]]
    agree([part.detach().numpy() for part in got], [wanted[:, others], *(s[:, others] for s in finals), dx[:, others]], dtype)
    agree([y[:2, 1].detach().numpy()], [wanted[:2, 1]], dtype)  # what came before it
    assert y[2:, 1].isnan().any(1).all() and last[0][0, 1].isnan().any()


@ROUTES
@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "LSTM, layer norm"])
def test_saturated_gates_stay_finite_over_ten_thousand_steps(name, route, dtype):
    """Every gate within rounding of 0 or 1: all finite to the end, and the first thousand steps as the loops have them."""
    if route == "vendor" and name == "LSTM, layer norm":
        pytest.skip("PyTorch has no such layer")
    layer, own = made(name, dtype, scale=40.0)
    x, states = 100 * np.sign(numbers(10_000, 2, 2)), starts(name, layer, 2)
    leaf = torch.tensor(x, dtype=dtype, requires_grad=True)
    y, last = called(layer, leaf, states, route, dtype)
    found = torch.autograd.grad(y.sum() + sum(s.sum() for s in last), [leaf, *layer.parameters()])
    assert all(part.isfinite().all() for part in (y, *last, *found))
    wanted, _, _ = judged(name, own, x[:1000], states, (1000, 1000))
    agree([y[:1000].detach().numpy()], [wanted], dtype)
