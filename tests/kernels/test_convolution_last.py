"""The compiled convolution of maps that lie channels last: exact on whole numbers, near on others, a node of autograd."""

import itertools
import random
from contextlib import contextmanager

import pytest
import torch
from torch.nn import functional as F

import twofold
from twofold import kernels, nn
from twofold.kernels import convolution_last as last
from twofold.kernels.fit import geometry
from twofold.layers.forms import bf16_ours
from twofold.space.correlation import correlate
from twofold.space.windows import Window

THREE, ONE = Window((3, 3), padding=(1,)), Window((1, 1))
ROUTE = "native channels last"
FULL, HALF = torch.float32, torch.bfloat16


def lacking():
    x = torch.zeros(1, 8, 4, 4, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    return last.unfit(x, torch.zeros(8, 8, 3, 3), None, THREE)


needs_rule = pytest.mark.skipif(not bf16_ours(), reason="the rule is for AVX512_BF16 without AMX")
needs_kernel = pytest.mark.skipif(bool(lacking()), reason=lacking() or "served")
needs_library = pytest.mark.skipif(not kernels.available(), reason=kernels.reason() or "built")
each_kind = pytest.mark.parametrize("kind", [pytest.param(FULL, marks=needs_library), pytest.param(HALF, marks=needs_kernel)])


def laid_out(x, kind=HALF):
    return x.to(kind).contiguous(memory_format=torch.channels_last)


def exactly(x, weight, bias, window):
    """In float64."""
    top, bottom, left, right = window.padding
    return F.conv2d(F.pad(x.double(), (left, right, top, bottom)), weight.double(), bias.double(), window.stride)


def draw(shape, generator, values=None):
    return torch.randn(shape, generator=generator) if values is None else values[torch.randint(0, len(values), shape, generator=generator)]


def shapes(count, seed):
    """(batch, channels, filters, window, size): lanes that are full and not, odd and even maps, maps smaller than the padded window."""
    dice = random.Random(seed)
    while count:
        window = Window((3, 3), padding=tuple(dice.randint(0, 3) for _ in range(4)))
        size = dice.randint(1, 19), dice.randint(1, 35)
        if all(n + a + b >= 3 for n, (a, b) in zip(size, window.sides(), strict=True)):
            count -= 1
            yield (
                dice.choice([1, 2, 3, 9]),
                dice.choice([1, 2, 15, 16, 31, 32, 33, 70]),
                dice.choice([1, 3, 16, 17, 32, 33, 65]),
                window,
                size,
            )


@contextmanager
def threads_of(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


ONES, FOURS = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([-4.0, 0.0, 4.0])


def exact_on_whole_numbers(kind, cases, generator):
    """No number in between needs more than eight digits, so nothing is ever rounded: x of -1 0 1, weights of -4 0 4."""
    ops = torch.ops.twofold
    for batch, channels, filters, window, (height, width) in cases:
        x = draw((batch, channels, height, width), generator, ONES).requires_grad_()
        weight = draw((filters, channels, 3, 3), generator, FOURS).requires_grad_()
        bias, numbers = draw((filters,), generator, FOURS), geometry(window, height, width)
        y = exactly(x, weight, bias, window)
        assert y.abs().max() < 1024
        dy = draw(y.shape, generator, ONES)
        dx, dweight = torch.autograd.grad(y, (x, weight), dy.double())
        dy, map_ = laid_out(dy, kind), laid_out(x.detach(), kind)
        with torch.no_grad():
            got = ops.convolution_last(map_, weight, bias, numbers, False), ops.convolution_last(map_, weight, bias, numbers, True)
            turned = ops.convolution_last_dx(dy, weight, numbers, height, width)
            summed, even = ops.convolution_last_dweight(map_, dy, numbers, True)
        where = (batch, channels, filters, window, height, width)
        assert got[0].dtype == turned.dtype == kind
        assert torch.equal(got[0].double(), y) and torch.equal(got[1].double(), y.relu()), where
        assert torch.equal(turned.float(), dx), where
        assert torch.equal(summed, dweight) and torch.equal(even, dy.float().sum((0, 2, 3))), where
        with torch.no_grad():
            packed_exactly(map_, weight, bias, window, y, generator)


def exact_products(kind, count, seed):
    """1x1 taps: pixels, channels and filters that fill tiles, panels and pairs, and that do not."""
    generator, dice = torch.Generator().manual_seed(seed), random.Random(seed)
    for _ in range(count):
        batch, height, width = dice.choice([1, 2, 5]), dice.randint(1, 21), dice.randint(1, 30)
        channels, filters = dice.choice([1, 2, 3, 16, 30, 32, 64, 130, 254]), dice.choice([1, 2, 15, 16, 18, 32, 33, 48, 96, 150])
        window = Window((1, 1), dice.choice([(1, 1), (1, 1), (2, 2), (3, 1)]))
        x = laid_out(draw((batch, channels, height, width), generator, ONES), kind).requires_grad_()
        weight = draw((filters, channels, 1, 1), generator, FOURS).requires_grad_()
        bias = draw((filters,), generator, FOURS)
        y, wanted = last.convolve(x, weight, bias, window), exactly(x, weight, bias, window)
        dy = torch.zeros(y.shape)
        dy[0, :, 0, 0] = draw((filters,), generator, ONES)  # one pixel: no sum of the gradient of a weight is rounded
        got = torch.autograd.grad(y, (x, weight), laid_out(dy, kind))
        true = torch.autograd.grad(wanted, (x, weight), dy.double())
        where = (batch, channels, filters, window, height, width)
        assert y.dtype == kind and torch.equal(y.double(), wanted), where
        assert all(torch.equal(a.double(), b.double()) for a, b in zip(got, true, strict=True)), where
        if kind == FULL or channels % 2 == 0:
            with torch.no_grad():
                packed_exactly(x, weight, bias, window, wanted, generator)


def packed_exactly(x, weight, bias, window, wanted, generator):
    """As in use: weights laid out once, another map added, and ReLU."""
    whole, other = last.pack(weight, bias, x.dtype), laid_out(draw(wanted.shape, generator, FOURS), x.dtype)
    for relu in (False, True):
        for beside, sum_ in ((None, wanted), (other, wanted + other.double())):
            y = last.packed(x, whole, weight.shape[0], window, beside, relu)
            assert y.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(y.double(), sum_.relu() if relu else sum_), (x.shape, weight.shape, window, relu)


@each_kind
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_whole_numbers_are_convolved_exactly(kind, threads):
    wide = (2, 270, 150, THREE, (6, 5))  # so many weights that all threads are at the same block
    with threads_of(threads):
        exact_on_whole_numbers(kind, itertools.chain([wide], shapes(40, threads)), torch.Generator().manual_seed(threads))


@each_kind
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_whole_numbers_are_multiplied_exactly(kind, threads):
    with threads_of(threads):
        exact_products(kind, 60, threads)


def in_a_process_of_its_own():
    """On another instruction set."""
    exact_on_whole_numbers(FULL, shapes(25, 7), torch.Generator().manual_seed(7))
    exact_products(FULL, 40, 7)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [pytest.param(FULL, FULL, marks=needs_library), *(pytest.param(HALF, dtype, marks=needs_kernel) for dtype in (FULL, HALF))],
)
@pytest.mark.parametrize(
    "window", [THREE, Window((3, 3), padding=(2, 0, 1, 1)), ONE, Window((1, 1), (2, 3))], ids=["3x3", "uneven", "1x1", "strided"]
)
def test_value_and_gradients_are_those_of_float64(window, kind, dtype):
    generator = torch.Generator().manual_seed(0)
    x = laid_out(draw((3, 40, 9, 8), generator), kind).requires_grad_()
    weight = (draw((48, 40, *window.kernel), generator) / 20).to(dtype).requires_grad_()
    bias = draw((48,), generator).to(dtype).requires_grad_()
    y = last.convolve(x, weight, bias, window)
    wanted = exactly(x, weight, bias, window)
    dy = draw(y.shape, generator)
    got = torch.autograd.grad(y, (x, weight, bias), dy.to(kind))
    true = torch.autograd.grad(wanted, (x, weight, bias), dy.double())
    assert y.dtype == kind and y.is_contiguous(memory_format=torch.channels_last)
    assert [gradient.dtype for gradient in got] == [kind, dtype, dtype]
    for a, b in zip((y, *got), (wanted, *true), strict=True):
        assert (a - b).norm() <= (1e-2 if kind == HALF else 1e-6) * b.norm()


@each_kind
@pytest.mark.parametrize("window", [THREE, ONE])
def test_second_derivatives_are_those_of_float64(window, kind):
    generator = torch.Generator().manual_seed(1)
    x = laid_out(draw((2, 32, 5, 6), generator), kind).requires_grad_()
    weight = (draw((32, 32, *window.kernel), generator) / 20).requires_grad_()
    bias, results = torch.zeros(32), []
    for compute in (last.convolve, exactly):
        y = compute(x, weight, bias, window)
        (dx,) = torch.autograd.grad(y.double().square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(dx.double().square().sum(), (x, weight)))
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= (3e-2 if kind == HALF else 1e-5) * b.norm()


@needs_kernel
def test_only_wanted_gradients_are_computed():
    x, weight = laid_out(torch.randn(1, 32, 4, 4)), torch.randn(32, 32, 3, 3, requires_grad=True)
    last.convolve(x, weight, None, THREE).sum().backward()
    assert weight.grad is not None and x.grad is None
    still = weight.detach()
    x.requires_grad_()
    last.convolve(x, still, None, THREE).sum().backward()
    assert x.grad is not None and still.grad is None
    assert not last.convolve(x.detach(), still, None, THREE).requires_grad


@each_kind
def test_an_empty_batch_has_an_empty_result_and_no_gradient(kind):
    for window, size in ((THREE, (3, 3)), (ONE, (1, 1))):
        x, weight = laid_out(torch.zeros(0, 32, 8, 8), kind).requires_grad_(), torch.randn(64, 32, *size, requires_grad=True)
        y = last.convolve(x, weight, None, window)
        assert y.shape == (0, 64, 8, 8)
        y.sum().backward()
        assert x.grad.shape == x.shape and not weight.grad.any()


def net():
    torch.manual_seed(0)
    small = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 32, 1)
    )
    return small.to(memory_format=torch.channels_last)


@needs_rule
def test_under_autocast_layers_of_maps_that_lie_channels_last_take_it():
    model, x = net(), torch.randn(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    gradients = []
    for reduced in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            y = model(x)
        y.float().square().mean().backward()
        gradients.append([weight.grad.clone() for weight in model.parameters()])
    assert [model[n].last_route for n in (0, 1, 4)] == ["vendor", ROUTE, ROUTE]
    assert y.dtype == torch.bfloat16 and all(weight.grad.dtype == torch.float32 for weight in model.parameters())
    for n, (a, b) in enumerate(zip(*gradients, strict=True)):
        assert n == 3 or (a - b).norm() <= 3e-2 * b.norm(), n  # the bias before a normalisation has no gradient but noise
    with torch.autocast("cpu", torch.bfloat16):
        model.to(memory_format=torch.contiguous_format)(x.contiguous())
    assert ROUTE not in [layer.last_route for layer in model if hasattr(layer, "last_route")]


@pytest.mark.skipif(kernels.instruction_set() not in ("avx2", "avx512"), reason="the rule is for AVX2 and AVX-512")
@pytest.mark.parametrize("window", [THREE, ONE])
def test_float32_takes_it_unless_bfloat16_is_allowed_and_faster(window, monkeypatch):
    model, x = net(), torch.randn(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    model(x)
    assert model[1].last_route == model[4].last_route == ROUTE
    many, few = torch.zeros(64, 32, *window.kernel), torch.zeros(16, 32, *window.kernel)
    middle = laid_out(torch.randn(4, 32, 16, 16), FULL)
    assert correlate.decide(middle, many, None, window) == (ROUTE, "rule")
    assert correlate.choose(middle, few, None, window) != ROUTE
    assert correlate.choose(middle.contiguous(), many, None, window) != ROUTE
    with twofold.precision("bf16"):
        for faster in (True, False):
            monkeypatch.setattr("twofold.space.correlation.bf16_faster", lambda faster=faster: faster)
            assert (correlate.choose(middle, many, None, window) == ROUTE) is not faster


@needs_rule
def test_where_there_is_amx_it_is_left_to_the_vendor(monkeypatch):
    layer, x = nn.Conv2d(32, 32, 3).to(torch.bfloat16), laid_out(torch.randn(4, 32, 12, 12))
    layer(x)
    assert layer.last_route == ROUTE
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    layer(x)
    assert layer.last_route == "vendor"


@needs_rule
def test_a_model_of_bfloat16_takes_it_too():
    model, x = net().to(torch.bfloat16), laid_out(torch.randn(4, 3, 16, 16))
    model(x).sum().backward()
    assert model[1].last_route == ROUTE and model[1].weight.grad.dtype == torch.bfloat16


@needs_kernel
def test_it_can_be_asked_for_by_name():
    layer, x = nn.Conv2d(4, 4, 3).to(torch.bfloat16), laid_out(torch.randn(1, 4, 5, 5))
    layer(x)
    assert layer.last_route != ROUTE  # too small to be worth it
    with twofold.route(ROUTE):
        layer(x)
    assert layer.last_route == ROUTE


FLOATS = laid_out(torch.zeros(1, 8, 8, 8), FULL)


@needs_library
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x": torch.zeros(1, 8, 8, 8, dtype=torch.float64)}, "needs float32 or bfloat16 on the CPU, not float64"),
        ({"x": torch.zeros(1, 8, 8, 8)}, "channels last"),
        ({"x": FLOATS, "weight": torch.zeros(8, 8, 3, 3, dtype=HALF)}, "needs float32 on the CPU, not bfloat16"),
        ({"x": torch.zeros(1, 8, 8, 8, dtype=torch.bfloat16)}, "channels last"),
        ({"weight": torch.zeros(8, 8, 3, 3, dtype=torch.float64)}, "needs float32 or bfloat16 on the CPU, not float64"),
        ({"window": Window((3, 3), (2, 2))}, "3x3 taps with stride 1, or 1x1"),
        ({"window": Window((3, 3), dilation=(2, 2))}, "dilation 1"),
        ({"window": Window((1, 1), padding=(1,))}, "without padding"),
        ({"groups": 2}, "one group"),
    ],
    ids=["float64 map", "float32 first", "half weights", "first", "float64", "stride", "dilation", "padded", "groups"],
)
def test_what_it_cannot_serve_it_says(changes, reason):
    x = laid_out(torch.zeros(1, 8, 8, 8))
    asked = {"x": x, "weight": torch.zeros(8, 8, 3, 3), "window": THREE, "groups": 1, **changes}
    assert reason in last.unfit(asked["x"], asked["weight"], None, asked["window"], asked["groups"])
    assert ROUTE not in correlate.contenders(x, torch.zeros(8, 4, 3, 3), None, THREE, 2)


@needs_kernel
def test_what_does_not_fit_is_refused():
    x, weight, numbers, ops = laid_out(torch.zeros(1, 8, 4, 4)), torch.zeros(16, 8, 3, 3), geometry(THREE, 4, 4), torch.ops.twofold
    refused = [
        lambda: ops.convolution_last(x.contiguous(), weight, None, numbers, False),
        lambda: ops.convolution_last(x, torch.zeros(16, 9, 3, 3), None, numbers, False),
        lambda: ops.convolution_last(x, weight, None, numbers[:9], False),
        lambda: ops.convolution_last(x, weight, None, geometry(Window((3, 3), (2, 2)), 4, 4), False),
        lambda: ops.convolution_last_dx(x, weight, numbers, 4, 4),
        lambda: ops.convolution_last_dweight(x, laid_out(torch.zeros(1, 8, 5, 5)), numbers, False),
        lambda: last.pack(torch.zeros(16, 8, 2, 2), None, HALF),
        lambda: last.packed(x, last.pack(weight, None, HALF), 64, THREE, None, False),
        lambda: last.packed(x, last.pack(weight, None, HALF), weight.shape[0], THREE, x[:, :, :2], False),
        lambda: last.packed(x, last.pack(weight[:, :, :1, :1], None, HALF), 64, ONE, None, False),
        lambda: last.pack(weight[:, :3, :1, :1], None, HALF),
    ]
    for ask in refused:
        with pytest.raises(ValueError, match="convolution_last"):
            ask()
