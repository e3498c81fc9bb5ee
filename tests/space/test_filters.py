"""Fixed kernels: the laws that each of them keeps, the direction that each of them finds, and applying them as loops would."""

import math

import numpy as np
import pytest
import torch

from twofold.layers.check import check_message, noise
from twofold.space import filters
from twofold.space.filters import (
    FILTERS,
    apply,
    box,
    emboss,
    gabor,
    gabor_bank,
    gaussian,
    identity,
    laplacian,
    laplacian_of_gaussian,
    line,
    matched_filter,
    prewitt,
    scharr,
    sharpen,
    sobel,
)
from twofold.space.matched import matched_filter as matched

R, C = torch.meshgrid(torch.arange(11.0, dtype=torch.float64), torch.arange(13.0, dtype=torch.float64), indexing="ij")
SLOPES = {sobel: 8, prewitt: 6, scharr: 32}

SUM_0 = {
    **{f"{f.__name__} {e}": f(e) for f in SLOPES for e in filters.EDGES},
    **{f"line {d}": line(d) for d in filters.LINES},
    "laplacian 4": laplacian(4),
    "laplacian 8": laplacian(8),
    "log": laplacian_of_gaussian(11, 1.7),
    "log even": laplacian_of_gaussian((8, 5), 1.0),
}
SUM_1 = {
    **{f"emboss {d}": emboss(d) for d in filters.LIGHTS},
    **{f"box {s}": box(s) for s in (1, 2, (3, 4))},
    **{f"gaussian {s} {sigma}": gaussian(s, sigma) for s, sigma in ((1, None), (4, None), ((5, 8), 0.1), (7, (1, 3.0)))},
    "identity": identity((3, 5)),
    "sharpen": sharpen(2.5),
}


def inside(map_HW, margin):
    return map_HW[margin:-margin, margin:-margin]


def answer(map_HW, kernel, mode="reflect"):
    return apply(map_HW[None, None], kernel, mode)[0, 0]


@pytest.mark.parametrize(("kernels", "total"), [(SUM_0, 0), (SUM_1, 1)])
def test_a_flat_map_gives_nothing_to_derivatives_and_itself_to_smoothing(kernels, total):
    for name, kernel in kernels.items():
        assert kernel.dtype == torch.float64 and abs(kernel.sum().item() - total) < 1e-12, name


def test_every_kernel_of_the_table_has_defaults():
    for name, make in FILTERS.items():
        assert make.__name__ == name and make().dim() == 2 and make().isfinite().all()
    assert matched_filter is matched


@pytest.mark.parametrize("make", SLOPES)
def test_a_ramp_gives_its_slope_and_the_edge_has_the_name_of_its_run(make):
    a, b = 0.7, -1.9
    ramp = a * R + b * C  # b across vertical edges, a across horizontal ones
    for edge, slope in (("vertical", b), ("horizontal", a)):
        assert torch.allclose(inside(answer(ramp, make(edge)), 1), torch.tensor(SLOPES[make] * slope, dtype=torch.float64))
    step = (C > 5).double()  # a vertical edge, dark to bright from left to right
    assert answer(step, make("vertical")).max() > 0 and answer(step, make("vertical")).min() == 0
    assert answer(step, make("horizontal")).abs().max() == 0


def test_scharr_depends_least_on_the_direction():
    worst = {}
    for make, factor in SLOPES.items():
        errors = []
        for degrees in range(0, 90, 5):
            angle = math.radians(degrees)
            wave = torch.sin((C * math.cos(angle) + R * math.sin(angle)) * 0.8)
            dy, dx = (answer(wave, make(edge))[5, 6] / factor for edge in ("horizontal", "vertical"))
            errors.append(abs(math.degrees(torch.atan2(dy, dx)) % 180 - degrees) % 180)
        worst[make] = max(min(e, 180 - e) for e in errors)
    assert worst[scharr] < 0.5 * worst[sobel] < 0.5 * worst[prewitt]


def test_the_laplacian_of_a_quadratic_is_its_constant():
    quadratic = 0.5 * R**2 - 1.5 * C**2 + 2 * R * C + 3 * C
    assert torch.allclose(inside(answer(quadratic, laplacian(4)), 1), torch.tensor(-2.0, dtype=torch.float64))
    assert torch.allclose(inside(answer(quadratic, laplacian(8)), 1), torch.tensor(-6.0, dtype=torch.float64))
    wide = answer(torch.arange(41.0, dtype=torch.float64) ** 2 * torch.ones(41, 1, dtype=torch.float64), laplacian_of_gaussian(17, 2.0))
    assert wide[20, 20].item() == pytest.approx(2, rel=0.01)


def test_laplacian_of_gaussian_is_lowest_on_a_blob_of_its_own_width():
    r, c = torch.meshgrid(*[torch.arange(61.0, dtype=torch.float64) - 30] * 2, indexing="ij")
    blob = torch.exp(-((r - 2) ** 2 + (c + 3) ** 2) / (2 * 3.0**2))
    answers = {s: s**2 * answer(blob, laplacian_of_gaussian(2 * math.ceil(4 * s) + 1, s)) for s in (1.5, 2.0, 3.0, 4.0, 5.0)}
    assert all(a.argmin().item() == 32 * 61 + 27 for a in answers.values())
    assert min(answers, key=lambda s: answers[s].min()) == 3.0


@pytest.mark.parametrize(
    ("kernel", "rank"),
    [
        *((make(edge), 1) for make in SLOPES for edge in filters.EDGES),
        (box((3, 4)), 1),
        (gaussian((6, 5)), 1),
        (laplacian(), 2),
        (line(), 1),
    ],
)
def test_separable_where_the_theory_says(kernel, rank):
    assert torch.linalg.matrix_rank(kernel).item() == rank


def test_a_gaussian_of_a_gaussian_is_a_wider_gaussian():
    impulse = torch.zeros(41, 41, dtype=torch.float64)
    impulse[20, 20] = 1
    twice = answer(answer(impulse, gaussian(41, 2.0), "zeros"), gaussian(41, 1.5), "zeros")
    assert torch.allclose(twice, gaussian(41, 2.5), atol=2e-6)
    assert torch.equal(gaussian(3), gaussian(3, 0.8)) and torch.allclose(gaussian((5, 1), 1.0)[:, 0], gaussian(5, 1.0).sum(1))


def test_lines_answer_their_own_direction():
    pictures = {
        "horizontal": (R == 5), "vertical": (C == 6), "diagonal": (R - 5 == C - 6), "antidiagonal": (R - 5 == 6 - C),
    }  # fmt: skip
    for drawn, picture in pictures.items():
        found = {direction: answer(picture.double(), line(direction))[5, 6].item() for direction in pictures}
        assert found[drawn] == 6 and all(value == 0 for direction, value in found.items() if direction != drawn)


def test_sharpen_and_emboss():
    assert torch.equal(sharpen(0), identity()) and sharpen(1).tolist() == [[0, -1, 0], [-1, 5, -1], [0, -1, 0]]
    assert emboss("top left").tolist() == [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]
    hill = (R >= 5).double()  # its slope faces the top of the picture
    assert answer(hill, emboss("top")).max() > 1 and answer(hill, emboss("bottom")).min() < 0
    for light, other in (("top", "bottom"), ("left", "right"), ("top left", "bottom right"), ("top right", "bottom left")):
        assert torch.equal(emboss(light), emboss(other).flip(0, 1))


def test_gabor_is_its_equation():
    kernel, (size, wavelength, angle, sigma, aspect, phase) = gabor((6, 9), 5.0, 0.4, 2.1, 0.7, 0.9), ((6, 9), 5.0, 0.4, 2.1, 0.7, 0.9)
    for i, j in np.ndindex(*size):
        r, c = i - 2.5, j - 4
        u, v = c * math.cos(angle) + r * math.sin(angle), r * math.cos(angle) - c * math.sin(angle)
        wanted = math.exp(-(u * u + aspect**2 * v * v) / (2 * sigma**2)) * math.cos(2 * math.pi * u / wavelength + phase)
        assert kernel[i, j].item() == pytest.approx(wanted, abs=1e-14)
    assert torch.allclose(gabor(9, 6.0, 0.0, phase=0.3), gabor(9, 6.0, math.pi, phase=-0.3))


def test_a_gabor_bank_answers_strongest_to_its_own_angle_and_wavelength():
    bank = gabor_bank(25, (4.0, 8.0), 6)
    assert bank.shape == (12, 25, 25) and torch.equal(bank[7], gabor(25, 8.0, math.pi / 6))
    assert (bank.sum((1, 2)).abs() < 0.01 * bank.abs().sum((1, 2))).all()
    r, c = torch.meshgrid(*[torch.arange(48.0, dtype=torch.float64)] * 2, indexing="ij")
    for place in range(12):
        angle, wavelength = place % 6 * math.pi / 6, (4.0, 8.0)[place // 6]
        stripes = torch.sin(2 * math.pi * (c * math.cos(angle) + r * math.sin(angle)) / wavelength)
        power = apply(stripes[None, None], bank)[0, 0, :, 12:-12, 12:-12].square().mean((1, 2)) / bank.square().sum((1, 2))
        assert power.argmax().item() == place


@pytest.mark.parametrize("mode", ["reflect", "replicate", "zeros"])
@pytest.mark.parametrize("size", [(3, 3), (4, 3), (1, 2), (5, 6)])
def test_apply_equals_loops(mode, size):
    images, kernel = noise(2, 3, 7, 6, grad=False), noise(*size, seed=1, grad=False)
    kh, kw = size
    sides = ((0, 0), (0, 0), ((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2))
    framed = np.pad(images.numpy(), sides, mode={"reflect": "reflect", "replicate": "edge", "zeros": "constant"}[mode])
    expected = np.zeros((2, 3, 7, 6))
    for b, c, h, w in np.ndindex(*expected.shape):
        expected[b, c, h, w] = (framed[b, c, h : h + kh, w : w + kw] * kernel.numpy()).sum()
    assert np.allclose(apply(images, kernel, mode).numpy(), expected, rtol=0, atol=1e-12)
    bank = torch.stack([kernel, 2 * kernel])
    assert np.allclose(apply(images, bank, mode).numpy(), np.stack([expected, 2 * expected], 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "zeros"])
def test_apply_is_differentiable_in_images_and_kernel(mode):
    assert torch.autograd.gradcheck(lambda x, k: apply(x, k, mode), (noise(1, 2, 4, 5), noise(2, 3, seed=1)))


def test_apply_takes_every_layout_and_precision():
    images = noise(2, 3, 6, 5, grad=False)
    wanted = apply(images, sobel())
    for same in (images.to(memory_format=torch.channels_last), images.transpose(2, 3).contiguous().transpose(2, 3)):
        assert torch.allclose(apply(same, sobel()), wanted, rtol=0, atol=1e-13)
    assert (
        torch.allclose(apply(images.float(), sobel()).double(), wanted, atol=1e-5) and apply(images.float(), sobel()).dtype == torch.float32
    )
    assert apply(images[:0], sobel(), "zeros").shape == (0, 3, 6, 5) and apply(images[:0], sobel()).shape == (0, 3, 6, 5)
    assert torch.equal(apply(images, identity()), images)
    assert apply(torch.full((1, 1, 1, 1), math.nan), identity(1)).isnan().all()


BAD = {
    "edge": (lambda: sobel("vertcal"), ("sobel", "vertical, horizontal", "'vertcal'", 'Did you mean "vertical"?')),
    "line": (lambda: line("up"), ("line", "antidiagonal", "'up'")),
    "light": (lambda: emboss("north"), ("emboss", "top left", "'north'")),
    "neighbours": (lambda: laplacian(6), ("laplacian", "4 or 8", "6")),
    "size": (lambda: box(0), ("box", "size", "from 1", "0")),
    "three sizes": (lambda: gaussian((3, 3, 3)), ("gaussian", "size", "(3, 3, 3)")),
    "sigma": (lambda: gaussian(3, 0), ("gaussian", "sigma", "above 0", "got 0")),
    "sigma not a number": (lambda: laplacian_of_gaussian(3, math.nan), ("laplacian_of_gaussian", "sigma", "nan")),
    "even identity": (lambda: identity((3, 4)), ("identity", "odd", "3 and 4")),
    "amount": (lambda: sharpen(math.inf), ("sharpen", "amount", "finite", "inf")),
    "wavelength": (lambda: gabor(9, "6"), ("gabor", "wavelength", "'6'")),
    "angle": (lambda: gabor(9, angle=None), ("gabor", "angle", "None")),
    "angles": (lambda: gabor_bank(angles=0), ("gabor_bank", "angles", "0")),
    "wavelengths": (lambda: gabor_bank(wavelengths=6.0), ("gabor_bank", "wavelengths", "(4.0, 8.0)", "6.0")),
    "one image": (lambda: apply(torch.zeros(3, 8, 8), sobel()), ("apply images", "(B, C, H, W)", "(3, 8, 8)", "x.unsqueeze(0)")),
    "bytes": (lambda: apply(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), sobel()), ("apply images", "uint8", "/ 255")),
    "whole kernel": (lambda: apply(torch.zeros(1, 3, 8, 8), sobel().int()), ("apply kernel", "int32")),
    "kernel rank": (lambda: apply(torch.zeros(1, 3, 8, 8), torch.zeros(3)), ("apply kernel", "(rows, columns)", "(3,)")),
    "mode": (lambda: apply(torch.zeros(1, 3, 8, 8), sobel(), "reflct"), ("apply", "mode", "'reflct'", 'Did you mean "reflect"?')),
    "too small": (lambda: apply(torch.zeros(1, 3, 8, 2), box(7)), ("at least 4 columns", "got 2", 'mode="replicate"')),
    "empty map": (lambda: apply(torch.zeros(1, 3, 0, 2), box(1), "replicate"), ("at least 1 rows", "got 0")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_a_sentence(name):
    call, words = BAD[name]
    check_message(call, *words)
