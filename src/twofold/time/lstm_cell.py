"""The LSTM step.     B rows, D input features, U units, R outputs: R = U, or fewer with a projection; G = 4U, in the order i f g o

    forward    a = q(x) + b_ih + q(h') + b_hh                    a = [a_i a_f a_g a_o]; q: the product with W_ih or W_hh, with layer norm
               i = sigmoid(a_i + p_i c_before)                       where there are gains (product); h' = mask h_before, recurrent
               f = sigmoid(a_f + p_f c_before)                       dropout's mask, or h_before; p: the peepholes, 0 where there are none
               g = tanh(a_g)
               c = f c_before + i g
               o = sigmoid(a_o + p_o c)                          it looks at the new cell
               e = tanh(c), or tanh(LN(c) norm_c + norm_c_bias)
               m = o e
               h = m W_hr'          without a projection h = m
    coupled    f = 1 - i            a = [a_i a_g a_o], G = 3U, p = [p_i p_o]
    backward   dm = dh W_hr         dW_hr = dh' m
               da_o = dm e o (1 - o)                             de = dm o (1 - e^2), led back through LN where c is normalised
               dc = dc + de + da_o p_o                           what comes from later steps, through h, and through o's peephole
               da_i = dc g i (1 - i)                  da_f = dc c_before f (1 - f)                 da_g = dc i (1 - g^2)
    coupled    da_i = dc (g - c_before) i (1 - i)
               dc_before = dc f + da_i p_i + da_f p_f
               dp_i = sum_b da_i c_before             dp_f = sum_b da_f c_before                   dp_o = sum_b da_o c
               dx, dW_ih = q's of da      dh_before = mask dh', dW_hh: q's of da        db_ih = db_hh = sum_b da

Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997, section 4; the forget gate: Gers, Schmidhuber
and Cummins, "Learning to forget", Neural Computation 12(10), 2000, section 3; peepholes: Gers, Schraudolph and Schmidhuber, "Learning
precise timing with LSTM recurrent networks", JMLR 3, 2002, section 3; the full gradient: Graves and Schmidhuber, "Framewise phoneme
classification with bidirectional LSTM", Neural Networks 18, 2005, appendix A; coupled gates: Greff et al., "LSTM: a search space odyssey",
IEEE TNNLS 28, 2017, section III (CIFG); the projection: Sak, Senior and Beaufays, "Long short-term memory based recurrent neural network
architectures for large vocabulary speech recognition", 2014, section 2; layer norm: Ba, Kiros and Hinton, 2016, supplementary material
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twofold.layers.expect import expect_positive
from twofold.time.forget import Forgetting, expect_forget_bias
from twofold.time.product import Normal, expect_layer_norm, normalize, normalize_back, product, product_back
from twofold.time.recurrent import Cell
from twofold.time.sequence import expect_switches
from twofold.time.step import OneStep, expect_weights, one_step, shown

State = tuple[Tensor, Tensor]


class Weights(NamedTuple):
    """By torch's names: (4U, D), (4U, R), (4U), (4U), (R, U); None where there is none. What torch lacks: the peepholes (3U), in the order
    i f o, and the gains of layer norm (4U), (4U), (U) with the shift (U) of c. Coupled: 3U for 4U, and the peepholes (2U) of i o.
    """

    weight_ih: Any
    weight_hh: Any
    bias_ih: Any = None
    bias_hh: Any = None
    weight_hr: Any = None
    peephole: Any = None
    norm_ih: Any = None
    norm_hh: Any = None
    norm_c: Any = None
    norm_c_bias: Any = None


class Saved(NamedTuple):
    """What the step's backward needs: the gates i, f, g (the candidate) and o, the cell c, the state before the step, and what the layer
    norms of q(h') and of c left.
    """

    i_BU: Tensor
    f_BU: Tensor
    g_BU: Tensor
    o_BU: Tensor
    c_BU: Tensor
    h_before_BR: Tensor
    c_before_BU: Tensor
    normal: Normal | None = None
    normal_c: Normal | None = None


def drive(x_BD: Tensor, weights: Weights) -> Tensor:
    """The input's part of a, for one step or, with a leading axis, for all of them."""
    q, _ = product(x_BD, weights.weight_ih, weights.norm_ih)
    return q if weights.bias_ih is None else q + weights.bias_ih


def drive_back(da_BG: Tensor, x_BD: Tensor, weights: Weights) -> tuple[Tensor, Weights]:
    """(dx_BD, dweights of the input's part)"""
    normal = None if weights.norm_ih is None else product(x_BD, weights.weight_ih, weights.norm_ih)[1]
    dx_BD, dweight_ih, dnorm_ih = product_back(da_BG, x_BD, weights.weight_ih, weights.norm_ih, normal)
    dbias_ih = None if weights.bias_ih is None else da_BG.flatten(0, -2).sum(0)
    return dx_BD, Weights(dweight_ih, None, dbias_ih, norm_ih=dnorm_ih)


def step(drive_BG: Tensor, state: State, weights: Weights, mask_BR: Tensor | None = None, coupled: bool = False) -> tuple[State, Saved]:
    """((h_BR, c_BU), saved) from the input's part of a and the state before."""
    h_before, c_before = state
    q, normal = product(h_before if mask_BR is None else mask_BR * h_before, weights.weight_hh, weights.norm_hh)
    a = drive_BG + q
    if weights.bias_hh is not None:
        a = a + weights.bias_hh
    a_i, *a_f, a_g, a_o = a.chunk(3 if coupled else 4, -1)
    p_i, *p_f, p_o = peepholes(weights, coupled)
    i = look(a_i, p_i, c_before).sigmoid()
    f = 1 - i if coupled else look(a_f[0], p_f[0], c_before).sigmoid()
    g = a_g.tanh()
    c = f * c_before + i * g
    o = look(a_o, p_o, c).sigmoid()
    e, normal_c = squash(c, weights)
    m = o * e
    h = m if weights.weight_hr is None else m @ weights.weight_hr.t()
    return (h, c), Saved(i, f, g, o, c, h_before, c_before, normal, normal_c)


def step_back(
    dstate: State, saved: Saved, weights: Weights, mask_BR: Tensor | None = None, coupled: bool = False
) -> tuple[Tensor, State, Weights]:
    """(da_BG, (dh_before_BR, dc_before_BU), dweights of the state's part)"""
    dh, dc = dstate
    i, f, g, o, c, h_before, c_before, normal, normal_c = saved
    *p_before, p_o = peepholes(weights, coupled)
    e, _ = squash(c, weights)
    dm = dh if weights.weight_hr is None else dh @ weights.weight_hr
    dweight_hr = None if weights.weight_hr is None else dh.t() @ (o * e)
    da_o = dm * e * o * (1 - o)
    de, dnorm_c, dnorm_c_bias = squash_back(dm * o * (1 - e * e), normal_c, weights)
    dc = look(dc + de, p_o, da_o)
    da_g = dc * i * (1 - g * g)
    di = dc * (g - c_before) if coupled else dc * g
    da_before = [di * i * (1 - i)] if coupled else [di * i * (1 - i), dc * c_before * f * (1 - f)]  # of the gates that see c_before
    dc_before = dc * f
    for p, da in zip(p_before, da_before, strict=True):
        dc_before = look(dc_before, p, da)
    da_BG = torch.cat((*da_before, da_g, da_o), -1)
    seen = h_before if mask_BR is None else mask_BR * h_before
    dseen, dweight_hh, dnorm_hh = product_back(da_BG, seen, weights.weight_hh, weights.norm_hh, normal)
    dh_before = dseen if mask_BR is None else mask_BR * dseen
    dbias_hh = None if weights.bias_hh is None else da_BG.sum(0)
    dpeephole = None
    if p_o is not None:
        dpeephole = torch.cat((*((da * c_before).sum(0) for da in da_before), (da_o * c).sum(0)))
    dweights = Weights(None, dweight_hh, None, dbias_hh, dweight_hr, dpeephole, None, dnorm_hh, dnorm_c, dnorm_c_bias)
    return da_BG, (dh_before, dc_before), dweights


def peepholes(weights: Weights, coupled: bool) -> tuple[Tensor | None, ...]:
    """p_i, p_f and p_o, without p_f where coupled; None where there are none."""
    gates = 2 if coupled else 3
    return (None,) * gates if weights.peephole is None else weights.peephole.chunk(gates)


def look(a_BU: Tensor, p_U: Tensor | None, cell_BU: Tensor) -> Tensor:
    """a + p c"""
    return a_BU if p_U is None else a_BU + p_U * cell_BU


def squash(c_BU: Tensor, weights: Weights) -> tuple[Tensor, Normal | None]:
    """(e_BU, what layer norm left)"""
    if weights.norm_c is None:
        return c_BU.tanh(), None
    normal, saved = normalize(c_BU)
    scaled = normal * weights.norm_c
    return (scaled if weights.norm_c_bias is None else scaled + weights.norm_c_bias).tanh(), saved


def squash_back(de_BU: Tensor, saved: Normal | None, weights: Weights) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(dc_BU, dnorm_c, dnorm_c_bias) from the gradient beneath the tanh."""
    if saved is None:
        return de_BU, None, None
    dshift = None if weights.norm_c_bias is None else de_BU.sum(0)
    return normalize_back(de_BU * weights.norm_c, saved), (de_BU * saved.normals[0]).sum(0), dshift


LSTM = Cell(drive, drive_back, step, step_back, states=("h", "c"), weights=Weights, gates=4)
COUPLED = LSTM._replace(step=partial(step, coupled=True), step_back=partial(step_back, coupled=True), gates=3)


def vendor(x_BD: Tensor, h_BU: Tensor, c_BU: Tensor, *weights: Any) -> tuple[Tensor, Tensor]:
    """torch's own step, which knows no projection, no option and no mask."""
    h_BU, c_BU = torch._VF.lstm_cell(x_BD, (h_BU, c_BU), *weights[:4])
    return h_BU, c_BU


lstm_step = one_step(LSTM, "lstm_step", vendor)
lstm_step_with_options = one_step(LSTM, "lstm_step_with_options")
coupled_step = one_step(COUPLED, "coupled_step")


def expect_coupled(who: str, coupled: bool, forget_bias: float | None) -> None:
    """Raise ValueError where a forget gate is asked for that is not there."""
    if coupled and forget_bias is not None:
        raise ValueError(
            f"{who}: expected no forget_bias with coupled=True, got {forget_bias}: the forget gate is 1 - i and has no bias of its own. "
            "To keep the memory open at the start, set the input gate's bias below 0."
        )


class LSTMCell(OneStep, Forgetting, nn.LSTMCell):
    """One step: (h, c) = cell(x, (h, c)) for x (B, input_size), h and c (B, hidden_size); without a state, zeros.

    torch.nn.LSTMCell with routes and clear errors, and what torch lacks. x (input_size,) with h and c (hidden_size,) is a single row.
    forget_bias: what the two biases of the forget gate add up to at the start: 1 keeps the cell's memory open while training begins
    peephole: the gates see the cell, through the weights `peephole` in the order i f o (coupled: i o)
    coupled: the forget gate is 1 - i, and the weights hold three gates in the order i g o
    layer_norm: the parts of input and state, and the cell on its way out, are normalised, with norm_ih, norm_hh, norm_c and norm_c_bias
    Raises ValueError for sizes below 1, a forget_bias without bias or with coupled, layer norm of one unit, and for input or state of
    another shape, dtype or device.

    >>> import torch
    >>> cell = LSTMCell(2, 3, forget_bias=1.0)
    >>> (cell.bias_ih + cell.bias_hh)[3:6].tolist()
    [1.0, 1.0, 1.0]
    >>> h, c = cell(torch.zeros(4, 2))
    >>> h.shape, c.shape
    (torch.Size([4, 3]), torch.Size([4, 3]))
    >>> [tuple(weight.shape) for weight in LSTMCell(2, 3, coupled=True, peephole=True).parameters()]
    [(9, 2), (9, 3), (9,), (9,), (6,)]
    """

    def __init__(  # type: ignore[no-untyped-def]
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device=None,
        dtype=None,
        *,
        forget_bias: float | None = None,
        peephole: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
    ) -> None:
        expect_positive("LSTMCell", input_size=input_size, hidden_size=hidden_size)
        expect_switches("LSTMCell", bias=bias, peephole=peephole, coupled=coupled, layer_norm=layer_norm)
        expect_coupled("LSTMCell", coupled, forget_bias)
        expect_layer_norm("LSTMCell", layer_norm, hidden_size)
        gates, U = 3 if coupled else 4, hidden_size
        expect_weights("LSTMCell", gates, input_size, hidden_size)
        self.forget_bias = expect_forget_bias("LSTMCell", forget_bias, bias)
        super(nn.LSTMCell, self).__init__(input_size, hidden_size, bias, gates, device, dtype)  # past nn.LSTMCell's own: it sets four gates
        self.coupled, self.layer_norm = coupled, layer_norm
        norms = {"norm_ih": gates * U, "norm_hh": gates * U, "norm_c": U, "norm_c_bias": U}
        self.add_weights({"peephole": (gates - 1) * U if peephole else None})
        self.add_weights({name: size if layer_norm else None for name, size in norms.items()})

    @property
    def cell(self) -> Cell:
        """The step that `Recurrent` repeats."""
        return COUPLED if self.coupled else LSTM

    def weights(self) -> Weights:
        """Its weights."""
        norms = self.norm_ih, self.norm_hh, self.norm_c, self.norm_c_bias
        return Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, None, self.peephole, *norms)

    def forward(self, input: Tensor, hx: State | None = None) -> State:
        further = self.peephole is not None or self.layer_norm
        h, c = self.advance(coupled_step if self.coupled else lstm_step_with_options if further else lstm_step, self.cell, input, hx)
        return h, c

    def extra_repr(self) -> str:
        return shown(super().extra_repr(), peephole=self.peephole is not None, coupled=self.coupled, layer_norm=self.layer_norm)
