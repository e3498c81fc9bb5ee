"""Connection tables: a convolution whose output maps see chosen input maps.     F maps out, C maps in, K taps, N connections

    table[f,c] is true where output map f sees input map c; connection n, counted row by row, goes from map c(n) to map f(n)

    forward    dense[f,c] = W[n] where a connection n goes from c to f, 0 elsewhere          y = correlate(x, dense) + bias
    backward   dW[n] = ddense[f(n),c(n)]                                                     the others have no weight to learn
    size       N K + F numbers

What is not connected does not exist as a parameter. Maps that see different inputs are forced to learn different features, and there
are fewer weights: LeNet-5's third layer has 60 connections of 96.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proceedings of the IEEE 86(11), 1998,
section II.B and Table I
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_positive
from twofold.space.convolution import Conv2d

# For each of the 16 maps of C3, the maps of S2 that it sees: 3 neighbours, 4 neighbours, 4 in two pairs, all.
LENET5_C3: Final[tuple[tuple[int, ...], ...]] = (
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (0, 4, 5),
    (0, 1, 5),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (0, 3, 4, 5),
    (0, 1, 4, 5),
    (0, 1, 2, 5),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


class Saved(NamedTuple):
    """What backward needs."""

    places_N: Tensor
    shape: torch.Size


def forward(weight_Nij: Tensor, places_N: Tensor, filters: int, channels: int) -> tuple[Tensor, Saved]:
    """dense_FCij; place f C + c for the connection from map c to map f. weight_Nij has an axis of length 1 behind N, as a filter has."""
    dense = weight_Nij.new_zeros((filters * channels, *weight_Nij.shape[2:]))
    dense = dense.index_copy(0, places_N, weight_Nij.squeeze(1))
    return dense.unflatten(0, (filters, channels)), Saved(places_N, weight_Nij.shape)


def backward(ddense_FCij: Tensor, saved: Saved) -> Tensor:
    """dweight_Nij"""
    return ddense_FCij.flatten(0, 1).index_select(0, saved.places_N).reshape(saved.shape)


connect = differentiable(forward, backward)


def full(in_channels: int, out_channels: int) -> Tensor:
    """table_FC: every output map sees all input maps, as in Conv2d."""
    expect_positive("full", in_channels=in_channels, out_channels=out_channels)
    return torch.ones((out_channels, in_channels), dtype=torch.bool)


def one_to_one(channels: int) -> Tensor:
    """table_FC: every output map sees the input map of its own number alone.

    >>> one_to_one(2).tolist()
    [[True, False], [False, True]]
    """
    expect_positive("one_to_one", channels=channels)
    return torch.eye(channels, dtype=torch.bool)


def random(in_channels: int, out_channels: int, each: int, seed: int = 0) -> Tensor:
    """table_FC: every output map sees `each` input maps, drawn without replacement; the same for the same seed."""
    expect_positive("random", in_channels=in_channels, out_channels=out_channels, each=each)
    if each > in_channels:
        raise ValueError(f"random: expected each to be at most in_channels={in_channels}, got {each}.")
    chance = torch.rand((out_channels, in_channels), generator=torch.Generator().manual_seed(seed))
    return torch.zeros((out_channels, in_channels), dtype=torch.bool).scatter(1, chance.topk(each, 1).indices, True)


def table_of(who: str, table: Any, in_channels: int, out_channels: int) -> Tensor:
    """table_FC of truth values, from one or from rows of channel numbers; ValueError for a table that cannot be."""
    expected = f"{who}: expected table to be a bool tensor (F={out_channels}, C={in_channels}) or {out_channels} rows of channel numbers"
    if isinstance(table, Tensor):
        if table.dtype != torch.bool or table.shape != (out_channels, in_channels):
            cause = " Turned around? Give table.T." if table.shape == (in_channels, out_channels) != (out_channels, in_channels) else ""
            raise ValueError(f"{expected}, got {str(table.dtype).removeprefix('torch.')} {tuple(table.shape)}.{cause}")
        seen = table.cpu()
    else:
        rows = list(table) if isinstance(table, Sequence) and not isinstance(table, str) else None
        if rows is None or len(rows) != out_channels or not all(isinstance(row, (tuple, list, range)) for row in rows):
            raise ValueError(f"{expected}, got {type(table).__name__}{'' if rows is None else f' of {len(rows)}'}.")
        seen = torch.zeros((out_channels, in_channels), dtype=torch.bool, device="cpu")  # read here, even for a net without values
        for f, row in enumerate(rows):
            for c in row:
                if isinstance(c, bool) or not isinstance(c, int) or not 0 <= c < in_channels:
                    cause = " Truth values? Give torch.tensor(table)." if isinstance(c, bool) else ""
                    raise ValueError(f"{who}: expected channel numbers 0..{in_channels - 1} in table, got {c!r} in row {f}.{cause}")
                if seen[f, c]:
                    raise ValueError(f"{who}: row {f} of table names channel {c} twice.")
                seen[f, c] = True
    empty = (~seen.any(1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"{who}: row {empty[0]} of table is empty: that output map would see nothing. Connect it or leave it out.")
    return seen


class ConnectedConv2d(Conv2d):
    """Convolution over maps (B, C, H, W) whose output maps see the input maps that a table says; else as Conv2d, without groups.

    table: a bool tensor (F, C), or for every output map the numbers of the input maps that it sees: LENET5_C3, full, one_to_one, random.
    State: weight (N, 1, kh, kw), one kernel for each connection in the order of the table read row by row; bias (F,); table (F, C), so
    that a file says what its weights mean: weights of another table are refused. `dense()` is the weight (F, C, kh, kw) with its zeros.
    First weights as in torch.nn.Conv2d, the fan-in counted for each output map.
    Raises ValueError for a table of another shape, with numbers that are no channels, or with an empty row; else as Conv2d.

    >>> layer = ConnectedConv2d(6, 16, 5, table=LENET5_C3)
    >>> layer, sum(p.numel() for p in layer.parameters())
    (ConnectedConv2d(6, 16, kernel_size=(5, 5), stride=(1, 1), connections=60 of 96), 1516)
    """

    table: Tensor
    places: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, *arguments: Any, table: Any, **settings: Any) -> None:
        if len(arguments) > 3 or "groups" in settings:  # behind stride, padding and dilation
            raise ValueError("ConnectedConv2d: groups are a table, too. Give table, and what follows dilation by name.")
        super().__init__(in_channels, out_channels, kernel_size, *arguments, **settings)
        seen = table_of("ConnectedConv2d", table, in_channels, out_channels)
        places = seen.flatten().nonzero().flatten()
        self.register_buffer("table", seen.to(self.weight.device))
        self.register_buffer("places", places.to(self.weight.device), persistent=False)
        self.weight = nn.Parameter(self.weight.new_empty((len(places), 1, *self.weight.shape[2:])))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the first weights anew: uniform within 1 / sqrt(fan-in) of 0, kernels and biases alike."""
        if "table" not in self._buffers:  # torch's constructor calls before there is one
            return
        taps = prod(self.weight.shape[2:])
        bound_F = (self.table.sum(1) * taps).to(self.weight.dtype).rsqrt()
        with torch.no_grad():
            self.weight.uniform_(-1, 1).mul_(bound_F[self.places // self.in_channels].reshape(-1, 1, 1, 1))
            if self.bias is not None:
                self.bias.uniform_(-1, 1).mul_(bound_F)

    def forward(self, input: Tensor) -> Tensor:
        self.fitting(input)
        return self._conv_forward(input, self.dense(), self.bias)

    def dense(self) -> Tensor:
        """The weight (F, C, kh, kw) with zeros where nothing is connected; gradients pass through it."""
        weight: Tensor = connect(self.weight, self.places, self.out_channels, self.in_channels)
        return weight

    def drawing(self) -> str:
        """The table as the paper prints it: a row for every input map, a column for every output map.

        >>> print(ConnectedConv2d(3, 4, 1, table=[(0,), (0, 1), (1, 2), (2,)]).drawing())
             0  1  2  3
          0  X  X  .  .
          1  .  X  X  .
          2  .  .  X  X
        """
        lines = ["   " + "".join(f"{f:3}" for f in range(self.out_channels))]
        lines += [f"{c:3}" + "".join("  X" if seen else "  ." for seen in row) for c, row in enumerate(self.table.T.tolist())]
        return "\n".join(lines)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, connections={len(self.places)} of {self.table.numel()}"

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        saved = state_dict.get(f"{prefix}table")
        if isinstance(saved, Tensor) and not self.table.is_meta and not torch.equal(saved.to(self.table.device), self.table):
            error_msgs.append(
                f"ConnectedConv2d: {prefix}table of the file connects other maps ({int(saved.sum())} connections) than this layer "
                f"({len(self.places)}). Build the layer with table=state_dict['{prefix}table']."
            )
            return
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
