"""Resizing: the four witnesses, exact fractions, torch's operators where they mean the same, known vectors, laws, messages."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn as torch_nn
from torch.nn import functional as F

import twofold
from twofold.layers.check import Case, check, check_drop_in, check_expression, check_message, noise
from twofold.layers.differentiable import differentiable
from twofold.space.coordinates import COORDINATES, ROUNDINGS, Axis, positions
from twofold.space.resize import Upsample, linear, nearest, resize

HALF = Fraction(1, 2)


def place(axis, p):
    """t as a fraction."""
    n, m, r = axis.before, axis.size, Fraction(axis.size, axis.before) if axis.scale is None else Fraction(axis.scale)
    if axis.coordinates == "align_corners":
        return Fraction(p * (n - 1), m - 1) if m > 1 else Fraction(0)
    if axis.coordinates == "asymmetric":
        return p / r
    if axis.coordinates == "pytorch_half_pixel" and m == 1:
        return Fraction(0)
    middles = Fraction(n, 2) * (1 - m / (n * r)) if axis.coordinates == "half_pixel_symmetric" else 0
    return middles + (p + HALF) / r - HALF


ROUND = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda t: math.floor(t) if t - math.floor(t) <= HALF else math.ceil(t),
    "round_prefer_ceil": lambda t: math.ceil(t) if t - math.floor(t) >= HALF else math.floor(t),
}


def weights(axis):
    """The matrix (m, n) of one axis, in exact fractions until the end: how strongly p looks at h."""
    rows = [[Fraction(0)] * axis.before for _ in range(axis.size)]
    for p, row in enumerate(rows):
        t = place(axis, p)
        if axis.rounding is not None:
            row[min(max(ROUND[axis.rounding](t), 0), axis.before - 1)] = Fraction(1)
            continue
        for h in (math.floor(t), math.floor(t) + 1):
            row[min(max(h, 0), axis.before - 1)] += max(1 - abs(t - h), 0)
    return torch.tensor([[float(w) for w in row] for row in rows], dtype=torch.float64)


def by_matrices(x, axes):
    for dim, axis in enumerate(axes):
        x = torch.tensordot(x, weights(axis).to(x), ([2 + dim], [1])).movedim(-1, 2 + dim)
    return x


def plan(*sizes, coordinates="half_pixel", rounding=None, scales=(None, None, None)):
    return tuple(Axis(n, m, scale, coordinates, rounding) for (n, m), scale in zip(sizes, scales, strict=False))


CASES = {
    "larger": (linear, (2, 2, 3, 4), plan((3, 5), (4, 6))),
    "smaller": (linear, (2, 2, 5, 4), plan((5, 3), (4, 2))),
    "corners": (linear, (2, 1, 3, 4), plan((3, 4), (4, 1), coordinates="align_corners")),
    "asymmetric, by a factor": (linear, (2, 1, 4, 5), plan((4, 3), (5, 7), coordinates="asymmetric", scales=(0.9, 1.5))),
    "symmetric": (linear, (2, 1, 4, 5), plan((4, 2), (5, 8), coordinates="half_pixel_symmetric", scales=(0.6, 1.7))),
    "linear signal": (linear, (2, 3, 4), plan((4, 7), coordinates="pytorch_half_pixel")),
    "trilinear": (linear, (1, 2, 2, 3, 2), plan((2, 3), (3, 2), (2, 4))),
    "one pixel": (linear, (2, 2, 1, 1), plan((1, 3), (1, 1))),
    "nearest, larger": (nearest, (2, 2, 3, 2), plan((3, 7), (2, 4), coordinates="asymmetric", rounding="floor")),
    "nearest, smaller": (nearest, (2, 2, 5, 6), plan((5, 2), (6, 3), rounding="round_prefer_ceil")),
    "nearest signal": (nearest, (2, 3, 5), plan((5, 3), coordinates="align_corners", rounding="ceil")),
    "nearest volume": (nearest, (1, 2, 2, 3, 4), plan((2, 3), (3, 2), (4, 4), rounding="round_prefer_floor")),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    operation, shape, axes = CASES[name]
    check(Case(operation, (noise(*shape), axes), by_matrices, linear=True))


@st.composite
def drawn_axes(draw):
    """One to three axes with one convention, by sizes or by a factor."""
    count = draw(st.sampled_from([1, 2, 2, 3]))
    most = {1: 40, 2: 9, 3: 5}[count]
    coordinates, rounding = draw(st.sampled_from(COORDINATES)), draw(st.sampled_from([None, None, *ROUNDINGS]))
    by_factor, axes = draw(st.booleans()), []
    for _ in range(count):
        n = draw(st.integers(1, most))
        factor = draw(st.sampled_from([2.0, 3.0, 0.5, 0.75, 1.5, 1.25])) if by_factor else None
        m = draw(st.integers(1, most)) if factor is None else int(n * factor)
        axes.append(Axis(n, m, factor, coordinates, rounding) if m else Axis(n, 1, None, coordinates, rounding))
    return tuple(axes)


@pytest.mark.parametrize("factor", [2.0, 3.0, 0.5, 0.75, 1.5, 1.25])
def test_whole_positions_come_out_whole(factor):
    """Each in one fraction: 5 pixels by 1.5, symmetric, have their last at 4, not just below it."""
    for n, coordinates in itertools.product(range(1, 60), COORDINATES):
        axis = Axis(n, int(n * factor) or 1, factor, coordinates, None)
        exact = [place(axis, p) for p in range(axis.size)]
        for t, wanted in zip(positions(axis).tolist(), exact, strict=True):
            assert abs(t - wanted) < 1e-12 and ((2 * wanted).denominator > 1 or t == wanted), (axis, t, wanted)


@given(drawn_axes(), st.integers(0, 2), st.integers(0, 999), st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_route_is_what_exact_fractions_say(axes, batch, seed, turned):
    operation = linear if axes[0].rounding is None else nearest
    x = noise(batch, 2, *(axis.before for axis in axes), seed=seed, grad=False)
    dy = noise(batch, 2, *(axis.size for axis in axes), seed=seed + 1, grad=False)
    matrices, dx = by_matrices(x, axes), dy
    for dim, axis in enumerate(axes):
        dx = torch.tensordot(dx, weights(axis), ([2 + dim], [0])).movedim(-1, 2 + dim)
    for route, dtype, bound in (("plain", torch.float64, 1e-12), ("vendor", torch.float64, 1e-11), ("vendor", torch.float32, 1e-5)):
        leaf = (x.mT.contiguous().mT if turned else x).to(dtype).detach().requires_grad_()
        y = operation.by(route, leaf, axes)
        gradient = torch.autograd.grad(y, leaf, (dy.mT.contiguous().mT if turned else dy).to(dtype))[0]
        for got, wanted in ((y, matrices), (gradient, dx)):
            assert got.shape == wanted.shape and torch.allclose(got.double(), wanted, rtol=0, atol=bound * 10), (route, dtype)


OPTIONS = [
    ({"scale_factor": 2}, 2),
    ({"size": (7, 3)}, 2),
    ({"size": 9, "mode": "nearest-exact"}, 2),
    ({"scale_factor": (0.5, 3.0), "mode": "nearest-exact"}, 2),
    ({"scale_factor": 3, "mode": "bilinear"}, 2),
    ({"scale_factor": (1.3, 0.7), "mode": "bilinear"}, 2),
    ({"scale_factor": (1.3, 0.7), "mode": "bilinear", "recompute_scale_factor": True}, 2),
    ({"size": (9, 2), "mode": "bilinear", "align_corners": True}, 2),
    ({"scale_factor": 2, "mode": "linear"}, 1),
    ({"size": 1, "mode": "linear", "align_corners": True}, 1),
    ({"scale_factor": 1 / 3}, 1),
    ({"size": (2, 3, 9), "mode": "trilinear"}, 3),
    ({"scale_factor": (2, 1.5, 1)}, 3),
]


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize(("options", "axes"), OPTIONS)
def test_stands_in_for_torch(options, axes, route):
    ours, theirs = Upsample(**options), torch_nn.Upsample(**options)
    x = noise(2, 3, *(5, 6, 4)[:axes])
    with twofold.route(route):
        check_drop_in(ours, theirs, x)
        assert torch.equal(resize(x, **options), ours(x)) and repr(ours) == repr(theirs)
        assert torch.allclose(ours(x[..., :3]), theirs(x[..., :3]), rtol=1e-11, atol=1e-12)
    assert ours.last_route == route and isinstance(ours, torch_nn.Upsample)


def test_nearest_by_whole_factors_repeats_or_keeps():
    x = torch.arange(6.0).reshape(1, 1, 6)
    for f in (1, 2, 3, 41):
        assert torch.equal(resize(x, scale_factor=f), x.repeat_interleave(f, 2))
    for f in (2, 3):
        assert torch.equal(resize(x, scale_factor=1 / f), x[..., ::f])
    labels = torch.tensor([[[[1, 2], [3, 4]]]])
    for dtype in (torch.int64, torch.uint8, torch.bool):
        assert torch.equal(resize(labels.to(dtype), 4), labels.to(dtype).repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_nearest_is_exact_where_float32_is_not():
    x = torch.arange(2.0).reshape(1, 1, 2)
    assert resize(x, 82)[0, 0, 41] == 1 and F.interpolate(x, 82)[0, 0, 41] == 0  # pixel 41 shows 41 · 2 / 82 = 1
    for n, m in ((2, 82), (4, 94), (5, 205), (7, 21), (6, 9), (224, 672), (100, 37)):
        for mode, exact in (("nearest", lambda p, n=n, m=m: p * n // m), ("nearest-exact", lambda p, n=n, m=m: (2 * p + 1) * n // (2 * m))):
            ramp = torch.arange(n, dtype=torch.float32)
            for x in (ramp.reshape(1, 1, n), ramp.expand(2, 4, 3, n), ramp.expand(2, 4, 3, n).to(memory_format=torch.channels_last)):
                assert resize(x, (*x.shape[2:-1], m), mode=mode).flatten()[:m].tolist() == [exact(p) for p in range(m)], (n, m, mode)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_constants_stay_and_ramps_stay_ramps_inside(axes, coordinates):
    size, slope = (6, 5, 4)[:axes], torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64)[:axes]
    where = torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in size), indexing="ij"), -1)
    for factor in (2, 2.6, 0.6):
        y = resize(
            torch.stack([(where * slope).sum(-1), torch.full(size, 7.0).double()])[None], None, factor, "linear", coordinates=coordinates
        )
        assert torch.allclose(y[0, 1], torch.full_like(y[0, 1], 7), rtol=1e-14)
        ratios = [None if factor == 2 else factor for _ in size]
        rows = [positions(Axis(n, int(n * factor), r, coordinates)) for n, r in zip(size, ratios, strict=True)]
        t = torch.stack(torch.meshgrid(*rows, indexing="ij"), -1)
        inside = ((t >= 0) & (t <= torch.tensor(size) - 1)).all(-1)
        assert inside.any() and torch.allclose(y[0, 0][inside], (t * slope).sum(-1)[inside], rtol=1e-12, atol=1e-12)
    assert torch.equal(resize(y, scale_factor=1, mode="linear"), y) and torch.equal(resize(y, tuple(y.shape[2:])), y)


def test_where_torch_takes_a_factor_for_another_we_keep_to_the_law():
    x = torch.tensor([[[[0.0, 1.0, 2.0]]]], dtype=torch.float64)
    assert resize(x, scale_factor=(1, 2.2)).flatten().tolist() == [0, 0, 0, 1, 1, 2]  # p / 2.2, rounded down
    assert F.interpolate(x, scale_factor=(1.0, 2.2)).flatten().tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.allclose(resize(x[0], scale_factor=1.25, mode="linear"), torch.tensor([[[0.0, 0.7, 1.5]]]).double())


def test_special_values_layouts_and_half_precision():
    assert resize(torch.zeros(0, 3, 4, 5), 7, mode="bilinear").shape == (0, 3, 7, 7)
    assert resize(torch.tensor([[[1.0, float("nan"), 3.0]]]), 6).isnan().tolist() == [[[False, False, True, True, False, False]]]
    x = noise(2, 3, 5, 6, grad=False)
    for y in (x.to(memory_format=torch.channels_last), x.mT.contiguous().mT, x[:1].expand(2, 3, 5, 6)):
        for mode in ("nearest", "bilinear"):
            for route in ("plain", "vendor"):
                with twofold.route(route):
                    assert torch.allclose(resize(y, (4, 9), mode=mode), resize(y.contiguous(), (4, 9), mode=mode), rtol=1e-12)
    for dtype, bound in ((torch.bfloat16, 2**-8), (torch.float16, 2**-10)):  # one rounding of the result
        low = x.to(dtype)
        with twofold.route("plain"):
            got, wanted = resize(low, 9, mode="bilinear"), resize(low.double(), 9, mode="bilinear")
        assert got.dtype == dtype and ((got - wanted).abs() <= bound * wanted.abs() + 1e-6).all()


@pytest.mark.parametrize(
    ("options", "operator"),
    [
        ({"scale_factor": 2}, "upsample_nearest2d"),
        ({"scale_factor": 1.5, "mode": "bilinear"}, "upsample_bilinear2d"),
        ({"size": (9, 11), "mode": "bilinear", "align_corners": True}, "upsample_bilinear2d"),
        ({"scale_factor": 2, "mode": "linear", "coordinates": "asymmetric"}, "index_select"),
    ],
)
def test_an_exporter_sees_torchs_operators_for_any_size(options, operator):
    layer = Upsample(**options)
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=3), 3: torch.export.Dim("width", min=3)}
    exported = torch.export.export(layer, (torch.randn(2, 3, 6, 7),), dynamic_shapes=(sizes,))
    x = torch.randn(3, 3, 8, 9)
    assert torch.allclose(exported.module()(x), layer(x), atol=1e-5)
    assert any(operator in str(node.target) for node in exported.graph.nodes)


X = torch.zeros(1, 2, 4, 4)
BAD = {
    "antialias": (lambda: resize(X, 2, antialias=True), "resize: expected antialias=False, got True. Blur before you make maps smaller"),
    "nothing left": (
        lambda: Upsample(scale_factor=0.2)(X),
        "Upsample: nothing is left of maps of 4x4: they become 0x0. Use a larger scale_factor, or size.",
    ),
    "rank": (lambda: resize(X[0, 0], 2), "resize input: expected (B, C, H, W), got (4, 4): 2 axes, not 4."),
    "no batch": (
        lambda: Upsample(2, mode="bilinear")(X[0]),
        "Upsample input: expected (B, C, H, W), got (2, 4, 4): 3 axes, not 4. One without a batch? x.unsqueeze(0).",
    ),
    "volume": (lambda: resize(X, 2, mode="trilinear"), "resize input: expected (B, C, D, H, W), got (1, 2, 4, 4)"),
    "bytes": (lambda: resize(X.byte(), 2, mode="bilinear"), "Bytes? Convert and scale: x.float() / 255."),
    "numpy": (lambda: Upsample(2)(np.zeros((1, 2, 4, 4))), "Upsample input: expected a torch tensor, got numpy.ndarray."),
    "empty": (lambda: resize(X[:, :, :0], 2), "expected at least one channel and maps of at least 1x1, got (1, 2, 0, 4)."),
    "too many": (lambda: resize(X, 2**15), "resize output: expected maps of at most 2147483647 numbers, got 1x2x32768x32768 = 2147483648."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    check_message(*BAD[name])


def changed(operation, forward=lambda x, axes: (x, axes), after=lambda y: y, backward=lambda dx, dy, axes: dx):
    """The pair with a step replaced."""
    plain = operation.plain
    return differentiable(
        lambda x, axes: (after(plain.forward(*forward(x, axes))[0]), axes),
        lambda dy, axes: backward(plain.backward(dy, axes), dy, axes),
    )


def other(axes, **changes):
    return tuple(axis._replace(**changes) for axis in axes)


MUTANTS = {
    "corners for edges": (changed(linear, lambda x, axes: (x, other(axes, coordinates="align_corners"))), "larger"),
    "edges for half pixels": (changed(linear, lambda x, axes: (x, other(axes, coordinates="asymmetric"))), "larger"),
    "factor for ratio": (changed(linear, lambda x, axes: (x, other(axes, scale=None))), "symmetric"),
    "middles not joined": (changed(linear, lambda x, axes: (x, other(axes, coordinates="half_pixel"))), "symmetric"),
    "mirrored": (changed(linear, after=lambda y: y.flip(2)), "larger"),
    "dx of the lower pixel alone": (
        changed(linear, backward=lambda dx, dy, axes: nearest.plain.backward(dy, other(axes, rounding="floor"))),
        "larger",
    ),
    "dx a mean": (changed(linear, backward=lambda dx, dy, axes: dx / 2), "larger"),
    "dx resized back": (
        changed(
            linear, backward=lambda dx, dy, axes: linear.plain.forward(dy, tuple(a._replace(before=a.size, size=a.before) for a in axes))[0]
        ),
        "larger",
    ),
    "nearest rounded up": (changed(nearest, lambda x, axes: (x, other(axes, rounding="ceil"))), "nearest, larger"),
    "nearest by its middle": (changed(nearest, lambda x, axes: (x, other(axes, coordinates="half_pixel"))), "nearest, larger"),
    "half rounded down": (changed(nearest, lambda x, axes: (x, other(axes, rounding="round_prefer_floor"))), "nearest, smaller"),
    "nearest dx without adding up": (changed(nearest, backward=lambda dx, dy, axes: dx.clamp(-1, 1)), "nearest, larger"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_variant_is_caught(name):
    mutant, right = MUTANTS[name]
    operation, shape, axes = CASES[right]
    check_expression(Case(operation, (noise(*shape), axes), by_matrices))
    with pytest.raises(AssertionError):
        check_expression(Case(mutant, (noise(*shape), axes), by_matrices))
