"""Direction and depth: layers on top of each other, directions beside each other.     L layers, S directions

    forward    y_t has read x_1 .. x_t                       run(x)
    reverse    y_t has read x_T .. x_t                       flip(run(flip(x)))
    layer l    reads [forward ; reverse] of layer l-1, after what lies between the layers (dropout)

The state of layer l and direction s has the place l S + s.
Schuster and Paliwal, "Bidirectional recurrent neural networks", IEEE Transactions on Signal Processing 45(11), 1997
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Shape(NamedTuple):
    """L and S."""

    layers: int
    directions: int

    @property
    def places(self) -> int:
        return self.layers * self.directions


def stacked(
    run: Callable[..., Any], x_TBD: Tensor, initial: tuple[Tensor, ...], shape: Shape, between: Callable[[Tensor], Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(y_TBU, final state): `run(place, x_TBD, state)` returns (y, *state) of one layer in one direction.

    initial: the state's tensors (L*S, B, U); y has the S directions of the last layer side by side.
    """
    final: list[tuple[Tensor, ...]] = []
    y_TBU = x_TBD
    for layer in range(shape.layers):
        x_TBD = between(y_TBU) if layer else x_TBD
        sides = []
        for direction in range(shape.directions):
            place = layer * shape.directions + direction
            state = tuple(part[place] for part in initial)
            y, *last = run(place, x_TBD.flip(0), state) if direction else run(place, x_TBD, state)
            sides.append(y.flip(0) if direction else y)
            final.append(tuple(last))
        y_TBU = torch.cat(sides, dim=-1) if shape.directions > 1 else sides[0]
    return y_TBU, tuple(torch.stack(part) for part in zip(*final, strict=True))
