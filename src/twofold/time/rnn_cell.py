"""The simple recurrent step.     B rows, D input features, U units; G = U

    forward    a = q(x) + b_ih + q(h') + b_hh         q: the product with W_ih or W_hh, with layer norm where there are gains (product)
               h = tanh(a)      or h = max(a, 0)      h' = mask h_before, recurrent dropout's mask; without one h' = h_before
    backward   da = dh (1 - h^2)      or da = dh where h > 0
               dx, dW_ih = q's of da      dh_before = mask dh', dW_hh: q's of da        db_ih = db_hh = sum_b da

ReLU's corner: at a = 0 the derivative is taken as 0.

Elman, "Finding structure in time", Cognitive Science 14, 1990; with ReLU: Le, Jaitly and Hinton, "A simple way to initialize recurrent
networks of rectified linear units", arXiv:1504.00941, 2015; the mask: Gal and Ghahramani, "A theoretically grounded application of
dropout in recurrent neural networks", NeurIPS 2016, section 4
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twofold.layers.expect import expect_positive
from twofold.time.product import Normal, expect_layer_norm, product, product_back
from twofold.time.recurrent import Cell
from twofold.time.sequence import expect_switches
from twofold.time.step import OneStep, expect_weights, one_step, shown

State = tuple[Tensor]


class Weights(NamedTuple):
    """By torch's names: (U, D), (U, U), (U), (U), and the gains of layer norm (U), (U); None where there is none."""

    weight_ih: Any
    weight_hh: Any
    bias_ih: Any = None
    bias_hh: Any = None
    norm_ih: Any = None
    norm_hh: Any = None


class Saved(NamedTuple):
    """What the step's backward needs: the state after and before the step, and what layer norm left."""

    h_BU: Tensor
    h_before_BU: Tensor
    normal: Normal | None = None


def drive(x_BD: Tensor, weights: Weights) -> Tensor:
    """The input's part of a, for one step or, with a leading axis, for all of them."""
    q, _ = product(x_BD, weights.weight_ih, weights.norm_ih)
    return q if weights.bias_ih is None else q + weights.bias_ih


def drive_back(da_BU: Tensor, x_BD: Tensor, weights: Weights) -> tuple[Tensor, Weights]:
    """(dx_BD, dweights of the input's part)"""
    normal = None if weights.norm_ih is None else product(x_BD, weights.weight_ih, weights.norm_ih)[1]
    dx_BD, dweight_ih, dnorm_ih = product_back(da_BU, x_BD, weights.weight_ih, weights.norm_ih, normal)
    dbias_ih = None if weights.bias_ih is None else da_BU.flatten(0, -2).sum(0)
    return dx_BD, Weights(dweight_ih, None, dbias_ih, norm_ih=dnorm_ih)


def step(drive_BU: Tensor, state: State, weights: Weights, mask_BU: Tensor | None = None, relu: bool = False) -> tuple[State, Saved]:
    """((h_BU,), saved) from the input's part of a and the state before."""
    (h_before,) = state
    seen = h_before if mask_BU is None else mask_BU * h_before
    q, normal = product(seen, weights.weight_hh, weights.norm_hh)
    a = drive_BU + q
    if weights.bias_hh is not None:
        a = a + weights.bias_hh
    h = a.relu() if relu else a.tanh()
    return (h,), Saved(h, h_before, normal)


def step_back(
    dstate: State, saved: Saved, weights: Weights, mask_BU: Tensor | None = None, relu: bool = False
) -> tuple[Tensor, State, Weights]:
    """(da_BU, (dh_before_BU,), dweights of the state's part)"""
    (dh,) = dstate
    h, h_before, normal = saved
    da = torch.where(h <= 0, 0, dh) if relu else dh * (1 - h * h)
    seen = h_before if mask_BU is None else mask_BU * h_before
    dseen, dweight_hh, dnorm_hh = product_back(da, seen, weights.weight_hh, weights.norm_hh, normal)
    dh_before = dseen if mask_BU is None else mask_BU * dseen
    dbias_hh = None if weights.bias_hh is None else da.sum(0)
    return da, (dh_before,), Weights(None, dweight_hh, None, dbias_hh, None, dnorm_hh)


TANH = Cell(drive, drive_back, step, step_back, states=("h",), weights=Weights, gates=1)
RELU = TANH._replace(step=partial(step, relu=True), step_back=partial(step_back, relu=True))
CELLS = {"tanh": TANH, "relu": RELU}


def vendor(x_BD: Tensor, h_BU: Tensor, *weights: Any, relu: bool = False) -> Tensor:
    """torch's own step, which knows neither layer norm nor a mask."""
    compute = torch._VF.rnn_relu_cell if relu else torch._VF.rnn_tanh_cell
    h_1BU: Tensor = compute(x_BD, h_BU, *weights[:4])
    return h_1BU


STEPS = {  # (nonlinearity, whether there is something that torch lacks)
    ("tanh", False): one_step(TANH, "tanh_step", vendor),
    ("relu", False): one_step(RELU, "relu_step", partial(vendor, relu=True)),
    ("tanh", True): one_step(TANH, "tanh_step_with_options"),
    ("relu", True): one_step(RELU, "relu_step_with_options"),
}


class RNNCell(OneStep, nn.RNNCell):
    """One step: h = cell(x, h) for x (B, input_size) and h (B, hidden_size); without a state, zeros. nonlinearity: "tanh" or "relu".

    torch.nn.RNNCell with routes and clear errors, and `layer_norm`: the parts of input and state are normalised before they meet, with
    the gains norm_ih and norm_hh (no vendor has that). x (input_size,) with h (hidden_size,) is a single row.
    Raises ValueError for sizes below 1, another nonlinearity, layer norm of one unit, and for input or state of another shape, dtype
    or device.

    >>> cell = RNNCell(2, 3, nonlinearity="relu")
    >>> cell(torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """

    def __init__(  # type: ignore[no-untyped-def]
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device=None,
        dtype=None,
        *,
        layer_norm: bool = False,
    ) -> None:
        expect_positive("RNNCell", input_size=input_size, hidden_size=hidden_size)
        expect_switches("RNNCell", bias=bias, layer_norm=layer_norm)
        if nonlinearity not in CELLS:
            raise ValueError(f'RNNCell: expected nonlinearity "tanh" or "relu", got {nonlinearity!r}.')
        expect_layer_norm("RNNCell", layer_norm, hidden_size)
        expect_weights("RNNCell", 1, input_size, hidden_size)
        super().__init__(input_size, hidden_size, bias, nonlinearity, device, dtype)
        self.layer_norm = layer_norm
        self.add_weights(dict.fromkeys(("norm_ih", "norm_hh"), hidden_size if layer_norm else None))

    @property
    def cell(self) -> Cell:
        """The step that `Recurrent` repeats."""
        return CELLS[self.nonlinearity]

    def weights(self) -> Weights:
        """Its weights."""
        return Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, self.norm_ih, self.norm_hh)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        h: Tensor = self.advance(STEPS[self.nonlinearity, self.layer_norm], self.cell, input, hx)
        return h

    def extra_repr(self) -> str:
        return shown(super().extra_repr(), layer_norm=self.layer_norm)
