"""Transposed convolution, the adjoint of correlation.     B images, F maps in, C maps out, P all axes of the maps in, H of the maps out

A rubber stamp: every pixel that comes in stamps the kernel, as strong as it is, onto the map that goes out; where stamps overlap they add
up. With the window of the correlation from H to P that this one turns around, and its K taps (see windows.py):

    dcolumns[b,c,k,p] = sum_f W[f,c,k] x[b,f,p]
    forward    y = fold(dcolumns) + bias[c]                                           what correlation computes for its dx
    backward   columns = unfold(dy)
               dx[b,f,p] = sum_c,k W[f,c,k] columns[b,c,k,p]                          correlation of dy
               dW[f,c,k] = sum_b,p x[b,f,p] columns[b,c,k,p]                          correlation of dy with x
               dbias[c] = sum_b,h dy[b,c,h]
    law        <correlate(x, W), y> = <x, transposed(y, W)>
    equally    a full convolution of x, with s - 1 zeros put between its rows and columns
    size       H = (P - 1) s - before - after + d (k - 1) + 1 + extra                 along each axis

extra, torch's output_padding, does not surround the result with zeros. A correlation with stride s drops what does not fill a whole
step: for k = 3, s = 2 and padding 1, maps of 7 and of 8 both become 4. Back from 4 the formula says 7; extra = 1 says that it was 8.
The row that it adds at the end receives whatever part of the last stamps lies there, and the bias.

Zeiler, Krishnan, Taylor and Fergus, "Deconvolutional networks", CVPR 2010; Dumoulin and Visin, "A guide to convolution arithmetic for deep
learning", arXiv:1603.07285, chapter 4, relationship 14
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from twofold.layers.differentiable import differentiable
from twofold.space.correlation import bias_gradient, matrix
from twofold.space.padding import BY_SIZE, last_first
from twofold.space.pooling import expect_countable
from twofold.space.windows import Window, by, fold, unfold


class Saved(NamedTuple):
    """What backward needs."""

    x_BFP: Tensor
    weight_FCk: Tensor
    has_bias: bool
    window: Window
    groups: int


def forward(
    x_BFP: Tensor, weight_FCk: Tensor, bias_C: Tensor | None, window: Window, groups: int, extra: tuple[int, ...]
) -> tuple[Tensor, Saved]:
    """y_BCH; weight_FCk has C / groups channels, and `extra` rows are added at the end of each axis."""
    batch, maps, *counts = x_BFP.shape
    channels, size = weight_FCk.shape[1] * groups, map_size(counts, window, extra)
    cause = "Use smaller batches or another route."
    expect_countable("transposed", "columns", (batch, channels, window.taps, *counts), cause)
    expect_countable("transposed", "padded maps", (batch, channels, *map_size(counts, bare(window), extra)), cause)
    x_BGFP = x_BFP.reshape(batch, groups, maps // groups, prod(counts))
    dcolumns_BGKP = matrix(weight_FCk, groups).transpose(1, 2) @ x_BGFP
    y_BCH = fold(dcolumns_BGKP.reshape(batch, channels, window.taps, *counts), window, size)
    if bias_C is not None:
        y_BCH = y_BCH + bias_C.reshape(-1, *[1] * window.axes)
    return y_BCH, Saved(x_BFP, weight_FCk, bias_C is not None, window, groups)


def backward(dy_BCH: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dx_BFP, dweight_FCk, dbias_C)"""
    x_BFP, weight_FCk, has_bias, window, groups = saved
    batch, maps, *counts = x_BFP.shape
    columns_BCKP = unfold(dy_BCH, window)[:, :, :, *(slice(n) for n in counts)]  # with much extra, more windows fit than stamps were made
    columns_BGKP = columns_BCKP.reshape(batch, groups, weight_FCk.shape[1] * window.taps, prod(counts))
    dx_BGFP = matrix(weight_FCk, groups) @ columns_BGKP
    x_BGFP = x_BFP.reshape(batch, groups, maps // groups, prod(counts))
    dweight_GFK = (x_BGFP @ columns_BGKP.transpose(2, 3)).sum(0)
    return dx_BGFP.reshape(x_BFP.shape), dweight_GFK.reshape(weight_FCk.shape), bias_gradient(dy_BCH) if has_bias else None


OPERATORS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def vendor(x_BFP: Tensor, weight_FCk: Tensor, bias_C: Tensor | None, window: Window, groups: int, extra: tuple[int, ...]) -> Tensor:
    """PyTorch's own, which cuts both sides alike and adds less than a step: what differs is cut from the whole or added to it."""
    operator, sides = OPERATORS[window.axes], window.sides()
    most = [max(s, d) - 1 for s, d in zip(window.stride, window.dilation, strict=True)]
    added = [before - after + n for (before, after), n in zip(sides, extra, strict=True)]
    if all(0 <= n <= high for n, high in zip(added, most, strict=True)):
        return operator(x_BFP, weight_FCk, bias_C, window.stride, window.padding[::2], added, groups, window.dilation)
    whole = operator(x_BFP, weight_FCk, None, window.stride, 0, 0, groups, window.dilation)
    ends = [side for (before, after), n in zip(sides, extra, strict=True) for side in (-before, n - after)]
    y_BCH = F.pad(F.pad(whole, [max(n, 0) for n in last_first(ends)]), [min(n, 0) for n in last_first(ends)])
    return y_BCH if bias_C is None else y_BCH + bias_C.reshape(-1, *[1] * window.axes)


transposed = differentiable(forward, backward, vendor=vendor)


def map_size(counts: Sequence[int], window: Window, extra: Sequence[int]) -> tuple[int, ...]:
    """H

    >>> map_size((4, 4), Window((3, 3), (2, 2), (1, 1, 1, 1)), (0, 1))
    (7, 8)
    """
    axes = zip(counts, window.stride, window.sides(), window.spread, extra, strict=True)
    return tuple((n - 1) * s - before - after + spread + more for n, s, (before, after), spread, more in axes)


def bare(window: Window) -> Window:
    """The window without its padding: its map is the whole that the stamps cover."""
    return Window(window.kernel, window.stride, (0,), window.dilation)


def expect_map(who: str, counts: Sequence[int], window: Window, extra: Sequence[int]) -> tuple[int, ...]:
    """H, or ValueError where the padding cuts all of it away."""
    size = map_size(counts, window, extra)
    if min(size) < 1:
        sides = ", ".join(f"{before}+{after}" for before, after in window.sides())
        whole = by(map_size(counts, bare(window), extra))
        raise ValueError(
            f"{who}: the padding {sides} cuts away all of the {whole} that maps of {by(counts)} become. Use less padding or larger maps."
        )
    return size


def size_limits(counts: Sequence[int], window: Window, padding: Any) -> list[tuple[int, int]]:
    """The sizes (from, to) of the maps that this window turns into so many windows, along each axis.

    >>> size_limits((4, 3), Window((3, 3), (2, 2), (1, 1, 1, 1)), 1)
    [(7, 8), (5, 6)]
    """
    limits = []
    usual = map_size(counts, window, (0,) * window.axes)
    for n, s, size, before in zip(counts, window.stride, usual, window.padding[::2], strict=True):
        low, high = size, size + s - 1
        if padding in BY_SIZE:
            low, high = (n - 1) * s + 1, n * s
        elif window.ceil:
            low, high = max(size - s, (n - 1) * s - before) + 1, max(size, n * s - before)
        limits.append((max(low, 1), high))
    return limits
