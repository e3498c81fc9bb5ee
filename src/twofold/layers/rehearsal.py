"""A rehearsal: a pass that computes what training would, but drops nothing at random and leaves the model as it was.

Batch normalisation acts by the batch, as in training, and its running statistics are put back; every other layer is in evaluation mode.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


@contextmanager
def rehearsing(model: nn.Module) -> Iterator[None]:
    """A block in which the model rehearses. Whatever happens in it, every layer then has its mode and its buffers again."""
    modes = {part: part.training for part in model.modules()}
    buffers = [
        (part, name, kept.clone()) for part in modes for name, kept in part.named_buffers(recurse=False) if isinstance(part, _NormBase)
    ]
    for part in modes:
        part.training = part.training and isinstance(part, _NormBase)
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        with torch.no_grad():
            for part, name, kept in buffers:
                part.get_buffer(name).copy_(kept)
