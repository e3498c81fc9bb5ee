"""The convolution layers: they stand in for torch's, take every padding, and say what they cannot take."""

import copy

import numpy as np
import pytest
import torch
from torch import nn as torch_nn
from torch.nn import functional as F

import twofold
from twofold.layers.check import check_drop_in, noise
from twofold.space.convolution import Conv1d, Conv2d, Conv3d, DepthwiseConv2d

DROP_IN = {
    "plain": ((2, 3, (3, 2)), {}),
    "everything": ((4, 6, (3, 2)), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2, "bias": False}),
    "same": ((2, 3, (3, 4)), {"padding": "same", "dilation": (2, 1)}),
    "valid": ((2, 3, 3), {"padding": "valid", "stride": 2}),
    "reflect": ((2, 3, (3, 4)), {"padding": (2, 1), "padding_mode": "reflect", "stride": 2}),
    "replicate": ((2, 3, 3), {"padding": 9, "padding_mode": "replicate"}),
    "circular": ((2, 3, (3, 4)), {"padding": "same", "padding_mode": "circular"}),
    "list": ((2, 3, [3, 2]), {"stride": [1, 2]}),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch's own layer says so
@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("name", DROP_IN)
def test_stands_in_for_torch(name, route):
    arguments, options = DROP_IN[name]
    ours, theirs = Conv2d(*arguments, **options).double(), torch_nn.Conv2d(*arguments, **options).double()
    with twofold.route(route):
        check_drop_in(ours, theirs, noise(2, arguments[0], 7, 8))
    assert ours.last_route == route


@pytest.mark.parametrize(("ours", "theirs", "size"), [(Conv1d, torch_nn.Conv1d, (9,)), (Conv3d, torch_nn.Conv3d, (4, 5, 6))])
@pytest.mark.parametrize(
    "options", [{"stride": 2, "padding": 1}, {"padding": "same", "padding_mode": "circular"}, {"groups": 2, "dilation": 2}]
)
def test_signals_and_volumes(ours, theirs, size, options):
    check_drop_in(ours(4, 2, 2, **options).double(), theirs(4, 2, 2, **options).double(), noise(2, 4, *size))


@pytest.mark.parametrize(
    ("padding", "sides"),
    [
        ((1, 2, 0, 3), (1, 2, 0, 3)),
        (((1, 2), (0, 3)), (1, 2, 0, 3)),
        ("full", (2, 2, 3, 3)),
        ("same", (1, 1, 1, 2)),
        ("same_upper", (0, 1, 0, 1)),
        ("same_lower", (1, 0, 1, 0)),
    ],
)
def test_every_way_to_say_the_padding(padding, sides):
    """Kernel 3x4, stride 2x3, on maps of 8x9: TensorFlow's same needs 1 row and 1 column for its 4x3 windows."""
    layer, x = Conv2d(2, 3, (3, 4), stride=(2, 3), padding=padding).double(), noise(2, 2, 8, 9, grad=False)
    top, bottom, left, right = sides
    expected = F.conv2d(F.pad(x, (left, right, top, bottom)), layer.weight, layer.bias, (2, 3))
    for route in ("plain", "vendor", "auto"):
        with twofold.route(route):
            assert torch.allclose(layer(x), expected, rtol=1e-11)
    if isinstance(padding, str) and padding.startswith("same"):
        assert expected.shape[2:] == (4, 3)
        assert layer(x[:, :, :7, :7]).shape[2:] == (4, 3)  # ceil(7 / 2), ceil(7 / 3): the padding follows the size


def test_padding_beyond_the_kernel_and_in_every_mode():
    x = noise(1, 1, 4, 5, grad=False)
    for mode in ("zeros", "reflect", "replicate", "circular"):
        layer = Conv2d(1, 1, 2, padding=(3, 2, 0, 4), padding_mode=mode).double()
        framed = F.pad(x, (0, 4, 3, 2), "constant" if mode == "zeros" else mode)
        assert torch.allclose(layer(x), F.conv2d(framed, layer.weight, layer.bias), rtol=1e-12)


def test_depthwise_gives_every_channel_its_own_filters():
    layer, x = DepthwiseConv2d(3, (3, 2), multiplier=2, stride=2).double(), noise(2, 3, 7, 6, grad=False)
    alone = [F.conv2d(x[:, c : c + 1], layer.weight[2 * c : 2 * c + 2], layer.bias[2 * c : 2 * c + 2], 2) for c in range(3)]
    assert torch.allclose(layer(x), torch.cat(alone, 1), rtol=1e-12) and layer.weight.shape == (6, 1, 3, 2)


@pytest.mark.parametrize("algorithm", ["columns", "taps", "fourier", "winograd"])
def test_the_algorithm_can_be_chosen(algorithm):
    chosen, x = Conv2d(2, 3, 3, padding="same", algorithm=algorithm).double(), noise(2, 2, 6, 7)
    assert torch.allclose(chosen(x), F.conv2d(x, chosen.weight, chosen.bias, padding=1), rtol=0, atol=1e-11)
    assert chosen.last_route == algorithm and f"algorithm={algorithm}" in repr(chosen)


def test_large_kernels_go_by_fourier():
    layer, x = Conv2d(2, 2, 31, padding=15), noise(1, 2, 64, 48, dtype=torch.float32)
    y = layer(x)
    assert layer.last_route == "fourier"
    assert torch.allclose(y, F.conv2d(x, layer.weight, layer.bias, padding=15), atol=1e-5)


def layouts(x):
    """The same numbers, lying differently in memory."""
    wide = torch.zeros(*x.shape[:3], 2 * x.shape[3], dtype=x.dtype)
    wide[..., ::2] = x
    return {
        "channels last": x.to(memory_format=torch.channels_last),
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": wide[..., ::2],
    }


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_the_layout_in_memory_does_not_matter(route):
    layer, x = Conv2d(3, 4, (3, 2), stride=(1, 2), padding=1).double(), noise(2, 3, 5, 6, grad=False)
    with twofold.route(route):
        expected = layer(x)
        for name, other in layouts(x).items():
            assert torch.allclose(layer(other), expected, rtol=1e-12), name
        row = noise(1, 3, 5, 6, grad=False)
        assert torch.allclose(layer(row.expand(4, -1, -1, -1)), layer(row.repeat(4, 1, 1, 1)), rtol=1e-12)


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_an_empty_batch_has_zero_weight_gradient(route):
    layer = Conv2d(3, 4, 3, padding=1)
    with twofold.route(route):
        y = layer(torch.zeros(0, 3, 5, 6))
    y.sum().backward()
    assert y.shape == (0, 4, 5, 6)
    assert all(p.grad is not None and p.grad.count_nonzero() == 0 for p in layer.parameters())


def test_a_setting_that_is_changed_afterwards_counts():
    layer = Conv2d(2, 3, 3).double()
    x = noise(1, 2, 9, 9, grad=False)
    layer(x)
    layer.stride, layer.padding = (2, 2), (1, 1)
    assert torch.equal(layer(x), F.conv2d(x, layer.weight, layer.bias, 2, 1))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_an_exporter_sees_torchs_operator_for_any_size():
    layer = Conv2d(2, 3, (3, 4), stride=2, padding=(1, 2))
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
    exported = torch.export.export(layer, (torch.randn(2, 2, 16, 17),), dynamic_shapes=(sizes,))
    x = torch.randn(3, 2, 12, 9)
    assert torch.allclose(exported.module()(x), layer(x), atol=1e-6)
    assert [n.target for n in exported.graph.nodes if n.op == "call_function"] == [torch.ops.aten.conv2d.default]


def images(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


BAD = {
    "grey": (
        lambda: Conv2d(3, 4, 3)(images(8, 1, 28, 28)),
        "Conv2d input: expected (B, C=3, H, W), got (8, 1, 28, 28): C is 1, not 3. Grey images? Build the model with in_channels=1.",
    ),
    "colour": (lambda: Conv2d(1, 4, 3)(images(8, 3, 9, 9)), "C is 3, not 1. Colour images? Build the model with in_channels=3."),
    "transparent": (lambda: Conv2d(3, 4, 3)(images(8, 4, 9, 9)), "Transparent images? Build the model with in_channels=4."),
    "channels last": (lambda: Conv2d(3, 4, 3)(images(8, 9, 9, 3)), "C is 9, not 3. Channels last? x.permute(0, 3, 1, 2)."),
    "other channels": (lambda: Conv2d(3, 4, 3)(images(8, 5, 9, 9)), "got (8, 5, 9, 9): C is 5, not 3."),
    "grey batch as one image": (
        lambda: Conv2d(28, 4, 3)(images(28, 28, 28)),
        "expected (B, C=28, H, W), got (28, 28, 28): 3 axes, not 4. One image? x.unsqueeze(0). A batch of grey images? x.unsqueeze(1).",
    ),
    "rows": (lambda: Conv2d(3, 4, 3)(images(8, 3)), "got (8, 3): 2 axes, not 4."),
    "bytes": (lambda: Conv2d(3, 4, 3)(images(8, 3, 9, 9, dtype=torch.uint8)), "Bytes? Convert and scale: x.float() / 255."),
    "double": (lambda: Conv2d(3, 4, 3)(images(8, 3, 9, 9).double()), "expected float32, the dtype of the weights, got float64."),
    "numpy": (lambda: Conv2d(3, 4, 3)(np.zeros((8, 3, 9, 9))), "Conv2d input: expected a torch tensor, got numpy.ndarray."),
    "too small": (lambda: Conv2d(3, 4, 5)(images(8, 3, 4, 9)), "Conv2d input: the kernel 5x5 does not fit into the padded map 4x9"),
    "empty map": (lambda: Conv2d(3, 4, 1)(images(8, 3, 0, 9)), "Conv2d input: expected maps of at least 1x1, got 0x9."),
    "reflect too far": (
        lambda: Conv2d(3, 4, 3, padding=9, padding_mode="reflect")(images(1, 3, 8, 12)),
        'Conv2d input: padding of 9 in mode "reflect" needs maps of at least 10 along axis 2, got 8.',
    ),
    "kernel 0": (lambda: Conv2d(3, 4, 0), "Conv2d: expected kernel_size to be one whole number or two, from 1 to 2147483647, got 0."),
    "kernel 2.5": (lambda: Conv2d(3, 4, 2.5), "expected kernel_size to be one whole number or two, from 1 to 2147483647, got 2.5."),
    "padding -1": (lambda: Conv2d(3, 4, 3, padding=-1), "Conv2d: expected padding to be one whole number or two, from 0"),
    "three paddings": (lambda: Conv2d(3, 4, 3, padding=(1, 2, 3)), "got (1, 2, 3)."),
    "stride 0": (lambda: Conv2d(3, 4, 3, stride=0), "Conv2d: expected stride"),
    "dilation": (
        lambda: Conv2d(3, 4, 3, dilation=2**62),
        f"Conv2d: expected dilation to be one whole number or two, from 1 to {2**31 - 1}",
    ),
    "no filters": (lambda: Conv2d(3, 0, 3), "Conv2d: expected out_channels to be a whole number of at least 1, got 0."),
    "groups": (lambda: Conv2d(4, 4, 3, groups=3), "Conv2d: expected in_channels to be a multiple of groups=3, got 4."),
    "groups of filters": (lambda: Conv2d(3, 4, 3, groups=3), "Conv2d: expected out_channels to be a multiple of groups=3, got 4."),
    "misspelt": (
        lambda: Conv2d(3, 4, 3, padding="some"),
        'Conv2d: expected padding to be whole numbers or one of "valid", "same", "same_upper", "same_lower", "full", got \'some\'.',
    ),
    "algorithm": (
        lambda: Conv2d(3, 4, 3, algorithm="fft"),
        "Conv2d: expected algorithm to be one of columns, taps, winograd, fourier, got 'fft'.",
    ),
    "algorithm that cannot": (lambda: Conv2d(3, 4, 5, algorithm="winograd")(images(1, 3, 9, 9)), "winograd: expected a 3x3 kernel"),
    "signal": (
        lambda: Conv1d(3, 4, 3)(images(3, 9)),
        "Conv1d input: expected (B, C=3, T), got (3, 9): 2 axes, not 3. One signal? x.unsqueeze(0).",
    ),
    "volume": (
        lambda: Conv3d(2, 4, 3)(images(1, 3, 9, 9, 9)),
        "Conv3d input: expected (B, C=2, D, H, W), got (1, 3, 9, 9, 9): C is 3, not 2.",
    ),
    "too many outputs": (
        lambda: Conv2d(1, 2**16, 1, device="meta")(torch.empty(1, 1, 2**8, 2**8, device="meta")),
        "Conv2d input: expected outputs of at most 2147483647 numbers, got 1x65536x256x256 = 4294967296. Use smaller batches",
    ),
    "other device": (lambda: Conv2d(3, 4, 3)(images(1, 3, 9, 9).to("meta")), "expected device cpu, where the weights are, got meta."),
    "depthwise": (
        lambda: DepthwiseConv2d(3, 3, multiplier=0),
        "DepthwiseConv2d: expected multiplier to be a whole number of at least 1, got 0.",
    ),
    "depthwise groups": (lambda: DepthwiseConv2d(3, 3, groups=3), "DepthwiseConv2d: groups follow from channels=3 and multiplier=1."),
    "mode": (
        lambda: Conv2d(3, 4, 3, padding_mode="mirror"),
        "Conv2d: expected padding_mode to be one of zeros, reflect, replicate, circular, got 'mirror'.",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)
