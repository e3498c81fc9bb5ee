"""Transposed convolution as a layer: torch's layers, sizes and whose they are, every side, exporters, stamps, messages."""

import copy

import numpy as np
import pytest
import torch
from torch import nn as torch_nn
from torch.nn import functional as F

import twofold
from twofold.layers.check import check_drop_in, check_message, noise
from twofold.space import transposed as house
from twofold.space.convolution import Conv1d, Conv2d, Conv3d
from twofold.space.max_pooling import MaxPool2d
from twofold.space.stamping import size_limits
from twofold.space.transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, overlap_counts

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
        low, high = zip(*size_limits(small.shape[2:], up.window(), up.padding), strict=True)
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
    "overlap": (
        lambda: ConvTranspose2d(2, 2, 4).overlap_counts(0),
        "ConvTranspose2d overlap_counts: expected size to be one whole number or two",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    check_message(*BAD[name])


@pytest.mark.parametrize("axes", [1, 3])
def test_signals_and_volumes_are_matched_too(axes):
    down = {1: Conv1d, 3: Conv3d}[axes](2, 3, 3, stride=2, padding=1)
    x = torch.zeros(1, 2, *(8, 7, 6)[:axes])
    assert LAYERS[axes](3, 2, match=down)(down(x), x).shape == x.shape
