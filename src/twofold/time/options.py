"""What recurrent layers offer beyond torch's, the same for every cell.     T steps, B rows, U units, R outputs

    zoneout             s_t = m s_{t-1} + (1 - m) s_new      m drawn for every step, row and unit: 1 with probability p; in use m = p
    recurrent dropout   h' = mask h wherever the state enters a product; mask: 0 with probability p, else 1/(1-p), one for all steps
    weight dropout      W_hh' = mask W_hh                    one mask a call, for all steps and rows
    hidden_init         the start of W_hh, gate by gate: an orthogonal matrix, or the identity
    learn_state         h_0 (and c_0) are parameters, the same for all rows; they begin as zeros

All draw from torch's generator and only in training. Layer norm and the cells' own options stand with the cells.

Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden activations", ICLR 2017, section 3; Gal and Ghahramani, "A
theoretically grounded application of dropout in recurrent neural networks", NeurIPS 2016, section 4; Merity, Keskar and Socher,
"Regularizing and optimizing LSTM language models", ICLR 2018, section 2 (DropConnect on W_hh); Saxe, McClelland and Ganguli, "Exact
solutions to the nonlinear dynamics of learning in deep linear neural networks", ICLR 2014 (orthogonal); Le, Jaitly and Hinton, "A simple
way to initialize recurrent networks of rectified linear units", 2015 (identity)
"""

from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.time.product import expect_layer_norm
from twofold.time.sequence import expect_switches

HIDDEN_INITS = ("orthogonal", "identity")
OWNERS = {"proj_size": "LSTM", "forget_bias": "LSTM", "peephole": "LSTM", "coupled": "LSTM", "reset": "GRU", "nonlinearity": "RNN"}


@dataclass(frozen=True)
class Options:
    """The options of a layer as they were asked for."""

    layer_norm: bool = False
    zoneout: float | tuple[float, ...] = 0.0
    recurrent_dropout: float = 0.0
    weight_dropout: float = 0.0
    hidden_init: str | None = None
    learn_state: bool = False

    def expect(self, who: str, states: tuple[str, ...], hidden_size: int, proj_size: int) -> None:
        """Raise ValueError for a value out of range, and for options that exclude each other. states: the names of the state's tensors."""
        expect_switches(who, layer_norm=self.layer_norm, learn_state=self.learn_state)
        expect_layer_norm(who, self.layer_norm, hidden_size)
        zone_shares(who, self.zoneout, states)
        expect_probability(who, "recurrent_dropout", self.recurrent_dropout)
        expect_probability(who, "weight_dropout", self.weight_dropout)
        if self.hidden_init is None:
            return
        if not isinstance(self.hidden_init, str) or self.hidden_init not in HIDDEN_INITS:
            raise ValueError(f'{who}: expected hidden_init "orthogonal", "identity" or None, got {self.hidden_init!r}.')
        if self.hidden_init == "identity" and proj_size:
            raise ValueError(
                f'{who}: expected hidden_init "identity" without proj_size, got proj_size={proj_size}: a gate\'s matrix is '
                f'({hidden_size}, {proj_size}), and only a square one can be the identity. "orthogonal" takes any.'
            )

    def told(self, **own: Any) -> str:
        """What repr adds for the options that are set."""
        own |= {field.name: getattr(self, field.name) for field in fields(self)}
        return "".join(f", {name}={value!r}" for name, value in own.items() if value)


def expect_probability(who: str, name: str, value: Any) -> None:
    """Raise ValueError unless the value is a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{who}: expected {name} to be a probability from 0 to 1, got {value!r}.")


def expect_no_others(who: str, others: dict[str, Any]) -> None:
    """Raise ValueError where keywords are left over: those of another layer, or of none."""
    for name, value in others.items():
        cause = ""
        if name in OWNERS:
            cause = f" It belongs to the {OWNERS[name]}."
        else:
            near = get_close_matches(name, [*(field.name for field in fields(Options)), "bidirectional", "batch_first", "num_layers"], 1)
            cause = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"{who}: got {name}={value!r}, which it does not have.{cause}")


def zone_shares(who: str, zoneout: Any, states: tuple[str, ...]) -> tuple[float, ...]:
    """The probability for each tensor of the state, () where all are 0. One number counts for all. Raises ValueError if out of range."""
    each = (zoneout,) * len(states) if not isinstance(zoneout, (tuple, list)) else tuple(zoneout)
    if len(each) != len(states):
        meant = "one number" if len(states) == 1 else f"one number, or {len(states)} ({', '.join(states)})"
        raise ValueError(f"{who}: expected zoneout to be {meant}, got {zoneout!r}. Its state has {len(states)}: {', '.join(states)}.")
    for value in each:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(f"{who}: expected zoneout to be a probability from 0 to 1, got {zoneout!r}.")
    return tuple(map(float, each)) if any(each) else ()


def draw_zone(share: float, shape: tuple[int, ...], like: Tensor, training: bool) -> Tensor | float | None:
    """The share of the old value: drawn for each of (T, B, U) in training, in use its mean."""
    if not share or not training:
        return share or None
    return torch.bernoulli(like.new_full(shape, share))


def draw_mask(probability: float, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Recurrent dropout's factor (B, R)."""
    return F.dropout(like.new_ones(shape), probability, True)


def start_hidden(layer: nn.Module, hidden_init: str | None, hidden_size: int) -> None:
    """Fill every weight_hh of the layer as hidden_init says, block after block of `hidden_size` rows."""
    if hidden_init is None:
        return
    with torch.no_grad():
        for name, weight in layer.named_parameters(recurse=False):
            if name.startswith("weight_hh"):
                for block in weight.split(hidden_size):
                    start = torch.empty(block.shape, device=block.device)  # float32: there is no bfloat16 to orthogonalise in
                    block.copy_(nn.init.eye_(start) if hidden_init == "identity" else nn.init.orthogonal_(start))
