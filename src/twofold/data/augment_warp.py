"""Moving between the pixels: the whole geometry in one resampling.     A: the backward map, d: the elastic displacement

    y[b,c,p'] = sum over the four pixels around p = A p' + d(p') of their values, weighed by how near they are      (bilinear)
    mask      the value of the pixel that p lies in, never a mixture                                                (nearest)

One resampling, however many transforms: each further one would blur. Outside lies zero (masks: `fill`), or a mirror as in augment_whole.
The work is done some pictures at a time, so that their numbers stay in the processor's cache.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.data.augment_elastic import Field
from twofold.data.augment_geometry import Moves

AT_A_TIME = 1 << 18  # values of a picture batch on the processor


def warp(
    x_BCHW: Tensor, masks_BHW: Tensor | None, moves: Moves, field: Field | None, edge: str, fill: int = 0
) -> tuple[Tensor, Tensor | None]:
    """The pictures, bilinear, in their own type, and the masks, nearest."""
    y_BCHW = torch.empty_like(x_BCHW, memory_format=torch.contiguous_format)
    moved_BHW = None if masks_BHW is None else torch.empty_like(masks_BHW, memory_format=torch.contiguous_format)
    map_B23 = moves.backward()
    for part in parts(x_BCHW):
        grid = _grid(map_B23[part], moves.size, edge).to(x_BCHW.device)
        if field is not None:
            field.add_to_(grid, part, _scales(moves.size, edge)[0])
        y_BCHW[part] = to_kind(_sample(x_BCHW[part].to(torch.float32), grid, "bilinear", edge), x_BCHW.dtype)
        if masks_BHW is not None and moved_BHW is not None:
            wide = masks_BHW[part, None].double() - fill  # exact for every label below 2^53
            moved_BHW[part] = (_sample(wide, grid.double(), "nearest", edge)[:, 0] + fill).to(masks_BHW.dtype)
    return y_BCHW, moved_BHW


def parts(x_BCHW: Tensor) -> Iterator[slice]:
    """The batch, some samples at a time."""
    count = max(1, AT_A_TIME // math.prod(x_BCHW.shape[1:])) if x_BCHW.device.type == "cpu" else len(x_BCHW)
    for first in range(0, len(x_BCHW), count):
        yield slice(first, first + count)


def to_kind(values: Tensor, kind: torch.dtype) -> Tensor:
    """Float values as pictures hold them: bytes rounded and kept within 0..255, floats within 0..1."""
    if kind == torch.uint8:
        return values.add_(0.5).clamp_(0, 255).to(torch.uint8)
    return values.clamp_(0, 1).to(kind)


def _scales(size: tuple[int, int], edge: str) -> tuple[np.ndarray, np.ndarray]:
    """(scale, offset) of (x, y) in pixels to what torch counts in: -1 and 1 are the edges, or where mirrors stand the outermost middles."""
    side_2 = np.array([size[1], size[0]], dtype=np.float64)
    if edge == "reflect":
        steps_2 = np.maximum(side_2 - 1, 1)
        return 2 / steps_2, -1 / steps_2 - 1
    return 2 / side_2, np.full(2, -1.0)


def _grid(map_b23: np.ndarray, size: tuple[int, int], edge: str) -> Tensor:
    """(b, H, W, 2) float32: where each pixel comes from."""
    H, W = size
    scale_2, offset_2 = _scales(size, edge)
    map_b23 = map_b23 * scale_2[:, None]
    map_b23[:, :, 2] += offset_2
    across, down = np.arange(W) + 0.5, np.arange(H) + 0.5
    along_bW2 = map_b23[:, None, :, 0] * across[None, :, None]
    along_bH2 = map_b23[:, None, :, 1] * down[None, :, None] + map_b23[:, None, :, 2]
    return torch.from_numpy(along_bH2.astype(np.float32))[:, :, None] + torch.from_numpy(along_bW2.astype(np.float32))[:, None]


def _sample(x_BCHW: Tensor, grid_BHW2: Tensor, mode: str, edge: str) -> Tensor:
    mirrors = edge == "reflect"
    return F.grid_sample(x_BCHW, grid_BHW2, mode, "reflection" if mirrors else "zeros", align_corners=mirrors)
