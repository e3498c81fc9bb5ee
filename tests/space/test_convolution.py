"""Conv2d: the four witnesses, the law of the flipped kernel, edge input, and wrong variants that must be caught."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn as torch_nn
from torch.nn import functional as F

import twofold
from twofold.layers.check import Case, check, check_adjoint, check_differences, check_drop_in, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.space import convolution, windows
from twofold.space.convolution import Conv2d, conv2d
from twofold.space.windows import Window, unfold


def by_torch(x, weight, bias, window, groups=1):
    top, bottom, left, right = window.padding
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, window.stride, 0, window.dilation, groups)


def by_loops(x, weight, bias, window, groups=1):
    """The sum of the law, one number at a time."""
    B, _, H, W = x.shape
    filters, per_group, kh, kw = weight.shape
    P, Q = window.output_size((H, W))
    y = np.zeros((B, filters, P, Q))
    for b, f, p, q in np.ndindex(*y.shape):
        y[b, f, p, q] = 0.0 if bias is None else bias[f]
        for c, i, j in np.ndindex(per_group, kh, kw):
            h = p * window.stride[0] - window.padding[0] + i * window.dilation[0]
            w = q * window.stride[1] - window.padding[2] + j * window.dilation[1]
            if 0 <= h < H and 0 <= w < W:
                y[b, f, p, q] += weight[f, c, i, j] * x[b, f // (filters // groups) * per_group + c, h, w]
    return y


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
    "everything": case((2, 4, 6, 7), (6, 2, 3, 2), Window((3, 2), (2, 1), (1, 2, 0, 3), (1, 2)), 2),
    "groups": case((2, 6, 4, 5), (4, 3, 2, 2), Window((2, 2)), 2),
    "depthwise with multiplier and stride": case((2, 3, 5, 4), (6, 1, 3, 2), Window((3, 2), (2, 1)), 3),
    "one pixel": case((2, 3, 1, 1), (2, 3, 1, 1), Window((1, 1))),
    "output of one": case((2, 2, 3, 4), (2, 2, 3, 4), Window((3, 4))),
    "last column dropped": case((2, 2, 5, 6), (2, 2, 2, 3), Window((2, 3), (2, 2))),
    "frozen input": (noise(2, 2, 4, 5, grad=False), *case((2, 2, 4, 5), (3, 2, 2, 3), Window((2, 3)))[1:]),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    x, weight, bias, window, groups = CASES[name]
    check(Case(conv2d, (x, weight, bias, window, groups), by_torch, linear=bias is None))
    expected = by_loops(*(None if t is None else t.detach().numpy() for t in (x, weight, bias)), window, groups)
    assert np.allclose(conv2d.explain(x, weight, bias, window, groups)[0].numpy(), expected, rtol=0, atol=1e-10)


def turned(weight):
    return weight.flip(2, 3)


@pytest.mark.parametrize(("stride", "size"), [((1, 1), (6, 7)), ((2, 2), (7, 8)), ((2, 3), (8, 9))])
def test_dx_is_the_full_correlation_of_dy_with_the_kernel_turned(stride, size):
    x, weight = noise(2, 3, *size, grad=False), noise(4, 3, 3, 2, seed=1, grad=False)
    window = Window((3, 2), stride)
    y, saved = convolution.forward(x, weight, None, window)
    dy = noise(*y.shape, seed=2, grad=False)
    dx, dweight, _ = convolution.backward(dy, saved)

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
        assert conv2d(x, weight, None, Window((2, 2)))[0, 0, 0, 0].item() == 0 * 1 + 1 * 10 + 4 * 100 + 5 * 1000


def test_a_shifted_map_gives_a_shifted_answer():
    x, weight = noise(1, 2, 9, 9, grad=False), noise(3, 2, 3, 3, seed=1, grad=False)
    answer, shifted = (convolution.forward(m, weight, None, Window((3, 3)))[0] for m in (x, x.roll((1, 2), (2, 3))))
    assert torch.allclose(answer[:, :, :-1, :-2], shifted[:, :, 1:, 2:], rtol=1e-12, atol=1e-12)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_whole_numbers_are_convolved_exactly_on_every_route(data):
    groups = data.draw(st.integers(1, 3))
    kernel = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 2))
    window = Window(kernel, data.draw(pairs), data.draw(st.tuples(*[st.integers(0, 3)] * 4)), data.draw(pairs))
    H, W = (data.draw(st.integers(d * (k - 1) + 1, 9)) for k, d in zip(kernel, window.dilation, strict=True))
    shapes = (
        (data.draw(st.integers(1, 3)), groups * data.draw(st.integers(1, 2)), H, W),
        (groups * data.draw(st.integers(1, 2)),),
    )
    weight_shape = (shapes[1][0], shapes[0][1] // groups, *kernel)
    numbers = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    x, weight, bias = (
        torch.randint(-8, 9, shape, generator=numbers).float().requires_grad_() for shape in (shapes[0], weight_shape, shapes[1])
    )
    results = []
    for route, dtype in (("plain", torch.float32), ("vendor", torch.float32), ("vendor", torch.float64)):
        leaves = [t.detach().to(dtype).requires_grad_() for t in (x, weight, bias)]
        y = conv2d.by(route, *leaves, window, groups)
        dy = (torch.arange(y.numel()) % 7 - 3).to(dtype).reshape(y.shape)
        results.append([y.float(), *(g.float() for g in torch.autograd.grad(y, leaves, dy))])
    for result in results[:2]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[2], strict=True))


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
    assert torch.equal(exported.module()(x), layer(x))
    assert [n.target for n in exported.graph.nodes if n.op == "call_function"] == [torch.ops.aten.conv2d.default]


def changed(**changes):
    """The pair with some of its steps replaced."""

    def forward(x, weight, bias, window, groups=1):
        return convolution.forward(x, changes.get("weight", lambda w: w)(weight), bias, changes.get("window", lambda w: w)(window), groups)

    return differentiable(changes.get("forward", forward), changes.get("backward", convolution.backward))


def backward_with(**replacements):
    def backward(dy, saved):
        gradients = dict(zip(("dx", "dweight", "dbias"), convolution.backward(dy, saved), strict=True))
        gradients |= {name: replace(dy, saved, gradients[name]) for name, replace in replacements.items()}
        return tuple(gradients.values())

    return backward


def other_padding(window):
    top, bottom, left, right = window.padding
    return Window(window.kernel, window.stride, (bottom, top, right, left), window.dilation)


def dx_without_turning(dy, saved, dx):
    return convolution.backward(dy, saved._replace(weight_FCij=turned(saved.weight_FCij)))[0]


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
        backward=backward_with(dweight=lambda dy, saved, d: convolution.backward(dy[:1], saved._replace(x_BCHW=saved.x_BCHW[:1]))[1])
    ),
    "dweight a mean": changed(backward=backward_with(dweight=lambda dy, saved, d: d / dy.shape[0])),
    "no dbias": changed(backward=backward_with(dbias=lambda dy, saved, d: None)),
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
        'Conv2d input: padding of 9 rows in mode "reflect" needs maps of at least 10 rows, got 8.',
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
    "misspelt": (lambda: Conv2d(3, 4, 3, padding="some"), 'Conv2d: expected padding to be whole numbers, "same" or "valid", got \'some\'.'),
    "same with stride": (
        lambda: Conv2d(3, 4, (3, 5), padding="same", stride=2, dilation=(2, 1)),
        'Conv2d: padding="same" with stride (2, 2) is not defined here: with a stride the map shrinks in any case. '
        "Give the padding in numbers, for an odd kernel padding=(2, 2).",
    ),
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
