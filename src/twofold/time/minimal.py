"""minGRU and minLSTM: recurrence that can be computed in parallel.     T steps, B rows, D input features, U units

    gates      minGRU      [a_z g] = W x + b                         keep = 1 - z = sigmoid(-a_z)
               minLSTM     [a_i a_f g] = W x + b                     keep = f / (f + i) = sigmoid(log f - log i)
    forward    h_t = keep h_{t-1} + (1 - keep) g
    backward   e_t = dy_t + keep_{t+1} e_{t+1}                       the same recurrence, from the last step to the first
               dg = e (1 - keep)      dkeep = e (h_{t-1} - g)        dh_0 = keep_1 e_1
               minGRU      da_z = -dkeep keep (1 - keep)
               minLSTM     da_f = dkeep keep (1 - keep) (1 - f)      da_i = -dkeep keep (1 - keep) (1 - i)

The gates see x alone, so all are known before the first step, and h_t = a_t h_{t-1} + b_t is linear in h. Two such steps are one of the
same kind, (a_2 a_1, a_2 b_1 + b_2): join neighbours, solve the sequence that is half as long, fill in what is between. That takes a number
of operations that grows with log2 T instead of T, and twice the work.
It is stable as it stands: every h_t is a mean of h_{t-1} and g, products of numbers in (0, 1) can only fade to 0, and nothing is divided
by them; the paper's logarithms are needed only where a scan divides.

Feng, Tung, Ahmed, Bengio and Hajimirsadeghi, "Were RNNs all we needed?", arXiv:2410.01201, 2024, sections 3.1 and 3.2; the scan: Blelloch,
"Prefix sums and their applications", CMU-CS-90-190, 1990, section 1.4
"""

from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import Operation, Other, differentiable
from twofold.layers.expect import expect_positive
from twofold.layers.routes import Routed, wanted_route
from twofold.time.product import product, product_back
from twofold.time.recurrent import Cell, unroll, unroll_back
from twofold.time.sequence import StateForm, expect_sequence, expect_state, expect_switches
from twofold.time.step import alone, expect_weights

State = tuple[Tensor]


class Weights(NamedTuple):
    """W and b: (2U, D) and (2U) for minGRU in the order z g, (3U, D) and (3U) for minLSTM in the order i f g; None where there is no b."""

    weight_ih: Any
    bias_ih: Any = None


class Saved(NamedTuple):
    """What backward needs of a step, or of all steps: the input's part [a g], the share that is kept and that is taken, g, h before."""

    drive_BG: Tensor
    keep_BU: Tensor
    take_BU: Tensor
    g_BU: Tensor
    h_before_BU: Tensor


def drive(x_BD: Tensor, weights: Weights) -> Tensor:
    """[a g], for one step or, with a leading axis, for all of them."""
    q, _ = product(x_BD, weights.weight_ih, None)
    return q if weights.bias_ih is None else q + weights.bias_ih


def drive_back(ddrive_BG: Tensor, x_BD: Tensor, weights: Weights) -> tuple[Tensor, Weights]:
    """(dx_BD, dweights)"""
    dx_BD, dweight_ih, _ = product_back(ddrive_BG, x_BD, weights.weight_ih, None, None)
    return dx_BD, Weights(dweight_ih, None if weights.bias_ih is None else ddrive_BG.flatten(0, -2).sum(0))


def odds(drive_BG: Tensor, gates: int) -> tuple[Tensor, Tensor]:
    """(k, g): keep = sigmoid(k). Differences of logarithms: f / (f + i) itself would be 0 / 0 where both are tiny."""
    *a, g = drive_BG.chunk(gates, -1)
    return (-a[0] if gates == 2 else F.logsigmoid(a[1]) - F.logsigmoid(a[0])), g


def odds_back(dk: Tensor, dg: Tensor, drive_BG: Tensor, gates: int) -> Tensor:
    """ddrive_BG"""
    *a, _ = drive_BG.chunk(gates, -1)
    da = [-dk] if gates == 2 else [-dk * (-a[0]).sigmoid(), dk * (-a[1]).sigmoid()]
    return torch.cat((*da, dg), -1)


def gate(drive_BG: Tensor, gates: int) -> tuple[Tensor, Tensor, Tensor]:
    """(keep, take = 1 - keep, g)"""
    k, g = odds(drive_BG, gates)
    return k.sigmoid(), (-k).sigmoid(), g


def step(drive_BG: Tensor, state: State, weights: Weights, mask_BU: Tensor | None = None, gates: int = 2) -> tuple[State, Saved]:
    """((h_BU,), saved) from [a g] and the state before. h enters no product, so recurrent dropout has nothing to mask."""
    keep, take, g = gate(drive_BG, gates)
    (h_before,) = state
    return (keep * h_before + take * g,), Saved(drive_BG, keep, take, g, h_before)


def step_back(
    dstate: State, saved: Saved, weights: Weights, mask_BU: Tensor | None = None, gates: int = 2
) -> tuple[Tensor, State, Weights]:
    """(ddrive_BG, (dh_before_BU,), no weights): a step, or all steps at once when e is known."""
    (e,) = dstate
    drive_BG, keep, take, g, h_before = saved
    dk = e * (h_before - g) * keep * take
    return odds_back(dk, e * take, drive_BG, gates), (e * keep,), Weights(None)


MIN_GRU = Cell(drive, drive_back, step, step_back, states=("h",), weights=Weights, gates=2)
MIN_LSTM = MIN_GRU._replace(step=partial(step, gates=3), step_back=partial(step_back, gates=3), gates=3)


def scan(a_TBU: Tensor, b_TBU: Tensor) -> Tensor:
    """h_t = a_t h_{t-1} + b_t for all t, with h_0 = 0, in about 6 log2 T operations."""
    T = a_TBU.shape[0]
    if T < 2:
        return b_TBU
    first, second = slice(0, T - T % 2, 2), slice(1, None, 2)
    later = scan(a_TBU[second] * a_TBU[first], a_TBU[second] * b_TBU[first] + b_TBU[second])  # h_2, h_4, ...
    earlier = torch.cat((b_TBU[:1], a_TBU[2::2] * later[: (T - 1) // 2] + b_TBU[2::2]))  # h_1, h_3, ...
    pairs = torch.stack((earlier[: T // 2], later), 1).flatten(0, 1)
    return torch.cat((pairs, earlier[T // 2 :])) if T % 2 else pairs


class SavedParallel(NamedTuple):
    """What the backward of the parallel form needs: the steps' parts, each (T, B, ...)."""

    x_TBD: Tensor
    weights: Weights
    steps: Saved


def in_parallel(cell: Cell, name: str) -> Operation:
    """(x_TBD, h_BU, weight_ih, bias_ih) -> (y_TBU, h_BU) by two scans: forward, and back."""

    def forward(x_TBD: Tensor, h_BU: Tensor, *weights: Any) -> tuple[tuple[Tensor, Tensor], SavedParallel]:
        drive_TBG = cell.drive(x_TBD, Weights(*weights))
        keep, take, g = gate(drive_TBG, cell.gates)
        h = scan(torch.cat((torch.ones_like(h_BU)[None], keep)), torch.cat((h_BU[None], take * g)))  # h_0 .. h_T
        return (h[1:], h[-1]), SavedParallel(x_TBD, Weights(*weights), Saved(drive_TBG, keep, take, g, h[:-1]))

    def backward(dy: tuple[Tensor, Tensor], saved: SavedParallel) -> tuple[Tensor | None, ...]:
        (dy_TBU, dlast), keep = dy, saved.steps.keep_BU
        edge = torch.ones_like(dlast)[None]
        down = torch.cat((0 * edge, dy_TBU, dlast[None])).flip(0)  # what the loss asks of the last state, of h_T .. h_0
        e = scan(torch.cat((edge, edge, keep.flip(0))), down).flip(0)[:-1]
        ddrive_TBG, _, _ = cell.step_back((e[1:],), saved.steps, saved.weights, None)
        dx_TBD, dweights = cell.drive_back(ddrive_TBG, saved.x_TBD, saved.weights)
        return dx_TBD, e[0], *dweights

    forward.__name__ = f"{name}_in_parallel"
    return differentiable(forward, backward)


def step_by_step(cell: Cell, name: str) -> Operation:
    """(x_TBD, h_BU, weight_ih, bias_ih) -> (y_TBU, h_BU): the definition, step after step, and the parallel form as a further route."""

    def forward(x_TBD: Tensor, h_BU: Tensor, *weights: Any) -> tuple[tuple[Tensor, ...], Any]:
        y_TBU, state, saved = unroll(cell, x_TBD, (h_BU,), Weights(*weights))
        return (y_TBU, *state), saved

    def backward(dy: tuple[Tensor, Tensor], saved: Any) -> tuple[Tensor | None, ...]:
        dx_TBD, dstate, dweights = unroll_back(cell, dy[0], (dy[1],), saved)
        return dx_TBD, *dstate, *dweights

    forward.__name__ = name
    return differentiable(forward, backward, others={"parallel": Other(partial(in_parallel(cell, name).by, "plain"))})


min_gru = step_by_step(MIN_GRU, "min_gru")
min_lstm = step_by_step(MIN_LSTM, "min_lstm")


class Minimal(Routed):
    """What MinGRU and MinLSTM have in common: y, h = layer(x, h)."""

    operation: Operation
    gates: int

    def __init__(  # type: ignore[no-untyped-def]
        self, input_size: int, hidden_size: int, batch_first: bool = False, bias: bool = True, device=None, dtype=None
    ) -> None:
        who = type(self).__name__
        expect_positive(who, input_size=input_size, hidden_size=hidden_size)
        expect_switches(who, batch_first=batch_first, bias=bias)
        expect_weights(who, self.gates, input_size, hidden_size)
        super().__init__()
        self.input_size, self.hidden_size, self.batch_first, self.bias = input_size, hidden_size, batch_first, bias
        rows = self.gates * hidden_size
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size, device=device, dtype=dtype))
        self.bias_ih = nn.Parameter(torch.empty(rows, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1/sqrt(D), as a linear layer of torch's."""
        for weight in self.parameters():
            nn.init.uniform_(weight, -(self.input_size**-0.5), self.input_size**-0.5)

    def forward(self, input: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        who = type(self).__name__
        expect_sequence(who, input, self.input_size, self.batch_first, self.weight_ih)
        single = input.dim() == 2
        x_TBD = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
        if h is None:
            h_BU = x_TBD.new_zeros(x_TBD.shape[1], self.hidden_size)
        else:
            form = StateForm(("h",), (self.hidden_size,), 1, 1, self.batch_first)
            (h_LBU,) = expect_state(who, alone(who, h), form, None if single else x_TBD.shape[1], input)
            h_BU = h_LBU if single else h_LBU[0]
        plain = not torch.compiler.is_compiling() and wanted_route() == "plain"
        self.took("plain" if plain else "parallel", "asked for" if plain else "rule")
        y_TBU, h_BU = self.operation.by("plain" if plain else "parallel", x_TBD, h_BU, self.weight_ih, self.bias_ih)
        if single:
            return y_TBU[:, 0], h_BU
        return y_TBU.transpose(0, 1) if self.batch_first else y_TBU, h_BU[None]

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        return text + ", batch_first=True" * self.batch_first + ", bias=False" * (not self.bias)


class MinGRU(Minimal):
    """y, h = layer(x, h): a GRU whose gate and candidate see the input alone, over x (T, B, D), or (B, T, D) with batch_first, or (T, D).

    y (T, B, U), or (B, T, U); h (1, B, U) before the first step and after the last, zeros where none is given. The weights are weight_ih
    (2U, D) and bias_ih (2U), in the order z, g. All steps are computed at once (route "parallel"), or one by one (route "plain").
    One layer forgets by what it sees, and knows nothing of what it remembers: the paper stacks several, with a linear layer between.
    Raises ValueError for sizes below 1, and for input or state of another shape, dtype or device.

    >>> layer = MinGRU(2, 3)
    >>> y, h = layer(torch.zeros(5, 4, 2))
    >>> y.shape, h.shape
    (torch.Size([5, 4, 3]), torch.Size([1, 4, 3]))
    """

    operation, gates = min_gru, 2


class MinLSTM(Minimal):
    """y, h = layer(x, h): an LSTM whose gates see the input alone and share 1 between forgetting and taking in. See MinGRU.

    The weights are weight_ih (3U, D) and bias_ih (3U), in the order i, f, g. There is no separate cell: h is the state.
    Raises ValueError for sizes below 1, and for input or state of another shape, dtype or device.

    >>> MinLSTM(2, 3).weight_ih.shape
    torch.Size([9, 2])
    """

    operation, gates = min_lstm, 3
