"""Windows that slide over maps of one, two or three axes: the geometry that convolution and pooling share.

    B images, C channels, K taps in row-major order. Along each axis: H the map, P the windows, k taps, stride s, dilation d.
    In the names of tensors H stands for all axes of the map and P for all axes of the windows: x_BCH, columns_BCKP

    tap i of window p lies on              h = p s - before + i d
    windows along an axis                  P = floor((H + before + after - d (k - 1) - 1) / s) + 1
    ceil                                   rounds up instead; the last window still begins inside the map or the padding before it
    unfold (im2col)                        columns[b,c,k,p] = x[b,c,h(p,k)], and `fill` where h(p,k) is padding
    fold (col2im), its adjoint             x[b,c,h] = sum of columns[b,c,k,p] over all (k,p) that lie on h

Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, relationships 6 and 15
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LIMIT = 2**31 - 1  # beyond it products of sizes overflow in the operators below: wrong numbers, or worse
LETTERS = {1: "T", 2: "H W", 3: "D H W"}  # what the axes of a map are called


@dataclass(frozen=True)
class Window:
    """Taps along each axis, the steps between windows, the padding (before, after; for each axis), the steps between taps.

    One number stands for all axes. Raises ValueError for anything but whole numbers, for padding below 0 and for the others below 1.

    >>> Window((3, 3), stride=(2, 2), padding=(1, 1, 1, 1)).output_size((224, 224))
    (112, 112)
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...] = (1,)
    padding: tuple[int, ...] = (0,)
    dilation: tuple[int, ...] = (1,)
    ceil: bool = False

    def __post_init__(self) -> None:
        axes = len(self.kernel) if isinstance(self.kernel, (tuple, list)) else 1
        for name, count, least in (("kernel", axes, 1), ("stride", axes, 1), ("padding", 2 * axes, 0), ("dilation", axes, 1)):
            given = getattr(self, name)
            one = given[0] if isinstance(given, (tuple, list)) and len(given) == 1 else given
            object.__setattr__(self, name, whole_numbers("Window", name, one, count, least))

    @property
    def axes(self) -> int:
        """The number of axes that the windows slide along."""
        return len(self.kernel)

    @property
    def taps(self) -> int:
        """K"""
        return prod(self.kernel)

    @property
    def spread(self) -> tuple[int, ...]:
        """How much of the map a window covers along each axis: d (k - 1) + 1."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def sides(self) -> list[tuple[int, int]]:
        """The padding (before, after) of each axis."""
        return list(zip(self.padding[::2], self.padding[1::2], strict=True))

    def output_size(self, size: Sequence[int], who: str = "Window") -> tuple[int, ...]:
        """The windows along each axis, or ValueError where the map is empty or the kernel does not fit into the padded map."""
        if min(size) < 1:
            raise ValueError(f"{who}: expected maps of at least {by([1] * self.axes)}, got {by(size)}.")
        counts = tuple(
            windows_along(length, before + after, before, k, s, d, self.ceil)
            for length, (before, after), k, s, d in zip(size, self.sides(), self.kernel, self.stride, self.dilation, strict=True)
        )
        if min(counts) < 1:
            dilated = f" (dilated {by(self.spread)})" if max(self.dilation) > 1 else ""
            padded = [length + before + after for length, (before, after) in zip(size, self.sides(), strict=True)]
            sides = ", ".join(f"{before}+{after}" for before, after in self.sides())
            raise ValueError(
                f"{who}: the kernel {by(self.kernel)}{dilated} does not fit into the padded map {by(padded)} (map {by(size)}, "
                f"padding {sides}). Use larger maps, more padding, or fewer layers that shrink the map before this one."
            )
        return counts

    def frame(self, size: Sequence[int]) -> tuple[int, ...]:
        """What must be added to the map so that it holds all windows, in the order of F.pad: the last axis first."""
        counts = self.output_size(size)
        added: list[int] = []
        for axis in reversed(range(self.axes)):
            before = self.padding[2 * axis]
            covered = (counts[axis] - 1) * self.stride[axis] + self.spread[axis]
            added += [before, max(covered - size[axis] - before, 0)]
        return tuple(added)

    def cuts(self, counts: Sequence[int]) -> Iterator[tuple[slice, ...]]:
        """For each tap, in order, where it lies in the framed map as the window takes its steps."""
        for tap in product(*(range(k) for k in self.kernel)):
            starts = [i * d for i, d in zip(tap, self.dilation, strict=True)]
            yield tuple(slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, counts, self.stride, strict=True))


def windows_along(size: int, padding: int, before: int, taps: int, stride: int, dilation: int, ceil: bool) -> int:
    """P, the number of windows along one axis; below 1 where none fits."""
    room = size + padding - dilation * (taps - 1) - 1
    if not ceil:
        return room // stride + 1
    return min(-(-room // stride) + 1, -(-(size + before) // stride))


def unfold(x_BCH: Tensor, window: Window, fill: float = 0) -> Tensor:
    """columns_BCKP: for every tap, what it sees from every window."""
    counts = window.output_size(x_BCH.shape[2:])
    framed = F.pad(x_BCH, window.frame(x_BCH.shape[2:]), value=fill)
    return torch.stack([framed[:, :, *cut] for cut in window.cuts(counts)], 2)


def fold(columns_BCKP: Tensor, window: Window, size: Sequence[int]) -> Tensor:
    """x_BCH of the given size: every pixel receives the sum of what lies on it."""
    added = window.frame(size)
    framed_size = [length + added[-2 * axis - 2] + added[-2 * axis - 1] for axis, length in enumerate(size)]
    framed = columns_BCKP.new_zeros((*columns_BCKP.shape[:2], *framed_size))
    cuts = list(window.cuts(columns_BCKP.shape[3:]))
    for k in reversed(range(window.taps)):  # so a pixel adds up its windows in reading order, as a loop over the outputs does
        framed[:, :, *cuts[k]] += columns_BCKP[:, :, k]
    return F.pad(framed, [-n for n in added])


def whole_numbers(who: str, name: str, value: Any, count: int, least: int) -> tuple[int, ...]:
    """`count` whole numbers from one (for all) or from `count` of them; ValueError for anything else."""
    given = value if isinstance(value, (tuple, list)) else (value,) * count
    right = all(isinstance(n, Integral) and not isinstance(n, bool) and least <= int(n) <= LIMIT for n in given)
    if len(given) != count or not right:
        numbers = "one whole number" if count == 1 else f"one whole number or {'two' if count == 2 else count}"
        raise ValueError(f"{who}: expected {name} to be {numbers}, from {least} to {LIMIT}, got {value!r}.")
    return tuple(int(n) for n in given)


def by(size: Sequence[int]) -> str:
    """A size as people write it.

    >>> by((3, 5))
    '3x5'
    """
    return "x".join(map(str, size))


def remember(layer: nn.Module, settings: tuple[Any, ...], make: Callable[..., Window]) -> Window:
    """The layer's window, made anew only when one of its settings has been changed since the last call."""
    known = layer.__dict__.get("_window")
    if known is None or known[0] != settings:
        known = layer.__dict__["_window"] = (settings, make(*settings))
    window: Window = known[1]
    return window
