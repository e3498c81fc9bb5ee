"""Max pooling of float32 maps, compiled (cpu/max_pool.h, cpu/channels_last.h): the law of space/max_pooling.py, bit for bit.

Maps that lie channels last are pooled as they lie, and so do the results.
"""

import torch
from torch import Tensor

from twofold.kernels.fit import Window, geometry, obstacle


def unfit(x_BCHW: Tensor, window: Window) -> str:
    """Why the compiled form cannot serve this input, or ''."""
    return obstacle(x_BCHW, last=True)


def forward(x_BCHW: Tensor, window: Window, winner_type: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """(y_BCPQ, winner_BCPQ); winner_type is uint8 or int32, None where nobody wants the winners (they are empty then)."""
    tap_bytes = 0 if winner_type is None else winner_type.itemsize
    pool = torch.ops.twofold.max_pool2d if x_BCHW.is_contiguous() else torch.ops.twofold.max_pool2d_last
    y, winner = pool.default(x_BCHW, geometry(window, x_BCHW.shape[2], x_BCHW.shape[3]), tap_bytes)
    return y, winner


def backward(dy_BCPQ: Tensor, winner_BCPQ: Tensor, window: Window, size: tuple[int, int]) -> Tensor:
    """dx_BCHW, in the layout of the winners."""
    numbers = geometry(window, *size)
    if winner_BCPQ.is_contiguous():
        dx: Tensor = torch.ops.twofold.max_pool2d_backward.default(dy_BCPQ.contiguous(), winner_BCPQ, numbers, *size)
    else:
        dy = dy_BCPQ.contiguous(memory_format=torch.channels_last)
        dx = torch.ops.twofold.max_pool2d_last_backward.default(dy, winner_BCPQ, numbers, *size)
    return dx
