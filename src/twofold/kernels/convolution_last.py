"""Convolution of bfloat16 maps that lie channels last, compiled (cpu/winograd_last.h): the law of space/convolution.py.

3x3 taps with stride 1 go by Winograd's algorithm, forward and both gradients, in products of bfloat16 summed in float32; 1x1 taps are
matrix products. Neither has to turn the maps around. Weights are float32 or bfloat16; 3x3 weights are rounded once, after their
transform, and their gradient is summed in float32. y is wrong by 2^-7 of what the sum of the transforms' absolute values would be, at
most, and is rounded to bfloat16.
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
    if reason := stranger(x_BCHW, dtypes=(torch.bfloat16,)) or stranger(weight_FCij, bias_F, dtypes=(torch.float32, torch.bfloat16)):
        return reason
    if not x_BCHW.is_contiguous(memory_format=torch.channels_last):
        return "needs a map that lies channels last"
    return reduced_unfit()


def unfit_window(window: Window) -> str:
    """Why windows of this kind cannot be had, or ''."""
    if window.dilation != (1, 1):
        return "needs dilation 1"
    if window.kernel == (1, 1) and not any(window.padding):
        return ""
    return "" if window.kernel == (3, 3) and window.stride == (1, 1) else "needs 3x3 taps with stride 1, or 1x1 taps without padding"


def convolve(x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> Tensor:
    """y_BFPQ in bfloat16, channels last; a node of autograd."""
    y: Tensor = torch.ops.twofold.convolve_last.default(x_BCHW, weight_FCij, bias_F, geometry(window, *x_BCHW.shape[2:]))
    return y


def pack(weight_FCij: Tensor, bias_F: Tensor | None) -> Tensor:
    """3x3 weights as `packed` wants them: for use, where they stay the same from batch to batch."""
    whole: Tensor = torch.ops.twofold.convolution_last_pack.default(weight_FCij, bias_F)
    return whole


def packed(x_BCHW: Tensor, whole: Tensor, filters: int, window: Window, relu: bool) -> Tensor:
    """y_BFPQ of packed weights, through ReLU where asked for; without gradients."""
    numbers = geometry(window, *x_BCHW.shape[2:])
    y: Tensor = torch.ops.twofold.convolution_last_packed.default(x_BCHW, whole, filters, numbers, relu)
    return y
