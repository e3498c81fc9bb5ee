"""Adaptive pooling: windows that stretch with the map, so that every size of map gives P outputs along an axis.

B images, C channels, H all axes of the map, P all axes of the outputs, K taps of the largest window

    window p holds       h from floor(p H / P) to ceil((p + 1) H / P) - 1           n[p] of them; where P does not divide H they overlap
    average  forward     y[b,c,p] = sum of x[b,c,h] over window p / n[p]
             backward    dx[b,c,h] = sum of dy[b,c,p] / n[p] over the windows that hold h
    maximum  forward     y[b,c,p] = max of x[b,c,h] over window p                   place[b,c,p] = the h that won
             backward    dx[b,c,h] = sum of dy[b,c,p] over the windows with place h, 0 elsewhere

Of equal values the first wins, and so does the first NaN.

He, Zhang, Ren and Sun, "Spatial pyramid pooling in deep convolutional networks", ECCV 2014, section 2.3
"""

from collections.abc import Sequence
from math import prod
from numbers import Integral
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating
from twofold.layers.routes import Routed
from twofold.space.max_pooling import expect_ordered
from twofold.space.pooling import expect_countable, expect_images
from twofold.space.windows import LIMIT, by

Sizes = tuple[int, ...]


class Taps(NamedTuple):
    """Where the taps of all windows lie in the flattened map, and which of them belong to their window: small ones have fewer."""

    place_KP: Tensor
    inside_KP: Tensor


def taps_of(size: Sizes, counts: Sizes, device: torch.device) -> Taps:
    """All windows of a map of this size, the taps in row-major order."""
    place, inside = torch.zeros(1, dtype=torch.int64, device=device), torch.ones(1, dtype=torch.bool, device=device)
    for axis, (H, P, k) in enumerate(zip(size, counts, largest(size, counts), strict=True)):
        p = torch.arange(P, device=device)
        tap = p * H // P + torch.arange(k, device=device)[:, None]
        end = ((p + 1) * H + P - 1) // P
        shape = (1, k, *[1] * axis, P)
        place = (place[:, None, ..., None] * H + tap.clamp(max=H - 1).reshape(shape)).flatten(0, 1)
        inside = (inside[:, None, ..., None] & (tap < end).reshape(shape)).flatten(0, 1)
    return Taps(place, inside)


def largest(size: Sizes, counts: Sizes) -> Sizes:
    """What no window exceeds along each axis: H / P pixels, and parts of two more where it is no whole number."""
    return tuple(-(-H // P) + (H % P > 1) for H, P in zip(size, counts, strict=True))


class AverageSaved(NamedTuple):
    """What backward needs."""

    size: Sizes


def average_forward(x_BCH: Tensor, counts: Sizes) -> tuple[Tensor, AverageSaved]:
    """y_BCP"""
    columns_BCKP, (_, inside_KP) = columns(x_BCH, counts)
    return torch.where(inside_KP, columns_BCKP, 0).sum(2) / inside_KP.sum(0), AverageSaved(tuple(x_BCH.shape[2:]))


def average_backward(dy_BCP: Tensor, saved: AverageSaved) -> Tensor:
    """dx_BCH"""
    place_KP, inside_KP = taps_of(saved.size, tuple(dy_BCP.shape[2:]), dy_BCP.device)
    share_BCKP = torch.where(inside_KP, (dy_BCP / inside_KP.sum(0))[:, :, None], 0)
    flat = dy_BCP.new_zeros((*dy_BCP.shape[:2], prod(saved.size)))
    return flat.index_add(2, place_KP.flatten(), share_BCKP.flatten(2)).unflatten(2, saved.size)


def columns(x_BCH: Tensor, counts: Sizes) -> tuple[Tensor, Taps]:
    """columns_BCKP, what every tap sees, and where the taps lie."""
    size = tuple(x_BCH.shape[2:])
    sizes = (*x_BCH.shape[:2], *largest(size, counts), *counts)
    expect_countable("adaptive pooling", "columns", sizes, "Use smaller batches or another route.")
    taps = taps_of(size, counts, x_BCH.device)
    return x_BCH.flatten(2).index_select(2, taps.place_KP.flatten()).unflatten(2, taps.place_KP.shape), taps


AVERAGES = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
MAXIMA = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}


def average_vendor(x_BCH: Tensor, counts: Sizes) -> Tensor:
    """PyTorch's own."""
    pooled: Tensor = AVERAGES[len(counts)](x_BCH, counts)  # type: ignore[arg-type]
    return pooled


adaptive_average_pool = differentiable(average_forward, average_backward, vendor=average_vendor)


class MaxSaved(NamedTuple):
    """What backward needs."""

    place_BCP: Tensor
    size: Sizes


def max_forward(x_BCH: Tensor, counts: Sizes) -> tuple[Tensor, MaxSaved]:
    """y_BCP"""
    y, saved = placed_forward(x_BCH, counts)
    return y[0], saved


def max_backward(dy_BCP: Tensor, saved: MaxSaved) -> Tensor:
    """dx_BCH"""
    flat = dy_BCP.new_zeros((*dy_BCP.shape[:2], prod(saved.size)))
    return flat.scatter_add(2, saved.place_BCP.flatten(2), dy_BCP.flatten(2)).unflatten(2, saved.size)


def max_vendor(x_BCH: Tensor, counts: Sizes) -> Tensor:
    """PyTorch's own, which lacks whole numbers; of several NaN it takes the last for the winner."""
    return placed_vendor(x_BCH, counts)[0]


def placed_forward(x_BCH: Tensor, counts: Sizes) -> tuple[tuple[Tensor, Tensor], MaxSaved]:
    """(y_BCP, place_BCP)"""
    columns_BCKP, (place_KP, inside_KP) = columns(x_BCH, counts)
    size = tuple(x_BCH.shape[2:])
    lowest = -float("inf") if x_BCH.is_floating_point() else torch.iinfo(x_BCH.dtype).min
    largest_BCP = torch.where(inside_KP, columns_BCKP, lowest).amax(2)
    wins = inside_KP & ((columns_BCKP == largest_BCP[:, :, None]) | columns_BCKP.isnan())
    place_BCP = torch.where(wins, place_KP, prod(size)).amin(2)  # taps in order have places in order: the least is the first
    y = x_BCH.flatten(2).gather(2, place_BCP.flatten(2)).reshape(place_BCP.shape)
    return (y, place_BCP), MaxSaved(place_BCP, size)


def placed_backward(dy: tuple[Tensor, Any], saved: MaxSaved) -> Tensor:
    """dx_BCH; a place has no gradient."""
    return max_backward(dy[0], saved)


def placed_vendor(x_BCH: Tensor, counts: Sizes) -> tuple[Tensor, Tensor]:
    """PyTorch's own; as above."""
    if not x_BCH.is_floating_point():
        return placed_forward(x_BCH, counts)[0]
    y, places = MAXIMA[len(counts)](x_BCH, counts, return_indices=True)
    return y, places


adaptive_max_pool = differentiable(max_forward, max_backward, vendor=max_vendor)
adaptive_max_pool_with_places = differentiable(placed_forward, placed_backward, vendor=placed_vendor)


class Adaptive(Routed):
    """Maps (B, C, ...) or (C, ...) of any size become maps of one size; torch's layer with routes and clear errors.

    output_size: a number, or one per axis; None keeps the size of that axis. It may be larger than the map: pixels come up repeatedly.
    Raises ValueError for sizes below 1 and for input that is no map, empty, or (averages) not floating point.
    """

    axes: int
    output_size: Any

    def counts(self, size: Sequence[int]) -> Sizes:
        """The outputs along each axis for a map of this size."""
        wanted = self.output_size if isinstance(self.output_size, (tuple, list)) else (self.output_size,) * self.axes
        return tuple(n if want is None else want for want, n in zip(wanted, size, strict=True))

    def pool(self, operation: Any, input: Tensor) -> Any:
        """Look at the input, then apply the operation to a batch of images, or to one image alone."""
        who = f"{type(self).__name__} input"
        size = tuple(input.shape[-self.axes :])
        expect_pixels(who, input, self.axes)
        counts = self.counts(size)
        expect_countable(who, "outputs", (*input.shape[: -self.axes], *counts), "Use a smaller output_size.")
        if input.dim() == self.axes + 2:
            return self.run(operation, input, counts)
        y = self.run(operation, input.unsqueeze(0), counts)
        return tuple(part.squeeze(0) for part in y) if isinstance(y, tuple) else y.squeeze(0)


class AdaptiveAverage(Adaptive):
    """The mean over every window."""

    def __init__(self, output_size: Any) -> None:
        expect_output_size(type(self).__name__, self.axes, output_size)
        super().__init__(output_size)

    def forward(self, input: Tensor) -> Tensor:
        expect_images(f"{type(self).__name__} input", input, self.axes)
        expect_floating(f"{type(self).__name__} input", input)
        pooled: Tensor = self.pool(adaptive_average_pool, input)
        return pooled


class AdaptiveMaximum(Adaptive):
    """The largest value of every window; return_indices: also the winners' places in the flattened map."""

    return_indices: bool

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        expect_output_size(type(self).__name__, self.axes, output_size)
        super().__init__(output_size, return_indices)

    def forward(self, input: Tensor) -> Any:
        expect_images(f"{type(self).__name__} input", input, self.axes)
        expect_ordered(f"{type(self).__name__} input", input)
        return self.pool(adaptive_max_pool_with_places if self.return_indices else adaptive_max_pool, input)


def expect_output_size(who: str, axes: int, output_size: Any) -> None:
    """Raise ValueError unless it is a whole number of at least 1 or None, or one of these per axis."""
    given = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * axes
    right = all(n is None or (isinstance(n, Integral) and not isinstance(n, bool) and 1 <= int(n) <= LIMIT) for n in given)
    if len(given) != axes or not right:
        numbers = "a whole number" if axes == 1 else f"a whole number or {axes} of them"
        raise ValueError(f"{who}: expected output_size to be {numbers}, from 1 to {LIMIT} (None keeps a size), got {output_size!r}.")


def expect_pixels(who: str, x: Tensor, axes: int) -> None:
    """Raise ValueError unless the images have a channel and a pixel."""
    if 0 in x.shape[-axes - 1 :]:
        raise ValueError(f"{who}: expected at least one channel and maps of at least {by([1] * axes)}, got {tuple(x.shape)}.")


class AdaptiveAvgPool1d(AdaptiveAverage, nn.AdaptiveAvgPool1d):
    """Means over signals (B, C, T), P of them; torch.nn.AdaptiveAvgPool1d with routes and clear errors.

    >>> AdaptiveAvgPool1d(2)(torch.tensor([[[1.0, 2.0, 6.0]]])).tolist()
    [[[1.5, 4.0]]]
    """

    axes = 1


class AdaptiveAvgPool2d(AdaptiveAverage, nn.AdaptiveAvgPool2d):
    """Means over maps (B, C, H, W), P times Q of them; torch.nn.AdaptiveAvgPool2d with routes and clear errors.

    >>> AdaptiveAvgPool2d((None, 1))(torch.tensor([[[[1.0, 3.0], [5.0, 9.0]]]])).tolist()
    [[[[2.0], [7.0]]]]
    """

    axes = 2


class AdaptiveAvgPool3d(AdaptiveAverage, nn.AdaptiveAvgPool3d):
    """Means over volumes (B, C, D, H, W); torch.nn.AdaptiveAvgPool3d with routes and clear errors."""

    axes = 3


class AdaptiveMaxPool1d(AdaptiveMaximum, nn.AdaptiveMaxPool1d):
    """Maxima over signals (B, C, T), P of them; torch.nn.AdaptiveMaxPool1d with routes and clear errors.

    >>> AdaptiveMaxPool1d(2)(torch.tensor([[[1.0, 2.0, 6.0]]])).tolist()
    [[[2.0, 6.0]]]
    """

    axes = 1


class AdaptiveMaxPool2d(AdaptiveMaximum, nn.AdaptiveMaxPool2d):
    """Maxima over maps (B, C, H, W), P times Q of them; torch.nn.AdaptiveMaxPool2d with routes and clear errors."""

    axes = 2


class AdaptiveMaxPool3d(AdaptiveMaximum, nn.AdaptiveMaxPool3d):
    """Maxima over volumes (B, C, D, H, W); torch.nn.AdaptiveMaxPool3d with routes and clear errors."""

    axes = 3
