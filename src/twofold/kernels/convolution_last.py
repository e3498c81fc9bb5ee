"""Convolution of maps that lie channels last, compiled (cpu/winograd_last.h, cpu/pointwise.h): the law of space/convolution.py.

3x3 taps with stride 1 go by Winograd's algorithm, forward and both gradients; 1x1 taps are matrix products. Neither has to turn the
maps around. Maps are float32, or bfloat16: their products are of bfloat16, too, and summed in float32. With them, weights may be of
either; 3x3 weights are rounded once, after their transform, and their gradient is summed in float32. Such a y is wrong by 2^-7 of what
the sum of the transforms' absolute values would be, at most, and is rounded to bfloat16.
"""

import torch
from torch import Tensor

from twofold.kernels.convolution import reduced_unfit
from twofold.kernels.fit import Window, geometry, stranger


def unfit(x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> str:
    """Why the compiled form cannot serve, or ''."""
    if x_BCHW.dim() != 4 or groups > 1:
        return "needs maps of two axes and one group"
    if reason := unfit_window(window):
        return reason
    full, half = torch.float32, torch.bfloat16
    allowed = (full, half) if x_BCHW.dtype == half else (full,)
    if reason := stranger(x_BCHW, dtypes=(full, half)) or stranger(weight_FCij, bias_F, dtypes=allowed):
        return reason
    if not x_BCHW.is_contiguous(memory_format=torch.channels_last):
        return "needs a map that lies channels last"
    return reduced_unfit() if x_BCHW.dtype == half else ""


def unfit_window(window: Window) -> str:
    """Why windows of this kind cannot be had, or ''."""
    if window.dilation != (1, 1):
        return "needs dilation 1"
    if window.kernel == (1, 1) and not any(window.padding):
        return ""
    return "" if window.kernel == (3, 3) and window.stride == (1, 1) else "needs 3x3 taps with stride 1, or 1x1 taps without padding"


def convolve(x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> Tensor:
    """y_BFPQ, channels last; a node of autograd."""
    y: Tensor = torch.ops.twofold.convolve_last.default(x_BCHW, weight_FCij, bias_F, geometry(window, *x_BCHW.shape[2:]))
    return y


def pack(weight_FCij: Tensor, bias_F: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Weights as `packed` wants them for maps of this dtype: for use, where they stay the same from batch to batch."""
    whole: Tensor = torch.ops.twofold.convolution_last_pack.default(weight_FCij, bias_F, dtype == torch.bfloat16)
    return whole


def packed(x_BCHW: Tensor, whole: Tensor, filters: int, window: Window, other_BFPQ: Tensor | None, relu: bool) -> Tensor:
    """y_BFPQ of packed weights, plus another map and through ReLU where asked for; without gradients."""
    numbers = geometry(window, *x_BCHW.shape[2:])
    y: Tensor = torch.ops.twofold.convolution_last_packed.default(x_BCHW, whole, filters, numbers, other_BFPQ, relu)
    return y
