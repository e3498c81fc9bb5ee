"""Compiled layers that autograd knows (cpu/nodes.cpp): convolution, normalisation, linear maps, with ReLU and pool behind them; pools.

Each takes and returns tensors like an operator of PyTorch's; its gradients, the second ones too, need no Python.
"""

import torch
from torch import Tensor

from twofold.kernels.fit import Window, geometry


def convolve(
    x_BCHW: Tensor,
    weight_FCij: Tensor,
    bias_F: Tensor | None,
    window: Window,
    groups: int = 1,
    relu: bool = False,
    pool: Window | None = None,
    reduced: bool = False,
) -> Tensor:
    """y_BFPQ: convolution, perhaps through ReLU, perhaps through max pooling after it; the map between them is never written out.

    reduced: the products may be of bfloat16, forward and backward.
    """
    numbers = geometry(window, x_BCHW.shape[2], x_BCHW.shape[3])
    pooling = () if pool is None else geometry(pool, numbers[0], numbers[1])
    y: Tensor = torch.ops.twofold.convolve.default(x_BCHW, weight_FCij, bias_F, numbers, groups, relu, pooling, reduced)
    return y


def normalise(
    x_BCHW: Tensor,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    mean_C: Tensor | None,
    variance_C: Tensor | None,
    eps: float,
    relu: bool = False,
    pool: Window | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y_BCPQ, mean_C, variance_C): by the batch's own statistics where none are given."""
    pooling = () if pool is None else geometry(pool, x_BCHW.shape[2], x_BCHW.shape[3])
    y, mean, variance = torch.ops.twofold.normalise.default(x_BCHW, scale_C, shift_C, mean_C, variance_C, eps, relu, pooling)
    return y, mean, variance


def dense(x_RD: Tensor, weight_UD: Tensor, bias_U: Tensor | None, relu: bool = False) -> Tensor:
    """y_RU: a linear map, perhaps through ReLU."""
    y: Tensor = torch.ops.twofold.dense.default(x_RD, weight_UD, bias_U, relu)
    return y


def pool(x_BCHW: Tensor, window: Window) -> Tensor:
    """y_BCPQ: the largest value of every window, in the layout of x."""
    y: Tensor = torch.ops.twofold.pool.default(x_BCHW, geometry(window, x_BCHW.shape[2], x_BCHW.shape[3]))
    return y
