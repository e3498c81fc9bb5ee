"""Correlation tap by tap.     B images, C channels, F filters, G groups, H all axes of the map, P of the windows, K taps (see windows.py)

    forward    y[b,f,p] = sum_k sum_c W[f,c,k] x[b,c,h(p,k)]          for each tap: one product with the map as that tap sees it
    backward   dx[b,c,h(p,k)] += sum_f W[f,c,k] dy[b,f,p]             dW[f,c,k] = sum_b,p dy[b,f,p] x[b,c,h(p,k)]

The loops that the formula says, with the innermost ones as products of matrices. It needs no memory beside the result: im2col's columns
are K times as large as the map.

LeCun et al., "Gradient-based learning applied to document recognition", Proceedings of the IEEE 86, 1998, section II
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.layers.differentiable import differentiable
from twofold.space.correlation import Saved, bias_gradient
from twofold.space.windows import Window


def forward(x_BCH: Tensor, weight_FCi: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> tuple[Tensor, Saved]:
    """y_BFP"""
    counts = window.output_size(x_BCH.shape[2:])
    framed_BGCH = F.pad(x_BCH, window.frame(x_BCH.shape[2:])).unflatten(1, (groups, -1))
    weight_KGFC = by_tap(weight_FCi, groups)
    y_BGFP = x_BCH.new_zeros((x_BCH.shape[0], groups, weight_KGFC.shape[2], *counts))
    for weight_GFC, cut in zip(weight_KGFC, window.cuts(counts), strict=True):
        y_BGFP = y_BGFP + torch.einsum("gfc,bgc...->bgf...", weight_GFC, framed_BGCH[:, :, :, *cut])
    y_BFP = y_BGFP.flatten(1, 2)
    if bias_F is not None:
        y_BFP = y_BFP + bias_F.reshape(-1, *[1] * window.axes)
    return y_BFP, Saved(x_BCH, weight_FCi, bias_F is not None, window, groups)


def backward(dy_BFP: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dx_BCH, dweight_FCi, dbias_F)"""
    x_BCH, weight_FCi, has_bias, window, groups = saved
    added = window.frame(x_BCH.shape[2:])
    framed_BGCH = F.pad(x_BCH, added).unflatten(1, (groups, -1))
    dy_BGFP = dy_BFP.unflatten(1, (groups, -1))
    dframed_BGCH, dweights = torch.zeros_like(framed_BGCH), []
    for weight_GFC, cut in zip(by_tap(weight_FCi, groups), window.cuts(dy_BFP.shape[2:]), strict=True):
        dframed_BGCH[:, :, :, *cut] += torch.einsum("gfc,bgf...->bgc...", weight_GFC, dy_BGFP)
        dweights.append(torch.einsum("bgf...,bgc...->gfc", dy_BGFP, framed_BGCH[:, :, :, *cut]))
    dx_BCH = F.pad(dframed_BGCH.flatten(1, 2), [-n for n in added])
    dweight_FCi = torch.stack(dweights, -1).flatten(0, 1).reshape(weight_FCi.shape)
    return dx_BCH, dweight_FCi, bias_gradient(dy_BFP) if has_bias else None


def by_tap(weight_FCi: Tensor, groups: int) -> Tensor:
    """weight_KGFC: for every tap the matrices of the groups."""
    return weight_FCi.flatten(2).unflatten(0, (groups, -1)).permute(3, 0, 1, 2)


correlate_by_taps = differentiable(forward, backward)
