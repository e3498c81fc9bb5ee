"""Batch normalisation, a shortcut added to it, and ReLU, compiled (cpu/norm_join.h): the law of space/joined_norm.py.

x, shortcut and y are float32 or bfloat16, channels first or last; what is computed in between, the statistics and the parameters are
float32. A shortcut that lies otherwise than x is laid out anew.
"""

import torch
from torch import Tensor

from twofold.kernels.fit import stranger

HALVES = (torch.float32, torch.bfloat16)


def unfit(x_BCHW: Tensor, shortcut_BCHW: Tensor | None, *values_C: Tensor | None) -> str:
    """Why the compiled form cannot serve, or ''."""
    if x_BCHW.dim() != 4:
        return "needs maps of two axes"
    if reason := stranger(x_BCHW, shortcut_BCHW, dtypes=HALVES) or stranger(*values_C):
        return reason
    if not x_BCHW.is_contiguous() and not x_BCHW.is_contiguous(memory_format=torch.channels_last):
        return "needs a contiguous map in the order (B, C, H, W), or channels last"
    if shortcut_BCHW is not None and (shortcut_BCHW.shape != x_BCHW.shape or shortcut_BCHW.dtype != x_BCHW.dtype):
        return "needs a shortcut of the size and precision of x"
    if not all(values is None or values.is_contiguous() for values in values_C):
        return "needs contiguous parameters"
    return ""


def join(
    x_BCHW: Tensor,
    shortcut_BCHW: Tensor | None,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    mean_C: Tensor | None,
    variance_C: Tensor | None,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y_BCHW, mean_C, variance_C), a node of autograd; by the batch's own statistics where none are given."""
    if shortcut_BCHW is not None:
        layout = torch.contiguous_format if x_BCHW.is_contiguous() else torch.channels_last
        shortcut_BCHW = shortcut_BCHW.contiguous(memory_format=layout)
    y, mean, variance = torch.ops.twofold.join.default(x_BCHW, shortcut_BCHW, scale_C, shift_C, mean_C, variance_C, eps, relu)
    return y, mean, variance
