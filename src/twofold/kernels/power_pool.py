"""Lp pooling of float32 maps for every finite p >= 1, compiled (cpu/power_pool.h): the law of space/power_pooling.py.

    forward    y = (sum_k |x_k|^p)^(1/p)                                                                  padding counts as 0
    backward   dx_k = dy sign(x_k) (|x_k| / y)^(p - 1), added over the windows that see it; 0 where y is 0

Nothing overflows or vanishes on the way, however large or small x is. The relative error of y stays below 1e-6; that of dx grows with p,
for y itself is known to 6e-8 only: about p 1e-7.
"""

import math

import torch
from torch import Tensor

from twofold.kernels.fit import Window, geometry, obstacle


def unfit(x_BCHW: Tensor, window: Window, power: float) -> str:
    """Why the compiled form cannot serve this input, or ''."""
    if x_BCHW.dim() != 4:
        return f"needs maps of four axes (B, C, H, W), not of {x_BCHW.dim()}"
    if not math.isfinite(power):
        return "needs a finite power"
    return obstacle(x_BCHW)


def forward(x_BCHW: Tensor, window: Window, power: float) -> Tensor:
    """y_BCPQ"""
    y: Tensor = torch.ops.twofold.power_pool2d.default(x_BCHW, geometry(window, x_BCHW.shape[2], x_BCHW.shape[3]), power)
    return y


def backward(dy_BCPQ: Tensor, x_BCHW: Tensor, y_BCPQ: Tensor, window: Window, power: float) -> Tensor:
    """dx_BCHW"""
    numbers = geometry(window, x_BCHW.shape[2], x_BCHW.shape[3])
    dx: Tensor = torch.ops.twofold.power_pool2d_backward.default(dy_BCPQ.contiguous(), x_BCHW, y_BCPQ, numbers, power)
    return dx
