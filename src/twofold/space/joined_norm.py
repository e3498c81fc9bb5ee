"""Batch normalisation, a shortcut added to it, and ReLU in one go.     B images, C channels, H W map

    forward    n = (x - m) scale / sqrt(v + eps) + shift        a = n + shortcut        y = max(a, 0)
    backward   d = dy where y > 0        dshortcut = d        (dx, dscale, dshift): the normalisation's backward pass of d

This is how a residual block ends. Without a shortcut a = n, without ReLU y = a. m, v: the batch's own mean and variance of each channel,
or given ones. PyTorch's operators read or write a map of x's size nine times forward and eight times back; one after the other but in
one go, four and five times suffice: m, v and the sums of the backward pass are taken while a channel is in the cache.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, figure 2;
Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift", ICML 2015
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from twofold.kernels import norm_join as kernel
from twofold.layers import normalization
from twofold.layers.activation import relu_backward, relu_forward
from twofold.layers.differentiable import Native, differentiable

Gradients = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]


class Saved(NamedTuple):
    """What backward needs."""

    norm: normalization.Saved
    off_BCHW: Tensor | None
    joined: bool
    by_batch: bool


def forward(
    x_BCHW: Tensor,
    shortcut_BCHW: Tensor | None,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    mean_C: Tensor | None,
    variance_C: Tensor | None,
    eps: float,
    relu: bool,
) -> tuple[tuple[Tensor, Tensor, Tensor], Saved]:
    """(y_BCHW, mean_C, variance_C); by the batch's own statistics where none are given."""
    if mean_C is None or variance_C is None:
        used = normalization.statistics(x_BCHW)
        y, saved = normalization.batch_forward(x_BCHW, scale_C, shift_C, eps)
    else:
        used = (mean_C, variance_C)
        y, saved = normalization.running_forward(x_BCHW, scale_C, shift_C, mean_C, variance_C, eps)
    if shortcut_BCHW is not None:
        y = y + shortcut_BCHW
    y, off = relu_forward(y) if relu else (y, None)
    return (y, used[0].detach().clone(), used[1].detach().clone()), Saved(saved, off, shortcut_BCHW is not None, mean_C is None)


def backward(dy: tuple[Tensor, Tensor, Tensor], saved: Saved) -> Gradients:
    """(dx_BCHW, dshortcut_BCHW, dscale_C, dshift_C); the statistics are told, not differentiated."""
    d = dy[0] if saved.off_BCHW is None else relu_backward(dy[0], saved.off_BCHW)
    dx, dscale, dshift = normalization.batch_backward(d, saved.norm) if saved.by_batch else normalization.running_backward(d, saved.norm)
    return dx, d if saved.joined else None, dscale, dshift


def vendor(
    x_BCHW: Tensor,
    shortcut_BCHW: Tensor | None,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    mean_C: Tensor | None,
    variance_C: Tensor | None,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """PyTorch's own, one after the other."""
    by_batch = mean_C is None or variance_C is None
    y = F.batch_norm(x_BCHW, mean_C, variance_C, scale_C, shift_C, by_batch, 0.0, eps)
    if shortcut_BCHW is not None:
        y = y + shortcut_BCHW
    used = normalization.statistics(x_BCHW.detach()) if mean_C is None or variance_C is None else (mean_C, variance_C)
    return (F.relu(y) if relu else y), *used


def compiled(
    x_BCHW: Tensor,
    shortcut_BCHW: Tensor | None,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    mean_C: Tensor | None,
    variance_C: Tensor | None,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y_BCHW, mean_C, variance_C)"""
    return kernel.join(x_BCHW, shortcut_BCHW, scale_C, shift_C, mean_C, variance_C, eps, relu)


def unfit(
    x_BCHW: Tensor,
    shortcut_BCHW: Tensor | None,
    scale_C: Tensor | None,
    shift_C: Tensor | None,
    mean_C: Tensor | None,
    variance_C: Tensor | None,
    eps: float,
    relu: bool,
) -> str:
    """Why the compiled form cannot serve, or ''."""
    if mean_C is None and not x_BCHW.shape[0] * x_BCHW.shape[2:].numel():
        return "needs a batch that is not empty"
    return kernel.unfit(x_BCHW, shortcut_BCHW, scale_C, shift_C, mean_C, variance_C)


norm_join = differentiable(forward, backward, vendor=vendor, native=Native(compiled, None, unfit))
