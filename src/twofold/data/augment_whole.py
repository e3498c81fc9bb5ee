"""Moving by whole pixels: flip, shift and crop without a sum or a product, so every value stays what it was.     sx, sy: 1, or -1 flipped

    y[b,c,p,q] = x[b,c, row(p), column(q)]          column(q) = (q, or W-1-q where flipped) - dx[b];   row(p) likewise
    zeros      what lies outside is `fill`          reflect   a mirror stands on the middle of the outermost pixels: -1 -> 1, W -> W-2

`gather` is the law, on any device. `windows` is the same for the processor: the padded batch is seen as all its windows of H x W, the
one wanted of each sample is copied row by row, and the flipped ones are turned in place.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.augment_geometry import Moves

EDGES = ("zeros", "reflect")
LARGE = 1 << 14  # bytes of a picture from which turning one at a time is faster than all in one indexing


def move_whole(x_BCHW: Tensor, moves: Moves, edge: str, fill: float = 0) -> Tensor:
    """The pictures, or masks, moved. `moves` has only flips and whole shifts. A new tensor of the same type."""
    return windows(x_BCHW, moves, edge, fill) if x_BCHW.device.type == "cpu" else gather(x_BCHW, moves, edge, fill)


def gather(x_BCHW: Tensor, moves: Moves, edge: str, fill: float = 0) -> Tensor:
    """The law, place by place."""
    B, _, H, W = x_BCHW.shape
    row_BH = _places(H, moves.down_B, moves.shift_B2[:, 1])
    column_BW = _places(W, moves.across_B, moves.shift_B2[:, 0])
    inside = ((row_BH >= 0) & (row_BH < H))[:, None, :, None] & ((column_BW >= 0) & (column_BW < W))[:, None, None, :]
    rows, columns = (torch.from_numpy(part).to(x_BCHW.device) for part in (mirrored(row_BH, H), mirrored(column_BW, W)))
    samples = torch.arange(B, device=x_BCHW.device)[:, None, None]
    y_BCHW = x_BCHW.movedim(1, -1)[samples, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()
    return y_BCHW if edge == "reflect" else y_BCHW.masked_fill_(~torch.from_numpy(inside).to(x_BCHW.device), fill)


def windows(x_BCHW: Tensor, moves: Moves, edge: str, fill: float = 0) -> Tensor:
    """The same by copying rows; on the processor."""
    _, _, H, W = x_BCHW.shape
    reach_2 = np.abs(moves.shift_B2).max(0, initial=0)
    if reach_2.any():
        padded = _pad(x_BCHW.numpy(), (int(reach_2[1]), int(reach_2[0])), edge, fill)
        seen = np.lib.stride_tricks.sliding_window_view(padded, (H, W), axis=(2, 3))
        left_B, top_B = (reach_2 - moves.shift_B2).T
        y_BCHW = torch.from_numpy(seen[np.arange(len(x_BCHW)), :, top_B, left_B])
    else:
        y_BCHW = x_BCHW.clone(memory_format=torch.contiguous_format)
    for turned_B, axis in ((moves.across_B, -1), (moves.down_B, -2)):
        _flip(y_BCHW, np.flatnonzero(turned_B), axis)
    return y_BCHW


def mirrored(places: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Each place on an axis of `side` pixels, folded back inside by mirrors on the middles of the outermost pixels.

    >>> mirrored(np.array([-2, -1, 0, 3, 4, 5]), 4).tolist()
    [2, 1, 0, 3, 2, 1]
    """
    period = max(2 * (side - 1), 1)
    folded = places % period
    return np.minimum(folded, period - folded) if side > 1 else np.zeros_like(places)


def _places(side: int, turned_B: NDArray[np.bool_], shift_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """(B, side) where each pixel comes from, be it outside."""
    ahead = np.arange(side)
    return np.where(turned_B[:, None], ahead[::-1], ahead) - shift_B[:, None]


def _pad(x_BCHW: NDArray[np.generic], reach: tuple[int, int], edge: str, fill: float) -> NDArray[np.generic]:
    """The batch with so many rows above and below, and columns left and right."""
    B, C, H, W = x_BCHW.shape
    down, across = reach
    if edge == "reflect":
        return x_BCHW[:, :, mirrored(np.arange(-down, H + down), H)][:, :, :, mirrored(np.arange(-across, W + across), W)]
    shape = (B, C, H + 2 * down, W + 2 * across)
    padded = np.full(shape, fill, x_BCHW.dtype) if fill else np.zeros(shape, x_BCHW.dtype)
    padded[:, :, down : down + H, across : across + W] = x_BCHW
    return padded


def _flip(y_BCHW: Tensor, chosen: NDArray[np.int64], axis: int) -> None:
    """Turn the chosen samples in place."""
    if not len(chosen):
        return
    if y_BCHW[0].numel() * y_BCHW.element_size() >= LARGE:
        for sample in chosen.tolist():
            y_BCHW[sample] = y_BCHW[sample].flip(axis)
    else:
        values = y_BCHW.numpy()
        values[chosen] = np.flip(values[chosen], axis)
