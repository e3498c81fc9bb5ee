"""Direction: how far the outputs of a layer look.     L layers, S directions, T steps, B rows

    forward    y_t has read x_1 .. x_t                       run(x)
    reverse    y_t has read x_T .. x_t                       flip(run(flip(x)))
    both       y_t = [forward ; reverse]; layer l reads those of layer l-1; the state of layer l, direction s has the place l S + s
    ahead      y_t has read x_e .. x_t, e = e(t) <= T        the last output of run(x_e, x_{e-1}, .., x_t)
               sliding: e = min(t + k, T)         chunked: e = the end of the k steps among which t is

The first two are the loop over time (recurrent), both together are one layer (layer). Ahead is here. What begins at the same step is
walked together: W windows of n steps, side by side, as so many rows. All sliding windows that see a row's end are one; with k >= T - 1
there is no other, and ahead is reverse.

Schuster and Paliwal, "Bidirectional recurrent neural networks", IEEE Transactions on Signal Processing 45(11), 1997; chunks: Zhang et
al., "Highway long short-term memory RNNs for distant speech recognition", ICASSP 2016 (latency-controlled BLSTM)
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Shape(NamedTuple):
    """L and S."""

    layers: int
    directions: int

    @property
    def places(self) -> int:
        return self.layers * self.directions


class Windows(NamedTuple):
    """W windows of n steps in each of B rows; all numbers count from 0."""

    end_WB: Tensor  # the step at which a window's walk starts; it walks back
    window_T: Tensor  # the window that holds the answer for step t
    steps: int  # n


def sliding(lengths_B: Tensor, T: int, ahead: int) -> Windows:
    """Step t sees the `ahead` steps after it: a window for every t, but one for all t that see the end."""
    t_T, steps = torch.arange(T, device=lengths_B.device), min(ahead + 1, T)
    window_T = t_T.clamp(max=T - steps)
    end_WB = torch.minimum(t_T[: T - steps + 1, None] + ahead, lengths_B - 1)
    return Windows(end_WB.clamp(min=0), window_T, steps)


def chunked(lengths_B: Tensor, T: int, size: int) -> Windows:
    """Step t sees the rest of its chunk of `size` steps; the last chunk of a row may be shorter."""
    window_T = torch.arange(T, device=lengths_B.device) // size
    end_WB = torch.minimum(window_T[::size, None] * size + size - 1, lengths_B - 1)
    return Windows(end_WB.clamp(min=0), window_T, min(size, T))


def read_ahead(run: Callable[[Tensor, int], Tensor], x_TBD: Tensor, windows: Windows) -> Tensor:
    """y_TBR of the reverse direction that sees no further than its windows.

    `run(x_nBD, W)` returns y of n steps and W*B rows, in the order in which it reads them: W copies of the rows, side by side.
    What is returned at and behind a row's end means nothing.
    """
    end_WB, window_T, n = windows
    (W, B), device = end_WB.shape, x_TBD.device
    t_T1, row_B = torch.arange(x_TBD.shape[0], device=device)[:, None], torch.arange(B, device=device)
    read_nWB = (end_WB - torch.arange(n, device=device)[:, None, None]).clamp(min=0)
    y_nMR = run(_pick(x_TBD, read_nWB * B + row_B).flatten(1, 2), W)
    walked_TB = (end_WB[window_T] - t_T1).clamp(min=0)
    return _pick(y_nMR, (walked_TB * W + window_T[:, None]) * B + row_B)


def _pick(x_TBD: Tensor, places: Tensor) -> Tensor:
    """x[t, b] for places t B + b. As a table's rows: the gradient of other indexing adds up row after row on one thread."""
    return F.embedding(places, x_TBD.flatten(0, 1))
