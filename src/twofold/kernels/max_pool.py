"""Max pooling of float32 maps, compiled (cpu/max_pool.h): the law of space/max_pooling.py, bit for bit."""

from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from twofold import kernels


class Window(Protocol):
    """What a window must say."""

    @property
    def kernel(self) -> tuple[int, ...]: ...
    @property
    def stride(self) -> tuple[int, ...]: ...
    @property
    def padding(self) -> tuple[int, ...]: ...
    @property
    def dilation(self) -> tuple[int, ...]: ...
    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]: ...
    def __hash__(self) -> int: ...


def unfit(x_BCHW: Tensor, window: Window) -> str:
    """Why the compiled form cannot serve this input, or ''."""
    if not kernels.available():
        return kernels.reason()
    if type(x_BCHW) is not Tensor and type(x_BCHW) is not Parameter:
        return f"needs a plain tensor, not {type(x_BCHW).__name__}"
    if x_BCHW.dtype != torch.float32 or not x_BCHW.is_cpu:
        return f"needs float32 on the CPU, not {str(x_BCHW.dtype).removeprefix('torch.')} on {x_BCHW.device}"
    if not x_BCHW.is_contiguous():
        return "needs a contiguous map in the order (B, C, H, W)"
    if forward_ad._current_level >= 0 or torch._C._get_tracing_state() is not None:
        return "cannot be seen by forward-mode differentiation or by torch.jit.trace"
    return ""


def forward(x_BCHW: Tensor, window: Window, winner_type: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """(y_BCPQ, winner_BCPQ); winner_type is uint8 or int32, None where nobody wants the winners (they are empty then)."""
    tap_bytes = 0 if winner_type is None else winner_type.itemsize
    y, winner = torch.ops.twofold.max_pool2d.default(x_BCHW, geometry(window, x_BCHW.shape[2], x_BCHW.shape[3]), tap_bytes)
    return y, winner


def backward(dy_BCPQ: Tensor, winner_BCPQ: Tensor, window: Window, size: tuple[int, int]) -> Tensor:
    """dx_BCHW"""
    numbers = geometry(window, *size)
    dx: Tensor = torch.ops.twofold.max_pool2d_backward.default(dy_BCPQ.contiguous(), winner_BCPQ, numbers, *size)
    return dx


@lru_cache(maxsize=1024)  # a net asks for the same few with every batch
def geometry(window: Window, height: int, width: int) -> tuple[int, ...]:
    """P Q kh kw sh sw top left dh dw, as the compiled form wants them."""
    top, _, left, _ = window.padding
    return (*window.output_size((height, width)), *window.kernel, *window.stride, top, left, *window.dilation)
