"""The compiled convolution and normalisation: exact on whole numbers, on every instruction set, by both algorithms, fused and alone."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from twofold import kernels
from twofold.kernels import convolution, norm
from twofold.space.windows import Window

needs_library = pytest.mark.skipif(not kernels.available(), reason=kernels.reason() or "built")


def whole(generator, *shape):
    return torch.randint(-4, 5, shape, generator=generator).float()


def shapes(count, three, seed=0):
    """(batch, channels a group, filters a group, groups, window, size): lanes that are full, nearly full, and nearly empty."""
    dice = random.Random(seed)
    while count:
        groups, kernel = dice.choice([1, 1, 1, 2, 3]), (3, 3) if three else (dice.randint(1, 5), dice.randint(1, 5))
        sides = tuple(dice.randint(0, 4) for _ in range(4))
        window = Window(kernel, padding=sides)
        if not three:
            sides = (sides[0], sides[0], sides[1], sides[1])
            window = Window(
                kernel, *((dice.randint(1, 3), dice.randint(1, 3)) for _ in range(1)), sides, (dice.randint(1, 3), dice.randint(1, 3))
            )
        size = dice.randint(1, 23), dice.randint(1, 40)
        if any(n + a + b < s for n, s, (a, b) in zip(size, window.spread, window.sides(), strict=True)):
            continue
        count -= 1
        channels, filters = dice.choice([1, 2, 3, 4, 6, 16, 17, 20]), dice.choice([1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 31, 32, 33, 48])
        yield dice.choice([1, 2, 3, 5, 8]), channels, filters, groups, window, size


def by_torch(x, weight, bias, window, groups):
    top, bottom, left, right = window.padding
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, window.stride, 0, window.dilation, groups)


def agree(algorithm, count, seed=0):
    """Difference 0 from torch's operator: value and all gradients."""
    generator = torch.Generator().manual_seed(seed)
    for batch, channels, filters, groups, window, size in shapes(count, algorithm == convolution.WINOGRAD, seed):
        x = whole(generator, batch, channels * groups, *size).requires_grad_()
        weight, bias = (
            t.requires_grad_() for t in (whole(generator, filters * groups, channels, *window.kernel), whole(generator, filters * groups))
        )
        y = by_torch(x, weight, bias, window, groups)
        dy = whole(generator, *y.shape)
        wanted = (y, *torch.autograd.grad(y, (x, weight, bias), dy))
        with torch.no_grad():
            got = (
                convolution.forward(x, weight, bias, window, groups, algorithm=algorithm),
                *convolution.backward(dy, x, weight, True, window, groups, algorithm=algorithm),
            )
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True)), (batch, channels, filters, groups, window, size)


@needs_library
@pytest.mark.parametrize("algorithm", [convolution.DIRECT, convolution.WINOGRAD])
def test_whole_numbers_are_convolved_exactly(algorithm):
    agree(algorithm, 250)


@needs_library
@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same(capability):
    order = ["base", "avx2", "avx512"]
    wanted = {"default": "base"}.get(capability, capability)
    if order.index(wanted) > order.index(kernels.instruction_set()):
        pytest.skip(f"this machine has {kernels.instruction_set()}, not {wanted}")
    folder = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {folder!r}); import test_convolution; test_convolution.in_a_process_of_its_own()"
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "ATEN_CPU_CAPABILITY": capability}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [wanted]


def in_a_process_of_its_own():
    agree(convolution.DIRECT, 100, seed=1)
    agree(convolution.WINOGRAD, 60, seed=2)
    fused_agree(30, seed=3)
    norms_agree(seed=4)
    print(kernels.instruction_set())


POOLS = [
    Window((2, 2), (2, 2)),
    Window((3, 3), (3, 3)),
    Window((3, 3), (2, 2), (1, 1, 1, 1)),
    Window((3, 2), (2, 1)),
    Window((2, 2), (1, 1)),
]


def fused_agree(count, seed=0):
    """Convolution, ReLU and max pooling in one go: the same numbers, and winners that scatter the same gradients."""
    dice, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    for number in range(count):
        batch, channels, filters = dice.choice([1, 2, 5, 9]), dice.choice([1, 3, 6, 16, 32]), dice.choice([1, 6, 16, 20, 33])
        size = (90, 110) if number % 20 == 0 else (dice.randint(5, 40), dice.randint(5, 40))  # the large ones are cut into bands
        kernel, pool = dice.choice([1, 3, 3, 5]), dice.choice(POOLS)
        window = Window((kernel, kernel), padding=(1,))
        x, weight, bias = (
            whole(generator, batch, channels, *size),
            whole(generator, filters, channels, kernel, kernel),
            whole(generator, filters),
        )
        before, after = F.conv2d(x, weight, bias, padding=1).relu(), pool.padding[::2]
        y, winner = convolution.pooled(x, weight, bias, window, pool, True, True)
        truth, places = F.max_pool2d(before, pool.kernel, pool.stride, after, return_indices=True)
        assert torch.equal(y, truth), (batch, channels, filters, size, kernel, pool)
        rows, columns = (torch.arange(n) for n in y.shape[2:])
        h = (rows * pool.stride[0] - pool.padding[0])[:, None] + winner.long() // pool.kernel[1]
        w = columns * pool.stride[1] - pool.padding[2] + winner.long() % pool.kernel[1]
        assert torch.equal(h * before.shape[3] + w, places)


@needs_library
def test_pooling_at_once_gives_the_same():
    fused_agree(100)


def norms_agree(seed=0):
    """Normalisation, ReLU and max pooling in one go against torch's operators in float64."""
    generator = torch.Generator().manual_seed(seed)
    for batch, channels, size, pool, relu, by_batch in [
        (3, 5, (6, 7), None, False, True),
        (2, 3, (9, 40), None, True, True),
        (4, 17, (8, 8), Window((2, 2), (2, 2)), True, True),
        (2, 4, (33, 70), Window((3, 3), (2, 2), (1,)), True, True),
        (3, 6, (5, 16), Window((2, 2), (2, 2)), True, False),
        (1, 2, (3, 3), None, True, False),
    ]:
        x, scale, shift = (torch.randn(s, generator=generator) * 3 + 10 for s in ((batch, channels, *size), (channels,), (channels,)))
        scale = scale - 10
        given = None if by_batch else (torch.randn(channels, generator=generator) + 10, torch.rand(channels, generator=generator) + 0.5)
        came = norm.forward(x, scale, shift, given, 1e-5, relu, pool, True)
        leaves = [t.double().requires_grad_() for t in (x, scale, shift)]
        statistics = (None, None) if given is None else tuple(t.double() for t in given)
        y = F.batch_norm(leaves[0], *statistics, *leaves[1:], by_batch, 0.0, 1e-5)
        y = y.relu() if relu else y
        y = y if pool is None else F.max_pool2d(y, pool.kernel, pool.stride, pool.padding[::2])
        dy = torch.randn(y.shape, generator=generator)
        wanted = (y, *torch.autograd.grad(y, leaves, dy.double()))
        got = (came.y, *norm.backward(dy, x, scale, shift, came, by_batch, 1e-5, relu, pool))
        for a, b in zip(got, wanted, strict=True):
            assert torch.allclose(a.double(), b, rtol=0, atol=2e-5 * max(1.0, b.abs().max().item()))
        if by_batch:
            assert torch.allclose(came.mean_C.double(), x.double().mean((0, 2, 3)), rtol=1e-6)
            assert torch.allclose(came.variance_C.double(), x.double().var((0, 2, 3), unbiased=False), rtol=1e-5)


@needs_library
def test_normalisation_gives_the_same():
    norms_agree()


@needs_library
def test_a_mean_far_from_zero_costs_no_variance():
    x = torch.randn(4, 2, 30, 30, generator=torch.Generator().manual_seed(0)) + 1e4
    came = norm.forward(x, None, None, None, 1e-5)
    assert torch.allclose(came.variance_C.double(), x.double().var((0, 2, 3), unbiased=False), rtol=1e-4)


@needs_library
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_seen(bad):
    x, weight = torch.zeros(1, 2, 6, 40), torch.ones(3, 2, 3, 3)
    x[0, 1, 2, 20] = bad
    window = Window((3, 3), padding=(1,))
    for algorithm in (convolution.DIRECT, convolution.WINOGRAD):
        y = convolution.forward(x, weight, None, window, relu=True, algorithm=algorithm)
        assert not y[0, :, 1:4, 19:22].isfinite().any() and y[0, :, :, :16].isfinite().all()
    y, _ = convolution.pooled(x, weight, None, window, Window((2, 2), (2, 2)), True, True)
    assert not y[0, :, 1, 10].isfinite().any()


@needs_library
def test_an_empty_batch_gives_zero_weight_gradients():
    x, weight = torch.zeros(0, 2, 6, 6), torch.ones(3, 2, 3, 3)
    window = Window((3, 3))
    y = convolution.forward(x, weight, None, window)
    dx, dweight, dbias = convolution.backward(y, x, weight, True, window)
    assert y.shape == (0, 3, 4, 4) and dx.shape == x.shape and not dweight.any() and not dbias.any()


@needs_library
def test_what_does_not_fit_is_refused_before_memory_is_touched():
    x, weight = torch.zeros(1, 2, 6, 6), torch.ones(3, 2, 3, 3)
    operator = torch.ops.twofold.convolution.default
    for arguments, words in [
        ((x.double(), weight, None, (4, 4, 3, 3, 1, 1, 0, 0, 1, 1), 1, False, 0, False), "contiguous float32"),
        ((x, weight[:, :1].contiguous(), None, (4, 4, 3, 3, 1, 1, 0, 0, 1, 1), 1, False, 0, False), "do not fit"),
        ((x, weight, None, (4, 4, 3, 3, 0, 1, 0, 0, 1, 1), 1, False, 0, False), "a size of 0 is out of range"),
        ((x, weight, None, (4, 4, 3), 1, False, 0, False), "10 numbers"),
        ((x, weight, None, (4, 4, 3, 3, 1, 1, 0, 0, 2, 1), 1, False, 2, False), "Winograd's algorithm needs 3x3 taps"),
    ]:
        with pytest.raises(ValueError, match=words):
            operator(*arguments)
