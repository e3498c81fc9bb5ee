"""A recurrent layer with its directions over all its steps, compiled (cpu/recurrence.h): a node of autograd by itself.

T steps, B rows, D input features, U units, S directions, G = gates * U.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from twofold.kernels.convolution import reduced_unfit as reduced_unfit
from twofold.kernels.fit import stranger

KINDS = ("tanh", "relu", "gru", "lstm", "coupled")
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "peephole", "norm_ih", "norm_hh", "norm_c", "norm_c_bias")  # in the order of cpu/
Zone = Tensor | float | None


def unfit(x_TBD: Tensor, state: Sequence[Tensor], weights: Sequence[Any], lengths_B: Tensor | None = None) -> str:
    """Why the compiled form cannot serve, or ''. `weights`: a named tuple for each direction, some of whose fields are PARTS."""
    for parts in weights:
        for name, weight in zip(parts._fields, parts, strict=True):
            if weight is not None and name not in PARTS:
                return f"has no {name}"
    if any((getattr(parts, "norm_ih", None) is None) != (getattr(parts, "norm_hh", None) is None) for parts in weights):
        return "needs both norms or none"
    if lengths_B is not None and not lengths_B.is_cpu:
        return f"needs lengths on the CPU, not on {lengths_B.device}"
    return stranger(x_TBD, *state, *(weight for parts in weights for weight in parts))


def recur(
    kind: str,
    x_TBD: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Any],
    lengths_B: Tensor | None = None,
    masks: Sequence[Tensor | None] = (),
    zones: Sequence[Sequence[Zone]] = (),
    reduced: bool = False,
) -> tuple[Tensor, ...]:
    """(y_TBR, *state after each row's own last step), R = S U.

    kind: of KINDS. state: h and, for an LSTM, c, each (S, B, U). masks: factors (B, U) on h wherever it enters a product, one a direction.
    zones: the share of the old value that stays, (T, B, U) or a number, for each tensor of the state, one set a direction; numbers are the
    same in all directions. reduced: products of bfloat16, summed in float32.
    """
    parts, noise, shares = [], [], [0.0, 0.0]
    for s, given in enumerate(weights):
        parts += [None if (weight := getattr(given, name, None)) is None else weight.contiguous() for name in PARTS]
        drawn: list[Tensor | None] = [None if not masks or (mask := masks[s]) is None else mask.contiguous(), None, None]
        for place, zone in enumerate(zones[s] if zones else ()):
            if isinstance(zone, Tensor):
                drawn[1 + place] = zone.contiguous()
            elif zone:
                shares[place] = float(zone)
        noise += drawn
    if lengths_B is not None:
        lengths_B = lengths_B.contiguous()
    initial = [part.contiguous() for part in state]
    recurrence = torch.ops.twofold.recurrence.default
    return tuple(recurrence(x_TBD.contiguous(), lengths_B, initial, parts, noise, *shares, KINDS.index(kind), reduced))


def stream(kind: str, state: Sequence[Tensor], weights: Sequence[Any], shares: Sequence[float] = ()) -> Any:
    """A stack of one direction that is fed piece by piece, on memory that it holds: y_TBU = push(x_TBD), state().

    state: h and, for an LSTM, c, each (L, B, U), of which it keeps copies; weights: for each layer, read anew at each push.
    shares: zoneout's share of the old value for each tensor of the state, or none.
    """
    parts = [getattr(given, name, None) for given in weights for name in PARTS]
    initial = [part.detach().contiguous() for part in state]
    return torch.classes.twofold.RecurrenceStream(KINDS.index(kind), initial, parts, *(*shares, 0.0, 0.0)[:2])
