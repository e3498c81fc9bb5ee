"""Activations made of straight lines.     x: any shape, each number alone; prelu: B rows, C channels on axis 1, H whatever follows

    leaky relu     y = x where x > 0, else slope x                   dx = dy where x > 0, else slope dy
    prelu          the same, slope[c] learnt                         dslope[c] = sum of dy x where x <= 0
    hardtanh       y = low, x or high, whichever lies between        dx = dy where low < x < high, else 0
    relu6          hardtanh from 0 to 6
    hardsigmoid    y = hardtanh(x + 3; 0, 6) / 6                     dx = dy / 6 where -3 < x < 3, else 0
    hardswish      y = x hardsigmoid(x)                              dx = 0 for x <= -3, dy (x/3 + 1/2) for x < 3, else dy

At a kink the slope is that of the left for the first two, of the flat side for the hard forms, and of the right at 3 for hardswish.
NaN stays NaN.

leaky relu: Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models", ICML workshop 2013, section 2
prelu: He et al., "Delving deep into rectifiers", ICCV 2015, eq. 1 to 3
hard forms: Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.2
"""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating, expect_positive, expect_tensor, sentence
from twofold.layers.numbers import expect_number
from twofold.layers.routes import Routed


class LeakySaved(NamedTuple):
    """What backward needs."""

    rising: Tensor
    slope: float


def leaky_relu_forward(x: Tensor, slope: float) -> tuple[Tensor, LeakySaved]:
    """y"""
    rising = x > 0
    return torch.where(rising, x, slope * x), LeakySaved(rising, slope)


def leaky_relu_backward(dy: Tensor, saved: LeakySaved) -> Tensor:
    """dx"""
    return torch.where(saved.rising, dy, saved.slope * dy)


def prelu_forward(x_BCH: Tensor, slope_C: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """(y_BCH, the arguments); one slope alone serves all channels, and then x may have any shape"""
    return torch.where(x_BCH > 0, x_BCH, on_channels(slope_C, x_BCH) * x_BCH), (x_BCH, slope_C)


def prelu_backward(dy_BCH: Tensor, saved: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(dx_BCH, dslope_C)"""
    x_BCH, slope_C = saved
    rising = x_BCH > 0
    dx_BCH = torch.where(rising, dy_BCH, on_channels(slope_C, x_BCH) * dy_BCH)
    dslope_BCH = torch.where(rising, 0, dy_BCH * x_BCH)
    others = range(x_BCH.dim()) if slope_C.numel() == 1 else (axis for axis in range(x_BCH.dim()) if axis != 1)
    return dx_BCH, dslope_BCH.sum(tuple(others)).reshape(slope_C.shape)


def on_channels(values_C: Tensor, like_BCH: Tensor) -> Tensor:
    """One value a channel, shaped to meet like_BCH; a single value meets any shape."""
    return values_C.reshape(()) if values_C.numel() == 1 else values_C.reshape(-1, *(1,) * (like_BCH.dim() - 2))


def hardtanh_forward(x: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """(y, where it is flat)"""
    return x.clamp(low, high), (x <= low) | (x >= high)


def hardtanh_backward(dy: Tensor, flat: Tensor) -> Tensor:
    """dx"""
    return torch.where(flat, 0, dy)


def hardsigmoid_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    """(y, where it rises)"""
    return (x + 3).clamp(0, 6) / 6, (x > -3) & (x < 3)


def hardsigmoid_backward(dy: Tensor, rising: Tensor) -> Tensor:
    """dx"""
    return torch.where(rising, dy / 6, 0)


def hardsigmoid_vendor(x: Tensor, inplace: bool = False) -> Tensor:
    """PyTorch's own, except in float64: there its gradient is 1/6 to eight digits only."""
    if x.dtype != torch.float64:
        return F.hardsigmoid(x, inplace)
    y, rising = hardsigmoid_forward(x)
    return torch.where(rising, (x + 3) / 6, y.detach())


def hardswish_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    """(y, x)"""
    return x * ((x + 3).clamp(0, 6) / 6), x


def hardswish_backward(dy: Tensor, x: Tensor) -> Tensor:
    """dx"""
    return torch.where(x <= -3, 0, torch.where(x < 3, dy * (x / 3 + 0.5), dy))


leaky_relu = differentiable(leaky_relu_forward, leaky_relu_backward, vendor=F.leaky_relu)
leaky_relu_in_place = differentiable(leaky_relu_forward, leaky_relu_backward, vendor=partial(F.leaky_relu, inplace=True))
prelu = differentiable(prelu_forward, prelu_backward, vendor=F.prelu)
hardtanh = differentiable(hardtanh_forward, hardtanh_backward, vendor=F.hardtanh)
hardtanh_in_place = differentiable(hardtanh_forward, hardtanh_backward, vendor=partial(F.hardtanh, inplace=True))
hardsigmoid = differentiable(hardsigmoid_forward, hardsigmoid_backward, vendor=hardsigmoid_vendor)
hardsigmoid_in_place = differentiable(hardsigmoid_forward, hardsigmoid_backward, vendor=partial(hardsigmoid_vendor, inplace=True))
hardswish = differentiable(hardswish_forward, hardswish_backward, vendor=F.hardswish)
hardswish_in_place = differentiable(hardswish_forward, hardswish_backward, vendor=partial(F.hardswish, inplace=True))


class LeakyReLU(Routed, nn.LeakyReLU):
    """x above 0, negative_slope x below, for x of any shape; torch.nn.LeakyReLU with routes.

    inplace: PyTorch's operator may overwrite x; the plain form never does, and none does with a slope below 0, for which y tells
    too little about x. Raises ValueError for a slope that is no finite number and for input that is not floating point.

    >>> LeakyReLU(0.5)(torch.tensor([-2.0, 0.0, 3.0])).tolist()
    [-1.0, 0.0, 3.0]
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        expect_number("LeakyReLU", "negative_slope", negative_slope)
        super().__init__(negative_slope, inplace)

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("LeakyReLU input", input)
        expect_floating("LeakyReLU input", input)
        return self.run(leaky_relu_in_place if self.inplace and self.negative_slope >= 0 else leaky_relu, input, self.negative_slope)


class PReLU(Routed, nn.PReLU):
    """x above 0, weight x below; torch.nn.PReLU with routes. num_parameters: 1 slope for all, or one for each channel (axis 1).

    Raises ValueError for settings that cannot be, and for input of another channel number, dtype or device.

    >>> PReLU(2, init=0.5)(torch.tensor([[-2.0, 3.0]])).tolist()
    [[-1.0, 3.0]]
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device=None, dtype=None) -> None:  # type: ignore[no-untyped-def]
        expect_positive("PReLU", num_parameters=num_parameters)
        expect_number("PReLU", "init", init)
        super().__init__(num_parameters, init, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("PReLU input", input)
        slopes = self.weight.numel()
        if slopes > 1 and (input.dim() < 2 or input.shape[1] != slopes):
            differs = f"C is {input.shape[1]}, not {slopes}" if input.dim() > 1 else f"{input.dim()} axes, not 2 or more"
            cause = "num_parameters=1 makes one slope for any shape."
            raise ValueError(sentence("PReLU input", f"(B, C={slopes}, ...)", str(tuple(input.shape)), differs, cause))
        expect_floating("PReLU input", input, self.weight)
        return self.run(prelu, input, self.weight)


class Hardtanh(Routed, nn.Hardtanh):
    """x held between min_val and max_val; torch.nn.Hardtanh with routes.

    inplace: PyTorch's operator may overwrite x; the plain form never does.
    Raises ValueError unless min_val is below max_val, and for input that is not floating point.

    >>> Hardtanh(-1.0, 2.0)(torch.tensor([-3.0, 0.5, 3.0])).tolist()
    [-1.0, 0.5, 2.0]
    """

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        inplace: bool = False,
        min_value: float | None = None,
        max_value: float | None = None,
    ) -> None:
        low, high = min_val if min_value is None else min_value, max_val if max_value is None else max_value
        expect_number("Hardtanh", "min_val", low)
        expect_number("Hardtanh", "max_val", high)
        if low >= high:
            raise ValueError(f"Hardtanh: expected min_val below max_val, got {low!r} and {high!r}.")
        super().__init__(min_val, max_val, inplace, min_value, max_value)

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("Hardtanh input", input)
        expect_floating("Hardtanh input", input)
        return self.run(hardtanh_in_place if self.inplace else hardtanh, input, self.min_val, self.max_val)


class ReLU6(Routed, nn.ReLU6):
    """x held between 0 and 6; torch.nn.ReLU6 with routes. inplace and errors as Hardtanh.

    >>> ReLU6()(torch.tensor([-1.0, 5.0, 7.0])).tolist()
    [0.0, 5.0, 6.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("ReLU6 input", input)
        expect_floating("ReLU6 input", input)
        return self.run(hardtanh_in_place if self.inplace else hardtanh, input, 0.0, 6.0)


class Hardsigmoid(Routed, nn.Hardsigmoid):
    """x/6 + 1/2 held between 0 and 1; torch.nn.Hardsigmoid with routes. inplace and errors as Hardtanh.

    >>> Hardsigmoid()(torch.tensor([-4.0, 0.0, 4.0])).tolist()
    [0.0, 0.5, 1.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("Hardsigmoid input", input)
        expect_floating("Hardsigmoid input", input)
        return self.run(hardsigmoid_in_place if self.inplace else hardsigmoid, input)


class Hardswish(Routed, nn.Hardswish):
    """x hardsigmoid(x); torch.nn.Hardswish with routes. inplace and errors as Hardtanh.

    >>> Hardswish()(torch.tensor([-4.0, 1.5, 4.0])).tolist()
    [-0.0, 1.125, 4.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("Hardswish input", input)
        expect_floating("Hardswish input", input)
        return self.run(hardswish_in_place if self.inplace else hardswish, input)
