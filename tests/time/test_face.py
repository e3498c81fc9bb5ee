"""nn.RNN, nn.GRU and nn.LSTM: torch's values and gradients, the laws, what a module owes, and the messages. Options: test_options.py."""

import copy
import itertools
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import torch
from torch import nn as torch_nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

import twofold
from twofold.layers.check import check_drop_in, noise
from twofold.time.gru import GRU
from twofold.time.lstm import LSTM
from twofold.time.rnn import RNN

composition = SimpleNamespace(**run_path(str(Path(__file__).parent / "composition.py")))
given_state, judged, parts, same = composition.given_state, composition.judged, composition.parts, composition.same
FACES = {"RNN": (RNN, torch_nn.RNN), "GRU": (GRU, torch_nn.GRU), "LSTM": (LSTM, torch_nn.LSTM)}
KINDS = {"tanh": ("RNN", {}), "relu": ("RNN", {"nonlinearity": "relu"}), "GRU": ("GRU", {}), "LSTM": ("LSTM", {})}
PROJECTED = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # torch says so once, in float32
LENGTHS = (2, 5, 0, 4)


# torch


SHAPES = list(itertools.product((1, 2, 3), (False, True), (False, True), (False, True)))


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize(("layers", "both", "batch_first", "bias"), SHAPES)
@pytest.mark.parametrize("kind", ["tanh", "relu", "GRU"])  # the LSTM's: test_lstm.py
def test_stands_in_for_torch(kind, layers, both, batch_first, bias, route):
    name, own = KINDS[kind]
    settings = {"num_layers": layers, "bidirectional": both, "batch_first": batch_first, "bias": bias, **own}
    ours, theirs = (each(3, 4, **settings).double() for each in FACES[name])
    x = noise(2, 5, 3) if batch_first else noise(5, 2, 3)
    state = given_state(ours, 2)
    with twofold.route(route):
        check_drop_in(ours, theirs, x)
        check_drop_in(ours, theirs, noise(5, 3))
        check_drop_in(ours, theirs, x, state)
        assert ours.last_route == route
        check_drop_in(ours.float(), theirs.float(), x.float(), state.float())


@PROJECTED
@pytest.mark.parametrize("proj_size", [0, 2])
def test_the_lstm_stands_in_for_torchs_in_float32(proj_size):
    settings = {"num_layers": 2, "bidirectional": True, "proj_size": proj_size}
    ours, theirs = (each(3, 4, **settings) for each in FACES["LSTM"])
    with twofold.route("plain"):
        check_drop_in(ours, theirs, noise(5, 2, 3, dtype=torch.float32))


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("kind", KINDS)
def test_dropout_between_the_layers_is_torchs_draw_for_draw(kind, route):
    name, own = KINDS[kind]
    ours, theirs = (each(3, 4, 3, dropout=0.5, bidirectional=True, **own).double() for each in FACES[name])
    theirs.load_state_dict(ours.state_dict())
    x, results = noise(5, 2, 3), []
    for each in (ours, theirs):
        torch.manual_seed(3)
        with twofold.route(route):
            y, state = each(x)
        results.append(judged((y, *parts(state)), [x, *each.parameters()]))
    same(*results)
    with twofold.route(route):
        assert not torch.allclose(ours(x)[0], results[0][0])
        same(ours.eval()(x)[:1], theirs.eval()(x)[:1])


@pytest.mark.parametrize("route", ["plain", "vendor"])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("lengths", [(5, 3, 3, 1), (2, 5, 1, 4), (3, 3, 3, 3)])
@pytest.mark.parametrize("kind", [*KINDS, "projected"])
def test_packed_sequences_give_what_torch_gives(kind, lengths, state, route):
    name, own = KINDS.get(kind, ("LSTM", {"proj_size": 2}))
    ours, theirs = (each(3, 4, 2, bidirectional=True, **own).double() for each in FACES[name])
    theirs.load_state_dict(ours.state_dict())
    results = []
    for each in (ours, theirs):
        rows = [noise(n, 3, seed=n + 10 * k) for k, n in enumerate(lengths)]
        packed = pack_sequence(rows, enforce_sorted=lengths[0] == 5)
        hx = given_state(ours, 4) if state else None
        with twofold.route(route):
            y, last = each(packed, hx)
        leaves = [*rows, *(parts(hx) if state else ()), *each.parameters()]
        results.append(judged((y.data, *parts(last)), leaves))
        for mine, torchs in zip(y[1:], packed[1:], strict=True):
            assert mine is torchs or torch.equal(mine, torchs)
    assert ours.last_route == route
    same(*results)


def test_packed_sequences_without_a_wish_go_by_our_own_layers_and_meet_every_option():
    packed = pack_padded_sequence(noise(5, 4, 3), [2, 5, 1, 4], enforce_sorted=False)
    plain, learnt = LSTM(3, 4).double(), LSTM(3, 4, learn_state=True).double()
    plain(packed)
    assert plain.last_route == "plain"
    learnt.load_state_dict({**plain.state_dict(), "h_0": noise(1, 1, 4), "c_0": noise(1, 1, 4, seed=1)})
    ours, theirs = {}, torch_nn.LSTM(3, 4).double()
    theirs.load_state_dict(plain.state_dict())
    wanted, _ = theirs(packed, tuple(part.expand(1, 4, 4) for part in (learnt.h_0, learnt.c_0)))
    for route in ("plain", "vendor"):
        with twofold.route(route):
            ours[route] = learnt(packed)[0].data
    same(ours.values(), [wanted.data] * 2)
    dropping = LSTM(3, 4, recurrent_dropout=0.5).double()
    with twofold.route("vendor"):
        dropping(packed)
        assert dropping.last_route == "plain"  # torch knows no such dropout
        dropping.eval()(packed)
        assert dropping.last_route == "vendor"


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives_are_torchs(kind):
    name, own = KINDS[kind]
    made, x, results = FACES[name][0](3, 4, 2, bidirectional=True, **own).double(), noise(4, 2, 3), []
    for route in ("plain", "vendor"):
        with twofold.route(route):
            y, state = made(x)
        (dx,) = torch.autograd.grad(y.pow(3).sum() + sum(part.pow(2).sum() for part in parts(state)), x, create_graph=True)
        results.append(torch.autograd.grad(dx.pow(2).sum(), [x, *made.parameters()]))
    same(*results, relative=1e-10)


# Laws

ALL = {
    "RNN": {"layer_norm": True, "nonlinearity": "relu", "hidden_init": "identity"},
    "GRU": {"layer_norm": True, "reset": "before", "zoneout": 0.25},
    "LSTM": {"layer_norm": True, "peephole": True, "zoneout": (0.2, 0.4), "proj_size": 3},
}
EVERY = pytest.mark.parametrize(("name", "settings"), [pytest.param(n, s, id=n + " bare" * (not s)) for n in FACES for s in ({}, ALL[n])])


def in_use(name, settings, **more):
    torch.manual_seed(2)
    return FACES[name][0](3, 4, **{"num_layers": 2, "bidirectional": True, **settings, **more}).double().eval()


@EVERY
def test_lengths_are_the_rows_alone(name, settings):
    made, x = in_use(name, settings), noise(5, 4, 3)
    hx = given_state(made, 4)
    y, last = made(x, hx, LENGTHS)
    for b, n in enumerate(LENGTHS):
        one = tuple(part[:, b : b + 1] for part in parts(hx))
        alone, end = made(x[:n, b : b + 1], one if name == "LSTM" else one[0])
        same([y[:n, b : b + 1], *(part[:, b : b + 1] for part in parts(last))], [alone, *parts(end)])
        assert not y[n:, b].count_nonzero()
    order = [2, 0, 3, 1]
    moved = tuple(part[:, order] for part in parts(hx))
    other, end = made(x[:, order], moved if name == "LSTM" else moved[0], [LENGTHS[b] for b in order])
    same([other, *parts(end)], [y[:, order], *(part[:, order] for part in parts(last))])
    whole, end = made(x, hx, torch.full((4,), 5))
    plain, wanted = made(x, hx)
    same([whole, *parts(end)], [plain, *parts(wanted)])


@EVERY
def test_lengths_with_batch_first_and_for_a_single_row(name, settings):
    first, x = in_use(name, settings, batch_first=True), noise(5, 4, 3)
    made = in_use(name, settings)
    same([first(x.transpose(0, 1), lengths=LENGTHS)[0].transpose(0, 1)], [made(x, lengths=LENGTHS)[0]])
    y, last = made(x[:, 3], lengths=[4])
    batch, end = made(x, lengths=LENGTHS)
    same([y, *parts(last)], [batch[:, 3], *(part[:, 3] for part in parts(end))])


@EVERY
def test_a_nan_behind_a_rows_end_or_in_another_row_changes_nothing(name, settings):
    made, x = in_use(name, settings), noise(5, 4, 3, grad=False)
    spoilt = x.clone()
    for b, n in enumerate(LENGTHS):
        spoilt[n:, b] = float("nan")
    results = []
    for each in (x.requires_grad_(), spoilt.requires_grad_()):
        y, last = made(each, lengths=LENGTHS)
        results.append(judged((y, *parts(last)), [each, *made.parameters()]))
    same(*results)


@EVERY
def test_both_directions_are_the_two_alone(name, settings):
    both = in_use(name, settings, num_layers=1)
    one, other = (in_use(name, settings, num_layers=1, bidirectional=False) for _ in range(2))
    weights, x = both.state_dict(), noise(5, 4, 3)
    one.load_state_dict({key: value for key, value in weights.items() if "reverse" not in key})
    other.load_state_dict({key.removesuffix("_reverse"): value for key, value in weights.items() if "reverse" in key})
    (y, last), (y_1, last_1), (y_2, last_2) = both(x), one(x), other(x.flip(0))
    same([y, *parts(last)], [torch.cat((y_1, y_2.flip(0)), -1), *map(torch.cat, zip(parts(last_1), parts(last_2), strict=True))])


@EVERY
def test_a_state_carried_across_a_split_is_the_whole(name, settings):
    made, x = in_use(name, settings, bidirectional=False), noise(6, 2, 3)
    whole, last = made(x)
    first, state = made(x[:2])
    empty, state = made(x[2:2], state)
    second, end = made(x[2:], state)
    assert empty.shape == (0, *whole.shape[1:])
    same([torch.cat((first, second)), *parts(end)], [whole, *parts(last)])


@pytest.mark.parametrize("name", FACES)
def test_no_steps_return_the_state_and_no_rows_nothing(name):
    for settings in ({}, ALL[name]):
        made = in_use(name, settings)
        hx = given_state(made, 2)
        y, last = made(torch.zeros(0, 2, 3, dtype=torch.float64), hx, None)
        assert y.shape[0] == 0 and y.shape[1] == 2 and made.last_route == "plain"
        same(parts(last), parts(hx), 0)
        y, last = made(torch.zeros(4, 0, 3, dtype=torch.float64), lengths=[])
        assert y.shape[:2] == (4, 0) and parts(last)[0].shape[:2] == (4, 0)


def route_of(made, **more):
    with twofold.route("vendor"):
        made(torch.randn(4, 2, 3), **more)
    return made.last_route


def test_torch_serves_where_it_has_all_that_is_asked_for():
    for L in (1, 2):
        for served in (LSTM(3, 4, L, weight_dropout=0.5), LSTM(3, 4, L, recurrent_dropout=0.5).eval(), GRU(3, 4, L, learn_state=True)):
            assert route_of(served) == "vendor"
        lacking = {"zoneout": 0.5}, {"recurrent_dropout": 0.5}, {"peephole": True}, {"coupled": True}, {"layer_norm": True}
        for refused in (*(LSTM(3, 4, L, **settings) for settings in lacking), GRU(3, 4, L, reset="before"), RNN(3, 4, L, layer_norm=True)):
            assert route_of(refused) != "vendor"
        assert route_of(LSTM(3, 4, L, zoneout=0.5).eval()) != "vendor"
        made = RNN(3, 4, L)
        assert route_of(made, lengths=[4, 2]) != "vendor" and route_of(made) == "vendor"


@pytest.mark.parametrize("name", FACES)
def test_gates_are_those_of_the_forward_direction_in_use(name):
    fields = {"RNN": (), "GRU": ("reset", "update", "candidate"), "LSTM": ("input", "forget", "candidate", "output", "cell")}[name]
    for settings in ({}, {key: value for key, value in ALL[name].items() if key != "proj_size"}):
        made, x = in_use(name, {**settings, "recurrent_dropout": 0.5, "weight_dropout": 0.5, "dropout": 0.5}), noise(5, 2, 3)
        hx = given_state(made, 2)
        y, last = made(x, hx)
        gates = made.train().gates(x, hx)
        assert tuple(gates) == (*fields, "hidden") and all(value.shape == (2, 5, 2, 4) for value in gates.values())
        same([gates["hidden"][1], gates["hidden"][:, -1]], [y[..., :4], parts(last)[0][::2]])
        before = torch.cat((parts(hx)[0][::2, None], gates["hidden"][:, :-1]), 1)
        m = parts(made.zoneout)
        if name == "GRU":
            new = (1 - gates["update"]) * gates["candidate"] + gates["update"] * before
            same([gates["hidden"]], [m[0] * before + (1 - m[0]) * new])
        if name == "LSTM":
            c_before = torch.cat((parts(hx)[1][::2, None], gates["cell"][:, :-1]), 1)
            new = gates["forget"] * c_before + gates["input"] * gates["candidate"]
            same([gates["cell"]], [m[-1] * c_before + (1 - m[-1]) * new])


# As a module


@pytest.mark.parametrize("name", FACES)
def test_weights_load_both_ways_and_options_have_their_own_names(name):
    ours, theirs = (each(3, 4, 2, bidirectional=True) for each in FACES[name])
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict()) and isinstance(ours, FACES[name][1])
    extra = in_use(name, ALL[name] | {"learn_state": True}).state_dict().keys() - ours.state_dict().keys()
    fields = ["norm_ih", "norm_hh"] + ["peephole", "norm_c", "norm_c_bias", "weight_hr"] * (name == "LSTM")
    assert extra == {
        "h_0",
        *["c_0"] * (name == "LSTM"),
        *(f"{field}_l{k}{r}" for field in fields for k in (0, 1) for r in ("", "_reverse")),
    }


@EVERY
def test_a_copy_a_file_and_a_replaced_weight_compute_what_they_hold(name, settings, tmp_path):
    made, x = in_use(name, settings, learn_state=True), noise(5, 2, 3)
    torch.save(made.state_dict(), tmp_path / "weights.pt")
    read = FACES[name][0](3, 4, 2, bidirectional=True, learn_state=True, **settings).double().eval()
    read.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    twin = copy.deepcopy(made)
    same([read(x)[0], twin(x)[0]], [made(x)[0]] * 2, 0)
    change = noise(*made.weight_hh_l0.shape, grad=False)
    with torch.no_grad():
        twin.weight_hh_l0 += change
    made.weight_hh_l0 = torch_nn.Parameter(made.weight_hh_l0.detach() + change)
    same([twin(x)[0]], [made(x)[0]], 0)
    assert not torch.allclose(read(x)[0], made(x)[0])
    other = {key: torch.zeros_like(value) for key, value in made.state_dict().items()}
    called = torch.func.functional_call(made, other, (x,))[0]
    read.load_state_dict(other)
    same([called], [read(x)[0]], 0)


def test_a_parametrized_weight_is_the_one_that_is_used():
    made, x = LSTM(3, 4).double(), noise(5, 2, 3)
    halved = copy.deepcopy(made)
    with torch.no_grad():
        halved.weight_hh_l0 /= 2
    torch_nn.utils.parametrizations.weight_norm(made, "weight_hh_l0")
    made.parametrizations.weight_hh_l0.original0.data /= 2
    for route in ("plain", "vendor"):
        with twofold.route(route):
            same([made(x)[0]], [halved(x)[0]])


@pytest.mark.parametrize("name", FACES)
def test_export_and_compile_see_what_is_computed(name):
    x = torch.randn(4, 2, 3)
    for settings in ({}, ALL[name]):
        made = in_use(name, settings).float()
        exported = torch.export.export(made, (x,), strict=False)
        assert torch.allclose(exported.module()(x)[0], made(x)[0], atol=1e-6)
        used = {str(node.target) for node in exported.graph.nodes}
        assert any(f"aten.{made.mode.lower()}" in target for target in used) is (not settings)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True), torch.no_grad():
        compiled = torch.compile(in_use(name, {}).float(), backend="aot_eager")
        same([compiled(x)[0]], [in_use(name, {}).float()(x)[0]], 1e-5)


def test_repr_shows_what_is_set():
    assert repr(RNN(3, 4, nonlinearity="relu", layer_norm=True)) == "RNN(3, 4, layer_norm=True)"
    assert repr(GRU(3, 4, reset="before", zoneout=0.1)) == "GRU(3, 4, zoneout=0.1, reset='before')"
    made = LSTM(3, 4, peephole=True, coupled=True, zoneout=(0.1, 0.0), learn_state=True, hidden_init="orthogonal")
    assert repr(made) == "LSTM(3, 4, zoneout=(0.1, 0.0), hidden_init='orthogonal', learn_state=True, peephole=True, coupled=True)"


def test_autocast_computes_options_in_the_precision_of_the_weights():
    x = torch.randn(4, 2, 3)
    for name in FACES:
        made = FACES[name][0](3, 4, 2, zoneout=0.5, recurrent_dropout=0.5, layer_norm=True)
        torch.manual_seed(0)
        wanted = made(x.bfloat16().float())[0]
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16), twofold.route("plain"):
            y = made(x.bfloat16())[0]
        assert y.dtype == torch.float32
        assert torch.allclose(y, wanted, atol=1e-5)


def test_bfloat16_weights_take_every_option():
    for name in FACES:
        made = FACES[name][0](3, 4, 2, zoneout=0.5, recurrent_dropout=0.5, weight_dropout=0.5, layer_norm=True, hidden_init="orthogonal")
        y, _ = made.bfloat16()(torch.randn(4, 2, 3).bfloat16(), lengths=[4, 1])
        assert y.dtype == torch.bfloat16 and y.isfinite().all()


# Messages


def zeros(*shape, **kind):
    return torch.zeros(shape, **kind)


def bad(name):
    """call -> words, for one of the faces."""
    make = FACES[name][0]
    state = "one tensor h" if name != "LSTM" else "2 tensors (h, c)"
    pair = (lambda *shape: (zeros(*shape),) * 2) if name == "LSTM" else zeros
    return {
        "rank": (lambda: make(3, 4)(zeros(7, 2, 3, 5)), "input: expected (T, B, D=3), got (7, 2, 3, 5)"),
        "features": (lambda: make(3, 4)(zeros(7, 2, 5)), "input: expected (T, B, D=3), got (7, 2, 5): D is 5, not 3."),
        "tokens": (lambda: make(3, 4)(zeros(7, 2, dtype=torch.int64)), "Put an Embedding in front"),
        "dtype": (lambda: make(3, 4)(zeros(7, 2, 3).double()), "expected float32, the dtype of the weights, got float64."),
        "device": (lambda: make(3, 4)(zeros(7, 2, 3, device="meta")), "expected device cpu, where the weights are, got meta."),
        "state": (lambda: make(3, 4)(zeros(7, 2, 3), [1.0, 2.0, 3.0]), f"state: expected {state}"),
        "state shape": (
            lambda: make(3, 4, 2)(zeros(7, 2, 3), pair(3, 2, 4)),
            "state h: expected (L=2, B=2, U=4), got (3, 2, 4): L is 3, not 2.",
        ),
        "state directions": (
            lambda: make(3, 4, bidirectional=True)(zeros(7, 2, 3), pair(1, 2, 4)),
            "Two directions keep two states a layer.",
        ),
        "lengths beyond": (
            lambda: make(3, 4)(zeros(7, 2, 3), lengths=[8, 2]),
            "lengths: expected B=2 whole numbers from 0 to T=7, one a row, got 8",
        ),
        "lengths below": (lambda: make(3, 4)(zeros(7, 2, 3), lengths=[7, -1]), "got -1 for row 1"),
        "lengths of floats": (lambda: make(3, 4)(zeros(7, 2, 3), lengths=zeros(2)), "got float32"),
        "lengths elsewhere": (lambda: make(3, 4)(zeros(7, 2, 3), lengths=zeros(2, device="meta").long()), "got meta"),
        "lengths for others": (lambda: make(3, 4)(zeros(7, 2, 3), lengths=[7]), "got 1 of them"),
        "lengths of batch first": (lambda: make(3, 4, batch_first=True)(zeros(2, 7, 3), lengths=[8, 1]), "from 0 to T=7"),
        "lengths and packed": (
            lambda: make(3, 4)(pack_padded_sequence(zeros(7, 2, 3), [7, 3]), lengths=[7, 3]),
            "lengths: expected None with a PackedSequence, which has its own, got list.",
        ),
        "packed features": (
            lambda: make(3, 4)(pack_padded_sequence(zeros(7, 2, 5), [7, 3])),
            "input (packed): expected (steps, D=3), got (10, 5)",
        ),
        "packed state": (
            lambda: make(3, 4)(pack_padded_sequence(zeros(7, 2, 3), [7, 3]), pair(1, 3, 4)),
            "state h: expected (L=1, B=2, U=4)",
        ),
        "layers": (lambda: make(3, 4, 0), "expected num_layers to be a whole number of at least 1, got 0."),
        "many layers": (lambda: make(3, 4, 2**40), "expected at most 2147483647 arrays of weights, got num_layers=1099511627776."),
        "huge": (lambda: make(3, 2**40), "expected at most 2147483647 weights in a matrix"),
        "many outputs": (
            lambda: make(3, 4)(zeros(1, 1, 1).expand(2**29, 2, 3)),
            "expected at most 2147483647 outputs, got 536870912 steps of 2 rows",
        ),
        "dropout": (lambda: make(3, 4, 2, dropout=1.5), "expected dropout to be a probability from 0 to 1, got 1.5."),
        "zoneout": (lambda: make(3, 4, zoneout=-0.1), "expected zoneout to be a probability from 0 to 1, got -0.1."),
        "zoneouts": (lambda: make(3, 4, zoneout=(0.1, 0.1, 0.1)), "got (0.1, 0.1, 0.1). Its state has"),
        "recurrent dropout": (
            lambda: make(3, 4, recurrent_dropout=True),
            "expected recurrent_dropout to be a probability from 0 to 1, got True.",
        ),
        "weight dropout": (lambda: make(3, 4, weight_dropout="x"), "expected weight_dropout to be a probability from 0 to 1, got 'x'."),
        "hidden_init": (
            lambda: make(3, 4, hidden_init="diagonal"),
            'expected hidden_init "orthogonal", "identity" or None, got \'diagonal\'.',
        ),
        "layer norm": (lambda: make(3, 4, layer_norm=1), "expected layer_norm to be True or False, got 1."),
        "layer norm of one": (lambda: make(3, 1, layer_norm=True), "expected hidden_size of at least 2 with layer_norm=True, got 1"),
        "learn_state": (lambda: make(3, 4, learn_state="h"), "expected learn_state to be True or False, got 'h'."),
        "a slip": (lambda: make(3, 4, zone_out=0.1), "got zone_out=0.1, which it does not have. Did you mean zoneout?"),
    }


ANOTHERS = {
    "RNN peephole": (lambda: RNN(3, 4, peephole=True), "RNN: got peephole=True, which it does not have. It belongs to the LSTM."),
    "GRU projection": (lambda: GRU(3, 4, proj_size=2), "GRU: got proj_size=2, which it does not have. It belongs to the LSTM."),
    "LSTM reset": (lambda: LSTM(3, 4, reset="before"), "LSTM: got reset='before', which it does not have. It belongs to the GRU."),
    "GRU nonlinearity": (lambda: GRU(3, 4, nonlinearity="relu"), "It belongs to the RNN."),
    "nonlinearity": (lambda: RNN(3, 4, nonlinearity="sigmoid"), 'RNN: expected nonlinearity "tanh" or "relu", got \'sigmoid\'.'),
    "reset": (lambda: GRU(3, 4, reset="never"), 'expected reset "after"'),
    "coupled": (lambda: LSTM(3, 4, coupled=True, forget_bias=1.0), "forget_bias"),
    "identity": (
        lambda: LSTM(3, 4, proj_size=2, hidden_init="identity"),
        'LSTM: expected hidden_init "identity" without proj_size, got proj_size=2: a gate\'s matrix is (4, 2)',
    ),
    "a pair for the GRU": (
        lambda: GRU(3, 4)(zeros(7, 2, 3), (zeros(1, 2, 4), zeros(1, 2, 4))),
        "GRU state: expected one tensor h, got tuple. Only an LSTM's state is a pair",
    ),
}


@pytest.mark.parametrize(("name", "case"), [(name, case) for name in FACES for case in bad(name)])
def test_bad_input(name, case):
    call, words = bad(name)[case]
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value).startswith(name) and words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("case", ANOTHERS)
def test_options_of_another_layer_and_options_that_exclude_each_other(case):
    call, words = ANOTHERS[case]
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value) and "\n" not in str(error.value)
