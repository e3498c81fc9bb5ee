"""Time: one cell, applied step after step, and back-propagation through time.     T steps, B rows, D input features, U units

    forward    s_t, saved_t = step(drive(x_t), s_{t-1})          y_t = the first tensor of s_t          t = 1 .. T
    backward   ds_{t-1}, ddrive_t, dW_t = step_back(ds_t + dy_t, saved_t)    t = T .. 1        dW = sum_t dW_t

    ds_t is what the later steps ask of the state, dy_t what the loss asks of the output at t: they meet in the state's first tensor.
    What the input contributes (the drive) needs no state, so it is computed for all steps at once, and so is its backward pass.

This is the only loop over time: every cell (LSTM, GRU, ...) is unrolled by it.
Werbos, "Backpropagation through time: what it does and how to do it", Proceedings of the IEEE 78(10), 1990
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

State = tuple[Tensor, ...]


class Cell(NamedTuple):
    """What the loop needs to know of a cell. `weights` is the cell's own named tuple, absent weights being None.

    drive       (x, weights) -> drive                                 x (..., D): one step or all of them
    drive_back  (ddrive, x, weights) -> dx, dweights
    step        (drive_BG, state, weights) -> state, saved            saved: a named tuple with the gates
    step_back   (dstate, saved, weights) -> ddrive_BG, dstate_before, dweights
    states      the names of the state's tensors, the output first

    dweights has the form of weights; None stands for "no part in it".
    """

    drive: Callable[[Tensor, Any], Tensor]
    drive_back: Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]
    step: Callable[[Tensor, Any, Any], tuple[Any, Any]]
    step_back: Callable[[Any, Any, Any], tuple[Tensor, Any, Any]]
    states: tuple[str, ...]


class Saved(NamedTuple):
    """What back-propagation through time needs; `steps[t]` holds the gates of step t."""

    x_TBD: Tensor
    weights: Any
    steps: tuple[Any, ...]


def unroll(cell: Cell, x_TBD: Tensor, state: State, weights: Any) -> tuple[Tensor, State, Saved]:
    """(y_TBU, final state, saved). No step (T = 0) returns the initial state."""
    assert len(state) == len(cell.states)
    y: list[Tensor] = []
    steps: list[Any] = []
    for drive_BG in cell.drive(x_TBD, weights).unbind():
        state, saved = cell.step(drive_BG, state, weights)
        y.append(state[0])
        steps.append(saved)
    return over_time(y, state[0]), state, Saved(x_TBD, weights, tuple(steps))


def unroll_back(cell: Cell, dy_TBU: Tensor, dstate: State, saved: Saved) -> tuple[Tensor, State, Any]:
    """(dx_TBD, gradient of the initial state, dweights), from the gradients of the outputs and of the final state."""
    dweights = type(saved.weights)(*(None if w is None else torch.zeros_like(w) for w in saved.weights))
    if not saved.steps:
        return torch.zeros_like(saved.x_TBD), dstate, dweights
    ddrive: list[Tensor] = []
    for dy_BU, step in zip(reversed(dy_TBU.unbind()), reversed(saved.steps), strict=True):
        dstate = (dstate[0] + dy_BU, *dstate[1:])
        ddrive_BG, dstate, dweights_t = cell.step_back(dstate, step, saved.weights)
        dweights = add(dweights, dweights_t)
        ddrive.append(ddrive_BG)
    dx_TBD, dweights_drive = cell.drive_back(torch.stack(ddrive[::-1]), saved.x_TBD, saved.weights)
    return dx_TBD, dstate, add(dweights, dweights_drive)


def over_time(steps: Sequence[Tensor], like: Tensor) -> Tensor:
    """The tensors of T steps as one, time first; of no steps: (0, *the shape of `like`)."""
    return torch.stack(tuple(steps)) if steps else like.new_empty((0, *like.shape))


def add(left: Any, right: Any) -> Any:
    """The sum of two named tuples of gradients, None counting as nothing."""
    return type(left)(*(b if a is None else a if b is None else a + b for a, b in zip(left, right, strict=True)))
