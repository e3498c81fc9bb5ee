"""Convolution, ReLU and max pooling in one go.     B images, C channels, F filters, H all axes of the map, P of the windows

    forward    a = W * x + b        r = max(a, 0)        y[p] = max_k r[h(p,k)], or y = r without a pool
    backward   the backward passes of the three, from the last to the first

The plain form is the plain forms of the three one after the other. The compiled form never writes a and r out: a block of a is
computed and pooled while it stays in the cache, and only the winners are remembered: where the ReLU stopped one, y = 0 says so.

Fusing as such: Chen et al., "TVM: an automated end-to-end optimizing compiler for deep learning", OSDI 2018, section 3
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from twofold.kernels import convolution, nodes
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


def forward(
    x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, pool: Window | None, reduced: bool = False
) -> tuple[Tensor, Saved]:
    """y_BFP"""
    a, saved = correlation.forward(x_BCH, weight_FCi, bias_F, window)
    y, activation = activate(a, pool)
    return y, Saved(saved, activation)


def backward(dy_BFP: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dx_BCH, dweight_FCi, dbias_F)"""
    return correlation.backward(deactivate(dy_BFP, saved.activation), saved.convolution)


def vendor(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, pool: Window | None, reduced: bool = False) -> Tensor:
    """PyTorch's own, one after the other."""
    y = F.relu(correlation.vendor(x_BCH, weight_FCi, bias_F, window))
    return y if pool is None else max_pooling.max_vendor(y, pool)


def compiled(
    x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window, pool: Window | None, reduced: bool = False
) -> Tensor:
    """y_BFPQ; reduced: from products of bfloat16."""
    return nodes.convolve(x_BCHW, weight_FCij, bias_F, window, 1, True, pool, reduced)


def unfit(x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window, pool: Window | None, reduced: bool = False) -> str:
    """Why the compiled form cannot serve, or ''."""
    if pool is not None and pool.taps > 255:
        return "needs a pool of at most 255 taps"
    return convolution.unfit(x_BCHW, weight_FCij, bias_F, window)


convolve_relu_pool = differentiable(
    forward,
    backward,
    vendor=vendor,
    native=Native(compiled, None, unfit),
)
