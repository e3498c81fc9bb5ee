"""Batch normalisation, ReLU and max pooling in one go.     B images, C channels, H W map, P of the pool's windows

    forward    a = (x - m) scale / sqrt(v + eps) + shift        r = max(a, 0)        y[p] = max_k r[h(p,k)], or y = r without a pool
    backward   the backward passes of the three, from the last to the first

m, v: the batch's own mean and variance of each channel, or given ones. The compiled form reads x twice to learn m and v and once to
write y; a and r are never written out. What backward needs of them it computes again from x.

Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift", ICML 2015
"""

from typing import NamedTuple

from torch import Tensor

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


class CompiledSaved(NamedTuple):
    """What the compiled backward pass needs."""

    x_BCHW: Tensor
    scale_C: Tensor | None
    shift_C: Tensor | None
    came: kernel.Normalised
    by_batch: bool
    eps: float
    pool: Window | None
    compiled: bool = True


def compiled_forward(
    x_BCHW: Tensor,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    mean_C: Tensor | None,
    variance_C: Tensor | None,
    eps: float,
    pool: Window | None,
) -> tuple[tuple[Tensor, Tensor, Tensor], CompiledSaved]:
    """(y_BCPQ, mean_C, variance_C)"""
    given = None if mean_C is None or variance_C is None else (mean_C, variance_C)
    wanted = x_BCHW.requires_grad or (scale_C is not None and scale_C.requires_grad) or (shift_C is not None and shift_C.requires_grad)
    came = kernel.forward(x_BCHW, scale_C, shift_C, given, eps, True, pool, wanted)
    return (came.y, came.mean_C, came.variance_C), CompiledSaved(x_BCHW, scale_C, shift_C, came, given is None, eps, pool)


def compiled_backward(dy: tuple[Tensor, Tensor, Tensor], saved: CompiledSaved) -> Gradients:
    """(dx_BCHW, dscale_C, dshift_C)"""
    dx, dscale, dshift = kernel.backward(
        dy[0], saved.x_BCHW, saved.scale_C, saved.shift_C, saved.came, saved.by_batch, saved.eps, True, saved.pool
    )
    return dx, None if saved.scale_C is None else dscale, None if saved.shift_C is None else dshift


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


norm_relu_pool = differentiable(forward, backward, native=Native(compiled_forward, compiled_backward, unfit))
