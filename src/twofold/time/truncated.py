"""Truncated back-propagation through time: sequences that are too long to be kept.     T steps, k1 and k2 steps

    windows    the sequence is cut into windows of k steps; the state is carried from one to the next, its gradient is not
    TBPTT      after every k1 steps: back through the last k2 steps, from the outputs of the last k1

        pass j              ends at e = j k1, begins at max(0, e - k2) from the state that was there, which counts as given
        loss of pass j      that of the outputs since the pass before: each output is in one pass
        the last pass       ends at T, and goes no further back from its first output than the others
        k1 = k2 = k         windows of k steps
        k1 = T, k2 >= T     all of back-propagation through time
        k2 < k1             the outputs more than k2 steps before e are given, too: they have no gradient

A pass computes its k2 steps anew from the state at its beginning, with the weights of its time: weights change between passes, and a
gradient must be that of one set of weights. What is kept between passes is a single state.

Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent network trajectories", Neural Computation
2(4), 1990, section 3 (BPTT(h; h'), with h = k2 and h' = k1); Sutskever, "Training recurrent neural networks", thesis, 2013, section 2.8
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twofold.layers.expect import expect_positive, expect_tensor


def windows(x_TB: Tensor, steps: int, batch_first: bool = False) -> Iterator[Tensor]:
    """The consecutive windows of `steps` steps, the last one as long as it comes; x (T, B, ...), or (B, T, ...) with batch_first.

    Raises ValueError for steps below 1 and for an x that has no such axis.

    >>> [window.tolist() for window in windows(torch.arange(5), 2)]
    [[0, 1], [2, 3], [4]]
    """
    expect_positive("windows", steps=steps)
    axis = _time_axis("windows", x_TB, batch_first)
    return iter(x_TB.split(steps, axis) if x_TB.shape[axis] else ())


def detached(state: Any) -> Any:
    """The same state, whatever tuples it is made of, cut from the graph: what it is counts, how it came to be does not."""
    if isinstance(state, Tensor):
        return state.detach()
    if not isinstance(state, (tuple, list)):
        return state
    parts = [detached(part) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)


class Pass(NamedTuple):
    """One pass: the outputs of the steps since the pass before, which steps those are, and the state after them, cut from the graph."""

    y: Tensor
    steps: slice
    state: Any


@dataclass(frozen=True)
class TBPTT:
    """for y, steps, state in TBPTT(k1, k2)(layer, x): loss of y and targets[steps], backward, a step of the optimiser.

    k1: steps from one update to the next; k2: steps that the gradient goes back. layer: any module with y, state = layer(x, state), in
    which an output depends on no later step. x (T, B, ...), or (B, T, ...) where layer.batch_first is true: numbers that need no gradient
    (an embedding belongs into the layer). The state may be given, else the layer begins as it does by itself; passes that go back to the
    start reach it.
    A pass is computed when the loop asks for it, so with the weights that the step before has left.
    Raises ValueError for k1 or k2 below 1, and for an x without axes of time.

    >>> layer = nn.LSTM(3, 4)
    >>> [(part.steps.start, part.steps.stop, len(part.y)) for part in TBPTT(k1=2, k2=4)(layer, torch.randn(5, 1, 3))]
    [(0, 2, 2), (2, 4, 2), (4, 5, 1)]
    """

    k1: int
    k2: int

    def __post_init__(self) -> None:
        expect_positive("TBPTT", k1=self.k1, k2=self.k2)

    def __call__(self, layer: nn.Module, x: Tensor, state: Any = None) -> Iterator[Pass]:
        """The passes over the sequence, one after the other."""
        axis = _time_axis("TBPTT", x, bool(getattr(layer, "batch_first", False)))
        return self._passes(layer, x, state, axis)

    def _first(self, begin: int, T: int) -> int:
        """Where the pass starts whose outputs start at `begin`."""
        return max(0, begin - max(self.k2 - self.k1, 0), min(begin + self.k1, T) - self.k2)

    def _passes(self, layer: nn.Module, x: Tensor, held: Any, axis: int) -> Iterator[Pass]:
        T, at = x.shape[axis], 0  # held: the state before step `at`
        for begin in range(0, T, self.k1):
            end = min(begin + self.k1, T)
            first, later = self._first(begin, T), min(self._first(end, T), end)  # at `later` the next one begins, or sets out to do so
            state, y, origin = held, [], at
            for start, stop in ((at, first), (first, later), (later, end)):
                if start == later > 0:
                    held = detached(state)
                if start < stop:
                    with torch.set_grad_enabled(torch.is_grad_enabled() and start >= first):
                        y_part, state = layer(x.narrow(axis, start, stop - start), state)
                    y.append(y_part)
            at = later
            outputs = torch.cat(y, axis)
            yield Pass(outputs.narrow(axis, begin - origin, end - begin), slice(begin, end), detached(state))


def _time_axis(who: str, x: Any, batch_first: bool) -> int:
    expect_tensor(f"{who} input", x)
    axis = 1 if batch_first else 0
    if x.dim() <= axis:
        raise ValueError(f"{who} input: expected an axis of time, axis {axis}, got {tuple(x.shape)}.")
    return axis
