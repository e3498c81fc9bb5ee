"""The simple recurrent network over a sequence.     T steps, B rows, D input features, U units

    forward    y, h_T = h = f(W_ih x + b_ih + W_hh h_before + b_hh), unrolled from h_0 over x_1 .. x_T        f = tanh, or max(., 0)
    backward   back-propagation through time (recurrent), from dy, dh_T

The step and its gradient are in rnn_cell, both directions in layer, the stack and what can be asked of it in face and options.

Elman, "Finding structure in time", Cognitive Science 14, 1990
"""

from typing import Any

import torch
from torch import nn

from twofold.layers.differentiable import Operation
from twofold.time.face import Face, Sizes, norm_sizes
from twofold.time.layer import by_torch, recurrence
from twofold.time.options import Options, expect_no_others
from twofold.time.recurrent import Cell
from twofold.time.rnn_cell import CELLS, RELU, TANH

rnn_tanh = recurrence(TANH, by_torch(torch._VF.rnn_tanh), "tanh", name=f"{__name__}.rnn_tanh")
rnn_relu = recurrence(RELU, by_torch(torch._VF.rnn_relu), "relu", name=f"{__name__}.rnn_relu")
rnn_tanh_with_options = recurrence(TANH, kind="tanh", name=f"{__name__}.rnn_tanh_with_options")
rnn_relu_with_options = recurrence(RELU, kind="relu", name=f"{__name__}.rnn_relu_with_options")
OPERATIONS = {"tanh": (rnn_tanh, rnn_tanh_with_options), "relu": (rnn_relu, rnn_relu_with_options)}


class RNN(Face, nn.RNN):
    """y, h = layer(x, h): L layers of simple RNN over x (T, B, D), or (B, T, D) with batch_first, or one row (T, D).

    torch.nn.RNN with routes and clear errors: y (T, B, S*U) holds the last layer's outputs, S directions side by side; h (S*L, B, U) the
    state after the last step, zeros where none is given. An empty sequence (T = 0) returns the initial state.
    `lengths`, B whole numbers from 0 to T in any order, are the rows' own lengths: behind them y is 0 and nothing is read, and h is that
    of each row's own last step. A PackedSequence comes back as one.
    layer_norm: the parts of input and state are normalised before they meet, with the gains norm_ih and norm_hh
    zoneout, recurrent_dropout, weight_dropout, hidden_init, learn_state: see twofold.time.options
    Raises ValueError for constructor arguments out of range, and for input, state or lengths of another shape, dtype or device.

    >>> layer = RNN(2, 3, nonlinearity="relu", hidden_init="identity")
    >>> y, h = layer(torch.zeros(5, 4, 2), lengths=[5, 2, 0, 3])
    >>> y.shape, h.shape
    (torch.Size([5, 4, 3]), torch.Size([1, 4, 3]))
    """

    def __init__(  # type: ignore[no-untyped-def]
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device=None,
        dtype=None,
        *,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        hidden_init: str | None = None,
        learn_state: bool = False,
        **others: Any,
    ) -> None:
        expect_no_others("RNN", others)
        if not isinstance(nonlinearity, str) or nonlinearity not in CELLS:
            raise ValueError(f'RNN: expected nonlinearity "tanh" or "relu", got {nonlinearity!r}.')
        self.nonlinearity = nonlinearity
        sizes = Sizes(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        options = Options(layer_norm, zoneout, recurrent_dropout, weight_dropout, hidden_init, learn_state)
        super().__init__(f"RNN_{nonlinearity.upper()}", sizes, options, device, dtype, norm_sizes(1, hidden_size, layer_norm))

    @property
    def cell(self) -> Cell:
        """The step that is repeated."""
        return CELLS[self.nonlinearity]

    @property
    def operations(self) -> tuple[Operation, Operation]:
        """The operation where nothing is asked that torch lacks, and the one for all else."""
        torchs, ours = OPERATIONS[self.nonlinearity]
        return (ours if self.options.layer_norm else torchs), ours

    @property
    def compiled(self) -> str:
        """The name of the cell's compiled form."""
        return self.nonlinearity
