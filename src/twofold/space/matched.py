"""Matched filter: where in a signal does a known pattern lie?     B signals, L or H W their axes, n taps in the pattern, P (Q) windows

    correlation   y[p] = sum_i s[i] x[p + i]                                                  every window inside the signal
    normalised    r[p] = sum_i (s[i] - mean s) (x[p + i] - mean x_p) / sqrt(sum_i (s[i] - mean s)^2  sum_i (x[p + i] - mean x_p)^2)
                  mean x_p: of the window at p. -1 <= r <= 1; r = 0 where the window is flat
    snr           y[peak]^2 / mean of y[p]^2 over the windows that share nothing with the one at the peak;   decibels  10 log10 snr

In white noise no linear filter h has a higher ratio of peak to noise power, (sum h s)^2 / (sigma^2 sum h^2), than the pattern itself: by
Cauchy and Schwarz it is at most sum s^2 / sigma^2, reached where h is a multiple of s. The normalised form asks for the shape alone:
brightness and contrast of the window do not matter, r of a x + b is that of x for a > 0.

Turin, "An introduction to matched filters", IRE Transactions on Information Theory 6(3), 1960, sections II and III;
Lewis, "Fast normalized cross-correlation", Vision Interface 1995, equation 2 and section 5 (sums of windows, products by FFT)
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.layers.expect import expect_floating, expect_tensor

FLAT = 1e-12  # a window whose variance is below this share of its mean square (about the mean of the signal) is rounding: it is flat
FEW_TAPS, FEW_PRODUCTS = 16, 2**17  # above both the FFT was measured to be the cheaper way on one core


class Match(NamedTuple):
    """What a matched filter found, for one signal; a batch puts B in front. A place is () along one axis, (row, column) on a map."""

    correlation: Tensor  # (P) or (P, Q)
    normalised: Tensor  # (P) or (P, Q), from -1 to 1
    place: Tensor  # of the largest correlation: the window's first tap; the first one of equals
    peak: Tensor  # (), the largest correlation
    normalised_place: Tensor  # of the largest normalised correlation: for photographs, whose brightness varies
    normalised_peak: Tensor  # ()
    snr: Tensor  # (), not a number where every window shares something with the one at the peak, infinite without noise
    decibels: Tensor  # ()


def matched_filter(signal: Tensor, pattern: Tensor) -> Match:
    """Look for a pattern (l) in a signal (L) or signals (B, L), or for a pattern (h, w) in a map (H, W) or maps (B, H, W).

    Computed in float64, since sums of squares cancel; large ones by FFT. The result is float64 if one of the two is, else float32.
    Raises ValueError for other ranks, a pattern larger than the signal or constant, and what is not finite or not floating point.

    >>> signal = torch.tensor([0.0, 0.0, 1.0, 3.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    >>> found = matched_filter(signal, torch.tensor([1.0, 3.0, 1.0]))
    >>> found.place.item(), found.peak.item(), round(found.normalised_peak.item(), 6)
    (2, 11.0, 1.0)
    """
    _expect(signal, pattern)
    kind = torch.float64 if torch.float64 in (signal.dtype, pattern.dtype) else torch.float32
    x_BHW, pattern_ij = _as_maps(signal, pattern)
    correlation, normalised = _maps(x_BHW, pattern_ij)
    place, peak = _largest(correlation)
    normalised_place, normalised_peak = _largest(normalised)
    snr = peak.square() / _noise_power(correlation, place, pattern_ij.shape)
    maps = (correlation, normalised)
    places = (place, normalised_place)
    if pattern.dim() == 1:
        maps = (correlation.squeeze(1), normalised.squeeze(1))
        places = (place[:, 1], normalised_place[:, 1])
    found = (maps[0], maps[1], places[0], peak, places[1], normalised_peak, snr, 10 * snr.log10())
    alone = signal.dim() == pattern.dim()
    typed = (part.to(kind) if part.is_floating_point() else part for part in found)
    return Match(*(part.squeeze(0) if alone else part for part in typed))


def _as_maps(signal: Tensor, pattern: Tensor) -> tuple[Tensor, Tensor]:
    """(x_BHW, pattern_ij) in float64: a signal is a map with one row."""
    x = signal if signal.dim() > pattern.dim() else signal.unsqueeze(0)
    if pattern.dim() == 1:
        x, pattern = x.unsqueeze(1), pattern.unsqueeze(0)
    return x.double(), pattern.double()


def _maps(x_BHW: Tensor, pattern_ij: Tensor) -> tuple[Tensor, Tensor]:
    """The correlation and the normalised correlation, (B, P, Q).

    Both come of one product, that of the pattern and the signal less their means: what the means add is known from sums of windows.
    """
    size, mean = pattern_ij.shape, pattern_ij.mean()
    level_B11 = x_BHW.mean((1, 2), keepdim=True)
    centred_BHW, shape_ij = x_BHW - level_B11, pattern_ij - mean
    product = _correlate(centred_BHW, shape_ij)
    sums, squares = _window_sums(centred_BHW, size), _window_sums(centred_BHW.square(), size)
    energy = squares - sums.square() / pattern_ij.numel()
    flat = energy <= FLAT * squares
    norm = torch.where(flat, 1.0, energy).sqrt() * shape_ij.square().sum().sqrt()
    normalised = torch.where(flat, 0.0, product / norm).clamp(-1, 1)
    return product + mean * sums + level_B11 * pattern_ij.sum(), normalised


def _correlate(x_BHW: Tensor, pattern_ij: Tensor) -> Tensor:
    """Every window inside the map, directly or, where there is much to add up, by FFT."""
    H, W = x_BHW.shape[1:]
    P, Q = H - pattern_ij.shape[0] + 1, W - pattern_ij.shape[1] + 1
    taps = pattern_ij.numel()
    if taps <= FEW_TAPS or taps * P * Q <= FEW_PRODUCTS:
        return F.conv2d(x_BHW.unsqueeze(1), pattern_ij[None, None]).squeeze(1)
    spectrum = torch.fft.rfft2(x_BHW) * torch.fft.rfft2(pattern_ij, s=(H, W)).conj()
    return torch.fft.irfft2(spectrum, s=(H, W))[:, :P, :Q]  # the circle closes in the windows that are cut off


def _window_sums(x_BHW: Tensor, size: torch.Size) -> Tensor:
    """The sum of every window, along one axis after the other. Not by cumulative sums: these lose the small windows of a large map."""
    by_rows = F.avg_pool2d(x_BHW.unsqueeze(1), (size[0], 1), 1, divisor_override=1)
    return F.avg_pool2d(by_rows, (1, size[1]), 1, divisor_override=1).squeeze(1)


def _largest(map_BPQ: Tensor) -> tuple[Tensor, Tensor]:
    """(place_B2, value_B)"""
    flat = map_BPQ.flatten(1)
    index_B = flat.argmax(1)
    place_B2 = torch.stack([index_B // map_BPQ.shape[2], index_B % map_BPQ.shape[2]], 1)
    return place_B2, flat.gather(1, index_B[:, None]).squeeze(1)


def _noise_power(map_BPQ: Tensor, place_B2: Tensor, size: torch.Size) -> Tensor:
    """The mean square over the windows that share nothing with the one at the place."""
    apart = [
        (torch.arange(n, device=map_BPQ.device) - place_B2[:, axis, None]).abs() >= size[axis] for axis, n in enumerate(map_BPQ.shape[1:])
    ]
    away_BPQ = apart[0][:, :, None] | apart[1][:, None, :]
    return torch.where(away_BPQ, map_BPQ, 0.0).square().sum((1, 2)) / away_BPQ.sum((1, 2))


def _expect(signal: Any, pattern: Any) -> None:
    """Raise ValueError for what cannot be searched or searched for."""
    for name, x in (("signal", signal), ("pattern", pattern)):
        expect_tensor(f"matched_filter {name}", x)
        expect_floating(f"matched_filter {name}", x)
    axes = pattern.dim()
    if axes not in (1, 2):
        raise ValueError(f"matched_filter pattern: expected (L) or (H, W), got {tuple(pattern.shape)}. One channel? Take pattern[0].")
    names = "(L) or (B, L)" if axes == 1 else "(H, W) or (B, H, W)"
    got, sought = tuple(signal.shape), tuple(pattern.shape)
    if signal.dim() not in (axes, axes + 1):
        hint = " Channels? Search each of them, or their mean x.mean(1)." if signal.dim() == 4 else ""
        raise ValueError(f"matched_filter signal: expected {names} for a pattern {sought}, got {got}.{hint}")
    if not pattern.numel() or any(n < k for n, k in zip(got[-axes:], sought, strict=True)):
        hint = " Signal and pattern swapped?" if pattern.numel() else " It is empty."
        raise ValueError(
            f"matched_filter pattern: expected at least 1 and at most {got[-axes:]}, the size of the signal, got {sought}.{hint}"
        )
    if signal.device != pattern.device:
        raise ValueError(f"matched_filter pattern: expected device {signal.device}, where the signal is, got {pattern.device}.")
    for name, x in (("signal", signal), ("pattern", pattern)):
        wrong = (~x.isfinite()).nonzero()
        if len(wrong):
            place = tuple(wrong[0].tolist())
            raise ValueError(
                f"matched_filter {name}: expected finite numbers, got {x[place].item()} at {place} ({len(wrong)} of {x.numel()}). "
                "Missing values? Fill them first: torch.nan_to_num(x)."
            )
    if pattern.min() == pattern.max():
        value = pattern.flatten()[0].item()
        raise ValueError(
            f"matched_filter pattern: expected at least two different values, got {value:g} everywhere: it has no shape to look for."
        )
