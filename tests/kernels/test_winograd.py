"""Winograd's algorithm, compiled: many channels, whose blocks and sums threads share, and products rounded to bfloat16."""

import os
import random
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

import twofold
from twofold import kernels
from twofold.kernels import convolution
from twofold.space.correlation import correlate
from twofold.space.padding import last_first
from twofold.space.windows import Window
from twofold.space.winograd import A, B, G, around, transposed

needs_library = pytest.mark.skipif(not kernels.available(), reason=kernels.reason() or "built")
needs_bfloat16 = pytest.mark.skipif(bool(convolution.reduced_unfit()), reason=convolution.reduced_unfit() or "fits")
WINDOW = Window((3, 3), padding=(1, 1, 1, 1))


def by_torch(x, weight, bias, window, dy):
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
    y = F.conv2d(F.pad(leaves[0], last_first(window.padding)), leaves[1], leaves[2])
    return y.detach(), *torch.autograd.grad(y, leaves, dy)


def ours(x, weight, bias, window, dy, **how):
    y = convolution.forward(x, weight, bias, window, **how)
    return y, *convolution.backward(dy, x, weight, True, window, **how)


def agree(batch, channels, filters, size, window, generator, **how):
    """Whole numbers so small that their transforms have 8 bits at most: every rounding is exact."""
    whole = (
        torch.randint(-4, 5, s, generator=generator).float() for s in ((batch, channels, *size), (filters, channels, 3, 3), (filters,))
    )
    x, weight, bias = whole
    dy = torch.randint(-4, 5, (batch, filters, *window.output_size(size)), generator=generator).float()
    got = ours(x, weight, bias, window, dy, **how)
    wanted = by_torch(x, weight, bias, window, dy)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True)), (batch, channels, filters, size, window, how)


@needs_library
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_channels_are_exact_whoever_shares_the_work(threads):
    generator, before = torch.Generator().manual_seed(threads), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        agree(3, 200, 170, (6, 9), WINDOW, generator)
        agree(2, 193, 250, (33, 27), Window((3, 3), padding=(1, 0, 2, 1)), generator)  # several blocks
    finally:
        torch.set_num_threads(before)


@needs_bfloat16
def test_whole_numbers_are_exact_in_bfloat16():
    generator, dice = torch.Generator().manual_seed(0), random.Random(0)
    for _ in range(60):
        window = Window((3, 3), padding=tuple(dice.randint(0, 3) for _ in range(4)))
        batch, channels, filters = dice.choice([1, 2, 5]), dice.choice([1, 2, 3, 16, 17, 40]), dice.choice([1, 5, 16, 31, 32, 33, 48])
        size = dice.randint(3, 20), dice.randint(3, 40)
        agree(batch, channels, filters, size, window, generator, algorithm=convolution.WINOGRAD, reduced=True)
    agree(2, 193, 250, (17, 33), WINDOW, generator, reduced=True)


@needs_bfloat16
def test_bfloat16_stays_within_the_bound_of_its_rounding():
    # Both factors of a product are wrong by u = 2^-8 of themselves at most, so it is by 2 u + u^2; the sums in float32 add a little.
    # Through the last transform errors go with the absolute values of its matrix. Without one tap the result is outside.
    generator, channels, filters = torch.Generator().manual_seed(0), 6, 7
    x, weight, bias, dy = (
        torch.randn(s, generator=generator) for s in ((3, channels, 10, 12), (filters, channels, 3, 3), (filters,), (3, filters, 10, 12))
    )
    y, dx, dweight, dbias = ours(x, weight, bias, WINDOW, dy, algorithm=convolution.WINOGRAD, reduced=True)
    share = 2**-7 + 2**-16 + 2**-18
    exact = [t.double() for t in (x, weight, bias, dy)]
    wanted, wanted_dx, wanted_dweight, wanted_dbias = by_torch(*exact[:3], WINDOW, exact[3])
    turned = exact[1].flip(2, 3).transpose(0, 1)
    missing = exact[1].clone()
    missing[:, :, 1, 1] = 0
    bound = share * forward_magnitude(exact[0], exact[1])
    assert ((y - wanted).abs() <= bound).all()
    assert ((F.conv2d(exact[0], missing, exact[2], 1, 1) - wanted).abs() > bound).any()
    assert ((dx - wanted_dx).abs() <= share * forward_magnitude(exact[3], turned)).all()
    bound = share * gradient_magnitude(exact[0], exact[3])
    assert ((dweight - wanted_dweight).abs() <= bound).all()
    assert (wanted_dweight.abs() > bound).any()
    assert torch.allclose(dbias.double(), wanted_dbias, rtol=1e-5, atol=1e-5)
    assert not torch.equal(y, ours(x, weight, bias, WINDOW, dy, algorithm=convolution.WINOGRAD)[0])  # it does round


def tiles(maps_BCHW):
    """B' d B of every tile of a map with even sides and padding 1: (B, C, rows, columns, 4, 4)"""
    return around(F.pad(maps_BCHW, (1, 1, 1, 1)).unfold(2, 4, 2).unfold(3, 4, 2), transposed(B))


def magnitudes(matrix):
    return tuple(tuple(abs(v) for v in row) for row in matrix)


def forward_magnitude(x, weight):
    """|A|' [ sum_c |G g G'| |B' d B| ] |A|"""
    products = torch.einsum("fcxy,bcpqxy->bfpqxy", around(weight, G).abs(), tiles(x).abs())
    return around(products, transposed(magnitudes(A))).transpose(3, 4).flatten(4, 5).flatten(2, 3)


def gradient_magnitude(x, dy):
    """|G|' [ sum_tiles |A dy A'| |B' d B| ] |G|"""
    d = around(dy.unfold(2, 2, 2).unfold(3, 2, 2), A)
    return around(torch.einsum("bfpqxy,bcpqxy->fcxy", d.abs(), tiles(x).abs()), transposed(magnitudes(G)))


@needs_bfloat16
def test_nothing_is_reduced_unless_asked_for():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 32, 8, 8, generator=generator), torch.randn(32, 32, 3, 3, generator=generator)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (convolution.forward(x, weight, None, WINDOW) - exact).norm() / exact.norm()
    reduced = (convolution.forward(x, weight, None, WINDOW, reduced=True) - exact).norm() / exact.norm()
    assert error < 1e-6 and 1e-3 < reduced < 8e-3
    pool = Window((2, 2), (2, 2))
    y, _ = convolution.pooled(x, weight, None, WINDOW, pool, False, False, reduced=True)
    assert torch.equal(y, F.max_pool2d(convolution.forward(x, weight, None, WINDOW, reduced=True), 2))
    direct = convolution.forward(x, weight, None, WINDOW, algorithm=convolution.DIRECT)
    assert torch.equal(direct, convolution.forward(x, weight, None, WINDOW, algorithm=convolution.DIRECT, reduced=True))


@needs_bfloat16
def test_a_permission_is_used_by_rule_where_bfloat16_is_faster(monkeypatch):
    x, weight = torch.randn(4, 64, 18, 18), torch.randn(64, 64, 3, 3)
    monkeypatch.setattr("twofold.space.correlation.bf16_ours", lambda: True)
    for faster in (True, False):
        monkeypatch.setattr("twofold.space.correlation.bf16_faster", lambda faster=faster: faster)
        with twofold.precision("bf16"):
            assert correlate.choose(x, weight, None, Window((3, 3))) == ("native bf16" if faster else "native")


@needs_library
def test_a_lower_instruction_set_refuses_bfloat16():
    code = """
import torch
from twofold.kernels import convolution
from twofold.space.windows import Window
print(convolution.reduced_unfit())
try:
    convolution.forward(torch.ones(1, 24, 4, 4), torch.ones(24, 24, 3, 3), None, Window((3, 3)), reduced=True)
except ValueError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    reason, error = run.stdout.splitlines()[:2]
    assert "AVX512_BF16" in reason and "products of bfloat16 need a processor with AVX512_BF16" in error


@needs_bfloat16
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_seen_in_bfloat16(bad):
    x, weight = torch.zeros(1, 2, 6, 40), torch.ones(3, 2, 3, 3)
    x[0, 1, 2, 20] = bad
    y = convolution.forward(x, weight, None, WINDOW, algorithm=convolution.WINOGRAD, reduced=True)
    assert not y[0, :, 1:4, 19:22].isfinite().any() and y[0, :, :, :16].isfinite().all()
