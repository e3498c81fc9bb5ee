"""Memory: whether this machine can hold a model, found before one is built.

    bytes = 4 * copies * weights        copies: 1 to use a model, 4 to train it (weights, gradient, and Adam's two moments)

The weights are counted on torch's meta device, where tensors have shapes and no content.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

TRAINING = 4  # copies
_UNKNOWN = 1 << 40  # bytes


def refuse_beyond_memory(name: str, build: Callable[[], nn.Module], copies: int = 1) -> None:
    """Raise ValueError where the weights of what `build` makes would not fit."""
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in build().parameters())
    needed, limit = 4 * copies * weights, memory()
    if needed > limit:
        what = "to train it" if copies > 1 else "for the weights alone"
        raise ValueError(
            f"model {name!r}: {weights:,} weights need {needed / 2**30:,.1f} GiB of memory {what}, and there are {limit / 2**30:,.1f}. "
            "Take smaller sizes."
        )


def memory() -> int:
    """Bytes of memory that this process may have: the machine's, or what its container allows."""
    limits = []
    with suppress(AttributeError, ValueError, OSError):  # no such question on Windows
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ValueError, OSError):  # no container, or one without a limit ("max")
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits, default=_UNKNOWN)
