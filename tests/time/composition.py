"""Recurrent layers composed step by step of torch's elementary operations, one row at a time; autograd differentiates.

It reads a layer's parameters by their names and nothing else of it, so that weights in the wrong place are seen. Below: what the tests of
layers have in common.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from twofold.layers.check import noise


class Drawn(NamedTuple):
    """What a call draws at random, by place (layer * directions + direction); between: the dropout masks before layers 2, 3, ..."""

    masks: dict
    zones: dict
    weights: dict
    between: dict


def weights_of(layer, place, directions):
    """{name: parameter} of one layer in one direction."""
    end = f"_l{place // directions}" + "_reverse" * (place % directions)
    return {name.removesuffix(end): p for name, p in layer.named_parameters() if name.endswith(end)}


def affine(w, side, v, parts, rows=slice(None)):
    """W v + b, with layer norm of W v where there are gains; parts: the sizes that are normalised together."""
    a = torch.mv(w[f"weight_{side}"][rows], v)
    if f"norm_{side}" in w:
        a = torch.cat([F.layer_norm(part, part.shape) for part in a.split(parts)]) * w[f"norm_{side}"][rows]
    return a + w[f"bias_{side}"][rows] if f"bias_{side}" in w else a


def rnn(layer, w, x, state, mask):
    U = layer.hidden_size
    a = affine(w, "ih", x, U) + affine(w, "hh", mask * state[0], U)
    return (torch.relu(a) if layer.nonlinearity == "relu" else torch.tanh(a),)


def gru(layer, w, x, state, mask):
    (h,), U = state, layer.hidden_size
    a, seen = affine(w, "ih", x, [2 * U, U]), mask * h
    r, z = torch.sigmoid(a[: 2 * U] + affine(w, "hh", seen, 2 * U, slice(2 * U))).split(U)
    last = slice(2 * U, None)
    if layer.reset == "after":
        n = torch.tanh(a[last] + r * affine(w, "hh", seen, U, last))
    else:
        n = torch.tanh(a[last] + affine(w, "hh", r * seen, U, last))
    return (n + z * (h - n),)


def lstm(layer, w, x, state, mask):
    (h, c), U = state, layer.hidden_size
    a = affine(w, "ih", x, w["weight_ih"].shape[0]) + affine(w, "hh", mask * h, w["weight_hh"].shape[0])
    gates = dict(zip("igo" if layer.coupled else "ifgo", a.split(U), strict=True))
    looks = dict(zip("io" if layer.coupled else "ifo", w["peephole"].split(U), strict=True)) if "peephole" in w else {}
    i = torch.sigmoid(gates["i"] + looks.get("i", 0) * c)
    f = 1 - i if layer.coupled else torch.sigmoid(gates["f"] + looks.get("f", 0) * c)
    c = f * c + i * torch.tanh(gates["g"])
    o = torch.sigmoid(gates["o"] + looks.get("o", 0) * c)
    shown = F.layer_norm(c, c.shape, w["norm_c"], w["norm_c_bias"]) if "norm_c" in w else c
    m = o * torch.tanh(shown)
    return (torch.mv(w["weight_hr"], m) if "weight_hr" in w else m), c


STEPS = {"RNN": rnn, "GRU": gru, "LSTM": lstm}


def run(layer, x_TBD, state=None, lengths=None, drawn=None, shares=()):
    """(y_TBR, final state as a tuple). state: a tuple of (L S, B, U); shares: zoneout's probabilities, in use."""
    drawn, step = drawn or Drawn({}, {}, {}, {}), STEPS[type(layer).__name__]
    T, B, _ = x_TBD.shape
    S = 1 + layer.bidirectional
    count, R = (2 if step is lstm else 1), layer.proj_size or layer.hidden_size
    sides, finals, lengths = [], [], lengths if lengths is not None else [T] * B
    for number in range(layer.num_layers):
        if number:
            x_TBD = drawn.between.get(number, 1) * torch.cat(sides, -1)
        sides = []
        for place in range(number * S, number * S + S):
            w, rows, lasts = weights_of(layer, place, S), [], []
            w["weight_hh"] = w["weight_hh"] * drawn.weights.get(place, 1)
            for b, n in enumerate(lengths):
                now = tuple(part[place, b] for part in state) if state is not None else None
                if now is None:
                    now = tuple(x_TBD.new_zeros(width) for width in (R, layer.hidden_size)[:count])
                y = [x_TBD.new_zeros(R)] * T
                for t in range(n)[:: -1 if place % S else 1]:
                    new = step(layer, w, x_TBD[t, b], now, drawn.masks[place][b] if place in drawn.masks else 1)
                    zones = [zone if zone is None else zone[t, b] for zone in drawn.zones[place]] if place in drawn.zones else shares
                    if zones:
                        each = zip(zones, now, new, strict=True)
                        new = tuple(fresh if m is None else m * old + (1 - m) * fresh for m, old, fresh in each)
                    now, y[t] = new, new[0]
                rows.append(torch.stack(y) if T else x_TBD.new_zeros(0, R))
                lasts.append(now)
            sides.append(torch.stack(rows, 1) if B else x_TBD.new_zeros(T, 0, R))
            finals.append(tuple(map(torch.stack, zip(*lasts, strict=True))))
    return torch.cat(sides, -1), tuple(map(torch.stack, zip(*finals, strict=True)))


def parts(state):
    """The tensors of a state."""
    return tuple(state) if isinstance(state, tuple) else (state,)


def given_state(layer, rows, scale=0.5):
    """A state of distinct numbers, in the layer's form."""
    places, widths = layer.num_layers * (1 + layer.bidirectional), [layer.proj_size or layer.hidden_size, layer.hidden_size]
    made = [(scale * noise(places, rows, width, seed=20 + k, grad=False)).requires_grad_() for k, width in enumerate(widths)]
    return tuple(made) if isinstance(layer, torch.nn.LSTM) else made[0]


def judged(outputs, leaves):
    """The outputs and the gradients of a fixed weighing of them, each with another."""
    weighing = [noise(*y.shape, seed=40 + k, grad=False).to(y.dtype) for k, y in enumerate(outputs)]
    found = torch.autograd.grad(sum((w * y).sum() for w, y in zip(weighing, outputs, strict=True)), leaves, allow_unused=True)
    return [*outputs, *(torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True))]


def same(got, wanted, relative=1e-12):
    for number, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert a.shape == b.shape, number
        bound = relative * max(1.0, b.abs().max().item() if b.numel() else 0)
        assert torch.allclose(a, b, rtol=relative, atol=bound), f"{number}: {(a - b).abs().max()}"
