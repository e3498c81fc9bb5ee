"""Batch normalisation, ReLU and max pooling in one go.     B images, C channels, H W map, P of the pool's windows

    forward    a = (x - m) scale / sqrt(v + eps) + shift        r = max(a, 0)        y[p] = max_k r[h(p,k)], or y = r without a pool
    backward   the backward passes of the three, from the last to the first

m, v: the batch's own mean and variance of each channel, or given ones. The compiled form reads x twice to learn m and v and once to
write y; a and r are never written out. What backward needs of them it computes again from x.

Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift", ICML 2015
"""

from typing import NamedTuple

from torch import Tensor

from twofold.kernels import nodes
from twofold.kernels import norm as kernel
from twofold.layers import normalization
from twofold.layers.differentiable import Native, differentiable
from twofold.space.fused import ActivatedSaved, activate, deactivate
from twofold.space.windows import Window

Gradients = tuple[Tensor, Tensor | None, Tensor | None]


class Saved(NamedTuple):
    """What backward needs."""

    norm: normalization.Saved
    activation: ActivatedSaved
    by_batch: bool


def forward(
    x_BCHW: Tensor,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    mean_C: Tensor | None,
    variance_C: Tensor | None,
    eps: float,
    pool: Window | None,
) -> tuple[tuple[Tensor, Tensor, Tensor], Saved]:
    """(y_BCPQ, mean_C, variance_C); by the batch's own statistics where none are given."""
    if mean_C is None or variance_C is None:
        a, saved = normalization.batch_forward(x_BCHW, scale_C, shift_C, eps)
        used = normalization.statistics(x_BCHW)
    else:
        a, saved = normalization.running_forward(x_BCHW, scale_C, shift_C, mean_C, variance_C, eps)
        used = (mean_C, variance_C)
    y, activation = activate(a, pool)
    return (y, used[0].detach().clone(), used[1].detach().clone()), Saved(saved, activation, mean_C is None)


def backward(dy: tuple[Tensor, Tensor, Tensor], saved: Saved) -> Gradients:
    """(dx_BCHW, dscale_C, dshift_C); the statistics are told, not differentiated."""
    da = deactivate(dy[0], saved.activation)
    return normalization.batch_backward(da, saved.norm) if saved.by_batch else normalization.running_backward(da, saved.norm)


def compiled(
    x_BCHW: Tensor,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    mean_C: Tensor | None,
    variance_C: Tensor | None,
    eps: float,
    pool: Window | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y_BCPQ, mean_C, variance_C)"""
    return nodes.normalise(x_BCHW, scale_C, shift_C, mean_C, variance_C, eps, True, pool)


def unfit(
    x_BCHW: Tensor,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    mean_C: Tensor | None,
    variance_C: Tensor | None,
    eps: float,
    pool: Window | None,
) -> str:
    """Why the compiled form cannot serve, or ''."""
    if pool is not None and pool.taps > 255:
        return "needs a pool of at most 255 taps"
    return kernel.unfit(x_BCHW, scale_C, shift_C, mean_C, variance_C)


norm_relu_pool = differentiable(forward, backward, native=Native(compiled, None, unfit))
