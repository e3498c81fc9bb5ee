"""One step of a cell, as an operation and as a module.     B rows, D input features, U units

    forward    s = step(drive(x), s_before)
    backward   ddrive, ds_before, dW = step_back(ds)        dx, dW = drive_back(ddrive)        dW: the sum of both

Every cell is made an operation and a module by this file; what it computes stands in its own (rnn_cell, gru_cell, lstm_cell).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from twofold.layers.differentiable import Operation, differentiable
from twofold.layers.routes import Routed
from twofold.time.product import start_norms
from twofold.time.recurrent import Cell, add
from twofold.time.sequence import expect_step, expect_step_state

LIMIT = 2**31 - 1  # beyond it products of sizes overflow in the operators below


class Saved(NamedTuple):
    """What the backward of a single step needs."""

    x_BD: Tensor
    weights: Any
    mask_BU: Tensor | None
    step: Any


def one_step(cell: Cell, name: str, vendor: Callable[..., Any] | None = None) -> Operation:
    """The operation (x_BD, *state, *weights, mask_BU) -> h_BU, or (h_BU, c_BU).

    weights: all fields of the cell's named tuple, None for those that are absent; mask_BU: that of recurrent dropout, or None.
    """
    count = len(cell.states)

    def forward(x_BD: Tensor, *rest: Any) -> tuple[Any, Saved]:
        before, weights, mask_BU = rest[:count], cell.weights(*rest[count:-1]), rest[-1]
        state, saved = cell.step(cell.drive(x_BD, weights), before, weights, mask_BU)
        return state if count > 1 else state[0], Saved(x_BD, weights, mask_BU, saved)

    def backward(dstate: Any, saved: Saved) -> tuple[Any, ...]:
        dstate = dstate if count > 1 else (dstate,)
        ddrive_BG, dbefore, state_part = cell.step_back(dstate, saved.step, saved.weights, saved.mask_BU)
        dx_BD, input_part = cell.drive_back(ddrive_BG, saved.x_BD, saved.weights)
        return dx_BD, *dbefore, *add(state_part, input_part)

    forward.__module__, forward.__name__ = cell.weights.__module__, name  # what messages and remembered choices call it
    return differentiable(forward, backward, vendor=vendor)


class OneStep(Routed):
    """Mixed in before torch's cells: what RNNCell, GRUCell and LSTMCell have in common. They add `cell` and `weights`."""

    input_size: int
    hidden_size: int
    weight_ih: Tensor
    weights: Callable[[], Any]

    def advance(self, operation: Operation, cell: Cell, input: Any, hx: Any) -> Any:
        """h, or (h, c), after one step from input (B, D), or one row (D,), and the state; zeros where there is none."""
        who, units, weight = type(self).__name__, self.hidden_size, self.weight_ih
        expect_step(who, input, self.input_size, weight)
        if hx is None:
            before: tuple[Tensor, ...] = (input.new_zeros((*input.shape[:-1], units)),) * len(cell.states)
        else:
            before = expect_step_state(who, hx if len(cell.states) > 1 else alone(who, hx), cell.states, input, units, weight)
        weights = self.weights()
        if input.dim() == 2:
            return self.run(operation, input, *before, *weights, None)
        state = self.run(operation, input[None], *(part[None] for part in before), *weights, None)
        return tuple(part[0] for part in state) if len(cell.states) > 1 else state[0]

    def add_weights(self, sizes: dict[str, int | None]) -> None:
        """Register the parameters that torch's cell lacks, on the device and in the dtype of the others; None: absent."""
        like, most = self.weight_ih.detach(), self.hidden_size**-0.5
        for name, size in sizes.items():
            self.register_parameter(name, None if size is None else nn.Parameter(like.new_empty(size)))
            if size is not None and not name.startswith("norm_"):
                nn.init.uniform_(self.get_parameter(name), -most, most)
        start_norms(self)

    def reset_parameters(self) -> None:
        """torch's uniform start in +-1/sqrt(U); the gains of layer norm 1, its shifts 0."""
        super().reset_parameters()  # type: ignore[misc]  # the torch module behind this one has it
        start_norms(self)


def alone(who: str, hx: Any) -> tuple[Tensor]:
    """The state of a cell that has only h; ValueError where something else came."""
    if not isinstance(hx, Tensor):
        kind = f"{type(hx).__module__}.{type(hx).__name__}".removeprefix("builtins.")
        cause = "Only an LSTM's state is a pair" if isinstance(hx, (tuple, list)) else "Convert it with torch.as_tensor(...)"
        raise ValueError(f"{who} state: expected one tensor h, got {kind}. {cause}; pass nothing for zeros.")
    return (hx,)


def expect_weights(who: str, gates: int, input_size: int, hidden_size: int) -> None:
    """Raise ValueError where a matrix of weights would have more numbers than can be counted."""
    for columns in (input_size, hidden_size):
        if gates * hidden_size * columns > LIMIT:
            rows = f"{gates} * {hidden_size}" if gates > 1 else str(hidden_size)
            raise ValueError(f"{who}: expected at most {LIMIT} weights in a matrix, got {rows} * {columns}. Too many for any memory.")


def shown(text: str, **options: Any) -> str:
    """What repr shows: torch's own words and the options that are set."""
    return ", ".join([text, *(f"{name}={value!r}" for name, value in options.items() if value)])
