"""Our own vectors of recurrent layers (vectors.json): distinct weights, several steps and rows, states that are not zero.

The four vectors that ONNX has for the LSTM have one step, no state before it and all weights alike: most wrong LSTMs pass them. Here a
table of wrong recurrences shows that ours notice every one. The weights, the input and the state follow from their names (`value`), the
gradients are those of the sum of all outputs and final states weighted by numbers that follow from names, too.

    PYTHONPATH=src python tests/time/test_vectors.py     writes vectors.json anew, from the loops
"""

import json
from itertools import permutations
from pathlib import Path
from runpy import run_path
from types import ModuleType, SimpleNamespace
from zlib import crc32

import numpy as np
import pytest
import torch

import twofold
from twofold import nn

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # torch says so once, in float32
HERE = Path(__file__).parent
LOOPS = HERE / "recurrent_loops.py"
loops = SimpleNamespace(**run_path(str(LOOPS)))
Kind = loops.Kind
STEPS, ROWS, INPUTS, UNITS = 4, 2, 2, 3

# name: (kind, layer, lengths)
CASES = {
    "RNN, tanh": (Kind("tanh"), lambda: nn.RNN(2, 3), None),
    "RNN, relu": (Kind("relu"), lambda: nn.RNN(2, 3, nonlinearity="relu"), None),
    "RNN, layer norm": (Kind("tanh"), lambda: nn.RNN(2, 3, layer_norm=True), None),
    "GRU, reset after": (Kind("gru"), lambda: nn.GRU(2, 3), None),
    "GRU, reset before": (Kind("gru", "before"), lambda: nn.GRU(2, 3, reset="before"), None),
    "GRU, reset after, layer norm": (Kind("gru"), lambda: nn.GRU(2, 3, layer_norm=True), None),
    "GRU, reset before, layer norm": (Kind("gru", "before"), lambda: nn.GRU(2, 3, reset="before", layer_norm=True), None),
    "GRU, two layers, both directions, lengths": (Kind("gru"), lambda: nn.GRU(2, 3, 2, bidirectional=True), (2, 4)),
    "LSTM": (Kind("lstm"), lambda: nn.LSTM(2, 3), None),
    "LSTM, peephole": (Kind("lstm"), lambda: nn.LSTM(2, 3, peephole=True), None),
    "LSTM, coupled, peephole": (Kind("lstm", coupled=True), lambda: nn.LSTM(2, 3, coupled=True, peephole=True), None),
    "LSTM, projection": (Kind("lstm"), lambda: nn.LSTM(2, 3, proj_size=2), None),
    "LSTM, layer norm, peephole": (Kind("lstm"), lambda: nn.LSTM(2, 3, layer_norm=True, peephole=True), None),
    "LSTM, zoneout": (Kind("lstm"), lambda: nn.LSTM(2, 3, zoneout=(0.25, 0.5)).eval(), None),
    "LSTM, both directions, lengths": (Kind("lstm"), lambda: nn.LSTM(2, 3, bidirectional=True), (3, 2)),
}
ZONEOUT = {"LSTM, zoneout": (0.25, 0.5)}


def value(name, shape):
    """Distinct numbers between -0.8 and 0.8, the same for the same name, exact in float32."""
    return ((37 * np.arange(np.prod(shape, dtype=int)) + crc32(name.encode())) % 101 - 50).reshape(shape) / 64


def given(name):
    """The layer with its weights, and what it is given: layer, weights by name, x, states (each (S L, B, units))"""
    layer = CASES[name][1]().double()
    weights = {key: value(key, p.shape) for key, p in layer.named_parameters()}
    layer.load_state_dict({key: torch.tensor(w) for key, w in weights.items()})
    places = layer.num_layers * (1 + layer.bidirectional)
    widths = [getattr(layer, "proj_size", 0) or UNITS, UNITS][: CASES[name][0].tensors]
    return layer, weights, value("x", (STEPS, ROWS, INPUTS)), [value(s, (places, ROWS, n)) for s, n in zip("hc", widths, strict=False)]


def by_loops(name, judge=loops):
    """{what: numbers} of one case."""
    kind, _, lengths = CASES[name]
    layer, weights, x, states = given(name)
    suffixes = [f"_l{n}{'_reverse' * s}" for n in range(layer.num_layers) for s in range(1 + layer.bidirectional)]
    own = [{key.removesuffix(end): w for key, w in weights.items() if key.endswith(end)} for end in suffixes]
    shares = [np.full((STEPS, ROWS, s.shape[2]), share) for s, share in zip(states, ZONEOUT.get(name, (0, 0)), strict=False)]
    every = [judge.Layer(w, tuple(s[k] for s in states), None, tuple(shares), suffixes[k].endswith("_reverse")) for k, w in enumerate(own)]
    size = 1 + layer.bidirectional
    grouped = [every[k : k + size] for k in range(0, len(every), size)]
    y, finals, back = judge.run_stack(judge.Kind(*kind), grouped, x, lengths or (STEPS,) * ROWS)
    last = [np.stack([final[k] for final in finals]) for k in range(len(states))]
    dlast = [value(f"d{s}", each.shape) for s, each in zip("hc", last, strict=False)]
    dx, results = back(value("dy", y.shape), [tuple(d[k] for d in dlast) for k in range(len(every))])
    dstart = [np.stack([result.dstate[k] for result in results]) for k in range(len(states))]
    found = {"y": y, "dx": dx}
    for n, s in enumerate("hc"[: len(states)]):
        found |= {s: last[n], f"d{s}": dstart[n]}
    return found | {f"d{key}{end}": g for end, result in zip(suffixes, results, strict=True) for key, g in result.grads.items()}


def by_layer(name, route, dtype):
    """The same of our layer; None where the route does not serve it."""
    layer, _, x, states = given(name)
    layer.to(dtype)
    leaves = [torch.tensor(a, dtype=dtype).requires_grad_() for a in (x, *states)]
    lengths = CASES[name][2]
    try:
        with twofold.route(route):
            y, last = layer(leaves[0], leaves[1] if len(states) == 1 else tuple(leaves[1:]), **({"lengths": lengths} if lengths else {}))
    except ValueError as error:
        if route != "auto" and str(error).startswith(f'route "{route}": '):
            return None
        raise
    last = last if isinstance(last, tuple) else (last,)
    names, parameters = [f"d{key}" for key, _ in layer.named_parameters()], [p for _, p in layer.named_parameters()]
    heads = [torch.tensor(value(key, part.shape), dtype=dtype) for key, part in zip(("dy", "dh", "dc"), (y, *last), strict=False)]
    gradients = torch.autograd.grad((y, *last), [*leaves, *parameters], heads)
    outputs = dict(zip("yhc", (y, *last), strict=False))
    return outputs | dict(zip(["dx", "dh", "dc"][: len(leaves)] + names, gradients, strict=True))


def short(name, found):
    """What vectors.json keeps: results in full, the gradient of a weight as its product with distinct numbers."""
    whole = ("y", "h", "c", "dx", "dh", "dc")
    return {key: (a.ravel() if key in whole else np.array([(a * value(key, a.shape)).sum()])) for key, a in found.items()}


def differs(name, found, relative):
    """What differs from the vector, or ''."""
    truth = VECTORS[name]
    assert truth.keys() == found.keys()
    for key, numbers in short(name, found).items():
        bound = relative * max(1, np.abs(truth[key]).max())
        if not np.abs(numbers - truth[key]).max() <= bound:
            return f"{key}: {numbers.tolist()}, not {truth[key]}"
    return ""


VECTORS = json.loads((HERE / "vectors.json").read_text(encoding="utf-8")) if (HERE / "vectors.json").exists() else {}


@pytest.mark.parametrize("name", CASES)
def test_the_loops_still_give_the_vectors(name):
    assert not differs(name, by_loops(name), 1e-12)


@pytest.mark.parametrize(
    ("route", "dtype"),
    [("plain", torch.float64), ("vendor", torch.float64), ("auto", torch.float64), ("native", torch.float32), ("auto", torch.float32)],
    ids=lambda part: str(part).removeprefix("torch."),
)
@pytest.mark.parametrize("name", CASES)
def test_the_layers_give_the_vectors(name, route, dtype):
    found = by_layer(name, route, dtype)
    if found is None:
        pytest.skip(f"{route} does not serve it")
    found = {key: part.detach().double().numpy() for key, part in found.items()}
    assert not differs(name, found, 1e-12 if dtype is torch.float64 else 1e-5)


def judge_with(right, wrong):
    """The loops with one mistake in them."""
    source = LOOPS.read_text(encoding="utf-8")
    assert source.count(right) == 1, f"{right!r} stands {source.count(right)} times in {LOOPS.name}"
    copy = ModuleType("loops_mutated")
    exec(compile(source.replace(right, wrong), str(LOOPS), "exec"), copy.__dict__)  # noqa: S102 (our own source)
    return copy


MUTANTS = {
    "RNN: candidate without the state": ("a = p + q + bias(weights, \"ih\") + bias(weights, \"hh\")\n    margins", "a = p\n    margins"),
    "RNN: derivative of tanh missing": ("1 - h * h if kind", "1 if kind"),
    "RNN: tanh for relu": (
        "h = np.tanh(a) if kind.name == \"tanh\" else np.where(a.real > 0, a, 0)",
        "h = np.tanh(a)",
    ),
    "RNN: relu without its corner in the gradient": ("else (a.real > 0))", "else 1)"),
    "RNN: bias of the state without gradient": (
        'bias_back(grads, "hh", da)\n        return p_back(da), [mask * q_back(da)]\n\n    return [h]',
        "return p_back(da), [mask * q_back(da)]\n\n    return [h]",
    ),
    "GRU: r and z exchanged": ("r, z = gate[R], gate[Z]", "z, r = gate[R], gate[Z]"),
    "GRU: z of the new": ("[(1 - z) * n + z * h]", "[z * n + (1 - z) * h]"),
    "GRU: always reset after": ("seen if kind.reset == \"after\" else r * seen", "seen"),
    "GRU: always reset before": ("(r * inner if kind.reset == \"after\" else inner)", "inner"),
    "GRU: bias outside of the reset": ("r * inner if kind.reset", "r * u + bias(weights, \"hh\", N) if kind.reset"),
    "GRU: no reset gate": ("r * inner if kind.reset", "inner if kind.reset"),
    "GRU: dh through z dropped": ("[dh * z + mask", "[mask"),
    "GRU: dz of the new alone": ("dh * (h - n)", "dh * h"),
    "GRU: dz with the sign turned": ("dh * (h - n)", "dh * (n - h)"),
    "GRU: dr without the bias": ("da_n * inner, u_back", "da_n * u, u_back"),
    "GRU: dn without 1 - z": ("dh * (1 - z) * (1 - n * n)", "dh * (1 - n * n)"),
    "GRU: gates without their derivative": ("* gate * (1 - gate)\n", "* gate\n"),
    "GRU: reset not in the state's bias": ("bias_back(grads, \"hh\", da_n * r, N)", "bias_back(grads, \"hh\", da_n, N)"),
    "GRU: dstate through the gates dropped": ("mask * (dseen + q_back(da_rz))", "mask * dseen"),
    "GRU: reset before, r missing on the way back": ("dr, dseen = through * seen, through * r", "dr, dseen = through * seen, through"),
    "GRU: one norm for three gates": ("weights, grads, margins, \"ih\", x, ALL, [RZ, N]", "weights, grads, margins, \"ih\", x, ALL, [ALL]"),
    "LSTM: forget gate not applied": ("c = f * c_before + i * g", "c = c_before + i * g"),
    "LSTM: input gate not applied": ("c = f * c_before + i * g", "c = f * c_before + g"),
    "LSTM: coupled by f": ("f = 1 - i if kind.coupled", "f = i if kind.coupled"),
    "LSTM: never coupled": ("f = 1 - i if kind.coupled", "f = 1 if kind.coupled"),
    "LSTM: peephole of o on the old cell": ("looks[O_look] * c))", "looks[O_look] * c_before))"),
    "LSTM: peephole of i on h": ("looks[I_look] * c_before", "looks[I_look] * h"),
    "LSTM: peepholes in the order i o f": ("(0, 0, 1) if kind.coupled else (0, 1, 2)))", "(0, 0, 1) if kind.coupled else (0, 2, 1)))"),
    "LSTM: no tanh on the cell": ("squashed = np.tanh(c if gain is None else", "squashed = (c if gain is None else"),
    "LSTM: output gate not applied": ("m = o * squashed", "m = squashed"),
    "LSTM: norm on the cell that is kept": ("[m if V is None else V @ m, c], back", "[m if V is None else V @ m, n], back"),
    "LSTM: norm of c without its bias": ("n * gain + weights[\"norm_c_bias\"]", "n * gain"),
    "LSTM: projection before the output gate": ("V @ m, c]", "o[:len(V)] * (V @ squashed), c]"),
    "LSTM: dc through o's peephole dropped": ("dc = dc + da_o * looks[O_look]", "pass"),
    "LSTM: dc through i's and f's peepholes dropped": ("dc_before = dc_before + da[gate] * looks[look]", "pass"),
    "LSTM: peephole's gradient of the new cell": ("+= da[gate] * c_before", "+= da[gate] * c"),
    "LSTM: dc of the later step dropped": ("dc = dc + n_back(dn)", "dc = n_back(dn)"),
    "LSTM: dc before without the forget gate": ("dc_before = dc * f\n", "dc_before = dc\n"),
    "LSTM: da_f of the new cell": ("dc * c_before * f * (1 - f)", "dc * c * f * (1 - f)"),
    "LSTM: coupled gradient of one of two": ("dc * (g - c_before) * i", "dc * g * i"),
    "LSTM: dm not through the projection": ("dm = dh if V is None else V.T @ dh", "dm = dh if V is None else np.resize(dh, units)"),
    "norm: mean not taken out": ("away = v[part] - v[part].mean()", "away = v[part]"),
    "norm: variance of M - 1": ("(away * away).mean()", "(away * away).sum() / max(len(away) - 1, 1)"),
    "norm: mean missing on the way back": ("dn[part] - dn[part].mean() -", "dn[part] -"),
    "norm: spread missing on the way back": ("- n[part] * (dn[part] * n[part]).mean()) / spread", ") / spread"),
    "norm: no eps": ("EPS = 1e-5", "EPS = 0.0"),
    "norm: gain not on the way back": ("d = d * gain[rows]", "pass"),
    "time: reads forwards in both directions": (
        "order = range(len(x_TD))[::-1] if backwards else",
        "order = range(len(x_TD)) if backwards else",
    ),
    "time: dy of the last step alone": (
        "whole = [trail[-1][0] + dy_TR[t], *trail[-1][1:]]",
        "whole = [trail[-1][0] + dy_TR[t] * (t == order[-1]), *trail[-1][1:]]",
    ),
    "time: truncated after two steps": ("[d + zone[t] * w for", "[(d + zone[t] * w) * (abs(t - order[-1]) < 2) for"),
    "time: gradients of weights of the last row alone": (
        "dx[:n, b], start, passed =",
        "[g.fill(0) for g in grads.values()]; dx[:n, b], start, passed =",
    ),
    "zoneout: shares exchanged": ("zone[t] * old + (1 - zone[t]) * fresh", "(1 - zone[t]) * old + zone[t] * fresh"),
    "zoneout: not on the way back": ("backs[t]([(1 - zone[t]) * d", "backs[t]([d"),
    "zoneout: old value without gradient": ("[d + zone[t] * w for", "[d for"),
    "lengths: all rows as long as the first": ("    backs = []\n", "    backs, lengths = [], (lengths[0],) * len(lengths)\n"),
    "lengths: the backward direction starts in the padding": (
        "grads, x_TBD[:n, b], state",
        "grads, x_TBD[-n:, b] if layer.backwards else x_TBD[:n, b], state",
    ),
    "layers: directions exchanged": (
        "np.concatenate([y for y, _, _ in results], axis=-1)",
        "np.concatenate([y for y, _, _ in results][::-1], axis=-1)",
    ),
    "layers: gradient of one direction": ("dy = sum(result.dx for result in found)", "dy = found[0].dx"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_recurrence_is_seen_by_the_vectors(name):
    wrong = judge_with(*MUTANTS[name])
    assert any(differs(case, by_loops(case, wrong), 1e-6) for case in CASES)


@pytest.mark.parametrize(("name", "gates"), [("GRU, reset after", 3), ("GRU, reset before", 3), ("LSTM", 4), ("LSTM, peephole", 4)])
def test_every_wrong_order_of_gates_is_seen(name, gates):
    weights = given(name)[1]
    for order in list(permutations(range(gates)))[1:]:
        layer, _, x, states = given(name)
        rows = np.concatenate([np.arange(g * UNITS, (g + 1) * UNITS) for g in order])
        layer.load_state_dict({key: torch.tensor(w if key.startswith("peephole") else w[rows]) for key, w in weights.items()})
        with torch.no_grad():
            y = layer(torch.tensor(x), *[torch.tensor(s) for s in states] if len(states) == 1 else [tuple(map(torch.tensor, states))])[0]
        assert np.abs(y.numpy().ravel() - VECTORS[name]["y"]).max() > 1e-3, order


def write():
    """vectors.json, a line for each array."""
    lines = []
    for name in CASES:
        kept = short(name, by_loops(name))
        arrays = ",\n".join(f"    {json.dumps(key)}: {json.dumps(a.tolist())}" for key, a in kept.items())
        lines.append(f"  {json.dumps(name)}: {{\n{arrays}\n  }}")
    (HERE / "vectors.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write()
