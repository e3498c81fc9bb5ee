"""A linear map and the ReLU behind it in one go.     B rows, D features in, U features out

    forward    a[b,u] = sum_d x[b,d] W[u,d] + bias[u]        y = max(a, 0)
    backward   da = dy where y > 0        dx = da W        dW = da' x        dbias = sum_b da

Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from twofold.kernels import dense, nodes
from twofold.layers import linear
from twofold.layers.activation import relu_backward, relu_forward
from twofold.layers.differentiable import Native, differentiable


class Saved(NamedTuple):
    """What backward needs."""

    linear: linear.Saved
    off_BU: Tensor


def forward(x_BD: Tensor, weight_UD: Tensor, bias_U: Tensor | None) -> tuple[Tensor, Saved]:
    """y_BU"""
    a, saved = linear.forward(x_BD, weight_UD, bias_U)
    y, off = relu_forward(a)
    return y, Saved(saved, off)


def backward(dy_BU: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dx_BD, dweight_UD, dbias_U)"""
    return linear.backward(relu_backward(dy_BU, saved.off_BU), saved.linear)


def vendor(x_BD: Tensor, weight_UD: Tensor, bias_U: Tensor | None) -> Tensor:
    """PyTorch's own, one after the other."""
    return F.relu(F.linear(x_BD, weight_UD, bias_U))


def compiled(x_BD: Tensor, weight_UD: Tensor, bias_U: Tensor | None) -> Tensor:
    """y_BU"""
    return nodes.dense(x_BD, weight_UD, bias_U, relu=True)


linear_relu = differentiable(forward, backward, vendor=vendor, native=Native(compiled, None, dense.unfit, dense.worth))
