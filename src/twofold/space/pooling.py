"""Pooling over maps.     B images, C channels, H W map, P Q windows, K = kh kw taps (see windows.py)

    maximum    y[b,c,p,q] = max_k x[b,c, window(p,q,k)]                  winner[b,c,p,q] = the k that won
    backward   dx[b,c,h,w] = sum of dy[b,c,p,q] over the windows that (h,w) won, 0 elsewhere

    average    y[b,c,p,q] = sum_k x[b,c, window(p,q,k)] / n[p,q]         padding counts as 0
    backward   dx[b,c,h,w] = sum of dy[b,c,p,q] / n[p,q] over the windows that hold (h,w)

n is the number of taps on the map and its padding, or on the map alone, or a number of the user's. Of equal values the first tap
wins. A NaN wins over every number, so that it is seen; of several the first. Padding never wins, whatever the map holds.

Maximum: Zhou and Chellappa, "Computation of optical flow using a neural network", 1988
Average: LeCun et al., "Gradient-based learning applied to document recognition", Proceedings of the IEEE 86, 1998, section II.B
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.kernels import max_pool as compiled
from twofold.layers.differentiable import Native, differentiable
from twofold.layers.expect import expect_floating, expect_positive, expect_shape, expect_tensor, sentence
from twofold.layers.routes import Routed
from twofold.space.windows import Window, fold, remember, unfold, whole_numbers


class MaxSaved(NamedTuple):
    """What backward needs: the tap that won, and the size of the map."""

    winner_BCPQ: Tensor
    window: Window
    size: tuple[int, int]


def max_forward(x_BCHW: Tensor, window: Window) -> tuple[Tensor, MaxSaved]:
    """y_BCPQ"""
    size = (x_BCHW.shape[2], x_BCHW.shape[3])
    columns_BCKPQ = unfold(x_BCHW, window)
    real_KPQ = unfold(x_BCHW.new_ones((1, 1, *size), dtype=torch.uint8), window)[0, 0] == 1
    y, seen = columns_BCKPQ[:, :, 0], real_KPQ[0]
    winner = torch.zeros_like(y, dtype=winner_type(window))
    for k in range(1, window.taps):
        x = columns_BCKPQ[:, :, k]
        wins = real_KPQ[k] & (~seen | (x > y) | (x.isnan() & ~y.isnan()))
        y, winner, seen = torch.where(wins, x, y), torch.where(wins, k, winner), seen | real_KPQ[k]
    return y.contiguous(), MaxSaved(winner, window, size)


def max_backward(dy_BCPQ: Tensor, saved: MaxSaved) -> Tensor:
    """dx_BCHW"""
    winner_BCPQ, window, size = saved
    k = torch.arange(window.taps, device=dy_BCPQ.device)[:, None, None]
    dcolumns_BCKPQ = torch.where(winner_BCPQ[:, :, None] == k, dy_BCPQ[:, :, None], 0)
    return fold(dcolumns_BCKPQ, window, size)


def max_vendor(x_BCHW: Tensor, window: Window) -> Tensor:
    """PyTorch's own; of several NaN it takes the last for the winner."""
    return F.max_pool2d(x_BCHW, window.kernel, window.stride, window.padding[::2], window.dilation, window.ceil)


def max_compiled(x_BCHW: Tensor, window: Window) -> tuple[Tensor, MaxSaved | None]:
    """The compiled form; the winners are written down only where a gradient may be asked for."""
    if not x_BCHW.requires_grad:
        return compiled.forward(x_BCHW, window, None)[0], None
    y, winner = compiled.forward(x_BCHW, window, winner_type(window))
    return y, MaxSaved(winner, window, (x_BCHW.shape[2], x_BCHW.shape[3]))


def max_compiled_backward(dy_BCPQ: Tensor, saved: MaxSaved) -> Tensor:
    """dx_BCHW"""
    return compiled.backward(dy_BCPQ, *saved)


def winner_type(window: Window) -> torch.dtype:
    """The smallest type that names every tap."""
    return torch.uint8 if window.taps <= 255 else torch.int32


max_pool2d = differentiable(
    max_forward, max_backward, vendor=max_vendor, native=Native(max_compiled, max_compiled_backward, compiled.unfit)
)


def place(winner_BCPQ: Tensor, window: Window, size: tuple[int, int]) -> Tensor:
    """The winners' places h W + w in the map, int64, as torch.nn.MaxUnpool2d wants them."""
    taps = winner_BCPQ.long()
    rows, columns = (torch.arange(n, device=taps.device) for n in taps.shape[2:])
    h = (rows * window.stride[0] - window.padding[0])[:, None] + taps // window.kernel[1] * window.dilation[0]
    w = columns * window.stride[1] - window.padding[2] + taps % window.kernel[1] * window.dilation[1]
    return h * size[1] + w


def placed_forward(x_BCHW: Tensor, window: Window) -> tuple[tuple[Tensor, Tensor], MaxSaved]:
    """(y_BCPQ, place_BCPQ)"""
    y, saved = max_forward(x_BCHW, window)
    return (y, place(*saved)), saved


def placed_backward(dy: tuple[Tensor, Any], saved: MaxSaved) -> Tensor:
    """dx_BCHW; a place has no gradient."""
    return max_backward(dy[0], saved)


def placed_compiled(x_BCHW: Tensor, window: Window) -> tuple[tuple[Tensor, Tensor], MaxSaved]:
    """The compiled form."""
    y, winner = compiled.forward(x_BCHW, window, winner_type(window))
    saved = MaxSaved(winner, window, (x_BCHW.shape[2], x_BCHW.shape[3]))
    return (y, place(*saved)), saved


def placed_compiled_backward(dy: tuple[Tensor, Any], saved: MaxSaved) -> Tensor:
    """dx_BCHW"""
    return compiled.backward(dy[0], *saved)


def placed_vendor(x_BCHW: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """PyTorch's own."""
    sides = window.padding[::2]
    return F.max_pool2d(x_BCHW, window.kernel, window.stride, sides, window.dilation, window.ceil, return_indices=True)


max_pool2d_with_places = differentiable(
    placed_forward,
    placed_backward,
    vendor=placed_vendor,
    native=Native(placed_compiled, placed_compiled_backward, compiled.unfit),
)


class AverageSaved(NamedTuple):
    """What backward needs."""

    window: Window
    size: tuple[int, int]
    count_padding: bool
    divisor: int | None


def average_forward(x_BCHW: Tensor, window: Window, count_padding: bool = True, divisor: int | None = None) -> tuple[Tensor, AverageSaved]:
    """y_BCPQ"""
    saved = AverageSaved(window, (x_BCHW.shape[2], x_BCHW.shape[3]), count_padding, divisor)
    return unfold(x_BCHW, window).sum(2) / divisors(x_BCHW, saved), saved


def average_backward(dy_BCPQ: Tensor, saved: AverageSaved) -> Tensor:
    """dx_BCHW"""
    share_BCPQ = dy_BCPQ / divisors(dy_BCPQ, saved)
    return fold(share_BCPQ[:, :, None].expand(-1, -1, saved.window.taps, -1, -1), saved.window, saved.size)


def divisors(like: Tensor, saved: AverageSaved) -> Tensor:
    """n_PQ, or the user's number."""
    if saved.divisor is not None:
        return like.new_full((), saved.divisor)
    window, size = saved.window, saved.size
    counts = []
    for axis, number in enumerate(window.output_size(size)):
        before, after = window.padding[2 * axis : 2 * axis + 2] if saved.count_padding else (0, 0)
        first = torch.arange(number, device=like.device) * window.stride[axis] - window.padding[2 * axis]
        tap = first[:, None] + torch.arange(window.kernel[axis], device=like.device) * window.dilation[axis]
        counts.append(((tap >= -before) & (tap < size[axis] + after)).sum(1))
    return (counts[0][:, None] * counts[1]).to(like.dtype)


def average_vendor(x_BCHW: Tensor, window: Window, count_padding: bool = True, divisor: int | None = None) -> Tensor:
    """PyTorch's own; it has no dilation, which is a convolution of every channel with ones there."""
    if window.dilation == (1, 1):
        sides = window.padding[::2]
        return F.avg_pool2d(x_BCHW, window.kernel, window.stride, sides, window.ceil, count_padding, divisor)
    size = (x_BCHW.shape[2], x_BCHW.shape[3])
    alone = F.pad(x_BCHW, window.frame(size)).flatten(0, 1).unsqueeze(1)
    sums = F.conv2d(alone, x_BCHW.new_ones((1, 1, *window.kernel)), None, window.stride, 0, window.dilation)
    return sums.reshape(*x_BCHW.shape[:2], *sums.shape[2:]) / divisors(x_BCHW, AverageSaved(window, size, count_padding, divisor))


avg_pool2d = differentiable(average_forward, average_backward, vendor=average_vendor)


class MaxPool2d(Routed, nn.MaxPool2d):
    """The largest value of every window, for maps (B, C, H, W) or (C, H, W); torch.nn.MaxPool2d with routes and clear errors.

    return_indices: also the winners' places h W + w. Integer maps may be pooled too, without gradient.
    Raises ValueError for settings that cannot be, and for input that is no map or too small.

    >>> import torch
    >>> MaxPool2d(2)(torch.tensor([[[[1.0, 5.0], [3.0, 2.0]]]])).tolist()
    [[[[5.0]]]]
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        window_of("MaxPool2d", kernel_size, kernel_size if stride is None else stride, padding, dilation, ceil_mode)
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)

    def window(self) -> Window:
        """The geometry that the settings say."""
        settings = ("MaxPool2d", self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return remember(self, settings, window_of)

    def forward(self, input: Tensor) -> Any:
        window = self.window()
        expect_maps("MaxPool2d input", input, window)
        if input.dtype == torch.bool or input.is_complex():
            raise ValueError(sentence("MaxPool2d input", "real numbers", str(input.dtype).removeprefix("torch."), "", "Use x.float()."))
        operation = max_pool2d_with_places if self.return_indices else max_pool2d
        if input.dim() == 4:
            return self.run(operation, input, window)
        y = self.run(operation, input.unsqueeze(0), window)
        return (y[0].squeeze(0), y[1].squeeze(0)) if self.return_indices else y.squeeze(0)


class AvgPool2d(Routed, nn.AvgPool2d):
    """The mean of every window, for maps (B, C, H, W) or (C, H, W); torch.nn.AvgPool2d with routes, dilation and clear errors.

    count_include_pad: whether padding counts as zeros of the map; divisor_override: divide by this number instead.
    Raises ValueError for settings that cannot be, and for input that is no map, not floating point or too small.

    >>> import torch
    >>> AvgPool2d(2)(torch.tensor([[[[1.0, 5.0], [3.0, 2.0]]]])).tolist()
    [[[[2.75]]]]
    """

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
        window_of("AvgPool2d", kernel_size, kernel_size if stride is None else stride, padding, dilation, ceil_mode)
        if divisor_override is not None:
            expect_positive("AvgPool2d", divisor_override=divisor_override)
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        self.dilation = dilation

    def window(self) -> Window:
        """The geometry that the settings say."""
        settings = ("AvgPool2d", self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return remember(self, settings, window_of)

    def forward(self, input: Tensor) -> Tensor:
        window = self.window()
        expect_maps("AvgPool2d input", input, window)
        expect_floating("AvgPool2d input", input)
        options = (window, self.count_include_pad, self.divisor_override)
        if input.dim() == 4:
            pooled: Tensor = self.run(avg_pool2d, input, *options)
        else:
            pooled = self.run(avg_pool2d, input.unsqueeze(0), *options).squeeze(0)
        return pooled

    def extra_repr(self) -> str:
        dilated = "" if self.dilation in (1, (1, 1)) else f", dilation={self.dilation}"
        return super().extra_repr() + dilated


def window_of(who: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil: Any) -> Window:
    """The window that a pooling layer's settings say; ValueError for settings that cannot be."""
    kernel = whole_numbers(who, "kernel_size", kernel_size, 2, 1)
    steps = whole_numbers(who, "stride", stride, 2, 1)
    rows, columns = whole_numbers(who, "padding", padding, 2, 0)
    spread = whole_numbers(who, "dilation", dilation, 2, 1)
    if 2 * rows > kernel[0] or 2 * columns > kernel[1]:
        raise ValueError(
            f"{who}: expected padding of at most half the kernel {kernel[0]}x{kernel[1]}, got {padding!r}: "
            "windows at the edge would hold padding alone."
        )
    return Window((kernel[0], kernel[1]), (steps[0], steps[1]), (rows, rows, columns, columns), (spread[0], spread[1]), bool(ceil))


def expect_maps(who: str, x: Any, window: Window) -> None:
    """Raise ValueError unless x holds maps and every window holds at least one of their pixels."""
    expect_tensor(who, x)
    if x.dim() not in (3, 4):
        cause = "Two axes? One map is x[None, None]." if x.dim() == 2 else ""
        expect_shape(who, x, "B C H W", None, cause)
    size = (x.shape[-2], x.shape[-1])
    outputs = window.output_size(size, who)
    for axis, name in enumerate(("row", "column")):
        if window.dilation[axis] > size[axis] and not every_window_holds(window, axis, size[axis], outputs[axis]):
            raise ValueError(
                f"{who}: a window of {window.kernel[axis]} taps with dilation {window.dilation[axis]} misses all {size[axis]} "
                f"{name}s of the map. Use a dilation of at most {size[axis]}."
            )


def every_window_holds(window: Window, axis: int, size: int, number: int) -> bool:
    """Whether along this axis every window has a tap on the map: taps further apart than the map is long can miss it."""
    first = torch.arange(number) * window.stride[axis] - window.padding[2 * axis]
    taps = first[:, None] + torch.arange(window.kernel[axis]) * window.dilation[axis]
    return bool(((taps >= 0) & (taps < size)).any(1).all())
