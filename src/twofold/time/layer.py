"""One layer of a recurrence, in one direction or in both.     T steps, B rows, D input features, U units, R outputs, S directions

    forward    y^s, s_T^s = the cell unrolled from s_0^s over x_1 .. x_T (recurrent); s = 2 reads x_T .. x_1
               y_t = [y_t^1 y_t^2]
    backward   dx, ds_0, dW of each direction: back-propagation through time, from its columns of dy and its ds_T
               dx = the sum over the directions, which read the same x

Written once for all cells: `recurrence(cell)` is the operation that the modules run, layer after layer (face).

Schuster and Paliwal, "Bidirectional recurrent neural networks", IEEE Transactions on Signal Processing 45(11), 1997
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twofold.kernels import recurrence as kernel
from twofold.kernels.recurrence import recur
from twofold.layers.differentiable import Native, Operation, Other, differentiable
from twofold.time.recurrent import Cell, Run, unroll, unroll_back

Zone = tuple[Tensor | float | None, ...]


class Call(NamedTuple):
    """How a layer is run. masks and zones have an entry for each direction, or none at all.

    lengths_B   int64: the steps of every row; None: all have T
    masks       recurrent dropout's factor (B, R) on the state, the same at all steps
    zones       zoneout's share of the old value: for every tensor of the state a number, (T, B, U), or None
    """

    directions: int = 1
    lengths_B: Tensor | None = None
    masks: tuple[Tensor | None, ...] = ()
    zones: tuple[Zone, ...] = ()

    @property
    def bare(self) -> bool:
        """Whether nothing is asked that torch's own layers lack."""
        return self.lengths_B is None and not self.masks and not self.zones

    def run(self, direction: int) -> Run:
        """The same for the loop over time in one direction."""
        mask_BR = self.masks[direction] if self.masks else None
        return Run(self.lengths_B, direction > 0, mask_BR, self.zones[direction] if self.zones else ())


def recurrence(cell: Cell, vendor: Callable[..., Any] | None = None, kind: str = "", *, name: str) -> Operation:
    """The operation (x_TBD, *state, *weights, call) -> (y_TB(SR), *final state).

    state: each tensor (S, B, U or R); weights: all fields of the cell's named tuple, None for those that are absent, direction after
    direction; call: a `Call`. kind: the compiled form's name of the cell, where it has one. name: module and name of the operation, by
    which messages and remembered choices call it.
    """
    tensors, fields = len(cell.states), len(cell.weights._fields)

    def forward(x_TBD: Tensor, *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        *given, call = arguments
        state, flat = given[:tensors], given[tensors:]
        sides, finals, saved = [], [], []
        for s in range(call.directions):
            weights = cell.weights(*flat[s * fields : (s + 1) * fields])
            y_TBR, final, kept = unroll(cell, x_TBD, tuple(part[s] for part in state), weights, call.run(s))
            sides.append(y_TBR)
            finals.append(final)
            saved.append(kept)
        return (torch.cat(sides, -1), *map(torch.stack, zip(*finals, strict=True))), tuple(saved)

    def backward(dy: tuple[Tensor, ...], saved: tuple[Any, ...]) -> tuple[Tensor | None, ...]:
        dy_TBR, *dfinal = dy
        dxs, dstates, dweights = [], [], []
        for s, dy_side in enumerate(dy_TBR.chunk(len(saved), -1)):
            dx_TBD, dstate, dweight = unroll_back(cell, dy_side, tuple(part[s] for part in dfinal), saved[s])
            dxs.append(dx_TBD)
            dstates.append(dstate)
            dweights += dweight
        return sum(dxs[1:], dxs[0]), *map(torch.stack, zip(*dstates, strict=True)), *dweights

    forward.__module__, forward.__name__ = name.rsplit(".", 1)
    if not kind:
        return differentiable(forward, backward, vendor=vendor)
    compiled = Compiled(cell, kind)
    rounded = Other(partial(compiled.compute, True), compiled.unfit_to_round, True, lambda *_: True)
    native = Native(partial(compiled.compute, False), None, compiled.unfit, lambda *_: not torch.is_autocast_enabled("cpu"))
    return differentiable(forward, backward, vendor=vendor, native=native, others={"native bf16": rounded})


class Compiled(NamedTuple):
    """The kernels of a cell (kernels.recurrence), behind the operation's arguments."""

    cell: Cell
    kind: str

    def parts(self, arguments: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[Any], Call]:
        """(state, weights of each direction, call)"""
        *given, call = arguments
        tensors, fields = len(self.cell.states), len(self.cell.weights._fields)
        flat = given[tensors:]
        return tuple(given[:tensors]), [self.cell.weights(*flat[at : at + fields]) for at in range(0, len(flat), fields)], call

    def compute(self, reduced: bool, x_TBD: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        """(y_TB(SR), *final state); under autocast what came in bfloat16 is computed in float32."""
        state, weights, call = self.parts(arguments)
        if reduced:
            x_TBD, state = x_TBD.float(), tuple(part.float() for part in state)
        return recur(self.kind, x_TBD, state, weights, call.lengths_B, call.masks, call.zones, reduced)

    def unfit(self, x_TBD: Tensor, *arguments: Any) -> str:
        """Why they cannot serve, or ''."""
        state, weights, call = self.parts(arguments)
        return kernel.unfit(x_TBD, state, weights, call.lengths_B)

    def unfit_to_round(self, x_TBD: Tensor, *arguments: Any) -> str:
        """Why they cannot serve with products of bfloat16, or ''."""
        state, weights, call = self.parts(arguments)
        wide = [part.float() if part.dtype == torch.bfloat16 else part for part in (x_TBD, *state)]
        return kernel.unfit(wide[0], wide[1:], weights, call.lengths_B) or kernel.reduced_unfit()


def by_torch(compute: Callable[..., Any], tensors: int = 1) -> Callable[..., Any]:
    """torch's own layer as a vendor's route. compute: torch._VF.lstm or another; tensors: of its state."""
    return partial(_vendor, compute, tensors)


def _vendor(compute: Callable[..., Any], tensors: int, x_TBD: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *given, call = arguments
    state, weights = tuple(given[:tensors]), given[tensors:]
    present = [weight for weight in weights if weight is not None]
    last: tuple[Tensor, ...] = compute(
        x_TBD,
        state if tensors > 1 else state[0],
        present,
        weights[2] is not None,  # the first bias
        1,
        0.0,
        torch.is_grad_enabled(),
        call.directions == 2,
        False,
    )
    return last
