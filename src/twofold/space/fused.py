"""Convolution, ReLU and max pooling in one go.     B images, C channels, F filters, H all axes of the map, P of the windows

    forward    a = W * x + b        r = max(a, 0)        y[p] = max_k r[h(p,k)], or y = r without a pool
    backward   the backward passes of the three, from the last to the first

The plain form is the plain forms of the three one after the other. The compiled form never writes a and r out: a block of a is
computed and pooled while it stays in the cache, and only the winners are remembered: where the ReLU stopped one, y = 0 says so.

Fusing as such: Chen et al., "TVM: an automated end-to-end optimizing compiler for deep learning", OSDI 2018, section 3
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.kernels import convolution as compiled_convolution
from twofold.kernels import max_pool as compiled_pool
from twofold.layers.activation import relu_backward, relu_forward
from twofold.layers.differentiable import Native, differentiable
from twofold.space import correlation, max_pooling
from twofold.space.windows import Window


class ActivatedSaved(NamedTuple):
    """What the backward passes of ReLU and pool need."""

    off_BFP: Tensor
    pool: max_pooling.MaxSaved | None


def activate(a_BFP: Tensor, pool: Window | None) -> tuple[Tensor, ActivatedSaved]:
    """ReLU, and the pool where there is one."""
    y, off = relu_forward(a_BFP)
    if pool is None:
        return y, ActivatedSaved(off, None)
    y, saved = max_pooling.max_forward(y, pool)
    return y, ActivatedSaved(off, saved)


def deactivate(dy_BFP: Tensor, saved: ActivatedSaved) -> Tensor:
    """da_BFP"""
    return relu_backward(dy_BFP if saved.pool is None else max_pooling.max_backward(dy_BFP, saved.pool), saved.off_BFP)


class Saved(NamedTuple):
    """What backward needs."""

    convolution: correlation.Saved
    activation: ActivatedSaved


def forward(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, pool: Window | None) -> tuple[Tensor, Saved]:
    """y_BFP"""
    a, saved = correlation.forward(x_BCH, weight_FCi, bias_F, window)
    y, activation = activate(a, pool)
    return y, Saved(saved, activation)


def backward(dy_BFP: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dx_BCH, dweight_FCi, dbias_F)"""
    return correlation.backward(deactivate(dy_BFP, saved.activation), saved.convolution)


def vendor(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, pool: Window | None) -> Tensor:
    """PyTorch's own, one after the other."""
    y = F.relu(correlation.vendor(x_BCH, weight_FCi, bias_F, window))
    return y if pool is None else max_pooling.max_vendor(y, pool)


class CompiledSaved(NamedTuple):
    """What the compiled backward pass needs."""

    x_BCHW: Tensor
    weight_FCij: Tensor
    has_bias: bool
    window: Window
    pool: Window | None
    y: Tensor
    winner: Tensor | None
    with_dx: bool
    compiled: bool = True


def compiled_forward(
    x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window, pool: Window | None
) -> tuple[Tensor, CompiledSaved]:
    """y_BFPQ"""
    wanted = x_BCHW.requires_grad or weight_FCij.requires_grad or (bias_F is not None and bias_F.requires_grad)
    winner = None
    if pool is None:
        y = compiled_convolution.forward(x_BCHW, weight_FCij, bias_F, window, relu=True)
    else:
        y, winner = compiled_convolution.pooled(x_BCHW, weight_FCij, bias_F, window, pool, True, wanted)
    saved = CompiledSaved(x_BCHW, weight_FCij, bias_F is not None, window, pool, y, winner, x_BCHW.requires_grad)
    return y, saved


def compiled_backward(dy_BFPQ: Tensor, saved: CompiledSaved) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """(dx_BCHW, dweight_FCij, dbias_F)"""
    da = relu_backward_by_output(dy_BFPQ, saved.y)
    if saved.pool is not None and saved.winner is not None:
        rows, columns = saved.window.output_size(saved.x_BCHW.shape[2:])
        da = compiled_pool.backward(da, saved.winner, saved.pool, (rows, columns))
    return compiled_convolution.backward(da, saved.x_BCHW, saved.weight_FCij, saved.has_bias, saved.window, with_dx=saved.with_dx)


def relu_backward_by_output(dy: Tensor, y: Tensor) -> Tensor:
    """dy where y > 0 or NaN, else 0"""
    return torch.ops.aten.threshold_backward.default(dy, y, 0)


def unfit(x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window, pool: Window | None) -> str:
    """Why the compiled form cannot serve, or ''."""
    if pool is not None and pool.taps > 255:
        return "needs a pool of at most 255 taps"
    return compiled_convolution.unfit(x_BCHW, weight_FCij, bias_F, window)


convolve_relu_pool = differentiable(
    forward,
    backward,
    vendor=vendor,
    native=Native(compiled_forward, compiled_backward, unfit),
)
