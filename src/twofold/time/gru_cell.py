"""The GRU step, in both conventions of its reset gate.     B rows, D input features, U units; G = 3U, in the order r z n

    forward    r = sigmoid(q(x)_r + b_ir + q(h')_r + b_hr)        q: the product with W_ih or W_hh, with layer norm where there are
               z = sigmoid(q(x)_z + b_iz + q(h')_z + b_hz)           gains (product): [r z] are normalised together, n by itself
      after    n = tanh(q(x)_n + b_in + r (q(h')_n + b_hn))       the reset gate acts on the product: torch, cuDNN, Keras
      before   n = tanh(q(x)_n + b_in + q(r h')_n + b_hn)         the reset gate acts on the state: the paper
               h = (1 - z) n + z h_before                         h' = mask h_before, recurrent dropout's mask, or h_before
    backward   da_n = dh (1 - z) (1 - n^2)                        da_z = dh (h_before - n) z (1 - z)
      after    da_r = da_n (q(h')_n + b_hn) r (1 - r)             dq(h') = [da_r da_z  r da_n]          db_hn = sum_b r da_n
      before   d(rh') = q's of da_n      da_r = d(rh') h' r (1 - r)      dq(h')_rz = [da_r da_z]        db_hn = sum_b da_n
               dh_before = z dh + mask dh'                        dh': what q leads back, and before: r d(rh') besides
               dx, dW_ih: q's of da       db_ih = sum_b da

Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation", EMNLP 2014, eq. 5-8, whose z is
kept as here: z = 1 keeps the state; the mask: Gal and Ghahramani, NeurIPS 2016, section 4
"""

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
    """By torch's names: (3U, D), (3U, U), (3U), (3U), and the gains of layer norm (3U), (3U); None where there is none."""

    weight_ih: Any
    weight_hh: Any
    bias_ih: Any = None
    bias_hh: Any = None
    norm_ih: Any = None
    norm_hh: Any = None


class Saved(NamedTuple):
    """What the step's backward needs: the gates r, z and n (the candidate), the state before the step, and, by convention:

    inner_BU   after: q(h')_n + b_hn, on which the reset gate acts
    normals    what layer norm left of every product
    """

    r_BU: Tensor
    z_BU: Tensor
    n_BU: Tensor
    h_before_BU: Tensor
    inner_BU: Tensor | None
    normals: tuple[Normal | None, ...]


def drive(x_BD: Tensor, weights: Weights) -> Tensor:
    """The input's part of a, for one step or, with a leading axis, for all of them."""
    q, _ = product(x_BD, weights.weight_ih, weights.norm_ih, parts(weights))
    return q if weights.bias_ih is None else q + weights.bias_ih


def drive_back(da_BG: Tensor, x_BD: Tensor, weights: Weights) -> tuple[Tensor, Weights]:
    """(dx_BD, dweights of the input's part)"""
    normal = None if weights.norm_ih is None else product(x_BD, weights.weight_ih, weights.norm_ih, parts(weights))[1]
    dx_BD, dweight_ih, dnorm_ih = product_back(da_BG, x_BD, weights.weight_ih, weights.norm_ih, normal)
    dbias_ih = None if weights.bias_ih is None else da_BG.flatten(0, -2).sum(0)
    return dx_BD, Weights(dweight_ih, None, dbias_ih, norm_ih=dnorm_ih)


def step_after(drive_BG: Tensor, state: State, weights: Weights, mask_BU: Tensor | None = None) -> tuple[State, Saved]:
    """((h_BU,), saved) from the input's part of a and the state before; the reset gate after the product."""
    (h_before,) = state
    q, normal = product(masked(h_before, mask_BU), weights.weight_hh, weights.norm_hh, parts(weights))
    if weights.bias_hh is not None:
        q = q + weights.bias_hh
    (x_r, x_z, x_n), (q_r, q_z, inner) = drive_BG.chunk(3, -1), q.chunk(3, -1)
    r, z = (x_r + q_r).sigmoid(), (x_z + q_z).sigmoid()
    n = (x_n + r * inner).tanh()
    return ((1 - z) * n + z * h_before,), Saved(r, z, n, h_before, inner, (normal,))


def step_after_back(dstate: State, saved: Saved, weights: Weights, mask_BU: Tensor | None = None) -> tuple[Tensor, State, Weights]:
    """(da_BG, (dh_before_BU,), dweights of the state's part)"""
    (dh,) = dstate
    r, z, n, h_before, inner, (normal,) = saved
    assert inner is not None
    da_n = dh * (1 - z) * (1 - n * n)
    da_z = dh * (h_before - n) * z * (1 - z)
    da_r = da_n * inner * r * (1 - r)
    dq = torch.cat((da_r, da_z, r * da_n), -1)
    dseen, dweight_hh, dnorm_hh = product_back(dq, masked(h_before, mask_BU), weights.weight_hh, weights.norm_hh, normal)
    dh_before = z * dh + masked(dseen, mask_BU)
    dbias_hh = None if weights.bias_hh is None else dq.sum(0)
    return torch.cat((da_r, da_z, da_n), -1), (dh_before,), Weights(None, dweight_hh, None, dbias_hh, None, dnorm_hh)


def step_before(drive_BG: Tensor, state: State, weights: Weights, mask_BU: Tensor | None = None) -> tuple[State, Saved]:
    """((h_BU,), saved) from the input's part of a and the state before; the reset gate before the product."""
    (h_before,) = state
    seen = masked(h_before, mask_BU)
    a_rz, a_n = drive_BG.split(parts(weights), -1)
    if weights.bias_hh is not None:
        bias_rz, bias_n = weights.bias_hh.split(parts(weights))
        a_rz, a_n = a_rz + bias_rz, a_n + bias_n
    (weight_rz, gain_rz), (weight_n, gain_n) = halves(weights)
    q_rz, normal_rz = product(seen, weight_rz, gain_rz)
    r, z = (a_rz + q_rz).sigmoid().chunk(2, -1)
    q_n, normal_n = product(r * seen, weight_n, gain_n)
    n = (a_n + q_n).tanh()
    return ((1 - z) * n + z * h_before,), Saved(r, z, n, h_before, None, (normal_rz, normal_n))


def step_before_back(dstate: State, saved: Saved, weights: Weights, mask_BU: Tensor | None = None) -> tuple[Tensor, State, Weights]:
    """(da_BG, (dh_before_BU,), dweights of the state's part)"""
    (dh,) = dstate
    r, z, n, h_before, _, (normal_rz, normal_n) = saved
    seen = masked(h_before, mask_BU)
    (weight_rz, gain_rz), (weight_n, gain_n) = halves(weights)
    da_n = dh * (1 - z) * (1 - n * n)
    da_z = dh * (h_before - n) * z * (1 - z)
    dreset, dweight_n, dgain_n = product_back(da_n, r * seen, weight_n, gain_n, normal_n)
    da_r = dreset * seen * r * (1 - r)
    dseen, dweight_rz, dgain_rz = product_back(torch.cat((da_r, da_z), -1), seen, weight_rz, gain_rz, normal_rz)
    dh_before = z * dh + masked(dseen + r * dreset, mask_BU)
    da_BG = torch.cat((da_r, da_z, da_n), -1)
    dbias_hh = None if weights.bias_hh is None else da_BG.sum(0)
    dnorm_hh = None if dgain_n is None else torch.cat((dgain_rz, dgain_n))  # type: ignore[arg-type]  # both or none
    return da_BG, (dh_before,), Weights(None, torch.cat((dweight_rz, dweight_n)), None, dbias_hh, None, dnorm_hh)


def masked(h_BU: Tensor, mask_BU: Tensor | None) -> Tensor:
    """The state, or a gradient of it, through recurrent dropout."""
    return h_BU if mask_BU is None else mask_BU * h_BU


def parts(weights: Weights) -> tuple[int, int]:
    """The sizes of [r z] and of n."""
    U = weights.weight_hh.shape[1]
    return 2 * U, U


def halves(weights: Weights) -> tuple[tuple[Tensor, Tensor | None], ...]:
    """(weight_hh, norm_hh) of [r z], and those of n."""
    gains = (None, None) if weights.norm_hh is None else weights.norm_hh.split(parts(weights))
    return tuple(zip(weights.weight_hh.split(parts(weights)), gains, strict=True))


AFTER = Cell(drive, drive_back, step_after, step_after_back, states=("h",), weights=Weights, gates=3)
BEFORE = Cell(drive, drive_back, step_before, step_before_back, states=("h",), weights=Weights, gates=3)
CELLS = {"after": AFTER, "before": BEFORE}


def vendor(x_BD: Tensor, h_BU: Tensor, *weights: Any) -> Tensor:
    """torch's own step, which knows neither layer norm nor a mask."""
    h_1BU: Tensor = torch._VF.gru_cell(x_BD, h_BU, *weights[:4])
    return h_1BU


STEPS = {  # (reset, layer_norm)
    ("after", False): one_step(AFTER, "gru_step", vendor),
    ("after", True): one_step(AFTER, "gru_step_with_norm"),
    ("before", False): one_step(BEFORE, "gru_step_reset_before"),
    ("before", True): one_step(BEFORE, "gru_step_reset_before_with_norm"),
}


def expect_reset(who: str, reset: Any) -> None:
    """Raise ValueError unless reset is one of the two conventions."""
    if not isinstance(reset, str) or reset not in CELLS:
        raise ValueError(
            f'{who}: expected reset "after" (the reset gate acts on the product U h: torch, cuDNN, Keras) or "before" (on the state h: '
            f"Cho et al., 2014), got {reset!r}."
        )


class GRUCell(OneStep, nn.GRUCell):
    """One step: h = cell(x, h) for x (B, input_size) and h (B, hidden_size); without a state, zeros.

    torch.nn.GRUCell with routes and clear errors, and what torch lacks. `reset`: where the reset gate acts, "after" the product
    with the state, as in torch, or "before" it, as in the paper; `layer_norm`: the parts of input and state are normalised before they
    meet, with the gains norm_ih and norm_hh. x (input_size,) with h (hidden_size,) is a single row.
    Raises ValueError for sizes below 1, another reset, layer norm of one unit, and for input or state of another shape, dtype or device.

    >>> cell = GRUCell(2, 3, reset="before")
    >>> cell(torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """

    def __init__(  # type: ignore[no-untyped-def]
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device=None,
        dtype=None,
        *,
        reset: str = "after",
        layer_norm: bool = False,
    ) -> None:
        expect_positive("GRUCell", input_size=input_size, hidden_size=hidden_size)
        expect_switches("GRUCell", bias=bias, layer_norm=layer_norm)
        expect_reset("GRUCell", reset)
        expect_layer_norm("GRUCell", layer_norm, hidden_size)
        expect_weights("GRUCell", 3, input_size, hidden_size)
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.reset, self.layer_norm = reset, layer_norm
        self.add_weights(dict.fromkeys(("norm_ih", "norm_hh"), 3 * hidden_size if layer_norm else None))

    @property
    def cell(self) -> Cell:
        """The step that `Recurrent` repeats."""
        return CELLS[self.reset]

    def weights(self) -> Weights:
        """Its weights."""
        return Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, self.norm_ih, self.norm_hh)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        h: Tensor = self.advance(STEPS[self.reset, self.layer_norm], self.cell, input, hx)
        return h

    def extra_repr(self) -> str:
        return shown(super().extra_repr(), reset=self.reset if self.reset != "after" else None, layer_norm=self.layer_norm)
