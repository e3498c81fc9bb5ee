"""Transposed convolution: the four witnesses, loops, zero-stuffing, the adjoint, torch's layers, sizes, stamps, bilinear kernels."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn as torch_nn
from torch.nn import functional as F

import twofold
from twofold.layers.check import Case, check, check_adjoint, check_drop_in, check_expression, check_message, noise
from twofold.layers.differentiable import differentiable
from twofold.space import correlation
from twofold.space import transposed as house
from twofold.space.convolution import Conv1d, Conv2d, Conv3d
from twofold.space.correlation import correlate, turned
from twofold.space.max_pooling import MaxPool2d
from twofold.space.resize import resize
from twofold.space.transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, bilinear_, map_size, overlap_counts, transposed
from twofold.space.windows import Window

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def by_stuffing(x, weight, bias, window, groups, extra):
    """A full convolution of x, with s - 1 zeros between its pixels, cut to size."""
    axes = window.axes
    stuffed = x.new_zeros(*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], window.stride, strict=True)))
    stuffed[:, :, *(slice(None, None, s) for s in window.stride)] = x
    around = [side for s, n in zip(reversed(window.spread), reversed(extra), strict=True) for side in (s - 1, s - 1 + max(n, 0))]
    by_group = turned(weight).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    whole = CONVOLUTIONS[axes](F.pad(stuffed, around), by_group, bias, 1, 0, window.dilation, groups)
    size = map_size(x.shape[2:], window, extra)
    return whole[:, :, *(slice(before, before + n) for before, n in zip(window.padding[::2], size, strict=True))]


def by_loops(x, weight, bias, window, groups, extra, dy):
    """(y, dx, dweight, dbias): every product once."""
    size = map_size(x.shape[2:], window, extra)
    maps, per_group, *kernel = weight.shape
    y = np.zeros((x.shape[0], per_group * groups, *size)) + bias.reshape(-1, *[1] * window.axes)
    dx, dweight = np.zeros_like(x), np.zeros_like(weight)
    for b, f, *p in np.ndindex(*x.shape):
        for c, *tap in np.ndindex(per_group, *kernel):
            steps = zip(p, window.stride, window.padding[::2], tap, window.dilation, strict=True)
            h = [n * s - before + i * d for n, s, before, i, d in steps]
            if all(0 <= place < n for place, n in zip(h, size, strict=True)):
                channel = f // (maps // groups) * per_group + c
                y[b, channel, *h] += weight[f, c, *tap] * x[b, f, *p]
                dx[b, f, *p] += weight[f, c, *tap] * dy[b, channel, *h]
                dweight[f, c, *tap] += x[b, f, *p] * dy[b, channel, *h]
    return y, dx, dweight, dy.sum((0, *range(2, dy.ndim)))


def case(x, weight, window, groups=1, extra=(0, 0), bias=True):
    channels = weight[1] * groups
    return noise(*x, seed=1), noise(*weight, seed=2), noise(channels, seed=3) if bias else None, window, groups, extra


CASES = {
    "plain": case((1, 2, 2, 3), (2, 2, 3, 2), Window((3, 2))),
    "no bias": case((2, 2, 2, 3), (2, 2, 3, 1), Window((3, 1), (2, 1)), bias=False),
    "stride and padding": case((2, 2, 2, 2), (2, 1, 3, 2), Window((3, 2), (2, 3), (1, 1, 0, 0))),
    "extra": case((2, 1, 2, 3), (1, 2, 3, 2), Window((3, 2), (2, 3), (1, 1, 0, 0)), extra=(1, 2)),
    "extra beyond the stride": case((1, 2, 2, 3), (2, 2, 2, 2), Window((2, 2), dilation=(3, 2)), extra=(2, 1)),
    "four-sided padding": case((2, 1, 2, 3), (1, 2, 3, 3), Window((3, 3), (2, 1), (0, 2, 2, 1))),
    "stride beyond the kernel": case((2, 2, 2, 3), (2, 2, 1, 2), Window((1, 2), (3, 4)), extra=(0, 2)),
    "padding beyond the kernel": case((1, 2, 5, 6), (2, 2, 1, 2), Window((1, 2), padding=(1, 2, 2, 3))),
    "everything": case((1, 4, 2, 3), (4, 2, 3, 2), Window((3, 2), (2, 1), (1, 0, 0, 1), (1, 2)), 2, (1, 0)),
    "last window over the edge": case((2, 2, 2, 3), (2, 2, 2, 3), Window((2, 3), (2, 2), ceil=True), extra=(-1, 0)),
    "one pixel": case((2, 3, 1, 1), (3, 2, 1, 1), Window((1, 1))),
    "signal": case((2, 4, 4), (4, 3, 3), Window((3,), (2,), (1, 2), (2,)), 2, (1,)),
    "volume": case((1, 2, 2, 3, 2), (2, 2, 2, 1, 3), Window((2, 1, 3), (2, 1, 1), (1, 0, 0, 0, 1, 1)), 1, (0, 0, 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    check(Case(transposed, CASES[name], by_stuffing, linear=CASES[name][2] is None))


def several(axes, low, high):
    return st.tuples(*[st.integers(low, high)] * axes)


@st.composite
def configurations(draw):
    """Any configuration: one pixel, strides beyond the kernel, empty batches, odd layouts."""
    axes = draw(st.sampled_from([1, 2, 2, 3]))
    window = Window(
        draw(several(axes, 1, {1: 5, 2: 3, 3: 2}[axes])),
        draw(several(axes, 1, 3)),
        draw(several(2 * axes, 0, 2)),
        draw(several(axes, 1, 2)),
    )
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(window.stride, window.dilation, strict=True))
    lows = [
        max(1, -(-(before + after - spread - more + 1) // s) + 1)
        for s, (before, after), spread, more in zip(window.stride, window.sides(), window.spread, extra, strict=True)
    ]
    counts = [draw(st.integers(low, low + {1: 6, 2: 3, 3: 1}[axes])) for low in lows]
    groups, batch = draw(st.integers(1, 3)), draw(st.sampled_from([0, 1, 2, 3]))
    maps, channels = groups * draw(st.integers(1, 2)), draw(st.integers(1, 2))
    return (
        (batch, maps, *counts),
        (maps, channels, *window.kernel),
        window,
        groups,
        extra,
        draw(st.integers(0, 10**6)),
        draw(st.integers(0, 2)),
    )


def laid_out(x, layout):
    """The same numbers, lying differently in memory."""
    if layout == 1:
        return x.transpose(-1, 1).contiguous().transpose(-1, 1)  # channels last, more or less
    return torch.stack([x, x], -1)[..., 0] if layout == 2 else x


def drawn(*shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@given(configurations())
@settings(max_examples=100, deadline=None)
def test_plain_is_what_loops_say_and_every_route_is_plain(configuration):
    x_shape, weight_shape, window, groups, extra, seed, layout = configuration
    channels, size = weight_shape[1] * groups, map_size(x_shape[2:], window, extra)
    x, weight, bias, dy = drawn(x_shape, weight_shape, (channels,), (x_shape[0], channels, *size), seed=seed)
    truth = by_loops(*(t.numpy() for t in (x, weight, bias)), window, groups, extra, dy.numpy())
    for dtype, bounds in ((torch.float64, {"plain": 1e-12, "vendor": 1e-11}), (torch.float32, {"plain": 1e-5, "vendor": 1e-5})):
        for route, bound in bounds.items():
            leaves = [laid_out(x, layout), laid_out(weight, layout), bias]
            leaves = [t.to(dtype).detach().requires_grad_() for t in leaves]
            y = transposed.by(route, *leaves, window, groups, extra)
            for got, wanted in zip((y, *torch.autograd.grad(y, leaves, laid_out(dy, layout).to(dtype))), truth, strict=True):
                most = max(1.0, np.abs(wanted).max(initial=0))
                assert np.allclose(got.detach().numpy(), wanted, rtol=0, atol=bound * most), (route, dtype)


@given(configurations())
@settings(max_examples=100, deadline=None)
def test_it_is_the_adjoint_of_correlation(configuration):
    """<correlate(x, W), y> = <x, transposed(y, W)>, for every map that leads to so many windows."""
    y_shape, weight_shape, window, groups, extra, seed, _ = configuration
    size = map_size(y_shape[2:], window, extra)
    assume(window.output_size(size) == y_shape[2:])  # else more windows fit than there are: no correlation made this
    y, weight, x = drawn(y_shape, weight_shape, (y_shape[0], weight_shape[1] * groups, *size), seed=seed)
    left = (correlate(x, weight, None, window, groups) * y).sum()
    right = (x * transposed(y, weight, None, window, groups, extra)).sum()
    assert torch.allclose(left, right, rtol=1e-11, atol=1e-10)
    dx = correlation.backward(y, correlation.forward(x, weight, None, window, groups)[1])[0]
    assert torch.allclose(house.forward(y, weight, None, window, groups, extra)[0], dx, rtol=1e-12, atol=1e-12)


def test_whole_numbers_are_stamped_exactly_on_every_route():
    dice, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(200):
        kernel, counts, groups = (tuple(map(int, dice.integers(1, 4, n))) for n in (2, 2, 1))
        window = Window(kernel, *(tuple(map(int, dice.integers(low, 3, n))) for low, n in ((1, 2), (0, 4), (1, 2))))
        shapes = (2, 2 * groups[0], *counts), (2 * groups[0], 2, *kernel), (2 * groups[0],)
        if min(map_size(counts, window, (0, 0))) < 1:
            continue
        values = [torch.randint(-8, 9, shape, generator=generator).float() for shape in shapes]
        results = []
        for route in ("plain", "vendor"):
            leaves = [t.clone().requires_grad_() for t in values]
            y = transposed.by(route, *leaves, window, groups[0], (0, 0))
            results.append([y, *torch.autograd.grad(y, leaves, (torch.arange(y.numel()) % 7 - 3).float().reshape(y.shape))])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True)), (shapes, window)


DROP_IN = {
    "plain": ((2, 3, (3, 2)), {}),
    "everything": ((4, 6, (3, 2), (2, 3), (1, 0), (1, 2), 2, False, (1, 2)), {}),
    "names": ((2, 4, 3), {"stride": 2, "padding": 1, "output_padding": 1, "dilation": 2}),
    "list": ((2, 3, [3, 2]), {"stride": [1, 2]}),
}


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("name", DROP_IN)
def test_stands_in_for_torch(name, route):
    arguments, options = DROP_IN[name]
    ours, theirs = (n.ConvTranspose2d(*arguments, **options).double() for n in (house, torch_nn))
    with twofold.route(route):
        check_drop_in(ours, theirs, noise(2, arguments[0], 4, 5))
    assert ours.last_route == route
    assert torch.equal(copy.deepcopy(ours)(noise(1, arguments[0], 2, 3)), ours(noise(1, arguments[0], 2, 3)))


@pytest.mark.parametrize(("axes", "size"), [(1, (5,)), (2, (3, 4)), (3, (2, 3, 4))])
def test_output_size_names_one_of_several(axes, size):
    options = {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2}
    ours, theirs = (getattr(n, f"ConvTranspose{axes}d")(2, 4, **options).double() for n in (house, torch_nn))
    x = noise(2, 2, *size)
    check_drop_in(ours, theirs, x)
    for more in (0, 1):
        wanted = [2 * n - 1 + more for n in size]
        check_drop_in(ours, theirs, x, wanted)
        for way in (tuple(wanted), torch.Size([7, 7, *wanted]), torch.empty(1, 4, *wanted), torch.empty(1, 4, *wanted).shape):
            assert torch.equal(ours(x, way), theirs(x, wanted))


def test_output_padding_has_the_numbers_of_its_docstring():
    down = torch_nn.Conv2d(1, 1, 3, 2, 1)
    assert [down(torch.zeros(1, 1, n, n)).shape[2] for n in (7, 8)] == [4, 4]
    assert [ConvTranspose2d(1, 1, 3, 2, 1, more)(torch.zeros(1, 1, 4, 4)).shape[2] for more in (0, 1)] == [7, 8]


MATCHED = {
    "conv": lambda: Conv2d(3, 8, (3, 4), stride=(2, 3), padding=(1, 2), dilation=(2, 1)),
    "four sides": lambda: Conv2d(3, 8, 3, stride=2, padding=(0, 1, 2, 0)),
    "same_upper": lambda: Conv2d(3, 8, (2, 5), stride=(3, 2), padding="same_upper"),
    "same_lower": lambda: Conv2d(3, 8, 3, stride=3, padding="same_lower"),
    "full": lambda: Conv2d(3, 8, 3, padding="full"),
    "torch's": lambda: torch_nn.Conv2d(3, 8, 3, 2, 1),
    "pool": lambda: MaxPool2d(3, 2, 1),
    "pool that rounds up": lambda: torch_nn.MaxPool2d(3, 2, ceil_mode=True),
    "pool that rounds up, padded": lambda: MaxPool2d(2, 3, 1, ceil_mode=True),
    "average": lambda: torch_nn.AvgPool2d((2, 3)),
}


@pytest.mark.parametrize("name", MATCHED)
def test_match_undoes_the_size_of_any_map(name):
    down = MATCHED[name]()
    for height in range(7, 14):
        x = torch.zeros(2, 3, height, 20 - height)
        small = down(x)
        up = ConvTranspose2d(small.shape[1], 3, match=down)
        y = up(small, x)
        assert y.shape == x.shape
        low, high = zip(*house.size_limits(small.shape[2:], up.window(), up.padding), strict=True)
        for n in range(1, 30):  # the limits are exactly the sizes from which the other layer makes so many windows
            try:
                same = down(torch.zeros(1, 3, n, 20 - height)).shape[2] == small.shape[2]
            except (RuntimeError, ValueError):
                same = False
            assert same == (low[0] <= n <= high[0]), (height, n)
        if "rounds" not in name:
            assert up(small).shape[2:] == (high if "same_" in name else low)
    if isinstance(down, Conv2d):
        up.double().load_state_dict({"weight": down.weight, "bias": torch.zeros(3)})
        down, x, y = down.double(), noise(1, 3, 9, 11), noise(1, 8, *small.shape[2:])
        y = noise(*down(x).shape, seed=1)
        plain = down(x) - down.bias.reshape(-1, 1, 1)
        assert torch.allclose((plain * y).sum(), (x * up(y, x)).sum(), rtol=1e-11)


@pytest.mark.parametrize(
    "options", [{"padding": (1, 0, 2, 1)}, {"padding": ((1, 0), (2, 1))}, {"padding": (0, 2, 1, 3), "output_padding": (1, 0)}]
)
def test_each_side_can_be_cut_by_itself(options):
    layer, x = ConvTranspose2d(2, 3, (4, 3), 2, **options).double(), noise(2, 2, 4, 5)
    top, bottom, left, right = (side for pair in options["padding"] for side in (pair if isinstance(pair, tuple) else (pair,)))
    more = options.get("output_padding", (0, 0))
    whole = F.pad(F.conv_transpose2d(x, layer.weight, None, 2), (0, more[1], 0, more[0])) + layer.bias.reshape(-1, 1, 1)
    expected = whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right]
    for route in ("plain", "vendor"):
        with twofold.route(route):
            assert torch.allclose(layer(x), expected, rtol=1e-11, atol=1e-12)
    other = ConvTranspose2d(2, 3, (4, 3), 2)
    other.padding = options["padding"]  # a setting that is changed afterwards counts
    assert other(x.float()).shape[2:] == tuple(n - m for n, m in zip(expected.shape[2:], more, strict=True))


def test_an_empty_batch_has_zero_weight_gradient_and_half_the_precision_is_served():
    layer = ConvTranspose2d(3, 4, 3, 2)
    for route in ("plain", "vendor"):
        layer.zero_grad()
        with twofold.route(route):
            y = layer(torch.zeros(0, 3, 5, 6))
        y.sum().backward()
        assert y.shape == (0, 4, 11, 13) and all(p.grad is not None and not p.grad.any() for p in layer.parameters())
    x = noise(2, 3, 4, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(layer(x).float(), layer(x.double().float()).float()) and layer(x).dtype == torch.bfloat16


def test_an_exporter_sees_torchs_operator_for_any_size():
    layer = ConvTranspose2d(2, 3, (3, 4), stride=2, padding=(1, 2), output_padding=1)
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=3), 3: torch.export.Dim("width", min=3)}
    exported = torch.export.export(layer, (torch.randn(2, 2, 6, 7),), dynamic_shapes=(sizes,))
    x = torch.randn(3, 2, 12, 9)
    assert torch.allclose(exported.module()(x), layer(x), atol=1e-6)
    assert [n.target for n in exported.graph.nodes if n.op == "call_function"] == [torch.ops.aten.conv_transpose2d.input]


@pytest.mark.parametrize("settings", [(3, 2, 0), (4, 2, 1), (3, 3, 0), ((4, 3), (1, 2), (2, 1)), (2, 3, 0)])
def test_overlap_counts_are_stamps_of_ones(settings):
    layer = ConvTranspose2d(1, 1, *settings, bias=False)
    torch_nn.init.ones_(layer.weight)
    assert torch.equal(layer.overlap_counts((5, 6)), layer(torch.ones(1, 1, 5, 6))[0, 0].long())
    wanted = layer(torch.ones(1, 1, 5, 6)).shape[2:]
    assert torch.equal(overlap_counts(layer, (5, 6), wanted), overlap_counts(layer, (5, 6)))
    kernel, stride = layer.kernel_size, layer.stride
    if all(k % s == 0 for k, s in zip(kernel, stride, strict=True)):  # no checkerboard inside
        inside = layer.overlap_counts((5, 6))[kernel[0] : -kernel[0], kernel[1] : -kernel[1]]
        assert inside.unique().tolist() == [kernel[0] * kernel[1] // stride[0] // stride[1]]


LAYERS = {1: ConvTranspose1d, 2: ConvTranspose2d, 3: ConvTranspose3d}


@pytest.mark.parametrize(
    ("stride", "kernel"), [(2, 4), (2, 3), (3, 5), (3, 6), (3, 7), (4, 8), (4, 7), (1, 1), (1, 4), (2, 2), (3, 4), (4, 6)]
)
@pytest.mark.parametrize("axes", [1, 2])
def test_bilinear_keeps_constants_and_ramps(stride, kernel, axes):
    layer, size = bilinear_(LAYERS[axes](2, 2, kernel, stride).double()), (9, 8)[:axes]
    slope = torch.tensor([3.0, -2.0], dtype=torch.float64)[:axes]
    ramp = (torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in size), indexing="ij"), -1) * slope).sum(-1)
    constant, y = layer(torch.stack([ramp * 0 + 5, ramp])[None])[0]
    inside = [slice(kernel, -kernel)] * axes
    assert torch.allclose(constant[*inside], torch.tensor(5.0).double(), rtol=1e-12)
    if kernel >= 2 * stride - 1 + (kernel + 1) % 2:
        places = torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in y.shape), indexing="ij"), -1)
        assert torch.allclose(y[*inside], (((places - (kernel - 1) / 2) / stride) * slope).sum(-1)[*inside], rtol=1e-12, atol=1e-10)


def test_bilinear_is_long_shelhamer_and_darrells_kernel_and_bilinear_resizing():
    layer = bilinear_(ConvTranspose2d(4, 4, 4, 2, 1, groups=2).double())
    row = torch.tensor([0.25, 0.75, 0.75, 0.25]).double()
    for c in range(4):
        assert torch.equal(layer.weight[c, c % 2], torch.outer(row, row)) and not layer.weight[c, 1 - c % 2].any()
    x = noise(1, 4, 5, 6)
    assert torch.allclose(layer(x)[..., 1:-1, 1:-1], resize(x, scale_factor=2, mode="bilinear")[..., 1:-1, 1:-1], rtol=1e-12)
    signal = bilinear_(ConvTranspose3d(1, 1, (3, 4, 5), (2, 2, 3)))
    assert torch.allclose(signal.weight.flatten(2).sum(), torch.tensor(12.0)) and not signal.bias.any()


X = torch.zeros(1, 2, 4, 4)
BAD = {
    "channels": (
        lambda: ConvTranspose2d(3, 4, 3)(X),
        "ConvTranspose2d input: expected (B, C=3, H, W), got (1, 2, 4, 4): C is 2, not 3.",
    ),
    "channels last": (lambda: ConvTranspose2d(4, 1, 3)(X), "C is 2, not 4. Channels last? x.permute(0, 3, 1, 2)."),
    "no batch": (lambda: ConvTranspose2d(2, 4, 3)(X[0]), "got (2, 4, 4): 3 axes, not 4. One image? x.unsqueeze(0)."),
    "bytes": (lambda: ConvTranspose2d(2, 4, 3)(X.byte()), "Bytes? Convert and scale: x.float() / 255."),
    "double": (lambda: ConvTranspose2d(2, 4, 3)(X.double()), "expected float32, the dtype of the weights, got float64."),
    "device": (lambda: ConvTranspose2d(2, 4, 3)(X.to("meta")), "expected device cpu, where the weights are, got meta."),
    "numpy": (lambda: ConvTranspose2d(2, 4, 3)(np.zeros((1, 2, 4, 4))), "expected a torch tensor, got numpy.ndarray."),
    "empty map": (lambda: ConvTranspose2d(2, 4, 3)(X[:, :, :0]), "ConvTranspose2d input: expected maps of at least 1x1, got 0x4."),
    "nothing left": (
        lambda: ConvTranspose2d(2, 4, 3, padding=(1, 4))(X),
        "ConvTranspose2d input: the padding 1+1, 4+4 cuts away all of the 6x6 that maps of 4x4 become. Use less padding or larger maps.",
    ),
    "size": (
        lambda: ConvTranspose2d(2, 4, 3, 2, 1)(X, (7, 9)),
        "ConvTranspose2d: expected output_size within 7..8 x 7..8, got 7x9: the layer that this one turns around makes maps of 4x4 from no "
        "others. Is it the size of the map that went into that layer?",
    ),
    "length of size": (
        lambda: ConvTranspose2d(2, 4, 3)(X, (6, 6, 6)),
        "ConvTranspose2d: expected output_size to be one whole number or two",
    ),
    "size as map": (lambda: ConvTranspose2d(2, 4, 3)(X, X[0]), "ConvTranspose2d output_size: expected (B, C, H, W), got (2, 4, 4)"),
    "output padding": (
        lambda: ConvTranspose2d(2, 4, 3, 2, output_padding=2),
        "ConvTranspose2d: expected output_padding below the stride 2x2 or the dilation 1x1, got 2: it says how many rows at the end the "
        "convolution had dropped. To surround the result with zeros pad it.",
    ),
    "output padding and words": (
        lambda: ConvTranspose2d(2, 4, 3, 2, "same_upper", 1),
        'padding="same_upper" makes maps of stride times the size; output_padding=1 has no place there.',
    ),
    "negative output padding": (
        lambda: ConvTranspose2d(2, 4, 3, output_padding=-1),
        "expected output_padding to be one whole number or two",
    ),
    "kernel": (lambda: ConvTranspose2d(2, 4, 0), "ConvTranspose2d: expected kernel_size to be one whole number or two, from 1"),
    "no kernel": (lambda: ConvTranspose2d(2, 4), "ConvTranspose2d: expected kernel_size, or match=layer"),
    "both": (
        lambda: ConvTranspose2d(2, 4, 3, stride=1, match=Conv2d(2, 4, 3)),
        "ConvTranspose2d: kernel_size, stride follow from match=Conv2d. Give the one or the other.",
    ),
    "match": (lambda: ConvTranspose2d(2, 4, match=Conv1d(2, 4, 3)), "expected match to be a convolution or pool along H W, got Conv1d."),
    "match itself": (
        lambda: ConvTranspose3d(2, 4, match=ConvTranspose3d(2, 4, 3)),
        "convolution or pool along D H W, got ConvTranspose3d.",
    ),
    "stride": (lambda: ConvTranspose1d(2, 4, 3, 0), "ConvTranspose1d: expected stride"),
    "padding": (lambda: ConvTranspose1d(2, 4, 3, padding=-1), "ConvTranspose1d: expected padding to be one whole number, from 0"),
    "groups": (lambda: ConvTranspose2d(4, 6, 3, groups=4), "ConvTranspose2d: expected out_channels to be a multiple of groups=4, got 6."),
    "mode": (
        lambda: ConvTranspose2d(2, 4, 3, padding_mode="reflect"),
        "ConvTranspose2d: expected padding_mode \"zeros\", got 'reflect': what is stamped beyond the map is cut away.",
    ),
    "too many": (
        lambda: ConvTranspose2d(1, 2, 1, 2**16, device="meta")(torch.empty(1, 1, 2, 2, device="meta")),
        "ConvTranspose2d input: expected outputs of at most 2147483647 numbers",
    ),
    "too many columns": (
        lambda: transposed.by("plain", torch.empty(1, 1, 1).expand(1, 1, 2**16), torch.empty(1, 2, 2**15), None, Window((2**15,)), 1, (0,)),
        "transposed: expected columns of at most 2147483647 numbers",
    ),
    "bilinear maps": (
        lambda: bilinear_(ConvTranspose2d(2, 4, 4, 2)),
        "bilinear_: expected a layer with as many maps out as in, got 2 in and 4 out",
    ),
    "bilinear kernel": (
        lambda: bilinear_(ConvTranspose2d(2, 2, 2, 3)),
        "expected a kernel of at least the stride 3x3, got 2x2: gaps would stay.",
    ),
    "bilinear dilation": (lambda: bilinear_(ConvTranspose2d(2, 2, 4, 2, dilation=2)), "expected a layer without dilation, got 2x2."),
    "overlap": (
        lambda: ConvTranspose2d(2, 2, 4).overlap_counts(0),
        "ConvTranspose2d overlap_counts: expected size to be one whole number or two",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    check_message(*BAD[name])


def changed(**changes):
    """The pair with some of its steps replaced."""

    def same(value):
        return value

    def forward(x, weight, bias, window, groups, extra):
        x, weight, window, extra = (
            changes.get(name, same)(value) for name, value in (("x", x), ("weight", weight), ("window", window), ("extra", extra))
        )
        return house.forward(x, weight, bias, window, groups, extra)

    def backward(dy, saved):
        return tuple(changes.get(name, same)(d) for name, d in zip(("dx", "dweight", "dbias"), house.backward(dy, saved), strict=True))

    return differentiable(forward, backward)


def other_sides(window):
    sides = tuple(side for before, after in window.sides() for side in (after, before))
    return Window(window.kernel, window.stride, sides, window.dilation)


MUTANTS = {
    "kernel turned": changed(weight=turned),
    "kernel turned in rows": changed(weight=lambda w: w.flip(2)),
    "maps permuted": changed(weight=lambda w: w.flip(0)),
    "channels permuted": changed(weight=lambda w: w.flip(1)),
    "groups in the wrong order": changed(x=lambda x: x.roll(2, 1)),
    "padding on the wrong side": changed(window=other_sides),
    "stride and dilation exchanged": changed(window=lambda w: Window(w.kernel, w.dilation, w.padding, w.stride)),
    "extra forgotten": changed(extra=lambda extra: (0, 0)),
    "extra along the other axis": changed(extra=lambda extra: extra[::-1]),
    "extra before": changed(window=lambda w: Window(w.kernel, w.stride, (0, 3, 0, 1), w.dilation)),
    "dx turned": changed(dx=lambda d: d.flip(2)),
    "dx of one group": changed(dx=lambda d: torch.cat([d[:, :2], 0 * d[:, 2:]], 1)),
    "dweight turned": changed(dweight=turned),
    "dweight a mean": changed(dweight=lambda d: d / 2),
    "no dbias": changed(dbias=lambda d: None),
    "dbias a mean": changed(dbias=lambda d: d / 7),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_variant_is_caught(name):
    check_expression(Case(transposed, CASES["everything"], by_stuffing))
    with pytest.raises(AssertionError):
        check_expression(Case(MUTANTS[name], CASES["everything"], by_stuffing))


def test_a_wrong_adjoint_is_caught():
    with pytest.raises(AssertionError, match="<Ax,y>"):
        check_adjoint(Case(MUTANTS["dx turned"], CASES["no bias"], by_stuffing, linear=True))


@pytest.mark.parametrize("axes", [1, 3])
def test_signals_and_volumes_are_matched_too(axes):
    down = {1: Conv1d, 3: Conv3d}[axes](2, 3, 3, stride=2, padding=1)
    x = torch.zeros(1, 2, *(8, 7, 6)[:axes])
    assert LAYERS[axes](3, 2, match=down)(down(x), x).shape == x.shape
