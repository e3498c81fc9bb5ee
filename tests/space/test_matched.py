"""Matched filter: what loops compute, what is planted is found, brightness and contrast do not matter, and no filter does better."""

import math

import numpy as np
import pytest
import torch

from twofold.layers.check import check_message, noise
from twofold.space import matched
from twofold.space.matched import matched_filter


def by_loops(signal, pattern):
    """(correlation, normalised), one window at a time, for one signal of any number of axes."""
    counts = [n - k + 1 for n, k in zip(signal.shape, pattern.shape, strict=True)]
    correlation, normalised = np.zeros(counts), np.zeros(counts)
    for place in np.ndindex(*counts):
        seen = signal[tuple(slice(p, p + k) for p, k in zip(place, pattern.shape, strict=True))]
        correlation[place] = (seen * pattern).sum()
        a, b = seen - seen.mean(), pattern - pattern.mean()
        size = math.sqrt((a * a).sum() * (b * b).sum())
        normalised[place] = (a * b).sum() / size if size else 0.0
    return correlation, normalised


SHAPES = {
    "signal": ((40,), (7,)),
    "signal of one window": ((7,), (7,)),
    "signal by FFT": ((3001,), (70,)),
    "map": ((13, 17), (4, 3)),
    "one row": ((1, 30), (1, 4)),
    "map by FFT": ((90, 71), (8, 9)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_equals_loops(name):
    size, taps = SHAPES[name]
    counts = [n - k + 1 for n, k in zip(size, taps, strict=True)]
    fast = math.prod(taps) > matched.FEW_TAPS and math.prod(taps) * math.prod(counts) > matched.FEW_PRODUCTS
    assert fast == ("FFT" in name)
    signals, pattern = noise(2, *size, grad=False) + 5, noise(*taps, seed=1, grad=False) - 2
    both = matched_filter(signals, pattern)
    for row, signal in enumerate(signals):
        correlation, normalised = by_loops(signal.numpy(), pattern.numpy())
        alone = matched_filter(signal, pattern)
        assert np.allclose(alone.correlation.numpy(), correlation, rtol=0, atol=1e-10)
        assert np.allclose(alone.normalised.numpy(), normalised, rtol=0, atol=1e-10)
        for map_found, place, peak in ((correlation, alone.place, alone.peak), (normalised, alone.normalised_place, alone.normalised_peak)):
            wanted = np.unravel_index(map_found.argmax(), counts)
            assert np.atleast_1d(place.numpy()).tolist() == list(wanted) and abs(peak.item() - map_found.max()) < 1e-10
        away = np.any([abs(np.indices(counts)[a] - np.atleast_1d(alone.place.numpy())[a]) >= k for a, k in enumerate(taps)], axis=0)
        assert alone.snr.item() == pytest.approx(
            correlation.max() ** 2 / (correlation[away] ** 2).mean() if away.any() else math.nan, nan_ok=True
        )
        for whole, one in zip(both, alone, strict=True):
            assert whole[row].shape == one.shape and torch.allclose(whole[row], one, rtol=1e-10, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize(("size", "taps"), [((4000,), (120,)), ((300,), (12,)), ((120, 110), (11, 13)), ((40, 40), (4, 4))])
def test_the_two_ways_give_the_same_numbers(size, taps, monkeypatch):
    signal, pattern = noise(*size, grad=False), noise(*taps, seed=1, grad=False)
    found = []
    for few in (0, 10**9):
        monkeypatch.setattr(matched, "FEW_TAPS", few)
        monkeypatch.setattr(matched, "FEW_PRODUCTS", few)
        found.append(matched_filter(signal, pattern))
    assert torch.equal(found[0].place, found[1].place)
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_planted_in_noise_is_found_at_its_place(seed):
    pattern = noise(64, seed=seed, grad=False)
    signals = noise(3, 2000, seed=100 + seed, grad=False)
    for row, place in enumerate((0, 977, 1936)):
        signals[row, place : place + 64] += pattern
    assert matched_filter(signals, pattern).place.tolist() == [0, 977, 1936]
    stamp, field = noise(9, 7, seed=seed, grad=False), noise(60, 80, seed=200 + seed, grad=False)
    field[51:60, 13:20] += 1.5 * stamp
    found = matched_filter(field, stamp)
    assert found.place.tolist() == [51, 13] and found.normalised_place.tolist() == [51, 13]


def test_brightness_misleads_the_correlation_but_not_the_normalised_one():
    stamp = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    field = 0.1 * torch.rand(40, 40, generator=torch.Generator().manual_seed(1))
    field[4:10, 20:26] = 0.5 * stamp
    field[25:, 25:] = 1.0
    found = matched_filter(field, stamp)
    assert found.place.tolist() == [25, 25] and found.normalised_place.tolist() == [4, 20]
    assert found.normalised_peak.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("a", "b"), [(3.0, 0.0), (1.0, 1e4), (1e-3, -7.0), (1e6, 1e6)])
def test_normalised_does_not_see_contrast_and_brightness(a, b):
    signal, pattern = noise(2, 30, 31, grad=False), noise(5, 4, seed=1, grad=False)
    signal[0, 10:15, 8:12] = pattern
    found = matched_filter(signal, pattern).normalised
    assert torch.allclose(matched_filter(a * signal + b, pattern).normalised, found, rtol=0, atol=1e-9)
    assert torch.allclose(matched_filter(signal, a * pattern + b).normalised, found, rtol=0, atol=1e-9)
    assert torch.allclose(matched_filter(-signal, pattern).normalised, -found, rtol=0, atol=1e-12)
    assert found[0, 10, 8].item() == pytest.approx(1, abs=1e-12) and found.abs().max() <= 1


@pytest.mark.parametrize("size", [(50,), (9000,), (50, 40), (120, 90)])
def test_flat_windows_are_0_and_not_nan(size):
    signal = torch.full(size, 0.1, dtype=torch.float64)
    signal.view(-1)[-1] = 1e3
    pattern = noise(*[n // 3 for n in size[:-1]], 9, seed=1, grad=False)
    normalised = matched_filter(signal, pattern).normalised.flatten()
    assert (normalised[:-1] == 0).all() and normalised[-1] != 0
    assert (matched_filter(torch.zeros(size), pattern).normalised == 0).all()


def test_no_filter_has_a_higher_ratio_than_the_pattern_itself():
    """The theorem of the matched filter: in white noise, and the ratio that it says."""
    pattern, sigma = noise(24, seed=3, grad=False), 0.5
    signals = sigma * noise(200, 2000, seed=4, grad=False)
    signals[:, 1500:1524] += pattern

    def ratio(h):
        """The definition: the pattern's share of the output at its place, squared, over the power of what noise leaves there."""
        return (h @ pattern).square() / (sigma**2 * h @ h)

    own = matched_filter(signals, pattern)
    assert (own.place == 1500).all()
    assert own.snr.mean().item() == pytest.approx(ratio(pattern).item() + 1, rel=0.05)  # 1: the noise at the peak itself
    assert torch.allclose(own.decibels, 10 * own.snr.log10())
    for seed in range(100):
        h = noise(24, seed=1000 + seed, grad=False)
        assert matched_filter(signals[seed], h).snr < own.snr[seed]
        assert max(ratio(h), ratio(pattern + 0.3 * h)) < ratio(pattern)


def test_the_ratio_without_noise_is_infinite_and_without_room_unknown():
    signal = torch.zeros(30)
    signal[10:13] = torch.tensor([1.0, 2.0, 1.0])
    assert matched_filter(signal, signal[10:13]).snr.item() == math.inf
    assert matched_filter(signal[9:14], signal[10:13]).snr.isnan()


def test_every_precision_and_layout():
    signal, pattern = noise(3, 20, 22, grad=False), noise(4, 5, seed=1, grad=False)
    wanted = matched_filter(signal, pattern)
    for kind, relative in ((torch.float32, 1e-6), (torch.float16, 5e-3), (torch.bfloat16, 5e-2)):
        found = matched_filter(signal.to(kind), pattern.to(kind))
        assert found.correlation.dtype == found.snr.dtype == torch.float32
        assert torch.allclose(found.normalised.double(), wanted.normalised, atol=relative)
    assert matched_filter(signal, pattern.float()).correlation.dtype == torch.float64
    turned = matched_filter(signal.transpose(1, 2), pattern.T)
    assert torch.allclose(turned.correlation, wanted.correlation.transpose(1, 2), rtol=0, atol=1e-12)
    assert torch.equal(turned.place, wanted.place.flip(1))
    assert matched_filter(signal[:0], pattern).place.shape == (0, 2)


def test_it_is_differentiable():
    def maps(signal, pattern):
        return matched_filter(signal, pattern)[:2]

    assert torch.autograd.gradcheck(maps, (noise(2, 9), noise(3, seed=1)))
    assert torch.autograd.gradcheck(maps, (noise(5, 6), noise(2, 3, seed=1)))
    flat = torch.ones(8, dtype=torch.float64, requires_grad=True)
    matched_filter(flat, noise(3, seed=1, grad=False)).normalised.sum().backward()
    assert flat.grad.isfinite().all()


ONE = torch.tensor([1.0, 2.0, 1.0])
BAD = {
    "larger": (lambda: matched_filter(ONE, torch.rand(9)), ("pattern", "at most (3,)", "(9,)", "swapped?")),
    "wider": (lambda: matched_filter(torch.rand(9, 4), torch.rand(3, 5)), ("pattern", "at most (9, 4)", "(3, 5)")),
    "empty": (lambda: matched_filter(ONE, torch.zeros(0)), ("pattern", "at least 1", "(0,)", "empty")),
    "constant": (lambda: matched_filter(torch.rand(9), torch.full((3,), 2.0)), ("pattern", "two different values", "2 everywhere")),
    "one tap": (lambda: matched_filter(torch.rand(9), torch.ones(1)), ("pattern", "two different values")),
    "nan in the signal": (lambda: matched_filter(torch.tensor([1.0, math.nan, 3.0, 4.0]), ONE), ("signal", "nan at (1,)", "1 of 4")),
    "inf in the pattern": (lambda: matched_filter(torch.rand(9), torch.tensor([1.0, math.inf])), ("pattern", "inf at (1,)")),
    "pattern of rank 3": (lambda: matched_filter(torch.rand(3, 9, 9), torch.rand(1, 3, 3)), ("pattern", "(L) or (H, W)", "(1, 3, 3)")),
    "signal of rank 3": (lambda: matched_filter(torch.rand(2, 3, 9), ONE), ("signal", "(L) or (B, L)", "(2, 3, 9)")),
    "signal of rank 4": (lambda: matched_filter(torch.rand(2, 3, 9, 9), torch.rand(2, 2)), ("signal", "(B, H, W)", "x.mean(1)")),
    "a row for a map": (lambda: matched_filter(torch.rand(9), torch.rand(2, 2)), ("signal", "(H, W) or (B, H, W)", "(9,)")),
    "whole numbers": (lambda: matched_filter(torch.arange(9), ONE), ("signal", "floating point", "int64")),
    "complex": (lambda: matched_filter(torch.rand(9), ONE.to(torch.complex64)), ("pattern", "floating point", "complex64")),
    "no tensor": (lambda: matched_filter([1.0, 2.0], ONE), ("signal", "torch tensor", "list")),
    "devices": (lambda: matched_filter(torch.rand(9), ONE.to("meta")), ("pattern", "device cpu", "meta")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_a_sentence(name):
    call, words = BAD[name]
    check_message(call, "matched_filter", *words)
