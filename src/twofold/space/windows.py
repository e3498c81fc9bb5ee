"""Windows that slide over maps: the geometry that convolution and pooling share.

    B images, C channels, H W map, P Q windows, K = kh kw taps (tap k = i kw + j), stride sh sw, dilation dh dw

    tap (i,j) of window (p,q) lies on      h = p sh - top + i dh                 w = q sw - left + j dw
    windows along an axis                  P = floor((H + top + bottom - dh (kh - 1) - 1) / sh) + 1
    ceil                                   rounds up instead; the last window still begins inside the map or the padding before it
    unfold (im2col)                        columns[b,c,k,p,q] = x[b,c,h,w], and `fill` where (h,w) is padding
    fold (col2im), its adjoint             x[b,c,h,w] = sum of columns[b,c,k,p,q] over all (k,p,q) that lie on (h,w)

Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, relationships 6 and 15
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LIMIT = 2**31 - 1  # beyond it products of sizes overflow in the operators below: wrong numbers, or worse


@dataclass(frozen=True)
class Window:
    """Taps (rows, columns), the steps between windows, the padding (top, bottom, left, right) and the steps between taps.

    Raises ValueError for anything but whole numbers, for padding below 0 and for the others below 1.

    >>> Window((3, 3), stride=(2, 2), padding=(1, 1, 1, 1)).output_size(224, 224)
    (112, 112)
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil: bool = False

    def __post_init__(self) -> None:
        for name, count, least in (("kernel", 2, 1), ("stride", 2, 1), ("padding", 4, 0), ("dilation", 2, 1)):
            object.__setattr__(self, name, whole_numbers("Window", name, getattr(self, name), count, least))

    @property
    def taps(self) -> int:
        """K"""
        return self.kernel[0] * self.kernel[1]

    def output_size(self, height: int, width: int, who: str = "Window") -> tuple[int, int]:
        """(P, Q), or ValueError where the map is empty or the kernel does not fit into the padded map."""
        top, bottom, left, right = self.padding
        rows = windows_along(height, top + bottom, top, self.kernel[0], self.stride[0], self.dilation[0], self.ceil)
        columns = windows_along(width, left + right, left, self.kernel[1], self.stride[1], self.dilation[1], self.ceil)
        if height < 1 or width < 1:
            raise ValueError(f"{who}: expected maps of at least 1x1, got {height}x{width}.")
        if rows < 1 or columns < 1:
            spread = [dilation * (taps - 1) + 1 for taps, dilation in zip(self.kernel, self.dilation, strict=True)]
            dilated = f" (dilated {spread[0]}x{spread[1]})" if self.dilation != (1, 1) else ""
            raise ValueError(
                f"{who}: the kernel {self.kernel[0]}x{self.kernel[1]}{dilated} does not fit into the padded map "
                f"{height + top + bottom}x{width + left + right} (map {height}x{width}, padding {top}+{bottom} rows, "
                f"{left}+{right} columns). Use larger maps, more padding, or fewer layers that shrink the map before this one."
            )
        return rows, columns

    def frame(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(left, right, top, bottom), in the order of F.pad: what must be added to the map so that it holds all windows."""
        rows, columns = self.output_size(height, width)
        top, _, left, _ = self.padding
        covered_rows = (rows - 1) * self.stride[0] + self.dilation[0] * (self.kernel[0] - 1) + 1
        covered_columns = (columns - 1) * self.stride[1] + self.dilation[1] * (self.kernel[1] - 1) + 1
        return left, max(covered_columns - width - left, 0), top, max(covered_rows - height - top, 0)

    def cuts(self, rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
        """For each tap, in order, where it lies in the framed map as the window takes its (rows, columns) steps."""
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                h, w = i * self.dilation[0], j * self.dilation[1]
                last_h, last_w = h + (rows - 1) * self.stride[0], w + (columns - 1) * self.stride[1]
                yield slice(h, last_h + 1, self.stride[0]), slice(w, last_w + 1, self.stride[1])


def windows_along(size: int, padding: int, before: int, taps: int, stride: int, dilation: int, ceil: bool) -> int:
    """P, the number of windows along one axis; below 1 where none fits."""
    room = size + padding - dilation * (taps - 1) - 1
    if not ceil:
        return room // stride + 1
    return min(-(-room // stride) + 1, -(-(size + before) // stride))


def unfold(x_BCHW: Tensor, window: Window, fill: float = 0) -> Tensor:
    """columns_BCKPQ: for every tap, what it sees from every window."""
    rows, columns = window.output_size(*x_BCHW.shape[2:])
    framed = F.pad(x_BCHW, window.frame(*x_BCHW.shape[2:]), value=fill)
    return torch.stack([framed[:, :, h, w] for h, w in window.cuts(rows, columns)], 2)


def fold(columns_BCKPQ: Tensor, window: Window, size: tuple[int, int]) -> Tensor:
    """x_BCHW of the given size (H, W): every pixel receives the sum of what lies on it."""
    left, right, top, bottom = window.frame(*size)
    framed = columns_BCKPQ.new_zeros((*columns_BCKPQ.shape[:2], size[0] + top + bottom, size[1] + left + right))
    cuts = list(window.cuts(*columns_BCKPQ.shape[3:]))
    for k in reversed(range(window.taps)):  # so a pixel adds up its windows in reading order, as a loop over the outputs does
        framed[:, :, cuts[k][0], cuts[k][1]] += columns_BCKPQ[:, :, k]
    return F.pad(framed, (-left, -right, -top, -bottom))


def whole_numbers(who: str, name: str, value: Any, count: int, least: int) -> tuple[int, ...]:
    """`count` whole numbers from one (for all) or from `count` of them; ValueError for anything else."""
    given = value if isinstance(value, (tuple, list)) else (value,) * count
    right = all(isinstance(n, Integral) and not isinstance(n, bool) and least <= int(n) <= LIMIT for n in given)
    if len(given) != count or not right:
        number = "two" if count == 2 else str(count)
        raise ValueError(f"{who}: expected {name} to be one whole number or {number}, from {least} to {LIMIT}, got {value!r}.")
    return tuple(int(n) for n in given)


def remember(layer: nn.Module, settings: tuple[Any, ...], make: Callable[..., Window]) -> Window:
    """The layer's window, made anew only when one of its settings has been changed since the last call."""
    known = layer.__dict__.get("_window")
    if known is None or known[0] != settings:
        known = layer.__dict__["_window"] = (settings, make(*settings))
    window: Window = known[1]
    return window
