"""PyTorch's operator in other forms: another layout in memory, and, where the user permits it, less precision.

    vendor channels last       tensors of 4 and 5 axes are laid out with the channels innermost, weights too; the result is left so
    vendor channels first      the same the other way, for a map that comes with its channels innermost
    vendor bf16                float32 tensors are rounded to bfloat16, the result is widened to float32 again
    vendor bf16 channels ...   both

bfloat16 keeps 8 binary digits of float32's 24: every rounded number is off by up to 2^-9 of itself. Products are summed in float32.

Kalamkar et al., "A study of bfloat16 for deep learning training", arXiv:1905.12322
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twofold.kernels.convolution import reduced_unfit
from twofold.layers.choices import processor

PRECISIONS = ("full", "bf16")
FIRST: dict[int, torch.memory_format] = {4: torch.contiguous_format, 5: torch.contiguous_format}
LAST: dict[int, torch.memory_format] = {4: torch.channels_last, 5: torch.channels_last_3d}

_permitted: ContextVar[str] = ContextVar("precision", default="full")


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Within the block, or the function that it decorates, `auto` may compute float32 layers in this precision: "bf16" or "full".

    It does so where that is measured to be the faster (measured.py). What comes out has the dtype of the input, gradients have that of what
    they belong to, and `layer.last_route` says "vendor bf16". Without permission nothing is computed in less precision than its input has.
    Input that is no float32, and the inside of torch.autocast, are left as they are.

    >>> import torch, twofold
    >>> from twofold import nn
    >>> with twofold.precision("bf16"):
    ...     nn.Linear(3, 2)(torch.ones(1, 3)).dtype
    torch.float32
    """
    if name not in PRECISIONS:
        raise ValueError(f'precision: expected "bf16" (auto may round float32 to bfloat16) or "full" (it may not), got {name!r}.')
    token = _permitted.set(name)
    try:
        yield
    finally:
        _permitted.reset(token)


def bf16_permitted() -> bool:
    """Whether the innermost `with precision(...)` permits bfloat16."""
    return _permitted.get() == "bf16"


def bf16_autocast() -> bool:
    """Whether torch.autocast asks for bfloat16 on the CPU."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def bf16_ours() -> bool:
    """Whether our kernels' products of bfloat16 are the fastest of that kind here: those of AVX512_BF16, where there is no AMX.

    oneDNN's by AMX are several times as fast.
    """
    return not reduced_unfit() and not _processor_has("amx_bf16")


def bf16_faster() -> bool:
    """Whether products of bfloat16 are known to be faster here than those of float32: by AMX, or AVX512_BF16 that is not Intel's.

    AMD's Zen 4 does twice as many in a second, Intel's Emerald Rapids half as many where AMX is not to be had (bench/resnet_layers.py).
    """
    return _processor_has("amx_bf16") or (_processor_has("avx512_bf16") and "Intel" not in processor())


def _processor_has(feature: str) -> bool:
    asked: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)  # older torch has it not
    return bool(asked().get(feature, False))


class Form(NamedTuple):
    """A way to hand tensors to the operator: the memory format for each number of axes, and whether to round."""

    layouts: dict[int, torch.memory_format]
    reduced: bool


FORMS = {
    "vendor channels last": Form(LAST, False),
    "vendor channels first": Form(FIRST, False),
    "vendor bf16": Form({}, True),
    "vendor bf16 channels last": Form(LAST, True),
    "vendor bf16 channels first": Form(FIRST, True),
}


def forms_of(arguments: tuple[Any, ...], layouts: bool, reduced: bool) -> list[str]:
    """The forms in which these arguments could be computed, in the other layout and, where `reduced`, with less precision."""
    x = next((a for a in arguments if isinstance(a, Tensor) and a.is_floating_point()), None)
    if x is None:
        return []
    other = "" if not layouts or x.dim() not in LAST else " channels first" if layout_of(x) == "last" else " channels last"
    names = ["vendor" + other] if other else []
    if reduced and all(a.dtype == torch.float32 for a in arguments if isinstance(a, Tensor) and a.is_floating_point()) and _has_bf16(x):
        names += ["vendor bf16", f"vendor bf16{other}"] if other else ["vendor bf16"]
    return names


def by_form(name: str, vendor: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What the operator makes of the arguments in this form. Gradients flow back through the conversions."""
    form = FORMS[name]
    y = vendor(*(_converted(a, form) if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments))
    return _widened(y) if form.reduced else y


def layout_of(x: Tensor) -> str:
    """How the numbers lie in memory: "first" (row-major: channels outside), "last" (channels innermost) or "strided" (neither)."""
    if x.is_contiguous():
        return "first"
    return "last" if x.dim() in LAST and x.is_contiguous(memory_format=LAST[x.dim()]) else "strided"


def _converted(x: Tensor, form: Form) -> Tensor:
    layout = form.layouts.get(x.dim(), torch.preserve_format)
    return x.to(dtype=torch.bfloat16 if form.reduced and x.dtype == torch.float32 else x.dtype, memory_format=layout)


def _widened(y: Any) -> Any:
    if isinstance(y, tuple):
        return tuple(map(_widened, y))
    return y.float() if isinstance(y, Tensor) and y.dtype == torch.bfloat16 else y


def _has_bf16(x: Tensor) -> bool:
    """Whether bfloat16 is more than an emulation here; without AVX-512 oneDNN hands it to code that is tens of times slower."""
    if x.device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "NO AVX", "AVX2")
