"""What every compiled kernel asks of its input before it can serve, and the numbers that tell it where windows lie."""

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


def stranger(*tensors: Tensor | None, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> str:
    """Why a kernel cannot take these tensors, or '': plain, of these dtypes, on the CPU, and nobody but autograd is watching."""
    if not kernels.available():
        return kernels.reason()
    for x in tensors:
        if x is None:
            continue
        if type(x) is not Tensor and type(x) is not Parameter:
            return f"needs a plain tensor, not {type(x).__name__}"
        if x.dtype not in dtypes or not x.is_cpu:
            wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            return f"needs {wanted} on the CPU, not {str(x.dtype).removeprefix('torch.')} on {x.device}"
    if forward_ad._current_level >= 0 or torch._C._get_tracing_state() is not None:
        return "cannot be seen by forward-mode differentiation or by torch.jit.trace"
    return ""


def obstacle(*tensors: Tensor | None, last: bool = False) -> str:
    """Why a kernel cannot take these tensors, or '': as above, and contiguous.

    last: whether the kernel also takes maps that lie channels last.
    """
    for x in tensors:
        if x is not None and not x.is_contiguous() and not (last and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
            return stranger(*tensors) or "needs a contiguous map in the order (B, C, H, W)" + (", or channels last" if last else "")
    return stranger(*tensors)


@lru_cache(maxsize=1024)  # a net asks for the same few with every batch
def geometry(window: Window, height: int, width: int) -> tuple[int, ...]:
    """P Q kh kw sh sw top left dh dw, as the compiled forms want them."""
    top, _, left, _ = window.padding
    return (*window.output_size((height, width)), *window.kernel, *window.stride, top, left, *window.dilation)
