"""Weighted means over windows of float32 maps, compiled (cpu/weighted_mean.h): what average and Gaussian pooling share.

    forward    y[p,q] = sum_ij gh[i] gw[j] x[window(p,q,i,j)] / n[p,q]                                    padding counts as 0
    backward   dx[h,w] = sum of gh[i] gw[j] dy[p,q] / n[p,q] over the windows (p,q) whose tap (i,j) lies on (h,w)

n is the sum of the weights of the taps on the map, or on the map and its padding, or a number of the caller's. Maps that lie channels
last are pooled as they lie, and so do the results.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from twofold.kernels.fit import Window, geometry, obstacle

Weights = tuple[Sequence[float], Sequence[float]]  # of the rows of taps (gh), of their columns (gw)


def unfit(x_BCHW: Tensor) -> str:
    """Why the compiled form cannot serve this input, or ''."""
    if x_BCHW.dim() != 4:
        return f"needs maps of four axes (B, C, H, W), not of {x_BCHW.dim()}"
    return obstacle(x_BCHW, last=True)


def forward(x_BCHW: Tensor, window: Window, weights: Weights, count_padding: bool, divisor: float | None = None) -> Tensor:
    """y_BCPQ, in the layout of x; divisor: n, where the caller gives it."""
    numbers = geometry(window, x_BCHW.shape[2], x_BCHW.shape[3])
    y: Tensor = torch.ops.twofold.mean_pool2d.default(x_BCHW, numbers, *weights, counted(window, count_padding), divisor or 0.0)
    return y


def backward(
    dy_BCPQ: Tensor, window: Window, size: tuple[int, int], weights: Weights, count_padding: bool, divisor: float | None = None
) -> Tensor:
    """dx_BCHW, in the layout of dy."""
    dy = dy_BCPQ if dy_BCPQ.is_contiguous(memory_format=torch.channels_last) else dy_BCPQ.contiguous()
    numbers, sides = geometry(window, *size), counted(window, count_padding)
    dx: Tensor = torch.ops.twofold.mean_pool2d_backward.default(dy, numbers, *weights, sides, divisor or 0.0, *size)
    return dx


def counted(window: Window, count_padding: bool) -> tuple[int, ...]:
    """How much of the padding counts: top, bottom, left, right."""
    return window.padding if count_padding else (0, 0, 0, 0)
