"""Any cell over a sequence.     T steps, B rows, D input features, U units

    forward    y, s_T = the cell's step, unrolled from s_0 over x_1 .. x_T              (recurrent)
    backward   back-propagation through time, from dy and ds_T

What can be asked of it besides (zoneout, recurrent dropout, a learned state) stands in options.

Forcada and Carrasco, "Learning the initial state of a second-order recurrent neural network during regular-language inference", Neural
Computation 7(5), 1995
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from twofold.layers.differentiable import Operation, differentiable
from twofold.layers.expect import expect_shape
from twofold.layers.routes import Routed
from twofold.time.bidirectional import Shape
from twofold.time.lengths import expect_lengths, from_packed, to_packed
from twofold.time.options import draw_mask, draw_zone, expect_probability, zone_shares
from twofold.time.recurrent import Cell, Run, Saved, State, unroll, unroll_back
from twofold.time.sequence import expect_sequence, expect_step_state, expect_switches
from twofold.time.step import alone
from twofold.time.stream import Streaming


@lru_cache(maxsize=64)
def unrolled(cell: Cell) -> Operation:
    """The operation (x_TBD, *state, *weights, run) -> (y_TBU, *state); weights: all fields of the cell's named tuple."""
    count = len(cell.states)

    def forward(x_TBD: Tensor, *rest: Any) -> tuple[tuple[Tensor, ...], Saved]:
        y_TBU, state, saved = unroll(cell, x_TBD, rest[:count], cell.weights(*rest[count:-1]), rest[-1])
        return (y_TBU, *state), saved

    def backward(dy: tuple[Tensor, ...], saved: Saved) -> tuple[Tensor | None, ...]:
        dx_TBD, dstate, dweights = unroll_back(cell, dy[0], tuple(dy[1:]), saved)
        return dx_TBD, *dstate, *dweights

    return differentiable(forward, backward)


class Recurrent(Streaming, Routed):
    """y, state = layer(x, state, lengths): any cell over x (T, B, D), or (B, T, D) with batch_first, or one row (T, D).

    cell: nn.RNNCell, nn.GRUCell, nn.LSTMCell, or a module of your own with input_size, hidden_size, `cell` (a recurrent.Cell) and
    `weights()` (the named tuple that it takes). y (T, B, U) is the state's first tensor after every step. The state has the cell's form,
    (B, U) or a pair of them; without one it starts from zeros, or with learn_state from the parameters h_0 (and c_0), (1, U).
    lengths: the steps of each row, in any order, 0 too; behind a row's end y is 0 and nothing is read, and the state is that of the
    row's own last step. reverse reads each row from its own last step to its first; y_t still belongs to x_t. A PackedSequence is
    answered with one. zoneout: the share of the old state that stays, one number or one for each tensor of the state.
    Raises ValueError for what is no cell, for shares outside 0..1, and for input, state or lengths that do not fit.

    >>> from twofold import nn
    >>> layer = Recurrent(nn.GRUCell(3, 4))
    >>> y, h = layer(torch.randn(5, 2, 3), lengths=[5, 2])
    >>> y.shape, h.shape, y[2:, 1].count_nonzero().item()
    (torch.Size([5, 2, 4]), torch.Size([2, 4]), 0)
    """

    def __init__(
        self,
        cell: nn.Module,
        batch_first: bool = False,
        reverse: bool = False,
        *,
        zoneout: float | tuple[float, ...] = 0.0,
        recurrent_dropout: float = 0.0,
        learn_state: bool = False,
    ) -> None:
        states = expect_cell(cell).states
        expect_switches("Recurrent", batch_first=batch_first, reverse=reverse, learn_state=learn_state)
        zone_shares("Recurrent", zoneout, states)
        expect_probability("Recurrent", "recurrent_dropout", recurrent_dropout)
        super().__init__()
        self.module: Any = cell
        self.operation = unrolled(self.cell)
        self.batch_first, self.reverse, self.learn_state = batch_first, reverse, learn_state
        self.zoneout, self.recurrent_dropout = zoneout, recurrent_dropout
        for name in self.cell.states if learn_state else ():
            self.register_parameter(f"{name}_0", nn.Parameter(self._like().new_zeros((1, self.hidden_size))))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "operation"}  # code is not part of a layer's state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.operation = unrolled(self.cell)

    @property
    def cell(self) -> Cell:
        """The step that is repeated."""
        cell: Cell = self.module.cell
        return cell

    @property
    def input_size(self) -> int:
        """D."""
        return int(self.module.input_size)

    @property
    def hidden_size(self) -> int:
        """U."""
        return int(self.module.hidden_size)

    @property
    def stack_shape(self) -> Shape:
        """One layer, one direction."""
        return Shape(1, 1)

    def weights(self, place: int = 0) -> Any:
        """The cell's weights; `place` as in layers that have several."""
        assert place == 0
        return self.module.weights()

    def forward(self, input: Any, state: Any = None, lengths: Any = None) -> Any:
        if isinstance(input, PackedSequence):
            return self._packed(input, state, lengths)
        x_TBD, initial = self._time_first(input, state)
        if input.dim() == 2:
            if lengths is not None:
                raise ValueError("Recurrent lengths: expected None for one row (T, D), got some. Cut the row instead: x[:length].")
            y_TBU, last = self._unroll(x_TBD, initial, None)
            return y_TBU[:, 0], self._in_form([part[0] for part in last])
        T, B, _ = x_TBD.shape
        known = None if lengths is None else expect_lengths("Recurrent", lengths, B, T, x_TBD.device)
        y_TBU, last = self._unroll(x_TBD, initial, known)
        return y_TBU.transpose(0, 1) if self.batch_first else y_TBU, self._in_form(last)

    def _packed(self, packed: PackedSequence, state: Any, lengths: Any) -> tuple[PackedSequence, Any]:
        if lengths is not None:
            kind = type(lengths).__name__
            raise ValueError(f"Recurrent lengths: expected None with a PackedSequence, which has its own, got {kind}.")
        expect_shape("Recurrent input (packed)", packed.data, "steps D", {"D": self.input_size})
        x_TBD, lengths_B = from_packed(packed)
        _, initial = self._time_first(x_TBD.transpose(0, 1) if self.batch_first else x_TBD, state)
        y_TBU, last = self._unroll(x_TBD, initial, lengths_B)
        return to_packed(y_TBU, packed), self._in_form(last)

    def extra_repr(self) -> str:
        names = ("batch_first", "reverse", "zoneout", "recurrent_dropout", "learn_state")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names if getattr(self, name))

    def _unroll(self, x_TBD: Tensor, initial: State, lengths_B: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """(y_TBU, final state)"""
        shares, shape = zone_shares("Recurrent", self.zoneout, self.cell.states), (*x_TBD.shape[:2], self.hidden_size)
        zone = tuple(draw_zone(share, shape, x_TBD, self.training) for share in shares)
        dropping = self.training and self.recurrent_dropout
        mask_BU = draw_mask(self.recurrent_dropout, shape[1:], x_TBD) if dropping else None
        run = Run(lengths_B, self.reverse, mask_BU, zone)
        y_TBU, *last = self.run(self.operation, x_TBD, *(part[0] for part in initial), *self.weights(), run)
        return y_TBU, last

    def _time_first(self, input: Any, state: Any) -> tuple[Tensor, State]:
        """x (T, B, D) and the initial state (1, B, U), after the questions to both."""
        expect_sequence("Recurrent", input, self.input_size, self.batch_first, self._like(input))
        single = input.dim() == 2
        x_TBD = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
        names, B = self.cell.states, x_TBD.shape[1]
        if state is None and self.learn_state:
            return x_TBD, tuple(getattr(self, f"{name}_0").expand(1, B, -1) for name in names)
        if state is None:
            return x_TBD, (x_TBD.new_zeros((1, B, self.hidden_size)),) * len(names)
        one_step = x_TBD.new_empty((self.input_size,) if single else (B, self.input_size))
        state = state if len(names) > 1 else alone("Recurrent", state)
        given = expect_step_state("Recurrent", state, names, one_step, self.hidden_size, self._like(input))
        return x_TBD, tuple(part.reshape(1, B, -1) for part in given)

    def _in_form(self, state: list[Tensor]) -> Any:
        """The state as the cell has it."""
        return tuple(state) if len(state) > 1 else state[0]

    def _like(self, otherwise: Tensor | None = None) -> Tensor:
        """A tensor of the dtype and device of the cell's weights."""
        return next(self.module.parameters(), torch.empty(0) if not isinstance(otherwise, Tensor) else otherwise)


def expect_cell(cell: Any) -> Cell:
    """The step of a module that the loop can run; ValueError for another module."""
    kind, names = type(cell).__name__, ("cell", "weights", "input_size", "hidden_size")
    lacking = [name for name in names if not hasattr(cell, name)]
    if isinstance(cell, nn.Module) and not isinstance(cell, nn.RNNBase) and not lacking and isinstance(cell.cell, Cell):
        return cell.cell
    cause = f"It has no {', '.join(lacking)}." if lacking else "Its `cell` is no twofold.time.recurrent.Cell."
    if isinstance(cell, nn.RNNCellBase):
        cause = "It is torch's own: build it from twofold.nn, the weights load both ways."
    elif isinstance(cell, nn.RNNBase):
        cause = "It runs over sequences by itself."
    raise ValueError(f"Recurrent: expected a cell (nn.RNNCell, nn.GRUCell, nn.LSTMCell, or your own), got {kind}. {cause}")
