"""Correlation and convolution.     B images, C channels, F filters, H all axes of the map, P of the windows, K taps (see windows.py)

    columns[b,c,k,p] = what tap k of window p sees of x[b,c]                                              (unfold)

    forward    y[b,f,p] = sum_c,k W[f,c,k] columns[b,c,k,p] + bias[f]
    backward   dcolumns[b,c,k,p] = sum_f W[f,c,k] dy[b,f,p]              dx = fold(dcolumns)
               dW[f,c,k] = sum_b,p dy[b,f,p] columns[b,c,k,p]            dbias[f] = sum_b,p dy[b,f,p]

`correlate` leaves the kernel as it is: this is what deep learning calls convolution. `convolve` turns it around along all its axes, as
mathematics does: convolve(x, W) = correlate(x, turned W). The textbook says the same of the backward pass in other words:
dx is the full correlation of dy, with stride - 1 zeros put between its rows and columns, with the turned kernel (equally: the full
convolution with the kernel as it is); dW is the correlation of x with dy. Tests prove that these are one.

With groups, channels and filters are split into as many parts, and each part of the filters sees its part of the channels alone.

LeCun et al., "Backpropagation applied to handwritten zip code recognition", Neural Computation 1, 1989;
the matrix form: Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing", 2006
"""

from functools import lru_cache
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold import kernels
from twofold.kernels import convolution, convolution_last, depthwise, nodes
from twofold.layers.differentiable import Native, Other, differentiable
from twofold.layers.forms import bf16_autocast, bf16_faster, bf16_ours, bf16_permitted
from twofold.space.padding import last_first
from twofold.space.pooling import expect_columns
from twofold.space.windows import Window, fold, unfold


class Saved(NamedTuple):
    """What backward needs. The columns are K times as large as x: they are made anew, not kept."""

    x_BCH: Tensor
    weight_FCi: Tensor
    has_bias: bool
    window: Window
    groups: int


def forward(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> tuple[Tensor, Saved]:
    """y_BFP; weight_FCi has C / groups channels."""
    counts = window.output_size(x_BCH.shape[2:])
    y_BGFP = matrix(weight_FCi, groups) @ grouped_columns(x_BCH, window, groups)
    y_BFP = y_BGFP.reshape(x_BCH.shape[0], weight_FCi.shape[0], *counts)
    if bias_F is not None:
        y_BFP = y_BFP + bias_F.reshape(-1, *[1] * window.axes)
    return y_BFP, Saved(x_BCH, weight_FCi, bias_F is not None, window, groups)


def backward(dy_BFP: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dx_BCH, dweight_FCi, dbias_F)"""
    x_BCH, weight_FCi, has_bias, window, groups = saved
    batch, filters, *counts = dy_BFP.shape
    dy_BGFP = dy_BFP.reshape(batch, groups, filters // groups, prod(counts))
    dcolumns_BGKP = matrix(weight_FCi, groups).transpose(1, 2) @ dy_BGFP
    dx_BCH = fold(dcolumns_BGKP.reshape(batch, x_BCH.shape[1], window.taps, *counts), window, x_BCH.shape[2:])
    dweight_GFK = (dy_BGFP @ grouped_columns(x_BCH, window, groups).transpose(2, 3)).sum(0)
    return dx_BCH, dweight_GFK.reshape(weight_FCi.shape), bias_gradient(dy_BFP) if has_bias else None


def matrix(weight_FCi: Tensor, groups: int) -> Tensor:
    """One matrix a group: its filters by all taps of its channels."""
    return weight_FCi.reshape(groups, weight_FCi.shape[0] // groups, prod(weight_FCi.shape[1:]))


def grouped_columns(x_BCH: Tensor, window: Window, groups: int) -> Tensor:
    """One matrix an image and group: all taps of its channels by all windows."""
    expect_columns("correlate", x_BCH, window)
    columns_BCKP = unfold(x_BCH, window)
    batch, channels, taps, *counts = columns_BCKP.shape
    return columns_BCKP.reshape(batch, groups, channels // groups * taps, prod(counts))


def bias_gradient(dy_BFP: Tensor) -> Tensor:
    """dbias_F"""
    return dy_BFP.sum((0, *range(2, dy_BFP.dim())))


OPERATORS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def vendor(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> Tensor:
    """PyTorch's own, which pads both sides alike: what differs is padded beforehand."""
    before, after = window.padding[::2], window.padding[1::2]
    if before != after:
        x_BCH, before = F.pad(x_BCH, last_first(window.padding)), (0,) * window.axes
    return OPERATORS[window.axes](x_BCH, weight_FCi, bias_F, window.stride, before, window.dilation, groups)


def compiled(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> Tensor:
    """y_BFP; a signal is a map with one row."""
    if window.axes == 1:
        return nodes.convolve(x_BCH.unsqueeze(2), weight_FCi.unsqueeze(2), bias_F, in_a_row(window), groups).squeeze(2)
    return nodes.convolve(x_BCH, weight_FCi, bias_F, window, groups)


def alone(weight_FCi: Tensor, window: Window, groups: int) -> bool:
    """Whether every filter sees one channel of many (depthwise): that has kernels of its own."""
    return groups > 1 and weight_FCi.shape[1] == 1 and window.axes == 2


@lru_cache(maxsize=256)
def in_a_row(window: Window) -> Window:
    """The window of one axis as one of two, on maps with a single row."""
    (kernel,), (stride,), (dilation,) = window.kernel, window.stride, window.dilation
    return Window((1, kernel), (1, stride), (0, 0, *window.padding), (1, dilation))


def unfit(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> str:
    """Why the compiled form cannot serve, or ''."""
    if alone(weight_FCi, window, groups):
        return depthwise.unfit(x_BCH, weight_FCi, bias_F, window, groups)
    if window.axes == 1:
        return convolution.unfit(x_BCH.unsqueeze(2), weight_FCi.unsqueeze(2), bias_F, in_a_row(window))
    return "needs windows along one or two axes, not three" if window.axes == 3 else convolution.unfit(x_BCH, weight_FCi, bias_F, window)


LEAST = 2_000_000  # multiply-adds, below which PyTorch's own is taken unless a rule says otherwise: nothing is worth measuring


def worth(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> bool | None:
    """Whether the compiled form is the faster one: for few channels or filters, and where Winograd's algorithm saves enough.

    None: nobody knows, for over much work forms and layouts win by turns. The numbers were measured against oneDNN's kernels on two cores
    with AVX-512 (bench/convolution.py, random shapes).
    """
    if torch.is_autocast_enabled("cpu"):
        return False
    filters, channels, taps = weight_FCi.shape[0], weight_FCi.shape[1], window.taps
    if groups > 1:  # PyTorch's own is slow in its backward pass, and for every window but a small one
        rule = alone(weight_FCi, window, groups) and (taps <= 25 or weight_FCi.requires_grad)
    elif window.axes == 3:
        rule = False
    elif window.stride != (1,) * window.axes:
        rule = channels <= 4 and not x_BCH.requires_grad
    elif min(filters, channels) <= 16:
        rule = taps > 1 and max(filters, channels) <= 128
    elif tiled(weight_FCi, window):
        rule = enough(x_BCH, weight_FCi, bias_F, window)
    else:
        rule = False
    if rule or x_BCH.numel() * weight_FCi.numel() < LEAST * channels * groups * prod(window.stride):
        return rule
    return None


def tiled(weight_FCi: Tensor, window: Window) -> bool:
    """Whether Winograd's algorithm serves the compiled form."""
    once = window.kernel == (3, 3) and window.stride == (1, 1) and window.dilation == (1, 1)
    return once and min(weight_FCi.shape[:2]) >= 24


def enough(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> bool:
    """Whether there are windows enough for Winograd's algorithm to be the fastest."""
    rows, columns = window.output_size(x_BCH.shape[2:])
    return x_BCH.shape[0] * rows * columns >= 512 and not torch.is_autocast_enabled("cpu")


def rounded(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> Tensor:
    """y_BFP by Winograd's algorithm with products of bfloat16, forward and backward."""
    return nodes.convolve(x_BCH, weight_FCi, bias_F, window, groups, reduced=True)


def unfit_to_round(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> str:
    """Why it cannot serve, or ''."""
    if groups > 1 or not tiled(weight_FCi, window):
        return "Winograd's algorithm needs 3x3 taps, stride 1 and 24 channels and filters"
    return unfit(x_BCH, weight_FCi, bias_F, window, groups) or convolution.reduced_unfit()


def worth_rounding(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> bool:
    """Whether that is known to be the fastest: 1.5 to 1.9 times as fast as oneDNN without AMX, from some thousand windows on.

    And faster than float32, which a permission leaves open and autocast does not.
    """
    if window.axes != 2 or groups > 1 or not tiled(weight_FCi, window) or min(weight_FCi.shape[:2]) < 64:
        return False
    rows, columns = window.output_size(x_BCH.shape[2:])
    return x_BCH.shape[0] * rows * columns >= 1024 and bf16_ours() and (bf16_autocast() or bf16_faster())


def worth_last(x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> bool:
    """Whether the compiled form for maps that lie channels last is known to be the fastest.

    PyTorch's products of 1x1 taps are as fast, but write to memory that is fresh (kernels/__init__.py, release_memory). In float32
    nothing is known where bfloat16 is allowed and faster; and without AVX2 ours are far slower.
    """
    if window.axes != 2 or groups > 1 or min(weight_FCij.shape[:2]) < 32:
        return False
    rows, columns = window.output_size(x_BCHW.shape[2:])
    if x_BCHW.shape[0] * rows * columns < 256:
        return False
    if x_BCHW.dtype == torch.bfloat16:
        return bf16_ours()
    if (bf16_permitted() and bf16_faster()) or torch.is_autocast_enabled("cpu"):
        return False
    return kernels.instruction_set() in ("avx2", "avx512")


correlate = differentiable(
    forward,
    backward,
    vendor=vendor,
    native=Native(compiled, None, unfit, worth),
    layouts=True,
    reduced=True,
    others={
        "native bf16": Other(rounded, unfit_to_round, True, worth_rounding),
        "native channels last": Other(convolution_last.convolve, convolution_last.unfit, False, worth_last),
    },
)


def convolve(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> Tensor:
    """Correlation with the kernel turned around along all its axes.

    >>> x, kernel = torch.tensor([[[1.0, 0.0, 0.0]]]), torch.tensor([[[1.0, 10.0]]])
    >>> convolve(x, kernel, None, Window((2,), padding=(1, 1))).tolist()  # an impulse shows the kernel as it is
    [[[1.0, 10.0, 0.0, 0.0]]]
    """
    y: Tensor = correlate(x_BCH, turned(weight_FCi), bias_F, window, groups)
    return y


def turned(weight_FCi: Tensor) -> Tensor:
    """The kernel read backwards along all its axes; in two axes: turned by 180 degrees."""
    return weight_FCi.flip(tuple(range(2, weight_FCi.dim())))
