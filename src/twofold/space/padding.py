"""Padding that continues the map: by its mirror image, by its edge, or from the other side.

B images, C channels, H W map, top bottom left right rows and columns added; source(h) is the row that row h shows

reflect      source(h) = |h|, mirrored likewise at the last row; the edge is not repeated          ... 2 1 | 0 1 2 ...
replicate    source(h) = the nearest row of the map                                                ... 0 0 | 0 1 2 ...
circular     source(h) = h modulo H                                                            ... H-2 H-1 | 0 1 2 ...
forward      y[b,c,h,w] = x[b,c,source(h),source(w)]           h from -top to H + bottom, w from -left to W + right
backward     dx[b,c,h,w] = sum of dy over all that show (h,w)

Aghdasi and Ward, "Reduction of boundary artifacts in image restoration", IEEE Transactions on Image Processing 5(4), 1996
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.layers.differentiable import differentiable

MODES = ("reflect", "replicate", "circular")

Sides = tuple[int, int, int, int]


class Saved(NamedTuple):
    """What backward needs."""

    rows: Tensor
    columns: Tensor
    size: tuple[int, int]


def forward(x_BCHW: Tensor, sides: Sides, mode: str) -> tuple[Tensor, Saved]:
    """The map with `sides` (top, bottom, left, right) added."""
    height, width = x_BCHW.shape[2:]
    rows = source(height, sides[0], sides[1], mode, x_BCHW.device)
    columns = source(width, sides[2], sides[3], mode, x_BCHW.device)
    return x_BCHW.index_select(2, rows).index_select(3, columns), Saved(rows, columns, (height, width))


def backward(dy_BCHW: Tensor, saved: Saved) -> Tensor:
    """dx_BCHW"""
    batch, channels, framed_height, _ = dy_BCHW.shape
    narrow = dy_BCHW.new_zeros((batch, channels, framed_height, saved.size[1])).index_add(3, saved.columns, dy_BCHW)
    return dy_BCHW.new_zeros((batch, channels, *saved.size)).index_add(2, saved.rows, narrow)


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


def expect_room(who: str, size: tuple[int, int], sides: Sides, mode: str) -> None:
    """Raise ValueError where the map has too few rows or columns to continue it that far."""
    for axis, length, most in (("rows", size[0], max(sides[:2])), ("columns", size[1], max(sides[2:]))):
        needed = most + 1 if mode == "reflect" else most
        if mode != "replicate" and length < needed:
            raise ValueError(
                f'{who}: padding of {most} {axis} in mode "{mode}" needs maps of at least {needed} {axis}, got {length}. '
                'Pad less, or use padding_mode="replicate".'
            )


def vendor(x_BCHW: Tensor, sides: Sides, mode: str) -> Tensor:
    """PyTorch's own."""
    top, bottom, left, right = sides
    return F.pad(x_BCHW, (left, right, top, bottom), mode)


pad2d = differentiable(forward, backward, vendor=vendor)
