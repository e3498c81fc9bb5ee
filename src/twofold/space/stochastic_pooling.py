"""Stochastic pooling.     B images, C channels, H map, P windows, K taps (see windows.py); a_k = max(x[b,c, window(p,k)], 0), S = sum_k a_k

    training   y = a_l, the tap l drawn with probability a_l / S      dx = dy at the tap that was drawn, 0 elsewhere
    use        y = sum_k a_k^2 / S, what training gives on average    dx_k = dy (2 a_k - y) / S where x_k > 0, else 0

A window without anything above 0, and padding, gives 0 and no gradient. The paper pools the outputs of a ReLU; values below 0 count
as if one stood before: they are 0 and never drawn. In training u[b,c,p], uniform from 0 to 1, draws: l is the first tap with
a_1 + ... + a_l > u S. It is an argument, so that the pair is a function: the same u gives the same answer.

Zeiler and Fergus, "Stochastic pooling for regularization of deep convolutional neural networks", ICLR 2013, eq. 4 to 6
"""

from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating
from twofold.space.pooling import OwnPooling, expect_columns
from twofold.space.windows import Window, fold, unfold


class DrawnSaved(NamedTuple):
    """What backward needs: the tap that was drawn, K where none was, and the size of the map."""

    drawn_BCP: Tensor
    window: Window
    size: tuple[int, ...]


def drawn_forward(x_BCH: Tensor, u_BCP: Tensor, window: Window) -> tuple[Tensor, DrawnSaved]:
    """y_BCP"""
    expect_columns("stochastic_pool", x_BCH, window)
    a_BCKP = unfold(x_BCH, window).clamp(min=0)
    upto_BCKP = (a_BCKP / unit(a_BCKP)).to(u_BCP.dtype).cumsum(2)
    total_BC1P = upto_BCKP[:, :, -1:]
    before_BCKP = (upto_BCKP <= u_BCP.unsqueeze(2) * total_BC1P) & (upto_BCKP < total_BC1P)  # u S may be rounded up to S itself
    tap_BC1P = before_BCKP.sum(2, keepdim=True)
    y_BC1P = a_BCKP.gather(2, tap_BC1P)
    dead_BC1P = ~(total_BC1P > 0)
    y_BC1P = torch.where(total_BC1P < inf, y_BC1P, total_BC1P.to(x_BCH.dtype))  # infinity and NaN are passed on
    drawn_BCP = tap_BC1P.masked_fill(dead_BC1P, window.taps).squeeze(2).to(torch.uint8 if window.taps <= 255 else torch.int32)
    return y_BC1P.squeeze(2), DrawnSaved(drawn_BCP, window, tuple(x_BCH.shape[2:]))


def drawn_backward(dy_BCP: Tensor, saved: DrawnSaved) -> Tensor:
    """dx_BCH"""
    drawn_BCP, window, size = saved
    taps = torch.arange(window.taps, device=dy_BCP.device).reshape(-1, *(1,) * window.axes)
    return fold(torch.where(drawn_BCP.unsqueeze(2) == taps, dy_BCP.unsqueeze(2), 0), window, size)


class MeanSaved(NamedTuple):
    """What backward needs."""

    x_BCH: Tensor
    y_BCP: Tensor
    window: Window


def mean_forward(x_BCH: Tensor, window: Window) -> tuple[Tensor, MeanSaved]:
    """y_BCP"""
    expect_columns("expected_pool", x_BCH, window)
    a_BCKP = unfold(x_BCH, window).clamp(min=0)
    unit_BC1P = unit(a_BCKP)
    part_BCKP = a_BCKP / unit_BC1P
    total_BCP = part_BCKP.sum(2)
    y_BCP = (part_BCKP * part_BCKP).sum(2) / torch.where(total_BCP == 0, 1, total_BCP) * unit_BC1P.squeeze(2)
    return y_BCP, MeanSaved(x_BCH, y_BCP, window)


def mean_backward(dy_BCP: Tensor, saved: MeanSaved) -> Tensor:
    """dx_BCH"""
    x_BCH, y_BCP, window = saved
    a_BCKP = unfold(x_BCH, window).clamp(min=0)
    unit_BC1P = unit(a_BCKP)
    total_BC1P = (a_BCKP / unit_BC1P).sum(2, keepdim=True)
    share_BCKP = (2 * a_BCKP - y_BCP.unsqueeze(2)) / unit_BC1P / torch.where(total_BC1P == 0, 1, total_BC1P)
    return fold(torch.where(a_BCKP > 0, dy_BCP.unsqueeze(2) * share_BCKP, 0), window, x_BCH.shape[2:])


def unit(a_BCKP: Tensor) -> Tensor:
    """The largest of every window, by which the others are divided so that no sum overflows; 1 where it is 0, infinite or NaN."""
    largest_BC1P = a_BCKP.detach().amax(2, keepdim=True)
    return torch.where((largest_BC1P > 0) & (largest_BC1P < inf), largest_BC1P, 1)


stochastic_pool = differentiable(drawn_forward, drawn_backward)
expected_pool = differentiable(mean_forward, mean_backward)


class StochasticPooling(OwnPooling):
    """In training a value drawn from every window in proportion to itself, in use their average weighed so; torch has no such layer.

    For maps (B, C, ...) or (C, ...), best behind a ReLU: values below 0 count as 0. generator: where the numbers are drawn from, None
    for torch's own. padding: at most half the kernel; also per side or in words (see pooling.py).
    Raises ValueError for settings that cannot be, and for input that is no map, not floating point or too small.
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        *,
        dilation: Any = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, dilation)
        self.generator = generator

    def forward(self, input: Tensor) -> Tensor:
        window = self.fitting(input, expect_floating)
        pooled: Tensor
        if self.training:
            maps = input if input.dim() == self.axes + 2 else input.unsqueeze(0)
            pooled = self.pool(stochastic_pool, input, draw(maps, window, self.generator), window)
        else:
            pooled = self.pool(expected_pool, input, window)
        return pooled


def draw(x_BCH: Tensor, window: Window, generator: torch.Generator | None = None) -> Tensor:
    """u_BCP, from the generator or from torch's own; in full precision at least, so that small probabilities stay apart."""
    precision = torch.promote_types(x_BCH.dtype, torch.float32)
    size = (*x_BCH.shape[:2], *window.output_size(x_BCH.shape[2:]))
    return torch.rand(size, generator=generator, dtype=precision, device=x_BCH.device)


class StochasticPool1d(StochasticPooling):
    """A value drawn from every window of signals (B, C, T).

    >>> StochasticPool1d(2)(torch.tensor([[[0.0, 3.0, -1.0, -2.0]]])).tolist()
    [[[3.0, 0.0]]]
    """

    axes = 1


class StochasticPool2d(StochasticPooling):
    """A value drawn from every window of maps (B, C, H, W).

    >>> StochasticPool2d(2).eval()(torch.tensor([[[[1.0, 0.0], [3.0, -9.0]]]])).tolist()
    [[[[2.5]]]]
    """

    axes = 2


class StochasticPool3d(StochasticPooling):
    """A value drawn from every window of volumes (B, C, D, H, W).

    >>> StochasticPool3d((1, 2, 2)).eval()(torch.tensor([[[[[1.0, 0.0], [3.0, -9.0]]]]])).tolist()
    [[[[[2.5]]]]]
    """

    axes = 3
