"""Padding: how much, in numbers or in words, and what the rows beyond the map show.

B images, C channels, H all axes of the map, before and after: what is added to an axis of length n; source(h) is the row that row h shows

reflect      source(h) = |h|, mirrored likewise at the last row; the edge is not repeated          ... 2 1 | 0 1 2 ...
replicate    source(h) = the nearest row of the map                                                ... 0 0 | 0 1 2 ...
circular     source(h) = h modulo n                                                            ... n-2 n-1 | 0 1 2 ...
forward      y[b,c,h] = x[b,c,source(h)]            h from -before to n + after, along every axis
backward     dx[b,c,h] = sum of dy over all that show h

In words, for k taps with dilation d and stride s:
valid        none: every window lies inside the map
same         d (k - 1) in all, the odd one after: P = ceil(n / s), and what a tap sees does not depend on n (torch's convention)
same_upper   max((ceil(n / s) - 1) s + d (k - 1) + 1 - n, 0) in all, the odd one after: as TensorFlow and Keras do
same_lower   likewise, the odd one before (auto_pad SAME_LOWER in ONNX)
full         d (k - 1) on both sides: every window that sees anything of the map

Aghdasi and Ward, "Reduction of boundary artifacts in image restoration", IEEE Transactions on Image Processing 5(4), 1996;
Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, 2016, section 2
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.layers.differentiable import differentiable
from twofold.space.windows import whole_numbers

MODES = ("reflect", "replicate", "circular")
WORDS = ("valid", "same", "same_upper", "same_lower", "full")
BY_SIZE = ("same_upper", "same_lower")  # these depend on the size of the map


class Saved(NamedTuple):
    """What backward needs: along each axis the row that every row shows, and the length of the axis."""

    sources: tuple[Tensor, ...]
    size: tuple[int, ...]


def forward(x_BCH: Tensor, sides: tuple[int, ...], mode: str) -> tuple[Tensor, Saved]:
    """The map with `sides` (before, after; for each axis) added."""
    size = tuple(x_BCH.shape[2:])
    sources = tuple(source(n, sides[2 * axis], sides[2 * axis + 1], mode, x_BCH.device) for axis, n in enumerate(size))
    for axis, rows in enumerate(sources):
        x_BCH = x_BCH.index_select(2 + axis, rows)
    return x_BCH, Saved(sources, size)


def backward(dy_BCH: Tensor, saved: Saved) -> Tensor:
    """dx_BCH"""
    for axis in reversed(range(len(saved.size))):
        shape = [*dy_BCH.shape]
        shape[2 + axis] = saved.size[axis]
        dy_BCH = dy_BCH.new_zeros(shape).index_add(2 + axis, saved.sources[axis], dy_BCH)
    return dy_BCH


def source(size: int, before: int, after: int, mode: str, device: torch.device | None = None) -> Tensor:
    """For every row of the padded axis the row of the map that it shows.

    >>> source(4, 2, 2, "reflect").tolist(), source(4, 2, 2, "replicate").tolist(), source(4, 2, 2, "circular").tolist()
    ([2, 1, 0, 1, 2, 3, 2, 1], [0, 0, 0, 1, 2, 3, 3, 3], [2, 3, 0, 1, 2, 3, 0, 1])
    """
    place = torch.arange(-before, size + after, device=device)
    if mode == "reflect":
        return size - 1 - (size - 1 - place.abs()).abs()
    if mode == "replicate":
        return place.clamp(0, size - 1)
    return place % size


def vendor(x_BCH: Tensor, sides: tuple[int, ...], mode: str) -> Tensor:
    """PyTorch's own."""
    return F.pad(x_BCH, last_first(sides), mode)


pad = differentiable(forward, backward, vendor=vendor)


def last_first(sides: Sequence[int]) -> tuple[int, ...]:
    """The sides in the order of F.pad: the last axis first.

    >>> last_first((1, 2, 3, 4))
    (3, 4, 1, 2)
    """
    return tuple(side for axis in reversed(range(len(sides) // 2)) for side in sides[2 * axis : 2 * axis + 2])


def sides_of(
    who: str,
    padding: Any,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    size: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """(before, after; for each axis) from one number, one per axis, one per side, pairs, or a word; `size` for the words of BY_SIZE.

    >>> sides_of("Conv2d", ((1, 2), (0, 3)), (3, 3), (1, 1), (1, 1)), sides_of("Conv2d", "same", (4, 3), (2, 2), (1, 1))
    ((1, 2, 0, 3), (1, 2, 1, 1))
    """
    axes = len(kernel)
    if isinstance(padding, str):
        if padding not in WORDS:
            words = ", ".join(f'"{word}"' for word in WORDS)
            raise ValueError(f"{who}: expected padding to be whole numbers or one of {words}, got {padding!r}.")
        return in_words(padding, size or (1,) * axes, kernel, stride, dilation)
    given = padding
    if isinstance(padding, (tuple, list)) and len(padding) == axes and all(isinstance(p, (tuple, list)) for p in padding):
        given = tuple(side for pair in padding for side in pair)
    if isinstance(given, (tuple, list)) and len(given) == 2 * axes:
        return whole_numbers(who, "padding", given, 2 * axes, 0)
    return tuple(side for side in whole_numbers(who, "padding", given, axes, 0) for _ in range(2))


def in_words(name: str, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """(before, after) of each axis.

    >>> in_words("same", [5], [2], [2], [1]), in_words("same_lower", [6], [2], [1], [1]), in_words("full", [6], [3], [1], [2])
    ((0, 1), (1, 0), (4, 4))
    """
    sides: list[int] = []
    for length, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        spread = d * (k - 1)
        needed = max((-(-length // s) - 1) * s + spread + 1 - length, 0)
        total = {"valid": 0, "same": spread, "full": 2 * spread}.get(name, needed)
        less, more = total // 2, total - total // 2
        sides += (more, less) if name == "same_lower" else (less, more)
    return tuple(sides)


def expect_room(who: str, size: Sequence[int], sides: Sequence[int], mode: str) -> None:
    """Raise ValueError where the map is too short along an axis to continue it that far."""
    for axis, length in enumerate(size):
        most = max(sides[2 * axis : 2 * axis + 2])
        needed = most + 1 if mode == "reflect" else most
        if mode != "replicate" and length < needed:
            raise ValueError(
                f'{who}: padding of {most} in mode "{mode}" needs maps of at least {needed} along axis {axis + 2}, got {length}. '
                'Pad less, or use padding_mode="replicate".'
            )
