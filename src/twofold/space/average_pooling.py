"""Average pooling.     B images, C channels, H all axes of the map, P all axes of the windows, K taps (see windows.py)

    forward    y[b,c,p] = sum_k x[b,c, h(p,k)] / n[p]              padding counts as 0
    backward   dx[b,c,h] = sum of dy[b,c,p] / n[p] over the windows that hold h

n[p] is the number of taps that window p has on the map and its padding, or on the map alone, or a number of the user's. What
rounding up (ceil) adds beyond the padding is never counted.

LeCun et al., "Gradient-based learning applied to document recognition", Proceedings of the IEEE 86, 1998, section II.B
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.kernels import average_pool as compiled
from twofold.layers.differentiable import Native, differentiable
from twofold.layers.expect import expect_floating, expect_positive
from twofold.space.pooling import Pooling, expect_columns, expect_pixels, window_of
from twofold.space.windows import Window, fold, unfold


class Saved(NamedTuple):
    """What backward needs."""

    window: Window
    size: tuple[int, ...]
    count_padding: bool
    divisor: int | None


def forward(x_BCH: Tensor, window: Window, count_padding: bool = True, divisor: int | None = None) -> tuple[Tensor, Saved]:
    """y_BCP"""
    expect_pixels("average_pool", window, x_BCH.shape[2:])
    expect_columns("average_pool", x_BCH, window)
    saved = Saved(window, tuple(x_BCH.shape[2:]), count_padding, divisor)
    return unfold(x_BCH, window).sum(2) / divisors(x_BCH, saved), saved


def backward(dy_BCP: Tensor, saved: Saved) -> Tensor:
    """dx_BCH"""
    share_BCP = dy_BCP / divisors(dy_BCP, saved)
    share_BCKP = share_BCP[:, :, None].expand(-1, -1, saved.window.taps, *[-1] * saved.window.axes)
    return fold(share_BCKP, saved.window, saved.size)


def divisors(like: Tensor, saved: Saved) -> Tensor:
    """n_P, or the user's number."""
    if saved.divisor is not None:
        return like.new_full((), saved.divisor)
    window, size = saved.window, saved.size
    counts_P = torch.ones((), device=like.device, dtype=torch.int64)
    for axis, number in enumerate(window.output_size(size)):
        before, after = window.sides()[axis] if saved.count_padding else (0, 0)
        first = torch.arange(number, device=like.device) * window.stride[axis] - window.padding[2 * axis]
        tap = first[:, None] + torch.arange(window.kernel[axis], device=like.device) * window.dilation[axis]
        counts_P = counts_P[..., None] * ((tap >= -before) & (tap < size[axis] + after)).sum(1)
    return counts_P.to(like.dtype)


def vendor(x_BCH: Tensor, window: Window, count_padding: bool = True, divisor: int | None = None) -> Tensor:
    """PyTorch's own where it has the case; otherwise every channel is convolved alone with ones."""
    kernel, stride, before, axes = window.kernel, window.stride, window.padding[::2], window.axes
    halves = x_BCH.dtype in (torch.float16, torch.bfloat16)
    if axes == 3 and halves and x_BCH.device.type == "cpu":  # not implemented there
        return vendor(x_BCH.float(), window, count_padding, divisor).to(x_BCH.dtype)
    own = max(window.dilation) == 1 and before == window.padding[1::2] and all(2 * b <= k for b, k in zip(before, kernel, strict=True))
    if own and axes == 1 and divisor is None:
        return F.avg_pool1d(x_BCH, kernel, stride, before, window.ceil, count_padding)
    large = all(n >= k for n, k in zip(x_BCH.shape[2:], kernel, strict=True))  # torch refuses other volumes, whatever the padding
    if own and (axes == 2 or (axes == 3 and large)):
        pool: Any = F.avg_pool2d if axes == 2 else F.avg_pool3d
        pooled: Tensor = pool(x_BCH, kernel, stride, before, window.ceil, count_padding, divisor)
        return pooled
    expect_pixels("average_pool", window, x_BCH.shape[2:])
    convolve: Any = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[axes]
    alone = F.pad(x_BCH, window.frame(x_BCH.shape[2:])).flatten(0, 1).unsqueeze(1)
    sums = convolve(alone, x_BCH.new_ones((1, 1, *kernel)), None, stride, 0, window.dilation)
    sums_BCP = sums.reshape(*x_BCH.shape[:2], *sums.shape[2:])
    return sums_BCP / divisors(x_BCH, Saved(window, tuple(x_BCH.shape[2:]), count_padding, divisor))


def compiled_forward(x_BCH: Tensor, window: Window, count_padding: bool = True, divisor: int | None = None) -> tuple[Tensor, Saved]:
    """y_BCP, for maps of two axes"""
    return compiled.forward(x_BCH, window, count_padding, divisor), Saved(window, tuple(x_BCH.shape[2:]), count_padding, divisor)


def compiled_backward(dy_BCP: Tensor, saved: Saved) -> Tensor:
    """dx_BCH"""
    window, size, count_padding, divisor = saved
    return compiled.backward(dy_BCP, window, (size[0], size[1]), count_padding, divisor)


average_pool = differentiable(forward, backward, vendor=vendor, native=Native(compiled_forward, compiled_backward, compiled.unfit))


class AveragePooling(Pooling):
    """The mean of every window, for maps (B, C, ...) or (C, ...); torch's layer with routes, dilation and clear errors.

    padding: at most half the kernel; also per side or in words (see pooling.py). count_include_pad: whether padding counts as zeros
    of the map. divisor_override: divide by this number instead.
    Raises ValueError for settings that cannot be, and for input that is no map, not floating point or too small.
    """

    count_include_pad: bool
    divisor_override: int | None

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        dilation: Any = 1,
    ) -> None:
        window_of(type(self).__name__, self.axes, kernel_size, stride, padding, dilation, ceil_mode)
        if divisor_override is not None:
            expect_positive(type(self).__name__, divisor_override=divisor_override)
        divisor = (divisor_override,) if self.axes > 1 else ()  # torch's AvgPool1d lacks it
        numbers = 0 if isinstance(padding, str) else padding
        super().__init__(kernel_size, stride, numbers, ceil_mode, count_include_pad, *divisor)
        self.divisor_override, self.dilation = divisor_override, dilation
        if isinstance(padding, str):
            self.padding = padding

    def forward(self, input: Tensor) -> Tensor:
        window = self.fitting(input, expect_floating)
        pooled: Tensor = self.pool(average_pool, input, window, self.count_include_pad, self.divisor_override)
        return pooled

    def extra_repr(self) -> str:
        dilated = "" if self.dilation in (1, (1,) * self.axes, [1] * self.axes) else f", dilation={self.dilation}"
        return super().extra_repr() + dilated


class AvgPool1d(AveragePooling, nn.AvgPool1d):
    """The mean of every window of signals (B, C, T); torch.nn.AvgPool1d with routes, dilation and clear errors.

    >>> AvgPool1d(2)(torch.tensor([[[1.0, 5.0, 3.0, 2.0]]])).tolist()
    [[[3.0, 2.5]]]
    """

    axes = 1

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        *,
        divisor_override: int | None = None,
        dilation: Any = 1,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dilation=dilation)


class AvgPool2d(AveragePooling, nn.AvgPool2d):
    """The mean of every window of maps (B, C, H, W); torch.nn.AvgPool2d with routes, dilation and clear errors.

    >>> AvgPool2d(2)(torch.tensor([[[[1.0, 5.0], [3.0, 2.0]]]])).tolist()
    [[[[2.75]]]]
    """

    axes = 2


class AvgPool3d(AveragePooling, nn.AvgPool3d):
    """The mean of every window of volumes (B, C, D, H, W); torch.nn.AvgPool3d with routes, dilation and clear errors.

    >>> AvgPool3d(2)(torch.arange(8.0).reshape(1, 1, 2, 2, 2)).flatten().tolist()
    [3.5]
    """

    axes = 3
