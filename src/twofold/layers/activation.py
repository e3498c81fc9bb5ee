"""Activations.     x: any shape, each number alone; softmax: along one axis of N

    relu          y = max(x, 0)                              dx = dy where x > 0, else 0
    tanh          y = (e^x - e^-x) / (e^x + e^-x)            dx = dy (1 - y^2)
    sigmoid       y = 1 / (1 + e^-x)                         dx = dy y (1 - y)
    softmax       y[n] = e^x[n] / sum_m e^x[m]               dx[n] = y[n] (dy[n] - sum_m dy[m] y[m])
    log softmax   y[n] = x[n] - log sum_m e^x[m]             dx[n] = dy[n] - e^y[n] sum_m dy[m]

Softmax stays the same when all x move together, so the largest is moved to 0: no power overflows. At x = 0 relu has no
derivative; 0 is taken, as is usual.

relu: Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010
softmax: Bridle, "Probabilistic interpretation of feedforward classification network outputs", 1990, eq. 4
"""

from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating, expect_tensor, sentence
from twofold.layers.routes import Routed


def relu_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    """(y, where nothing passes); NaN stays NaN and lets its gradient pass, so that it is seen."""
    off = x <= 0
    return torch.where(off, 0, x), off


def relu_backward(dy: Tensor, off: Tensor) -> Tensor:
    """dx"""
    return torch.where(off, 0, dy)


def tanh_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    """(y, y)"""
    y = torch.tanh(x)
    return y, y


def tanh_backward(dy: Tensor, y: Tensor) -> Tensor:
    """dx"""
    return dy * (1 - y * y)


def sigmoid_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    """(y, y); e^-x may overflow to infinity, and 1 / infinity is the 0 that is wanted."""
    y = 1 / (1 + torch.exp(-x))
    return y, y


def sigmoid_backward(dy: Tensor, y: Tensor) -> Tensor:
    """dx"""
    return dy * y * (1 - y)


class Along(NamedTuple):
    """What backward needs of a softmax."""

    y: Tensor
    axis: int


def softmax_forward(x: Tensor, axis: int) -> tuple[Tensor, Along]:
    """y, whose sum along the axis is 1"""
    power = torch.exp(lowered(x, axis))
    y = power / power.sum(axis, keepdim=True)
    return y, Along(y, axis)


def softmax_backward(dy: Tensor, saved: Along) -> Tensor:
    """dx"""
    y, axis = saved
    return y * (dy - (dy * y).sum(axis, keepdim=True))


def log_softmax_forward(x: Tensor, axis: int) -> tuple[Tensor, Along]:
    """y, the logarithm of softmax"""
    low = lowered(x, axis)
    y = low - torch.log(torch.exp(low).sum(axis, keepdim=True))
    return y, Along(y, axis)


def log_softmax_backward(dy: Tensor, saved: Along) -> Tensor:
    """dx"""
    y, axis = saved
    return dy - torch.exp(y) * dy.sum(axis, keepdim=True)


def lowered(x: Tensor, axis: int) -> Tensor:
    """x moved along the axis so that its largest is 0."""
    return x - x.amax(axis, keepdim=True) if x.numel() else x


relu = differentiable(relu_forward, relu_backward, vendor=F.relu)
relu_in_place = differentiable(relu_forward, relu_backward, vendor=partial(F.relu, inplace=True))
tanh = differentiable(tanh_forward, tanh_backward, vendor=torch.tanh)
sigmoid = differentiable(sigmoid_forward, sigmoid_backward, vendor=torch.sigmoid)
softmax = differentiable(softmax_forward, softmax_backward, vendor=torch.softmax)
log_softmax = differentiable(log_softmax_forward, log_softmax_backward, vendor=torch.log_softmax)


class ReLU(Routed, nn.ReLU):
    """max(x, 0) for x of any shape, whole numbers too; torch.nn.ReLU with routes.

    inplace: PyTorch's operator may overwrite x; the plain form never does.

    >>> ReLU()(torch.tensor([-2.0, 0.0, 3.0])).tolist()
    [0.0, 0.0, 3.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("ReLU input", input)
        if input.dtype == torch.bool or input.is_complex():
            raise ValueError(sentence("ReLU input", "real numbers", str(input.dtype).removeprefix("torch."), "", "Use x.float()."))
        return self.run(relu_in_place if self.inplace else relu, input)


class Tanh(Routed, nn.Tanh):
    """tanh(x) for x of any shape; torch.nn.Tanh with routes. Raises ValueError for input that is not floating point.

    >>> Tanh()(torch.tensor([0.0])).tolist()
    [0.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("Tanh input", input)
        expect_floating("Tanh input", input)
        return self.run(tanh, input)


class Sigmoid(Routed, nn.Sigmoid):
    """1 / (1 + e^-x) for x of any shape; torch.nn.Sigmoid with routes. Raises ValueError for input that is not floating point.

    >>> Sigmoid()(torch.tensor([0.0])).tolist()
    [0.5]
    """

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("Sigmoid input", input)
        expect_floating("Sigmoid input", input)
        return self.run(sigmoid, input)


class Softmax(Routed, nn.Softmax):
    """Shares along the axis `dim` that are positive and sum to 1; torch.nn.Softmax with routes, but `dim` must be said.

    Raises ValueError without dim, for an axis that the input does not have, and for input that is not floating point.

    >>> Softmax(dim=1)(torch.tensor([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """

    def __init__(self, dim: int | None = None) -> None:
        expect_axis("Softmax", dim)
        super().__init__(dim)

    def forward(self, input: Tensor) -> Tensor:
        expect_axis("Softmax", self.dim, input)
        return self.run(softmax, input, self.dim)


class LogSoftmax(Routed, nn.LogSoftmax):
    """The logarithms of softmax along the axis `dim`; torch.nn.LogSoftmax with routes, but `dim` must be said. Errors as Softmax.

    >>> LogSoftmax(dim=1)(torch.tensor([[0.0, -1e4]])).tolist()
    [[0.0, -10000.0]]
    """

    def __init__(self, dim: int | None = None) -> None:
        expect_axis("LogSoftmax", dim)
        super().__init__(dim)

    def forward(self, input: Tensor) -> Tensor:
        expect_axis("LogSoftmax", self.dim, input)
        return self.run(log_softmax, input, self.dim)


def expect_axis(who: str, dim: Any, x: Any = None) -> None:
    """Raise ValueError unless dim is a whole number, and one of x's axes where x is given, a floating-point tensor."""
    if isinstance(dim, bool) or not isinstance(dim, int):
        cause = "Choose dim=1 for logits (B, N), dim=-1 where the classes stand last."
        raise ValueError(f"{who}: expected dim, the axis along which the values share, got {dim!r}. {cause}")
    if x is None:
        return
    expect_tensor(f"{who} input", x)
    expect_floating(f"{who} input", x)
    axes = max(x.dim(), 1)  # one number alone has the axis 0, as in torch
    if not -axes <= dim < axes:
        raise ValueError(sentence(f"{who} input", f"an axis dim={dim}", str(tuple(x.shape)), f"its axes are {-axes}..{axes - 1}", ""))
