"""Max pooling.     B images, C channels, H all axes of the map, P all axes of the windows, K taps (see windows.py)

    forward    y[b,c,p] = max_k x[b,c, h(p,k)]            winner[b,c,p] = the k that won
    backward   dx[b,c,h] = sum of dy[b,c,p] over the windows that h won, 0 elsewhere

Of equal values the first tap wins. A NaN wins over every number, so that it is seen; of several the first. Padding never wins,
whatever the map holds.

Zhou and Chellappa, "Computation of optical flow using a neural network", 1988
"""

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.kernels import max_pool as compiled
from twofold.kernels import nodes
from twofold.layers.differentiable import Native, differentiable
from twofold.layers.expect import sentence
from twofold.space.pooling import Pooling, expect_columns, expect_pixels, window_of
from twofold.space.windows import Window, fold, unfold


class MaxSaved(NamedTuple):
    """What backward needs: the tap that won, and the size of the map."""

    winner_BCP: Tensor
    window: Window
    size: tuple[int, ...]


def max_forward(x_BCH: Tensor, window: Window) -> tuple[Tensor, MaxSaved]:
    """y_BCP"""
    size = tuple(x_BCH.shape[2:])
    expect_pixels("max_pool", window, size)
    expect_columns("max_pool", x_BCH, window)
    columns_BCKP = unfold(x_BCH, window)
    real_KP = unfold(x_BCH.new_ones((1, 1, *size), dtype=torch.uint8), window)[0, 0] == 1
    y, seen = columns_BCKP[:, :, 0], real_KP[0]
    winner = torch.zeros_like(y, dtype=winner_type(window))
    for k in range(1, window.taps):
        x = columns_BCKP[:, :, k]
        wins = real_KP[k] & (~seen | (x > y) | (x.isnan() & ~y.isnan()))
        y, winner, seen = torch.where(wins, x, y), torch.where(wins, k, winner), seen | real_KP[k]
    return y.contiguous(), MaxSaved(winner, window, size)


def max_backward(dy_BCP: Tensor, saved: MaxSaved) -> Tensor:
    """dx_BCH"""
    winner_BCP, window, size = saved
    k = torch.arange(window.taps, device=dy_BCP.device).reshape(-1, *[1] * window.axes)
    dcolumns_BCKP = torch.where(winner_BCP[:, :, None] == k, dy_BCP[:, :, None], 0)
    return fold(dcolumns_BCKP, window, size)


def winner_type(window: Window) -> torch.dtype:
    """The smallest type that names every tap."""
    return torch.uint8 if window.taps <= 255 else torch.int32


POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def max_vendor(x_BCH: Tensor, window: Window) -> Tensor:
    """PyTorch's own, which pads both sides alike and by half the kernel at most; of several NaN it takes the last for the winner."""
    before, after = window.padding[::2], window.padding[1::2]
    if window.axes == 1 and not x_BCH.is_floating_point():
        return max_vendor(x_BCH.unsqueeze(2), in_a_row(window)).squeeze(2)
    if before == after and not wider_than_half(window):
        pooled: Tensor = POOLS[window.axes](x_BCH, window.kernel, window.stride, before, window.dilation, window.ceil)
        return pooled
    if wider_than_half(window):
        return max_forward(x_BCH, window)[0]
    expect_pixels("max_pool", window, x_BCH.shape[2:])
    lowest = -float("inf") if x_BCH.is_floating_point() else torch.iinfo(x_BCH.dtype).min
    frame = window.frame(x_BCH.shape[2:])
    trailing = [n for b, a in zip(reversed(before), frame[1::2], strict=True) for n in (0, max(a - b, 0))]
    framed = F.pad(x_BCH, trailing, value=lowest)  # behind the map only: of equal values the map's comes first
    y = POOLS[window.axes](framed, window.kernel, window.stride, before, window.dilation)
    for axis, number in enumerate(window.output_size(x_BCH.shape[2:])):
        y = y.narrow(2 + axis, 0, number)
    return y


def wider_than_half(window: Window) -> bool:
    """Whether torch refuses the padding before the map."""
    return any(2 * before > k for before, k in zip(window.padding[::2], window.kernel, strict=True))


@lru_cache(maxsize=256)
def in_a_row(window: Window) -> Window:
    """The window of one axis as one of two, on maps with a single row."""
    (kernel,), (stride,), (dilation,) = window.kernel, window.stride, window.dilation
    return Window((1, kernel), (1, stride), (0, 0, *window.padding), (1, dilation), window.ceil)


def unfit(x_BCH: Tensor, window: Window) -> str:
    """Why the compiled form cannot serve this input, or ''."""
    return "needs windows along one or two axes, not three" if window.axes == 3 else compiled.unfit(x_BCH, window)


def max_compiled(x_BCH: Tensor, window: Window) -> Tensor:
    """y_BCP; a signal is a map with one row."""
    if window.axes == 1:
        return nodes.pool(x_BCH.unsqueeze(2), in_a_row(window)).squeeze(2)
    return nodes.pool(x_BCH, window)


def with_winners(x_BCH: Tensor, window: Window) -> tuple[Tensor, MaxSaved]:
    """y_BCP and what backward needs, compiled."""
    size = tuple(x_BCH.shape[2:])
    if window.axes == 1:
        y, winner = compiled.forward(x_BCH.unsqueeze(2), in_a_row(window), winner_type(window))
        return y.squeeze(2), MaxSaved(winner.squeeze(2), window, size)
    y, winner = compiled.forward(x_BCH, window, winner_type(window))
    return y, MaxSaved(winner, window, size)


max_pool = differentiable(max_forward, max_backward, vendor=max_vendor, native=Native(max_compiled, None, unfit))


def place(winner_BCP: Tensor, window: Window, size: tuple[int, ...]) -> Tensor:
    """The winners' places in the flattened map (in two axes h W + w), int64, as torch's unpooling wants them."""
    taps, places = winner_BCP.long(), torch.zeros_like(winner_BCP, dtype=torch.int64)
    for axis in range(window.axes):
        tap = taps // prod(window.kernel[axis + 1 :]) % window.kernel[axis]
        start = torch.arange(taps.shape[2 + axis], device=taps.device) * window.stride[axis] - window.padding[2 * axis]
        along = start.reshape(-1, *[1] * (window.axes - 1 - axis)) + tap * window.dilation[axis]
        places = places * size[axis] + along
    return places


def placed_forward(x_BCH: Tensor, window: Window) -> tuple[tuple[Tensor, Tensor], MaxSaved]:
    """(y_BCP, place_BCP)"""
    y, saved = max_forward(x_BCH, window)
    return (y, place(*saved)), saved


def placed_backward(dy: tuple[Tensor, Any], saved: MaxSaved) -> Tensor:
    """dx_BCH; a place has no gradient."""
    return max_backward(dy[0], saved)


def placed_vendor(x_BCH: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """PyTorch's own where it has the padding."""
    before, after = window.padding[::2], window.padding[1::2]
    if before != after or wider_than_half(window):
        return placed_forward(x_BCH, window)[0]
    if window.axes == 1 and not x_BCH.is_floating_point():
        y, places = placed_vendor(x_BCH.unsqueeze(2), in_a_row(window))
        return y.squeeze(2), places.squeeze(2)
    y, places = POOLS[window.axes](x_BCH, window.kernel, window.stride, before, window.dilation, window.ceil, return_indices=True)
    return y, places


def placed_compiled(x_BCH: Tensor, window: Window) -> tuple[tuple[Tensor, Tensor], MaxSaved]:
    """The compiled form."""
    y, saved = with_winners(x_BCH, window)
    return (y, place(*saved)), saved


def placed_compiled_backward(dy: tuple[Tensor, Any], saved: MaxSaved) -> Tensor:
    """dx_BCH"""
    winner_BCP, window, size = saved
    if window.axes == 1:
        return compiled.backward(dy[0].unsqueeze(2), winner_BCP.unsqueeze(2), in_a_row(window), (1, size[0])).squeeze(2)
    return compiled.backward(dy[0], winner_BCP, window, (size[0], size[1]))


max_pool_with_places = differentiable(
    placed_forward, placed_backward, vendor=placed_vendor, native=Native(placed_compiled, placed_compiled_backward, unfit)
)


class MaxPooling(Pooling):
    """The largest value of every window, for maps (B, C, ...) or (C, ...); torch's layer with routes and clear errors.

    padding: at most half the kernel; also per side or in words (see pooling.py). return_indices: also the winners' places in the
    flattened map. Maps of whole numbers may be pooled too, without gradient.
    Raises ValueError for settings that cannot be, and for input that is no map or too small.
    """

    return_indices: bool

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        window_of(type(self).__name__, self.axes, kernel_size, stride, padding, dilation, ceil_mode)
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)

    def forward(self, input: Tensor) -> Any:
        window = self.fitting(input, expect_ordered)
        return self.pool(max_pool_with_places if self.return_indices else max_pool, input, window)


def expect_ordered(who: str, x: Tensor) -> None:
    """Raise ValueError unless one of two values can be the larger one."""
    if x.dtype == torch.bool or x.is_complex():
        raise ValueError(sentence(who, "real numbers", str(x.dtype).removeprefix("torch."), "", "Use x.float()."))


class MaxPool1d(MaxPooling, nn.MaxPool1d):
    """Max pooling over signals (B, C, T); torch.nn.MaxPool1d with routes, padding per side or in words, and clear errors.

    >>> MaxPool1d(2)(torch.tensor([[[1.0, 5.0, 3.0, 2.0]]])).tolist()
    [[[5.0, 3.0]]]
    """

    axes = 1


class MaxPool2d(MaxPooling, nn.MaxPool2d):
    """Max pooling over maps (B, C, H, W); torch.nn.MaxPool2d with routes, padding per side or in words, and clear errors.

    >>> MaxPool2d(2)(torch.tensor([[[[1.0, 5.0], [3.0, 2.0]]]])).tolist()
    [[[[5.0]]]]
    """

    axes = 2


class MaxPool3d(MaxPooling, nn.MaxPool3d):
    """Max pooling over volumes (B, C, D, H, W); torch.nn.MaxPool3d with routes, padding per side or in words, and clear errors.

    >>> MaxPool3d(2)(torch.arange(8.0).reshape(1, 1, 2, 2, 2)).flatten().tolist()
    [7.0]
    """

    axes = 3
