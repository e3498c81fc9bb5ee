"""Correlation by way of the Fourier transform.     B images, C channels, F filters, G groups, H all axes of the map, P of the windows

x^, W^, y^ are the transforms of what stands in one block of N numbers along each axis; ' is the complex conjugate

    forward    y^[b,f] = sum_c W^'[f,c] x^[b,c]            frequency by frequency
    backward   dx^[b,c] = sum_f W^[f,c] dy^[b,f]           dW^[f,c] = sum_b dy^'[b,f] x^[b,c]

A kernel that covers s numbers of an axis makes N - s + 1 right outputs of a block, the others wrap around and are left out; so
blocks begin N - s + 1 apart and overlap (overlap-save; backward, their gradients are added up where they overlap). N is the power
of two, or three times one, that costs least. Dilation puts zeros into the kernel; of a stride's outputs only those that are wanted
are kept. K taps cost K multiplications an output directly, about 2 log2 N here: that wins for large kernels.

Mathieu, Henaff and LeCun, "Fast training of convolutional networks through FFTs", ICLR 2014;
overlap-save: Oppenheim and Schafer, "Discrete-time signal processing", section 8.7.3 (3rd edition, 2009)
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import log2, prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.layers.differentiable import differentiable
from twofold.space.correlation import bias_gradient
from twofold.space.windows import Window


class Blocks(NamedTuple):
    """How the padded map is cut: N along each axis, how far blocks are apart, how many there are, and the map they cover."""

    size: tuple[int, ...]
    apart: tuple[int, ...]
    number: tuple[int, ...]
    covered: tuple[int, ...]


class Saved(NamedTuple):
    """What backward needs: the spectra."""

    seen_NBGCw: Tensor
    taps_GFCw: Tensor
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    has_bias: bool
    window: Window


def forward(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> tuple[Tensor, Saved]:
    """y_BFP"""
    size = tuple(x_BCH.shape[2:])
    maps = x_BCH.shape[0] * (x_BCH.shape[1] + weight_FCi.shape[0])
    blocks = blocks_of(size, window, maps, prod(weight_FCi.shape[:2]))
    seen = spectrum(cut(framed(x_BCH, window, blocks), blocks.size, blocks.apart), blocks).unflatten(2, (groups, -1))
    taps = spectrum(stuffed(weight_FCi, window.dilation), blocks).unflatten(0, (groups, -1))
    y_NBF = numbers(products(seen, taps.conj()).flatten(2, 3), blocks)
    y_BFP = joined(y_NBF, blocks)[:, :, *strided(size, window)]
    if bias_F is not None:
        y_BFP = y_BFP + bias_F.reshape(-1, *[1] * window.axes)
    return y_BFP.contiguous(), Saved(seen, taps, size, tuple(weight_FCi.shape[2:]), bias_F is not None, window)


def backward(dy_BFP: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dx_BCH, dweight_FCi, dbias_F)"""
    seen, taps, size, kernel, has_bias, window = saved
    groups, per_group, channels = taps.shape[0], taps.shape[1], taps.shape[2]
    blocks = blocks_of(size, window, dy_BFP.shape[0] * groups * (channels + per_group), groups * per_group * channels)
    whole = dy_BFP.new_zeros((*dy_BFP.shape[:2], *(n * apart for n, apart in zip(blocks.number, blocks.apart, strict=True))))
    whole[:, :, *strided(size, window)] = dy_BFP
    dy = spectrum(cut(whole, blocks.apart, blocks.apart), blocks).unflatten(2, (groups, -1))
    dx_NBC = numbers(products(dy, taps.transpose(1, 2)).flatten(2, 3), blocks)
    dx_BCH = unframed(added_up(dx_NBC, blocks), size, window)
    spectra = [(dy.conj() * seen[:, :, :, channel, None]).sum((0, 1)) for channel in range(channels)]
    dtaps = numbers(torch.stack(spectra, 2), blocks)
    dweight = dtaps.flatten(0, 1)[:, :, *(slice(0, (k - 1) * d + 1, d) for k, d in zip(kernel, window.dilation, strict=True))]
    return dx_BCH, dweight.contiguous(), bias_gradient(dy_BFP) if has_bias else None


def products(seen_NBGCw: Tensor, taps_GFCw: Tensor) -> Tensor:
    """y_NBGFw: for every frequency the sum over the channels; one channel at a time, for the matrices are small and many."""
    total = seen_NBGCw[:, :, :, None, 0] * taps_GFCw[None, None, :, :, 0]
    for channel in range(1, taps_GFCw.shape[2]):
        total = total + seen_NBGCw[:, :, :, None, channel] * taps_GFCw[None, None, :, :, channel]
    return total


def stuffed(weight_FCi: Tensor, dilation: Sequence[int]) -> Tensor:
    """The kernel with dilation - 1 zeros between its taps."""
    if max(dilation) == 1:
        return weight_FCi
    spread = [(k - 1) * d + 1 for k, d in zip(weight_FCi.shape[2:], dilation, strict=True)]
    whole = weight_FCi.new_zeros((*weight_FCi.shape[:2], *spread))
    whole[:, :, *(slice(None, None, d) for d in dilation)] = weight_FCi
    return whole


def spectrum(x: Tensor, blocks: Blocks) -> Tensor:
    """The transform of every block, zeros added up to its size; of an empty batch the empty one."""
    if not x.numel():
        return x.new_zeros((*x.shape[: -len(blocks.size)], *blocks.size[:-1], blocks.size[-1] // 2 + 1), dtype=x.dtype.to_complex())
    return torch.fft.rfftn(x, s=blocks.size, dim=tuple(range(-len(blocks.size), 0)))


def numbers(spectra: Tensor, blocks: Blocks) -> Tensor:
    """The blocks that have these spectra."""
    if not spectra.numel():
        return spectra.real.new_zeros((*spectra.shape[: -len(blocks.size)], *blocks.size))
    return torch.fft.irfftn(spectra, s=blocks.size, dim=tuple(range(-len(blocks.size), 0)))


def strided(size: Sequence[int], window: Window) -> tuple[slice, ...]:
    """Which of the outputs with stride 1 are wanted."""
    return tuple(slice(0, (n - 1) * s + 1, s) for n, s in zip(window.output_size(size), window.stride, strict=True))


def framed(x_BCH: Tensor, window: Window, blocks: Blocks) -> Tensor:
    """The padded map, as far as the blocks cover it, with zeros behind where they reach beyond it."""
    added: list[int] = []
    for axis in reversed(range(window.axes)):
        before = window.padding[2 * axis]
        added += [before, max(blocks.covered[axis] - x_BCH.shape[2 + axis] - before, 0)]
    return F.pad(x_BCH, added)[:, :, *(slice(0, n) for n in blocks.covered)]


def unframed(dframed_BCH: Tensor, size: Sequence[int], window: Window) -> Tensor:
    """The adjoint of `framed`: what the blocks did not cover has no gradient."""
    missing: list[int] = []
    for axis in reversed(range(window.axes)):
        before = window.padding[2 * axis]
        missing += [0, max(before + size[axis] - dframed_BCH.shape[2 + axis], 0)]
    whole = F.pad(dframed_BCH, missing)
    return whole[:, :, *(slice(before, before + n) for (before, _), n in zip(window.sides(), size, strict=True))]


def cut(whole_BCH: Tensor, size: Sequence[int], apart: Sequence[int]) -> Tensor:
    """x_NBCh: the blocks of this size, first of all axes; they overlap where they are larger than they lie apart."""
    axes = len(size)
    for axis in range(axes):
        whole_BCH = whole_BCH.unfold(2 + axis, size[axis], apart[axis])
    return whole_BCH.permute(*range(2, 2 + axes), 0, 1, *range(2 + axes, 2 + 2 * axes)).flatten(0, axes - 1)


def joined(y_NBF: Tensor, blocks: Blocks) -> Tensor:
    """y_BFP with stride 1: the right outputs of every block side by side."""
    axes = len(blocks.size)
    right = y_NBF[:, :, :, *(slice(0, apart) for apart in blocks.apart)].unflatten(0, blocks.number)
    order = [axes, axes + 1]
    for axis in range(axes):
        order += [axis, axes + 2 + axis]
    y_BF = right.permute(order)
    for axis in range(axes):
        y_BF = y_BF.flatten(2 + axis, 3 + axis)
    return y_BF


def added_up(dx_NBC: Tensor, blocks: Blocks) -> Tensor:
    """The padded map's gradient: blocks that overlap are added up."""
    total = dx_NBC.new_zeros((*dx_NBC.shape[1:3], *blocks.covered))
    for block, place in zip(dx_NBC, product(*(range(n) for n in blocks.number)), strict=True):
        total[:, :, *(slice(i * a, i * a + n) for i, a, n in zip(place, blocks.apart, blocks.size, strict=True))] += block
    return total


@lru_cache(maxsize=256)
def blocks_of(size: tuple[int, ...], window: Window, maps: int, kernels: int) -> Blocks:
    """The cut that costs least, counted in butterflies and products: `maps` transforms of every block, `kernels` of the kernel."""
    counts = [(n - 1) * s + 1 for n, s in zip(window.output_size(size), window.stride, strict=True)]
    needed = [n + s - 1 for n, s in zip(counts, window.spread, strict=True)]
    best: tuple[float, Blocks] | None = None
    for halvings in range(12):
        lengths = tuple(smooth(max(s, n >> halvings)) for n, s in zip(needed, window.spread, strict=True))
        apart = tuple(n - s + 1 for n, s in zip(lengths, window.spread, strict=True))
        number = tuple(-(-n // a) for n, a in zip(counts, apart, strict=True))
        covered = tuple((n - 1) * a + length for n, a, length in zip(number, apart, lengths, strict=True))
        volume, all_blocks = prod(lengths), prod(number)
        cost = volume * ((all_blocks * maps + kernels) * 2.5 * log2(volume + 1) + 4 * all_blocks * kernels)
        if best is None or cost < best[0]:
            best = (cost, Blocks(lengths, apart, number, covered))
    assert best is not None
    return best[1]


def smooth(least: int) -> int:
    """The smallest power of two, or three times one, that is not below.

    >>> smooth(33), smooth(50), smooth(1)
    (48, 64, 1)
    """
    two = 1 << (least - 1).bit_length()
    return two * 3 // 4 if two * 3 // 4 >= least and two >= 4 else two


correlate_by_fourier = differentiable(forward, backward)
