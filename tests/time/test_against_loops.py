"""Layers of time against loops in NumPy (recurrent_loops.py): configurations that hypothesis draws, values and all gradients.

Plain route in float64 to a relative 1e-12; every route that serves in float32 to 1e-5. Steps from 0, batches from none, lengths in any
order and of 0, NaN behind the ends, input in any memory layout, states given, learned or none, one to three layers, both directions,
every option. `unroll` and `unroll_back` are asked besides with masks and zones that the layers draw for themselves.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import twofold
from twofold import kernels, nn
from twofold.time import gru_cell, lstm_cell, minimal, rnn_cell
from twofold.time.layer import Call
from twofold.time.recurrent import Run, state_gradients, unroll, unroll_back

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # torch says so once, in float32
drawn_sequences = SimpleNamespace(**run_path(str(Path(__file__).parent / "drawn_sequences.py")))
loops, Kind, Drawn = drawn_sequences.loops, drawn_sequences.Kind, drawn_sequences.Drawn
draw_input, draw_weights, laid = drawn_sequences.draw_input, drawn_sequences.draw_weights, drawn_sequences.laid
named_places, near, numbers, zone_of = drawn_sequences.named_places, drawn_sequences.near, drawn_sequences.numbers, drawn_sequences.zone_of

CELLS = {
    Kind("tanh"): rnn_cell.TANH,
    Kind("relu"): rnn_cell.RELU,
    Kind("gru", "after"): gru_cell.AFTER,
    Kind("gru", "before"): gru_cell.BEFORE,
    Kind("lstm"): lstm_cell.LSTM,
    Kind("lstm", coupled=True): lstm_cell.COUPLED,
}
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5}


# The loop: one layer in one direction, in float64


@given(drawn=drawn_sequences.sequences())
@settings(max_examples=500, deadline=None)
def test_the_loop_is_the_equations(drawn):
    generator = np.random.default_rng(drawn.seed)
    cell, weights, x = CELLS[drawn.kind], draw_weights(drawn, drawn.D, generator), draw_input(drawn, generator)
    state = tuple(numbers(generator, drawn.B, width) for width in drawn.widths)
    mask = 2.0 * (generator.random((drawn.B, drawn.R)) < 0.5) if drawn.masked else None
    zones = [zone_of(name, generator, (drawn.T, drawn.B, width)) for name, width in zip(drawn.zones, drawn.widths, strict=False)]
    layer = loops.Layer(weights, state, mask, tuple(truth for _, truth in zones), drawn.reverse)
    y, final, back = loops.run(drawn.kind, layer, x, drawn.own, margins := [])
    assume(min(margins, default=2) > 1)
    dy, dstate = numbers(generator, *y.shape), [numbers(generator, *s.shape) for s in state]
    wanted = back(dy, dstate)

    for b, n in enumerate(drawn.own):
        dy[n:, b] = drawn.behind
    call = Run(
        None if drawn.lengths is None else torch.tensor(drawn.lengths, dtype=torch.int64),
        drawn.reverse,
        None if mask is None else torch.tensor(mask),
        () if set(drawn.zones[: len(zones)]) == {"none"} else tuple(given for given, _ in zones),
    )
    named = cell.weights(**{name: torch.tensor(value) for name, value in weights.items()})
    given_state = tuple(map(torch.tensor, state))
    got, last, saved = unroll(cell, laid(torch.tensor(x), drawn.layout), given_state, named, call)
    dx, dstart, dweights = unroll_back(cell, torch.tensor(dy), tuple(map(torch.tensor, dstate)), saved)
    relative = ROUNDING[torch.float64]
    near("y", got, y, relative)
    near("dx", dx, wanted.dx, relative)
    for name, *both in zip(cell.states, last, final, dstart, wanted.dstate, strict=True):
        near(f"final {name}", *both[:2], relative)
        near(f"d{name} at the start", *both[2:], relative)
    for name, gradient in dweights._asdict().items():
        assert (gradient is None) == (name not in weights), f"d{name} is {gradient}"
        if gradient is not None:
            near(f"d{name}", gradient, wanted.grads[name], relative)
    trail = state_gradients(cell, torch.tensor(dy), tuple(map(torch.tensor, dstate)), saved)
    for name, each, truth in zip(cell.states, trail, wanted.trail, strict=True):
        if drawn.reverse:  # the loop reads x_T first, so a shorter row stands still before its first step, not after its last
            late = [max(0, t - drawn.T + n) for t in range(drawn.T + 1) for n in drawn.own]
            truth = truth[np.reshape(late, (drawn.T + 1, drawn.B)).astype(int), np.arange(drawn.B)]
        near(f"dL/d{name}_t", each, truth, relative)


# The layers


def build(drawn):
    """The layer that a user would construct."""
    options = {"bias": "bias" in drawn.options, "batch_first": drawn.batch_first, "bidirectional": drawn.directions == 2}
    if "layer_norm" in drawn.options:
        options["layer_norm"] = True
    if drawn.state == "learned":
        options["learn_state"] = True
    if drawn.kind.name == "lstm":
        options |= {"proj_size": drawn.projection}
        options |= {"peephole": True} if "peephole" in drawn.options else {}
        options |= {"coupled": True} if drawn.kind.coupled else {}
        if any(drawn.zoneout):
            options["zoneout"] = drawn.zoneout if drawn.zoneout[0] != drawn.zoneout[1] else drawn.zoneout[0]
        return nn.LSTM(drawn.D, drawn.U, drawn.layers, **options)
    if drawn.zoneout[0]:
        options["zoneout"] = drawn.zoneout[0]
    if drawn.kind.name == "gru":
        options |= {"reset": "before"} if drawn.kind.reset == "before" else {}
        return nn.GRU(drawn.D, drawn.U, drawn.layers, **options)
    return nn.RNN(drawn.D, drawn.U, drawn.layers, nonlinearity=drawn.kind.name, **options)


def fill(layer, drawn, all_weights, states):
    """Give the layer these weights: all of them, and it has no others."""
    given = {name + suffix: w for (_, suffix), weights in zip(named_places(drawn), all_weights, strict=True) for name, w in weights.items()}
    if drawn.state == "learned":
        given |= {
            f"{name}_0": np.stack([state[place][0] for state in states])[:, None] for place, name in enumerate("hc"[: len(states[0])])
        }
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {name: value.shape for name, value in given.items()}
    layer.load_state_dict({name: torch.tensor(value) for name, value in given.items()})


def check_layer(drawn, route, dtype):
    """Whether the route served; AssertionError where anything differs from the loops."""
    generator = np.random.default_rng(drawn.seed)
    x, margins = draw_input(drawn, generator), []
    places = named_places(drawn)
    all_weights = [draw_weights(drawn, drawn.directions * drawn.R if n else drawn.D, generator) for n, _ in places]
    states = [tuple(numbers(generator, drawn.B, width) for width in drawn.widths) for _ in places]
    if drawn.state == "none":
        states = [tuple(np.zeros_like(s) for s in state) for state in states]
    if drawn.state == "learned":  # the same for all rows
        states = [tuple(np.repeat(numbers(generator, 1, width), max(drawn.B, 1), 0) for width in drawn.widths) for _ in places]
    shares = [np.full((drawn.T, drawn.B, width), share) for share, width in zip(drawn.zoneout, drawn.widths, strict=False)]
    every = [
        loops.Layer(weights, tuple(s[: drawn.B] for s in state), None, tuple(shares), bool(place % drawn.directions))
        for place, (weights, state) in enumerate(zip(all_weights, states, strict=True))
    ]
    grouped = [every[n * drawn.directions : (n + 1) * drawn.directions] for n in range(drawn.layers)]
    y, finals, back = loops.run_stack(drawn.kind, grouped, x, drawn.own, margins=margins)
    assume(min(margins, default=2) > 1)

    layer = build(drawn)
    fill(layer, drawn, all_weights, states)
    layer.to(dtype).train(not any(drawn.zoneout))
    for parameter in layer.parameters():
        parameter.requires_grad_(drawn.frozen != "weights")
    given = laid(torch.tensor(x, dtype=dtype), drawn.layout)
    given = given[:, 0] if drawn.row else given.transpose(0, 1) if drawn.batch_first else given
    leaf = given.detach().requires_grad_(drawn.frozen != "input")
    stacked = [np.stack([state[n] for state in states]) for n in range(drawn.kind.tensors)]
    hx = None
    if drawn.state == "given":
        hx = [torch.tensor(s[:, 0] if drawn.row else s, dtype=dtype).requires_grad_() for s in stacked]
    arguments = [leaf, None if hx is None else hx[0] if len(hx) == 1 else tuple(hx)]
    if drawn.packed:
        arguments[0] = pack_padded_sequence(leaf, torch.tensor(drawn.lengths), drawn.batch_first, enforce_sorted=False)
    elif drawn.lengths is not None:
        arguments.append(torch.tensor(drawn.lengths, dtype=torch.int64) if drawn.seed % 2 else list(drawn.lengths))
    try:
        with twofold.route(route):
            out, last = layer(*arguments)
    except ValueError as error:
        if route != "auto" and str(error).startswith(f'route "{route}": '):
            return False
        raise
    if drawn.packed:
        out, _ = pad_packed_sequence(out, drawn.batch_first)
    last = last if isinstance(last, tuple) else (last,)

    relative, form = ROUNDING[dtype], lambda a: a[:, 0] if drawn.row else a.swapaxes(0, 1) if drawn.batch_first else a
    near("y", out, form(y), relative)
    for n, name in enumerate("hc"[: len(last)]):
        truth = np.stack([final[n] for final in finals])
        near(f"final {name}", last[n], truth[:, 0] if drawn.row else truth, relative)

    dy = numbers(generator, *y.shape) * (drawn.used != "state")
    dlast = [tuple(numbers(generator, *s.shape) * (drawn.used != "output") for s in final) for final in finals]
    dx, results = back(dy, dlast)
    wanted, truths = {}, {}
    if leaf.requires_grad:
        wanted["x"], truths["x"] = leaf, form(dx)
    for n, (name, tensor) in enumerate(zip("hc", hx or (), strict=False)):
        truth = np.stack([result.dstate[n] for result in results])
        wanted[name], truths[name] = tensor, truth[:, 0] if drawn.row else truth
    if drawn.frozen != "weights":
        wanted |= dict(layer.named_parameters())
        truths |= {name + suffix: g for (_, suffix), result in zip(places, results, strict=True) for name, g in result.grads.items()}
        if drawn.state == "learned":
            for n, name in enumerate("hc"[: drawn.kind.tensors]):
                truths[f"{name}_0"] = np.stack([result.dstate[n].sum(0, keepdims=True) for result in results])
    if not wanted:
        return layer.last_route == route
    heads = {"y": (out, torch.tensor(np.ascontiguousarray(form(dy)), dtype=dtype))}
    for n, tensor in enumerate(last):
        each = np.stack([d[n] for d in dlast])
        heads[f"final {n}"] = (tensor, torch.tensor(each[:, 0] if drawn.row else each, dtype=dtype))
    unused = {"output": ("final",), "state": ("y",)}.get(drawn.used, ("nothing",))
    chosen = [pair for name, pair in heads.items() if not name.startswith(unused)]
    found = torch.autograd.grad([t for t, _ in chosen], list(wanted.values()), [d for _, d in chosen], allow_unused=True)
    for (name, tensor), gradient in zip(wanted.items(), found, strict=True):
        near(f"d{name}", torch.zeros_like(tensor) if gradient is None else gradient, truths[name], relative)
    return layer.last_route == route


@given(drawn=drawn_sequences.stacks())
@settings(max_examples=500, deadline=None)
def test_the_plain_layers_are_the_equations(drawn):
    assert check_layer(drawn, "plain", torch.float64)


@pytest.mark.parametrize("route", ["plain", "vendor", "native", "auto"])
def test_every_route_is_the_equations_in_float32(route):
    served = []

    @given(drawn=drawn_sequences.stacks())
    @settings(max_examples=250, deadline=None)
    def ask(drawn):
        served.append(check_layer(drawn, route, torch.float32))

    ask()
    if route == "native" and not any(served):
        pytest.skip(kernels.reason() or "no kernel fits")
    assert route == "auto" or sum(served) >= 5, f"{sum(served)} of {len(served)} went by {route}"


# One layer with the masks and zones that training draws


def check_noisy(drawn, route, dtype):
    """Whether the route served; AssertionError where anything differs from the loops."""
    generator = np.random.default_rng(drawn.seed)
    x, S, margins = draw_input(drawn, generator), drawn.directions, []
    weights = [draw_weights(drawn, drawn.D, generator) for _ in range(S)]
    states = [tuple(numbers(generator, drawn.B, width) for width in drawn.widths) for _ in range(S)]
    masks = [2.0 * (generator.random((drawn.B, drawn.R)) < 0.5) if drawn.masked else None for _ in range(S)]
    zones = [
        [zone_of(name, generator, (drawn.T, drawn.B, n)) for name, n in zip(drawn.zones, drawn.widths, strict=False)] for _ in range(S)
    ]
    every = [loops.Layer(weights[s], states[s], masks[s], tuple(truth for _, truth in zones[s]), s == 1) for s in range(S)]
    y, finals, back = loops.run_stack(drawn.kind, [every], x, drawn.own, margins=margins)
    assume(min(margins, default=2) > 1)

    def tensor(value):
        return value.to(dtype) if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=dtype)

    leaf = laid(tensor(x), drawn.layout).detach().requires_grad_()
    start = [tensor(np.stack(part)).requires_grad_() for part in zip(*states, strict=True)]
    parts = [{name: tensor(value).requires_grad_() for name, value in each.items()} for each in weights]
    call = Call(
        S,
        None if drawn.lengths is None else torch.tensor(drawn.lengths, dtype=torch.int64),
        tuple(map(tensor, masks)) if drawn.masked else (),
        tuple(tuple(g if g is None or isinstance(g, float) else tensor(g) for g, _ in zone) for zone in zones)
        if set(drawn.zones[: len(drawn.widths)]) != {"none"}
        else (),
    )
    operation, cell = build(drawn).operations[1], CELLS[drawn.kind]
    flat = [part.get(name) for part in parts for name in cell.weights._fields]
    try:
        with twofold.route(route):
            out, *last = operation(leaf, *start, *flat, call)
    except ValueError as error:
        if str(error).startswith(f'route "{route}": '):
            return False
        raise
    relative = ROUNDING[dtype]
    near("y", out, y, relative)
    dy, dlast = numbers(generator, *y.shape), [tuple(numbers(generator, *s.shape) for s in final) for final in finals]
    dx, results = back(dy, dlast)
    heads = [tensor(dy), *(tensor(np.stack(part)) for part in zip(*dlast, strict=True))]
    wanted = {"x": leaf, **dict(zip(cell.states, start, strict=True))} | {f"{n} {s}": p for s in range(S) for n, p in parts[s].items()}
    found = torch.autograd.grad([out, *last], list(wanted.values()), heads)
    truths = [dx, *(np.stack(part) for part in zip(*(result.dstate for result in results), strict=True))]
    truths += [results[s].grads[name] for s in range(S) for name in parts[s]]
    for name, final, truth in zip(cell.states, last, zip(*finals, strict=True), strict=True):
        near(f"final {name}", final, np.stack(truth), relative)
    for name, gradient, truth in zip(wanted, found, truths, strict=True):
        near(f"d{name}", gradient, truth, relative)
    return True


@pytest.mark.parametrize(("route", "dtype"), [("plain", torch.float64), ("plain", torch.float32), ("native", torch.float32)], ids=str)
def test_a_layer_with_masks_and_zones_is_the_equations(route, dtype):
    served = []

    @given(drawn=drawn_sequences.noisy())
    @settings(max_examples=250, deadline=None)
    def ask(drawn):
        served.append(check_noisy(drawn, route, dtype))

    ask()
    if route == "native" and not any(served):
        pytest.skip(kernels.reason() or "no kernel fits")
    assert sum(served) >= 100, f"{sum(served)} of {len(served)} went by {route}"


# Recurrence whose gates see the input alone


def minimal_loop(name, x, h, weight, bias):
    """minGRU: z, candidate. minLSTM: i, f, candidate, i and f made to sum to 1. -> the sequence of h"""
    y = []
    for x_BD in x:
        gates = np.split(x_BD @ weight.T + bias, len(weight) // h.shape[1], axis=1)
        shares = [loops.sigmoid(gate) for gate in gates[:-1]]
        new = shares[0] if name == "MinGRU" else shares[0] / (shares[0] + shares[1])
        h = (1 - new) * h + new * gates[-1]
        y.append(h)
    return np.stack(y) if y else np.zeros((0, *h.shape))


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("name", ["MinGRU", "MinLSTM"])
def test_the_minimal_layers_are_their_equations(name, steps):
    generator = np.random.default_rng(steps)
    layer = getattr(minimal, name)(2, 3).double()
    values = [numbers(generator, steps, 4, 2), numbers(generator, 4, 3), *(numbers(generator, *p.shape) for p in layer.parameters())]
    layer.load_state_dict({key: torch.tensor(value) for key, value in zip(layer.state_dict(), values[2:], strict=True)})
    x, h = (torch.tensor(value, requires_grad=True) for value in values[:2])
    y, last = layer(x, h.unsqueeze(0))
    truth = minimal_loop(name, *values)
    near("y", y, truth, 1e-12)
    near("the last h", last[0], truth[-1] if steps else values[1], 1e-12)
    if steps:
        dy = numbers(generator, *truth.shape)
        found = torch.autograd.grad(y, [x, h, *layer.parameters()], torch.tensor(dy))
        for got, slope in zip(found, loops.differentiate(lambda *v: (dy * minimal_loop(name, *v)).sum(), values), strict=True):
            near("a gradient", got, slope, 1e-12)


# The loops themselves


@pytest.mark.parametrize("kind", CELLS, ids=str)
@pytest.mark.parametrize("options", [{"bias"}, {"bias", "layer_norm", "peephole"}], ids=["plain", "all options"])
def test_the_judge_is_right_about_its_own_gradients(kind, options):
    """Every gradient of the loops is their derivative, by a step along the imaginary axis."""
    offered = {"bias", "layer_norm", "peephole"} if kind.name == "lstm" else {"bias", "layer_norm"}
    projection = 2 if kind.name == "lstm" and len(options) > 1 else 0
    drawn = Drawn(kind, 4, 3, 2, 3, projection, frozenset(options & offered), (2, 4, 0), "contiguous", 0.0, 5, layers=2, directions=2)
    generator = np.random.default_rng(drawn.seed)
    x, between = numbers(generator, 4, 3, 2), [generator.random((4, 3, 2 * drawn.R))]
    all_weights = [draw_weights(drawn, 2 * drawn.R if n else 2, generator) for n, _ in named_places(drawn)]
    states = [tuple(numbers(generator, 3, width) for width in drawn.widths) for _ in all_weights]
    masks = [2.0 * (generator.random((3, drawn.R)) < 0.5) for _ in all_weights]
    zones = [tuple(generator.random((4, 3, width)) for width in drawn.widths) for _ in all_weights]

    def ran(x, *values):
        values = iter(values)
        every = [
            loops.Layer({name: next(values) for name in weights}, tuple(next(values) for _ in state), mask, zone, bool(place % 2))
            for place, (weights, state, mask, zone) in enumerate(zip(all_weights, states, masks, zones, strict=True))
        ]
        return loops.run_stack(kind, [every[:2], every[2:]], x, drawn.lengths, between)

    flat = [value for weights, state in zip(all_weights, states, strict=True) for value in (*weights.values(), *state)]
    y, finals, back = ran(x, *flat)
    dy, dlast = numbers(generator, *y.shape), [tuple(numbers(generator, *s.shape) for s in final) for final in finals]

    def loss(*values):
        y, finals, _ = ran(*values)
        return (dy * y).sum() + sum((d * s).sum() for ds, ss in zip(dlast, finals, strict=True) for d, s in zip(ds, ss, strict=True))

    dx, results = back(dy, dlast)
    mine = [dx, *(part for result in results for part in (*result.grads.values(), *result.dstate))]
    for got, truth in zip(mine, loops.differentiate(loss, [x, *flat]), strict=True):
        np.testing.assert_allclose(got, truth, rtol=1e-12, atol=1e-12 * max(1, np.abs(truth).max()))


def test_the_judge_knows_torchs_layers():
    """An anchor outside of both: torch.nn.LSTM with a projection, GRU and RNN, two layers in both directions."""
    for kind, make in ((Kind("tanh"), torch.nn.RNN), (Kind("gru"), torch.nn.GRU), (Kind("lstm"), torch.nn.LSTM)):
        lstm = kind.name == "lstm"
        drawn = Drawn(kind, 5, 3, 2, 4, 3 * lstm, frozenset({"bias"}), None, "contiguous", 0.0, 1, layers=2, directions=2)
        generator = np.random.default_rng(1)
        all_weights = [draw_weights(drawn, 2 * drawn.R if n else 2, generator) for n, _ in named_places(drawn)]
        layer = make(2, 4, 2, bidirectional=True, **({"proj_size": 3} if lstm else {})).double()
        layer.load_state_dict(
            {
                name + suffix: torch.tensor(w)
                for (_, suffix), weights in zip(named_places(drawn), all_weights, strict=True)
                for name, w in weights.items()
            }
        )
        every = [loops.Layer(w, tuple(np.zeros((3, n)) for n in drawn.widths), backwards=bool(k % 2)) for k, w in enumerate(all_weights)]
        x = numbers(generator, 5, 3, 2)
        y, _, back = loops.run_stack(kind, [every[:2], every[2:]], x, (5, 5, 5))
        leaf = torch.tensor(x, requires_grad=True)
        out, _ = layer(leaf)
        near("y", out, y, 1e-12)
        dy = numbers(generator, *y.shape)
        (dx,) = torch.autograd.grad(out, leaf, torch.tensor(dy))
        zeros = [tuple(np.zeros((3, n)) for n in drawn.widths)] * 4
        near("dx", dx, back(dy, zeros)[0], 1e-12)
