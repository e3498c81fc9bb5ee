"""A stream that is under way: the compiled steps of a stack in one direction, on memory that is held from step to step.

A step of one row multiplies each weight once, so reading the weights is all its work, and every question that is asked again at each step
is felt. The layer is asked once, before the walk; `serves` then only sees that nothing has changed since: the same parameters (their
numbers may be others), the same route, no training, no rounding, nobody who listens.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from twofold.layers.forms import bf16_permitted
from twofold.layers.routes import traced, wanted_route


class Walk:
    """y = push(x) while serves(x) and y is there; state: what the layer would return, a copy."""

    def __init__(self, layer: nn.Module, names: Iterable[str], compiled: Any) -> None:
        """names: of the parameters that the steps read. compiled: kernels.recurrence.stream of the layer."""
        self._layer, self._stream, self._push = layer, compiled, compiled.push
        self._known = layer._parameters
        self._read = [(name, self._known[name]) for name in names]
        self._route, self._swapped = wanted_route(), bool(getattr(layer, "batch_first", False))

    def serves(self, x: Tensor) -> bool:
        """Whether the layer itself would do just this with the steps x."""
        layer, known = self._layer, self._known
        return (
            x.dtype is torch.float32
            and x.is_cpu
            and not layer.training
            and wanted_route() == self._route
            and all(known.get(name) is weight for name, weight in self._read)
            and not layer._forward_hooks
            and not layer._forward_pre_hooks
            and not bf16_permitted()
            and not torch.is_autocast_enabled("cpu")
            and not traced()
        )

    def push(self, x: Tensor) -> Tensor | None:
        """The outputs of the steps x, (k, B, D) or (B, k, D) with batch_first; None where the weights are of another form by now."""
        y: Tensor | None = self._push((x.transpose(0, 1) if self._swapped else x).contiguous())
        return y.transpose(0, 1) if y is not None and self._swapped else y

    @property
    def state(self) -> tuple[Tensor, ...]:
        """Each tensor (L, B, U)."""
        return tuple(self._stream.state())
