"""The LSTM step.     B rows, D input features, U units, R outputs: R = U, or fewer with a projection; G = 4U, in the order i f g o

    forward    a = x W_ih' + b_ih + h_before W_hh' + b_hh         a = [a_i a_f a_g a_o]
               i = sigmoid(a_i)     f = sigmoid(a_f)     g = tanh(a_g)     o = sigmoid(a_o)
               c = f c_before + i g
               m = o tanh(c)
               h = m W_hr'          without a projection h = m
    backward   dm = dh W_hr         dW_hr = dh' m
               dc = dc + dm o (1 - tanh(c)^2)                     what comes from later steps, and what comes through h
               da_i = dc g i (1 - i)                  da_f = dc c_before f (1 - f)
               da_g = dc i (1 - g^2)                  da_o = dm tanh(c) o (1 - o)
               dc_before = dc f                       dh_before = da W_hh                  dx = da W_ih
               dW_ih = da' x        dW_hh = da' h_before          db_ih = db_hh = sum_b da

Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997, section 4; the forget gate: Gers, Schmidhuber
and Cummins, "Learning to forget", Neural Computation 12(10), 2000, section 3; the full gradient: Graves and Schmidhuber, "Framewise
phoneme classification with bidirectional LSTM", Neural Networks 18, 2005, appendix A; the projection: Sak, Senior and Beaufays,
"Long short-term memory based recurrent neural network architectures for large vocabulary speech recognition", 2014, section 2
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_positive
from twofold.layers.routes import Routed
from twofold.time.forget import Forgetting, expect_forget_bias
from twofold.time.recurrent import Cell
from twofold.time.sequence import expect_step, expect_step_state, expect_switches


class Weights(NamedTuple):
    """The weights of one LSTM by torch's names: (4U, D), (4U, R), (4U), (4U), (R, U); None where there is none."""

    weight_ih: Any
    weight_hh: Any
    bias_ih: Any = None
    bias_hh: Any = None
    weight_hr: Any = None


class Saved(NamedTuple):
    """What the step's backward needs: the gates i, f, g (the candidate) and o, the cell c, and the state before the step."""

    i_BU: Tensor
    f_BU: Tensor
    g_BU: Tensor
    o_BU: Tensor
    c_BU: Tensor
    h_before_BR: Tensor
    c_before_BU: Tensor


def drive(x_BD: Tensor, weights: Weights) -> Tensor:
    """The input's part of a: x W_ih' + b_ih, for one step or, with a leading axis, for all of them."""
    drive_BG = x_BD @ weights.weight_ih.t()
    return drive_BG if weights.bias_ih is None else drive_BG + weights.bias_ih


def drive_back(da_BG: Tensor, x_BD: Tensor, weights: Weights) -> tuple[Tensor, Weights]:
    """(dx_BD, dweights of the input's part)"""
    dx_BD = da_BG @ weights.weight_ih
    da_NG = da_BG.flatten(0, -2)
    dweight_ih = da_NG.t() @ x_BD.flatten(0, -2)
    return dx_BD, Weights(dweight_ih, None, None if weights.bias_ih is None else da_NG.sum(0))


def step(drive_BG: Tensor, state: tuple[Tensor, Tensor], weights: Weights) -> tuple[tuple[Tensor, Tensor], Saved]:
    """((h_BR, c_BU), saved) from the input's part of a and the state before."""
    h_before_BR, c_before_BU = state
    a_BG = drive_BG + h_before_BR @ weights.weight_hh.t()
    if weights.bias_hh is not None:
        a_BG = a_BG + weights.bias_hh
    a_i, a_f, a_g, a_o = a_BG.chunk(4, dim=-1)
    i, f, g, o = a_i.sigmoid(), a_f.sigmoid(), a_g.tanh(), a_o.sigmoid()
    c = f * c_before_BU + i * g
    m = o * c.tanh()
    h = m if weights.weight_hr is None else m @ weights.weight_hr.t()
    return (h, c), Saved(i, f, g, o, c, h_before_BR, c_before_BU)


def step_back(dstate: tuple[Tensor, Tensor], saved: Saved, weights: Weights) -> tuple[Tensor, tuple[Tensor, Tensor], Weights]:
    """(da_BG, (dh_before_BR, dc_before_BU), dweights of the state's part)"""
    dh, dc = dstate
    i, f, g, o, c, h_before_BR, c_before_BU = saved
    tanh_c = c.tanh()
    dm = dh if weights.weight_hr is None else dh @ weights.weight_hr
    dweight_hr = None if weights.weight_hr is None else dh.t() @ (o * tanh_c)
    dc = dc + dm * o * (1 - tanh_c * tanh_c)
    da_i = dc * g * i * (1 - i)
    da_f = dc * c_before_BU * f * (1 - f)
    da_g = dc * i * (1 - g * g)
    da_o = dm * tanh_c * o * (1 - o)
    da_BG = torch.cat((da_i, da_f, da_g, da_o), dim=-1)
    dh_before_BR, dc_before_BU = da_BG @ weights.weight_hh, dc * f
    dbias_hh = None if weights.bias_hh is None else da_BG.sum(0)
    return da_BG, (dh_before_BR, dc_before_BU), Weights(None, da_BG.t() @ h_before_BR, None, dbias_hh, dweight_hr)


LSTM = Cell(drive, drive_back, step, step_back, states=("h", "c"))


class SavedCall(NamedTuple):
    """What backward of a single call of the cell needs."""

    x_BD: Tensor
    weights: Weights
    step: Saved


def forward(
    x_BD: Tensor,
    h_BU: Tensor,
    c_BU: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
) -> tuple[tuple[Tensor, Tensor], SavedCall]:
    """((h_BU, c_BU), saved): one step of the LSTM."""
    weights = Weights(weight_ih, weight_hh, bias_ih, bias_hh)
    state, saved = step(drive(x_BD, weights), (h_BU, c_BU), weights)
    return state, SavedCall(x_BD, weights, saved)


def backward(dstate: tuple[Tensor, Tensor], saved: SavedCall) -> tuple[Tensor | None, ...]:
    """(dx_BD, dh_BU, dc_BU, dweight_ih, dweight_hh, dbias_ih, dbias_hh)"""
    da_BG, (dh_BU, dc_BU), state_part = step_back(dstate, saved.step, saved.weights)
    dx_BD, input_part = drive_back(da_BG, saved.x_BD, saved.weights)
    return dx_BD, dh_BU, dc_BU, input_part.weight_ih, state_part.weight_hh, input_part.bias_ih, state_part.bias_hh


def vendor(x_BD: Tensor, h_BU: Tensor, c_BU: Tensor, *weights: Any) -> tuple[Tensor, Tensor]:
    """torch's own step."""
    h_BU, c_BU = torch._VF.lstm_cell(x_BD, (h_BU, c_BU), *weights)
    return h_BU, c_BU


lstm_step = differentiable(forward, backward, vendor=vendor)


class LSTMCell(Routed, Forgetting, nn.LSTMCell):
    """One step: (h, c) = cell(x, (h, c)) for x (B, input_size), h and c (B, hidden_size); without a state, zeros.

    torch.nn.LSTMCell with routes and clear errors, and `forget_bias`: what the two biases of the forget gate add up to at the start
    (1 keeps the cell's memory open while training begins). x (input_size,) with h and c (hidden_size,) is a single row.
    Raises ValueError for sizes below 1, a forget_bias without bias, and for input or state of another shape, dtype or device.

    >>> import torch
    >>> cell = LSTMCell(2, 3, forget_bias=1.0)
    >>> (cell.bias_ih + cell.bias_hh)[3:6].tolist()
    [1.0, 1.0, 1.0]
    >>> h, c = cell(torch.zeros(4, 2))
    >>> h.shape, c.shape
    (torch.Size([4, 3]), torch.Size([4, 3]))
    """

    def __init__(  # type: ignore[no-untyped-def]
        self, input_size: int, hidden_size: int, bias: bool = True, device=None, dtype=None, *, forget_bias: float | None = None
    ) -> None:
        expect_positive("LSTMCell", input_size=input_size, hidden_size=hidden_size)
        expect_switches("LSTMCell", bias=bias)
        self.forget_bias = expect_forget_bias("LSTMCell", forget_bias, bias)
        super().__init__(input_size, hidden_size, bias, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        expect_step("LSTMCell", input, self.input_size, self.weight_ih)
        if hx is None:
            zeros = input.new_zeros((*input.shape[:-1], self.hidden_size))
            hx = (zeros, zeros)
        else:
            hx = expect_step_state("LSTMCell", hx, LSTM.states, input, self.hidden_size, self.weight_ih)
        if input.dim() == 2:
            h, c = self.run(lstm_step, input, *hx, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
            return h, c
        h, c = self.run(lstm_step, input[None], hx[0][None], hx[1][None], self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return h[0], c[0]
