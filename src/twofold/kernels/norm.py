"""Batch normalisation of float32 maps, with ReLU and max pooling behind it where they follow, compiled (cpu/norm.h)."""

from typing import NamedTuple

import torch
from torch import Tensor

from twofold.kernels.fit import Window, geometry, obstacle


class Normalised(NamedTuple):
    """What comes out: y, the winners of the pool (empty where nobody wants them), and the statistics that were used."""

    y: Tensor
    winner: Tensor
    mean_C: Tensor
    variance_C: Tensor


def unfit(x_BCHW: Tensor, *values_C: Tensor | None) -> str:
    """Why the compiled form cannot serve, or ''."""
    return "needs maps of two axes" if x_BCHW.dim() != 4 else obstacle(x_BCHW, *values_C)


def forward(
    x_BCHW: Tensor,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    statistics: tuple[Tensor, Tensor] | None,
    eps: float,
    relu: bool = False,
    pool: Window | None = None,
    with_winners: bool = False,
) -> Normalised:
    """By the statistics (mean_C, variance_C), or by the batch's own where there are none."""
    mean_C, variance_C = statistics or (None, None)
    numbers = () if pool is None else geometry(pool, x_BCHW.shape[2], x_BCHW.shape[3])
    return Normalised(*torch.ops.twofold.norm.default(x_BCHW, scale_C, shift_C, mean_C, variance_C, eps, relu, numbers, with_winners))


def backward(
    dy: Tensor,
    x_BCHW: Tensor,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    came: Normalised,
    by_batch: bool,
    eps: float,
    relu: bool = False,
    pool: Window | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dx_BCHW, dscale_C, dshift_C); by_batch: the statistics were the batch's own, and move with x."""
    numbers = () if pool is None else geometry(pool, x_BCHW.shape[2], x_BCHW.shape[3])
    dx, dscale, dshift = torch.ops.twofold.norm_backward.default(
        dy.contiguous(), x_BCHW, came.y, came.winner, scale_C, shift_C, came.mean_C, came.variance_C, by_batch, eps, relu, numbers
    )
    return dx, dscale, dshift
