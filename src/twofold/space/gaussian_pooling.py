"""Gaussian pooling: an average in which near counts more.     B images, C channels, H map, P windows, K taps (see windows.py)

    forward    y[b,c,p] = sum_k w[p,k] x[b,c, window(p,k)]                   padding counts as 0
               w[p,k] = e^(-r_k^2 / 2) / n[p]                                n[p] so that the counted taps of a window weigh 1 in all
               r_k^2  = sum over the axes of (d (i - (k-1)/2) / sigma)^2     tap i along an axis, its distance from the window's centre
    backward   dx[b,c,h] = sum of dy[b,c,p] w[p,k] over all (p,k) that lie on h

Counted are the taps on the map, so that a constant map stays as it is up to its edge, or those on the padding too, as a correlation
with a fixed kernel has it. The sum in the exponent makes w a product of one factor for each axis: so it is computed, each factor by a
softmax over its taps, which cannot underflow, however small sigma.

Burt and Adelson, "The Laplacian pyramid as a compact image code", IEEE Transactions on Communications 31(4), 1983, section II
"""

from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.kernels import gaussian_pool as compiled
from twofold.layers.differentiable import Native, differentiable
from twofold.layers.expect import expect_floating
from twofold.layers.numbers import expect_number
from twofold.space.pooling import OwnPooling, expect_columns, expect_pixels
from twofold.space.windows import LETTERS, Window, fold, unfold

CORRELATE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class Saved(NamedTuple):
    """What backward needs."""

    window: Window
    size: tuple[int, ...]
    sigma: tuple[float, ...]
    count_padding: bool


def forward(x_BCH: Tensor, window: Window, sigma: tuple[float, ...], count_padding: bool = False) -> tuple[Tensor, Saved]:
    """y_BCP; sigma in pixels, for each axis"""
    expect_columns("gaussian_pool", x_BCH, window)
    expect_pixels("gaussian_pool", window, x_BCH.shape[2:])
    saved = Saved(window, tuple(x_BCH.shape[2:]), sigma, count_padding)
    return (unfold(x_BCH, window) * weights(x_BCH, saved)).sum(2), saved


def backward(dy_BCP: Tensor, saved: Saved) -> Tensor:
    """dx_BCH"""
    return fold(dy_BCP.unsqueeze(2) * weights(dy_BCP, saved), saved.window, saved.size)


def weights(like: Tensor, saved: Saved) -> Tensor:
    """w_KP, of like's precision"""
    taps_KP = torch.ones((1,) * (1 + saved.window.axes), dtype=torch.float64, device=like.device)
    for axis, number in enumerate(saved.window.output_size(saved.size)):
        exponent_IP = exponents(saved.window, saved.sigma, axis, like.device)[:, None].masked_fill(~counted(saved, axis, like.device), -inf)
        shape = [1] * saved.window.axes
        shape[axis] = number
        factor_IP = torch.softmax(exponent_IP, 0).reshape(-1, *shape)
        taps_KP = (taps_KP.unsqueeze(1) * factor_IP).flatten(0, 1)
    return taps_KP.to(like.dtype)


def exponents(window: Window, sigma: Sequence[float], axis: int, device: torch.device) -> Tensor:
    """-r^2 / 2 of every tap along one axis."""
    taps = window.kernel[axis]
    distance = (torch.arange(taps, dtype=torch.float64, device=device) - (taps - 1) / 2) * window.dilation[axis]
    return (distance / sigma[axis]).square() / -2


def counted(saved: Saved, axis: int, device: torch.device) -> Tensor:
    """counted_IP: whether tap i of window p counts, along one axis."""
    window, length = saved.window, saved.size[axis]
    before, after = window.sides()[axis]
    first_P = torch.arange(window.output_size(saved.size)[axis], device=device) * window.stride[axis] - before
    place_IP = first_P + (torch.arange(window.kernel[axis], device=device) * window.dilation[axis])[:, None]
    if saved.count_padding:
        return (place_IP >= -before) & (place_IP < length + after)
    return (place_IP >= 0) & (place_IP < length)


def vendor(x_BCH: Tensor, window: Window, sigma: tuple[float, ...], count_padding: bool = False) -> Tensor:
    """PyTorch's correlation of every channel with one kernel, divided by n where windows reach over the edge.

    A sigma so small that far taps underflow in the kernel is left to the plain form: near an edge they may be all that is left.
    """
    saved = Saved(window, tuple(x_BCH.shape[2:]), sigma, count_padding)
    if any(width > 12 * s for width, s in zip(window.spread, sigma, strict=True)):
        return forward(x_BCH, window, sigma, count_padding)[0]
    expect_pixels("gaussian_pool", window, saved.size)
    kernel, whole = torch.ones((), dtype=torch.float64, device=x_BCH.device), torch.ones((), dtype=torch.float64, device=x_BCH.device)
    for axis in range(window.axes):
        factor_I = torch.softmax(exponents(window, sigma, axis, x_BCH.device), 0)
        kernel = kernel.unsqueeze(-1) * factor_I
        whole = whole.unsqueeze(-1) * (factor_I[:, None] * counted(saved, axis, x_BCH.device)).sum(0)
    channels = x_BCH.shape[1]
    kernel_C1K = kernel.to(x_BCH.dtype).expand(channels, 1, *window.kernel)
    framed = F.pad(x_BCH, window.frame(saved.size))
    sums: Tensor = CORRELATE[window.axes](framed, kernel_C1K, None, window.stride, 0, window.dilation, channels)
    return sums / whole.to(x_BCH.dtype)


def compiled_forward(x_BCH: Tensor, window: Window, sigma: tuple[float, ...], count_padding: bool = False) -> tuple[Tensor, Saved]:
    """y_BCP, for maps of two axes"""
    return compiled.forward(x_BCH, window, sigma, count_padding), Saved(window, tuple(x_BCH.shape[2:]), sigma, count_padding)


def compiled_backward(dy_BCP: Tensor, saved: Saved) -> Tensor:
    """dx_BCH"""
    window, size, sigma, count_padding = saved
    return compiled.backward(dy_BCP, window, (size[0], size[1]), sigma, count_padding)


gaussian_pool = differentiable(forward, backward, vendor=vendor, native=Native(compiled_forward, compiled_backward, compiled.unfit))


class GaussianPooling(OwnPooling):
    """A Gaussian average of every window, for maps (B, C, ...) or (C, ...); torch has no such layer.

    Settings as torch.nn.AvgPool2d, and sigma: in pixels, one number or one for each axis; None for a quarter of the window's width,
    so that the window spans two sigmas to either side. padding: at most half the kernel; also per side or in words (see pooling.py).
    count_include_pad: whether padding weighs as zeros of the map.
    Raises ValueError for settings that cannot be, and for input that is no map, not floating point or too small.
    """

    settings = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "sigma", "dilation")

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = False,
        *,
        sigma: float | Sequence[float] | None = None,
        dilation: Any = 1,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, dilation)
        if sigma is not None:
            expect_sigma(type(self).__name__, sigma, self.axes)
        self.count_include_pad = count_include_pad
        self.sigma = sigma

    def forward(self, input: Tensor) -> Tensor:
        window = self.fitting(input, expect_floating)
        wanted = tuple(width / 4 for width in window.spread) if self.sigma is None else self.sigma
        pooled: Tensor = self.pool(
            gaussian_pool, input, window, expect_sigma(type(self).__name__, wanted, self.axes), self.count_include_pad
        )
        return pooled


def expect_sigma(who: str, sigma: Any, axes: int) -> tuple[float, ...]:
    """sigma for each axis; ValueError unless it is one number above 0, or one for each axis."""
    numbers = tuple(sigma) if isinstance(sigma, (tuple, list)) else (sigma,) * axes
    if len(numbers) != axes:
        raise ValueError(f"{who}: expected sigma to be one number or one for each of the axes {LETTERS[axes]}, got {sigma!r}.")
    for number in numbers:
        expect_number(who, "sigma", number, above=0, cause="It is a distance in pixels.")
    return tuple(float(number) for number in numbers)


class GaussianPool1d(GaussianPooling):
    """A Gaussian average of every window of signals (B, C, T).

    >>> GaussianPool1d(3, sigma=1.0)(torch.tensor([[[0.0, 1.0, 0.0]]])).round(decimals=4).tolist()
    [[[0.45190000534057617]]]
    """

    axes = 1


class GaussianPool2d(GaussianPooling):
    """A Gaussian average of every window of maps (B, C, H, W).

    >>> GaussianPool2d(2)(torch.tensor([[[[1.0, 5.0], [3.0, 3.0]]]])).round(decimals=4).tolist()
    [[[[3.0]]]]
    """

    axes = 2


class GaussianPool3d(GaussianPooling):
    """A Gaussian average of every window of volumes (B, C, D, H, W).

    >>> GaussianPool3d((1, 2, 2))(torch.tensor([[[[[1.0, 5.0], [3.0, 3.0]]]]])).tolist()
    [[[[[3.0]]]]]
    """

    axes = 3
