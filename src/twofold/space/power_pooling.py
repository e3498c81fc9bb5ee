"""Power (Lp) pooling.     B images, C channels, H map, P windows, K taps (see windows.py), any real p from 1 to infinity

    forward    y[b,c,p] = (sum_k |x_k|^p)^(1/p)                x_k = x[b,c, window(p,k)]; padding adds nothing
               infinity   y = max_k |x_k|
    backward   dx_k = dy sign(x_k) (|x_k| / y)^(p-1)           summed over the windows that hold the pixel; 0 where y = 0
               infinity   dx_k = dy sign(x_k) for the first k with |x_k| = y, 0 for the others

p = 1 adds up, infinity takes the largest, 2 is the length of the window as a vector. Every |x_k| is divided by the largest of its
window before it is raised, so nothing overflows and nothing small is lost, whatever p.
Where ceil mode cuts the last window off, its sum runs over the taps that exist, as in ONNX; torch.nn.LPPool2d stretches it as if
the missing taps were like the others. (It also gives NaN or 0 for values below 0 unless p is even.)

Sermanet, Chintala and LeCun, "Convolutional neural networks applied to house numbers digit classification", ICPR 2012, section 2.2
"""

from math import inf
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twofold.kernels import power_pool as compiled
from twofold.layers.differentiable import Native, differentiable
from twofold.layers.expect import expect_floating
from twofold.space.pooling import Pooling, expect_columns, window_of
from twofold.space.windows import Window, fold, unfold


class Saved(NamedTuple):
    """What backward needs."""

    x_BCH: Tensor
    y_BCP: Tensor
    window: Window
    power: float


def forward(x_BCH: Tensor, window: Window, power: float) -> tuple[Tensor, Saved]:
    """y_BCP"""
    expect_columns("power_pool", x_BCH, window)
    size_BCKP = unfold(x_BCH, window).abs()
    y_BCP = size_BCKP.amax(2)
    if power != inf:
        unit_BCP = torch.where((y_BCP > 0) & (y_BCP < inf), y_BCP, 1).detach()  # y is the same whatever the unit
        total_BCP = ((size_BCKP / unit_BCP.unsqueeze(2)) ** power).sum(2)
        root_BCP = torch.where(total_BCP == 0, 1, total_BCP) ** (1 / power)  # the root of 0 has an infinite slope
        y_BCP = torch.where(total_BCP == 0, 0, unit_BCP * root_BCP)
    return y_BCP, Saved(x_BCH, y_BCP, window, power)


def backward(dy_BCP: Tensor, saved: Saved) -> Tensor:
    """dx_BCH"""
    x_BCH, y_BCP, window, power = saved
    columns_BCKP, y_BC1P = unfold(x_BCH, window), y_BCP.unsqueeze(2)
    if power == inf:
        hit_BCKP = columns_BCKP.abs() == y_BC1P
        share_BCKP = (hit_BCKP & (hit_BCKP.cumsum(2) == 1)).to(x_BCH.dtype)
    else:
        part_BCKP = columns_BCKP.abs() / torch.where(y_BC1P == 0, 1, y_BC1P)
        share_BCKP = torch.where(columns_BCKP == 0, 1, part_BCKP) ** (power - 1)  # at 0 the sign decides; its power has no slope there
    return fold(dy_BCP.unsqueeze(2) * columns_BCKP.sign() * share_BCKP, window, x_BCH.shape[2:])


def compiled_forward(x_BCH: Tensor, window: Window, power: float) -> tuple[Tensor, Saved]:
    """y_BCP, for maps of two axes and a finite power"""
    y_BCP = compiled.forward(x_BCH, window, power)
    return y_BCP, Saved(x_BCH, y_BCP, window, power)


def compiled_backward(dy_BCP: Tensor, saved: Saved) -> Tensor:
    """dx_BCH"""
    return compiled.backward(dy_BCP, *saved)


power_pool = differentiable(forward, backward, native=Native(compiled_forward, compiled_backward, compiled.unfit))


class PowerPooling(Pooling):
    """The p-norm of every window, for maps (B, C, ...) or (C, ...); torch's layer for every p and sign, with routes and clear errors.

    norm_type: p, any real number from 1 to infinity. padding: at most half the kernel; also per side or in words (see pooling.py).
    Raises ValueError for settings that cannot be, and for input that is no map, not floating point or too small.
    """

    norm_type: float

    def __init__(
        self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False, *, padding: Any = 0, dilation: Any = 1
    ) -> None:
        who = type(self).__name__
        if isinstance(norm_type, bool) or not isinstance(norm_type, Real) or not norm_type >= 1:
            raise ValueError(
                f"{who}: expected norm_type, the power p, of at least 1 (float('inf') for the largest absolute value), got {norm_type!r}: "
                "at 0 the root 1/p does not exist, and below 1 the slope at 0 is infinite."
            )
        window_of(who, self.axes, kernel_size, stride, padding, dilation, ceil_mode)
        super().__init__(norm_type, kernel_size, stride, ceil_mode)
        self.padding = padding
        self.dilation = dilation

    def forward(self, input: Tensor) -> Tensor:
        window = self.fitting(input, expect_floating)
        pooled: Tensor = self.pool(power_pool, input, window, float(self.norm_type))
        return pooled

    def extra_repr(self) -> str:
        beyond_torch = (("padding", self.padding, 0), ("dilation", self.dilation, 1))
        return super().extra_repr() + "".join(f", {name}={value}" for name, value, usual in beyond_torch if value != usual)


class LPPool1d(PowerPooling, nn.LPPool1d):
    """The p-norm of every window of signals (B, C, T); torch.nn.LPPool1d for every p and sign.

    >>> LPPool1d(1, 3)(torch.tensor([[[1.0, -2.0, 4.0]]])).tolist()
    [[[7.0]]]
    """

    axes = 1


class LPPool2d(PowerPooling, nn.LPPool2d):
    """The p-norm of every window of maps (B, C, H, W); torch.nn.LPPool2d for every p and sign.

    >>> LPPool2d(2, 2)(torch.tensor([[[[0.0, 3.0], [-4.0, 0.0]]]])).tolist()
    [[[[5.0]]]]
    """

    axes = 2


class LPPool3d(PowerPooling, nn.LPPool3d):
    """The p-norm of every window of volumes (B, C, D, H, W); torch.nn.LPPool3d for every p and sign.

    >>> LPPool3d(float("inf"), (1, 2, 2))(torch.tensor([[[[[0.0, 3.0], [-4.0, 0.0]]]]])).tolist()
    [[[[[4.0]]]]]
    """

    axes = 3
