"""Long short-term memory over a sequence.     T steps, B rows, D input features, U units, R outputs (R = U without a projection)

    forward    y, h_T, c_T = the LSTM step (lstm_cell), unrolled from h_0, c_0 over x_1 .. x_T
    backward   back-propagation through time (recurrent), from dy, dh_T, dc_T

The step and its gradient are in lstm_cell, both directions in layer, the stack and what can be asked of it in face and options.

Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997
"""

from typing import Any, ClassVar

import torch
from torch import nn

from twofold.layers.differentiable import Operation
from twofold.time import lstm_cell
from twofold.time.face import Face, Sizes, norm_sizes
from twofold.time.forget import Forgetting, expect_forget_bias
from twofold.time.layer import by_torch, recurrence
from twofold.time.options import Options, expect_no_others
from twofold.time.recurrent import Cell
from twofold.time.sequence import expect_switches

lstm = recurrence(lstm_cell.LSTM, by_torch(torch._VF.lstm, 2), "lstm", name=f"{__name__}.lstm")
lstm_with_options = recurrence(lstm_cell.LSTM, kind="lstm", name=f"{__name__}.lstm_with_options")
lstm_coupled = recurrence(lstm_cell.COUPLED, kind="coupled", name=f"{__name__}.lstm_coupled")


class LSTM(Face, Forgetting, nn.LSTM):
    """y, (h, c) = layer(x, (h, c)): L layers of LSTM over x (T, B, D), or (B, T, D) with batch_first, or one row (T, D).

    torch.nn.LSTM with routes and clear errors: y (T, B, S*R) holds the last layer's outputs, S directions side by side; h (S*L, B, R)
    and c (S*L, B, U) the state after the last step, zeros where none is given; R is U, or proj_size. An empty sequence (T = 0) returns
    the initial state. Dropout, between the layers, draws from torch's generator, in training only.
    `lengths`, B whole numbers from 0 to T in any order, are the rows' own lengths: behind them y is 0 and nothing is read, and the state
    is that of each row's own last step. A PackedSequence comes back as one.
    forget_bias: what the two biases of every forget gate add up to at the start
    peephole: the gates see the cell, through the weights `peephole` in the order i f o (coupled: i o)
    coupled: the forget gate is 1 - i, and the weights hold three gates in the order i g o
    layer_norm: the parts of input and state, and the cell on its way out, are normalised: norm_ih, norm_hh, norm_c, norm_c_bias
    zoneout (one probability, or those of h and c), recurrent_dropout, weight_dropout, hidden_init, learn_state: see twofold.time.options
    Raises ValueError for constructor arguments out of range or that exclude each other, and for input, state or lengths of another
    shape, dtype or device.

    >>> layer = LSTM(2, 3, num_layers=2, bidirectional=True)
    >>> y, (h, c) = layer(torch.zeros(5, 4, 2))
    >>> y.shape, h.shape, c.shape
    (torch.Size([5, 4, 6]), torch.Size([4, 4, 3]), torch.Size([4, 4, 3]))
    """

    GATES: ClassVar[dict[str, str]] = {"input": "i_BU", "forget": "f_BU", "candidate": "g_BU", "output": "o_BU"}

    def __init__(  # type: ignore[no-untyped-def]
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device=None,
        dtype=None,
        *,
        forget_bias: float | None = None,
        peephole: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        zoneout: float | tuple[float, float] = 0.0,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        hidden_init: str | None = None,
        learn_state: bool = False,
        **others: Any,
    ) -> None:
        expect_no_others("LSTM", others)
        expect_switches("LSTM", peephole=peephole, coupled=coupled)
        lstm_cell.expect_coupled("LSTM", coupled, forget_bias)
        self.peephole, self.coupled = peephole, coupled
        sizes = Sizes(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size)
        self.forget_bias = expect_forget_bias("LSTM", forget_bias, bias)
        options = Options(layer_norm, zoneout, recurrent_dropout, weight_dropout, hidden_init, learn_state)
        gates = 3 if coupled else 4
        extra = {"peephole": (gates - 1) * hidden_size if peephole else None, **norm_sizes(gates, hidden_size, layer_norm)}
        extra |= dict.fromkeys(("norm_c", "norm_c_bias"), hidden_size if layer_norm else None)
        super().__init__("GRU" if coupled else "LSTM", sizes, options, device, dtype, extra)  # torch's word for three gates
        self.mode = "LSTM"

    @property
    def cell(self) -> Cell:
        """The step that is repeated."""
        return lstm_cell.COUPLED if self.coupled else lstm_cell.LSTM

    @property
    def operations(self) -> tuple[Operation, Operation]:
        """The operation where nothing is asked that torch lacks, and the one for all else."""
        if self.coupled:
            return lstm_coupled, lstm_coupled
        return (lstm_with_options if self.peephole or self.options.layer_norm else lstm), lstm_with_options

    @property
    def compiled(self) -> str:
        """The name of the cell's compiled form."""
        return "coupled" if self.coupled else "lstm"

    def flatten_parameters(self) -> None:
        """One block of memory for cuDNN, where it has this layer."""
        if not self.coupled:
            super().flatten_parameters()

    def extra_repr(self) -> str:
        return super().extra_repr() + ", peephole=True" * self.peephole + ", coupled=True" * self.coupled
