"""The gated recurrent unit over a sequence.     T steps, B rows, D input features, U units

    forward    y, h_T = h = the GRU step (gru_cell), unrolled from h_0 over x_1 .. x_T
    backward   back-propagation through time (recurrent), from dy, dh_T

The step and its gradient are in gru_cell, both directions in layer, the stack and what can be asked of it in face and options.

Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation", EMNLP 2014
"""

from typing import Any, ClassVar

import torch
from torch import nn

from twofold.layers.differentiable import Operation
from twofold.time.face import Face, Sizes, norm_sizes
from twofold.time.gru_cell import AFTER, BEFORE, CELLS, expect_reset
from twofold.time.layer import by_torch, recurrence
from twofold.time.options import Options, expect_no_others
from twofold.time.recurrent import Cell

gru = recurrence(AFTER, by_torch(torch._VF.gru), "gru", name=f"{__name__}.gru")
gru_with_options = recurrence(AFTER, kind="gru", name=f"{__name__}.gru_with_options")
gru_reset_before = recurrence(BEFORE, name=f"{__name__}.gru_reset_before")


class GRU(Face, nn.GRU):
    """y, h = layer(x, h): L layers of GRU over x (T, B, D), or (B, T, D) with batch_first, or one row (T, D).

    torch.nn.GRU with routes and clear errors: y (T, B, S*U) holds the last layer's outputs, S directions side by side; h (S*L, B, U) the
    state after the last step, zeros where none is given. An empty sequence (T = 0) returns the initial state.
    `lengths`, B whole numbers from 0 to T in any order, are the rows' own lengths: behind them y is 0 and nothing is read, and h is that
    of each row's own last step. A PackedSequence comes back as one.
    reset: where the reset gate acts, "after" the product with the state, as in torch, or "before" it, as in the paper
    layer_norm: the parts of input and state are normalised before they meet, with the gains norm_ih and norm_hh
    zoneout, recurrent_dropout, weight_dropout, hidden_init, learn_state: see twofold.time.options
    Raises ValueError for constructor arguments out of range, and for input, state or lengths of another shape, dtype or device.

    >>> layer = GRU(2, 3, bidirectional=True, reset="before")
    >>> y, h = layer(torch.zeros(5, 4, 2), lengths=[5, 2, 0, 3])
    >>> y.shape, h.shape
    (torch.Size([5, 4, 6]), torch.Size([2, 4, 3]))
    """

    GATES: ClassVar[dict[str, str]] = {"reset": "r_BU", "update": "z_BU", "candidate": "n_BU"}

    def __init__(  # type: ignore[no-untyped-def]
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device=None,
        dtype=None,
        *,
        reset: str = "after",
        layer_norm: bool = False,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        hidden_init: str | None = None,
        learn_state: bool = False,
        **others: Any,
    ) -> None:
        expect_no_others("GRU", others)
        expect_reset("GRU", reset)
        self.reset = reset
        sizes = Sizes(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        options = Options(layer_norm, zoneout, recurrent_dropout, weight_dropout, hidden_init, learn_state)
        super().__init__("GRU", sizes, options, device, dtype, norm_sizes(3, hidden_size, layer_norm))

    @property
    def cell(self) -> Cell:
        """The step that is repeated."""
        return CELLS[self.reset]

    @property
    def operations(self) -> tuple[Operation, Operation]:
        """The operation where nothing is asked that torch lacks, and the one for all else."""
        if self.reset == "before":
            return gru_reset_before, gru_reset_before
        return (gru_with_options if self.options.layer_norm else gru), gru_with_options

    @property
    def compiled(self) -> str:
        """The name of the cell's compiled form."""
        return "gru"

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", reset={self.reset!r}" if self.reset != "after" else "")
