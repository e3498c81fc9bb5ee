"""Depthwise correlation of float32 maps, compiled (cpu/depthwise.h): every filter sees one channel.

    C channels, M filters for each, F = C M;  c = f // M is the channel that filter f sees

    forward    y[f,p,q] = sum_ij W[f,0,i,j] x[c, window(p,q,i,j)] + bias[f]
    backward   dx[c,h,w] = sum of W[f,0,i,j] dy[f,p,q] over the filters of c and the windows (p,q) whose tap (i,j) lies on (h,w)
               dW[f,0,i,j] = sum_bpq dy[f,p,q] x[c, window(p,q,i,j)]                       dbias[f] = sum_bpq dy[f,p,q]

Kernels of 3x3 and 5x5 with stride 1 and 2 have code of their own; every other window goes a general way.
"""

import torch
from torch import Tensor

from twofold.kernels.fit import Window, geometry, obstacle


def unfit(x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window, groups: int) -> str:
    """Why the compiled form cannot serve this input, or ''."""
    if x_BCHW.dim() != 4:
        return f"needs maps of four axes (B, C, H, W), not of {x_BCHW.dim()}"
    if not (x_BCHW.shape[1] == groups >= 1 and weight_FCij.shape[1] == 1):
        return f"needs a group for every channel, not {groups} for {x_BCHW.shape[1]}"
    return obstacle(x_BCHW, weight_FCij, bias_F)


def forward(x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window) -> Tensor:
    """y_BFPQ"""
    numbers = geometry(window, x_BCHW.shape[2], x_BCHW.shape[3])
    y: Tensor = torch.ops.twofold.depthwise2d.default(x_BCHW, weight_FCij, bias_F, numbers)
    return y


def backward(
    dy_BFPQ: Tensor, x_BCHW: Tensor, weight_FCij: Tensor, window: Window, wants_input: bool = True, wants_weight: bool = True
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(dx_BCHW, dW_FCij, dbias_F), None for what is not wanted; the last two go together."""
    numbers = geometry(window, x_BCHW.shape[2], x_BCHW.shape[3])
    compute = torch.ops.twofold.depthwise2d_backward.default
    dx, dweight, dbias = compute(dy_BFPQ.contiguous(), x_BCHW, weight_FCij, numbers, wants_input, wants_weight)
    return dx if wants_input else None, dweight if wants_weight else None, dbias if wants_weight else None
