"""Compiled recurrence: against the plain form in float64, in values and all gradients, with every option, shape and length."""

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold import kernels
from twofold.kernels import recurrence
from twofold.kernels.recurrence import recur
from twofold.time import gru_cell, lstm_cell, rnn_cell
from twofold.time.recurrent import Run, unroll

pytestmark = pytest.mark.skipif(not kernels.available(), reason=kernels.reason())

CELLS = {"tanh": rnn_cell.TANH, "relu": rnn_cell.RELU, "gru": gru_cell.AFTER, "lstm": lstm_cell.LSTM, "coupled": lstm_cell.COUPLED}


def drawn(kind, T, B, D, U, S=1, bias=True, norm=False, peephole=False, mask=False, zone=None, seed=0):
    """Everything a layer needs, in float64, with numbers that float32 holds too."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape, scale=1.0, shift=0.0):
        return (torch.randn(shape, generator=generator) * scale + shift).double()

    cell = CELLS[kind]
    G, scale, is_lstm = cell.gates * U, U**-0.5, len(cell.states) == 2
    weights = []
    for _ in range(S):
        parts = {"weight_ih": numbers(G, D, scale=D**-0.5), "weight_hh": numbers(G, U, scale=scale)}
        if bias:
            parts |= {"bias_ih": numbers(G, scale=0.3), "bias_hh": numbers(G, scale=0.3)}
        if norm:
            parts |= {"norm_ih": numbers(G, scale=0.3, shift=1), "norm_hh": numbers(G, scale=0.3, shift=1)}
        if norm and is_lstm:
            parts |= {"norm_c": numbers(U, scale=0.3, shift=1), "norm_c_bias": numbers(U, scale=0.3)}
        if peephole and is_lstm:
            parts |= {"peephole": numbers((cell.gates - 1) * U, scale=0.5)}
        weights.append(cell.weights(**parts))
    state = [numbers(S, B, U, scale=0.7) for _ in cell.states]
    masks = [(torch.rand((B, U), generator=generator) > 0.3).double() / 0.7 for _ in range(S)] if mask else []
    if zone == "drawn":
        zones = [[(torch.rand((T, B, U), generator=generator) > 0.6).double() for _ in cell.states] for _ in range(S)]
    else:
        zones = [[zone, zone / 2][: len(cell.states)]] * S if zone else []
    return SimpleNamespace(
        kind=kind, cell=cell, x=numbers(T, B, D, scale=0.7), state=state, weights=weights, masks=masks, zones=zones, seed=seed
    )


def plain(d, lengths, dtype=torch.float64):
    """(y, *state) by the definition."""
    sides, states = [], []
    for s, weights in enumerate(d.weights):
        run = Run(lengths, s == 1, d.masks[s] if d.masks else None, tuple(d.zones[s]) if d.zones else ())
        y, state, _ = unroll(d.cell, d.x, tuple(part[s] for part in d.state), weights, run)
        sides.append(y)
        states.append(state)
    return torch.cat(sides, -1), *(torch.stack(part) for part in zip(*states, strict=True))


def compiled(d, lengths, reduced=False):
    return recur(d.kind, d.x, d.state, d.weights, lengths, d.masks, d.zones, reduced)


def as_leaves(d, dtype):
    """The same numbers in another precision, as leaves that want gradients, and these leaves."""

    def cast(value):
        return value.to(dtype) if isinstance(value, torch.Tensor) else value

    def leaf(value):
        return None if value is None else value.to(dtype, copy=True).requires_grad_()

    moved = SimpleNamespace(**vars(d))
    moved.x, moved.state = leaf(d.x), [leaf(part) for part in d.state]
    moved.weights = [type(parts)(*(leaf(part) for part in parts)) for parts in d.weights]
    moved.masks, moved.zones = [cast(mask) for mask in d.masks], [[cast(zone) for zone in zones] for zones in d.zones]
    return moved, [moved.x, *moved.state, *(part for parts in moved.weights for part in parts if part is not None)]


def both(d, lengths=None, reduced=False, create_graph=False, form=None):
    """(outputs and gradients compiled, the same by the definition in float64); form: what to judge instead, in float32"""
    truth, leaves = as_leaves(d, torch.float64)
    outputs = [
        y + 0 * sum(leaf.sum() for leaf in leaves) for y in plain(truth, lengths)
    ]  # no step at all: nothing else depends on the leaves
    generator = torch.Generator().manual_seed(d.seed + 1)
    dy = [torch.randn(y.shape, generator=generator) for y in outputs]
    gradients = torch.autograd.grad(outputs, leaves, [g.double() for g in dy], allow_unused=True, materialize_grads=True)
    single, leaves = as_leaves(d, torch.float32)
    got = form(single, lengths) if form else compiled(single, lengths, reduced)
    found = torch.autograd.grad(got, leaves, dy, create_graph=create_graph, allow_unused=True, materialize_grads=True)
    return [t.detach() for t in (*got, *found)], [t.detach() for t in (*outputs, *gradients)]


def worst(got, truth):
    """The largest difference of any tensor, relative to that tensor's largest number."""
    largest = 0.0
    for a, b in zip(got, truth, strict=True):
        assert a.shape == b.shape
        if a.numel():
            largest = max(largest, float((a.detach().double() - b.detach()).abs().max() / b.detach().abs().max().clamp(min=1e-2)))
    return largest


@st.composite
def layers(draw):
    T, B = draw(st.integers(0, 9)), draw(st.integers(0, 15))
    options = {
        "S": draw(st.integers(1, 2)),
        "bias": draw(st.booleans()),
        "peephole": draw(st.booleans()),
        "mask": draw(st.booleans()),
        "zone": draw(st.sampled_from([None, 0.3, "drawn"])),
        "seed": draw(st.integers(0, 10**6)),
    }
    units = draw(st.integers(1, 70))
    options["norm"] = units > 15 and draw(st.booleans())  # of few numbers a norm is steep
    d = drawn(
        draw(st.sampled_from(list(CELLS))), T, B, draw(st.integers(8 if options["norm"] else 1, 40)), units, **options
    )  # a norm forgets how long x is
    lengths = draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    return d, None if lengths is None else torch.tensor(lengths, dtype=torch.int64)


@settings(max_examples=300, deadline=None)
@given(layers())
def test_drawn_layers_equal_the_definition(case):
    d, lengths = case
    error = worst(*both(d, lengths))
    # float32 itself has fewer digits where gates saturate, and under a norm, where a small deviation or a gradient that cancels decides
    assert error < (3e-5 if d.weights[0].norm_hh is None else 1e-3) or error < 5 * worst(*both(d, lengths, form=plain))


# Sizes at which rows, units or neither are shared among threads, panels are wide or narrow, and sums come in several chunks.
SHAPES = [(3, 64, 33, 96), (40, 2, 5, 130), (7, 1, 300, 257), (70, 40, 8, 160), (2, 3, 1, 1), (5, 17, 64, 64), (300, 9, 3, 120)]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_threads_and_sizes(shape, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for kind, options in (("lstm", {}), ("gru", {"S": 2}), ("coupled", {"norm": True, "peephole": True})):
            d = drawn(kind, *shape, **options)
            lengths = torch.randint(0, shape[0] + 1, (shape[1],), generator=torch.Generator().manual_seed(3))
            for some in (None, lengths):
                got, truth = both(d, some)
                assert worst(got, truth) < 5e-5, (kind, some)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", CELLS)
def test_gradients_of_gradients(kind):
    options = {"peephole": True, "mask": True, "zone": 0.25, "norm": kind != "relu", "S": 2}
    d, lengths = drawn(kind, 4, 3, 2, 5, **options), torch.tensor([4, 0, 2])
    got, truth = both(d, lengths, create_graph=True)
    assert worst(got, truth) < 2e-5

    def second(form, dtype):
        moved, leaves = as_leaves(d, dtype)
        first = torch.autograd.grad(
            form(moved, lengths)[0].square().sum(), leaves, create_graph=True, allow_unused=True, materialize_grads=True
        )
        total = sum(g.square().sum() for g in first)
        return torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)

    assert worst(second(compiled, torch.float32), second(plain, torch.float64)) < 3e-4


@pytest.mark.parametrize("wanted", ["x", "state", "weights"])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_only_what_is_wanted(kind, wanted):
    d = drawn(kind, 5, 3, 4, 6, S=2)
    single, _ = as_leaves(d, torch.float32)
    everything = torch.autograd.grad(sum(y.sum() for y in compiled(single, None)), [single.x, single.state[0], single.weights[1].weight_hh])
    for name, tensor in (("x", single.x), ("state", single.state[0]), ("weights", single.weights[1].weight_hh)):
        tensor.requires_grad_(name == wanted)
    others = [single.weights[0].weight_ih, single.weights[0].weight_hh, single.weights[0].bias_ih, single.weights[0].bias_hh]
    for other in (*others, *(p for p in single.weights[1] if p is not None and p is not single.weights[1].weight_hh), *single.state[1:]):
        other.requires_grad_(False)
    place = ["x", "state", "weights"].index(wanted)
    asked = [single.x, single.state[0], single.weights[1].weight_hh][place]
    assert torch.equal(torch.autograd.grad(sum(y.sum() for y in compiled(single, None)), asked)[0], everything[place])


def test_backward_twice_gives_the_same():
    single, leaves = as_leaves(drawn("lstm", 6, 4, 3, 20, peephole=True, norm=True), torch.float32)
    y = compiled(single, None)[0]
    first = torch.autograd.grad(y.sum(), leaves, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(y.sum(), leaves), strict=True))


def test_changed_weights_are_seen():
    d, _ = as_leaves(drawn("gru", 4, 3, 3, 33), torch.float32)
    with torch.no_grad():
        before = compiled(d, None)[0]
        d.weights[0].weight_hh.data.mul_(2)  # behind autograd's back: no version counter tells of it
        after = compiled(d, None)[0]
        truth = plain(as_leaves(d, torch.float64)[0], None)[0]
    assert not torch.allclose(before, after)
    assert worst([after], [truth]) < 1e-5


def test_what_lies_behind_the_end_of_a_row_is_never_read():
    d = drawn("lstm", 6, 3, 4, 20, S=2, zone="drawn")
    lengths = torch.tensor([2, 6, 0])
    clean, leaves = as_leaves(d, torch.float32)
    expected = torch.autograd.grad(sum(y.sum() for y in compiled(clean, lengths)), leaves)
    for row, length in enumerate(lengths.tolist()):
        d.x[length:, row] = torch.nan
    dirty, leaves = as_leaves(d, torch.float32)
    found = torch.autograd.grad(sum(y.sum() for y in compiled(dirty, lengths)), leaves)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_nan_stays_in_its_row():
    d, _ = as_leaves(drawn("lstm", 5, 9, 3, 40), torch.float32)
    with torch.no_grad():
        truth = compiled(d, None)[0]
        d.x[2, 4, 1] = torch.nan
        y = compiled(d, None)[0]
    assert y[2:, 4].isnan().all()
    assert y[:2, 4].isfinite().all()
    others = [row for row in range(9) if row != 4]
    assert torch.equal(y[:, others], truth[:, others])


def test_the_functions_of_the_gates_are_right_to_the_last_places():
    """h = tanh(x) of an RNN without a past; c = sigmoid(x) of a forget gate alone."""
    x = torch.cat([torch.linspace(-100, 100, 40001), torch.logspace(-30, 1, 20001), -torch.logspace(-30, 1, 20001)])
    x = torch.cat([x, torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 3e38, -3e38])])
    units = x.numel()
    one = torch.ones(1, 1, 1)
    no_past = torch.zeros(units, 1)
    rnn = rnn_cell.TANH.weights(torch.ones(1, 1), torch.zeros(1, 1))
    tanh = recur("tanh", x.view(1, units, 1), [no_past[None]], [rnn])[0].flatten()
    exact = x.double().tanh()
    relative = ((tanh.double() - exact) / exact).abs()
    assert relative[exact != 0].max() < 4e-7  # four units in the last place
    assert (tanh[exact == 0] == 0).all()
    x = x[x.isfinite()]
    no_past, units = torch.zeros(x.numel(), 1), x.numel()
    forget = lstm_cell.LSTM.weights(torch.tensor([[0.0], [1.0], [0.0], [0.0]]), torch.zeros(4, 1))
    c = recur("lstm", x.view(1, units, 1), [no_past[None], one.expand(1, units, 1)], [forget])[2].flatten()
    exact = x.double().sigmoid()
    relative = ((c.double() - exact) / exact).abs()
    assert relative[x > -87].max() < 4e-7
    assert (c[x <= -87] < 2e-38).all()  # where float32 ends
    assert recur("tanh", torch.full((1, 1, 1), torch.nan), [torch.zeros(1, 1, 1)], [rnn])[0].isnan().all()


def test_rounded_products():
    """Products of bfloat16, whose error is 2^-9 for each factor; sums, gates and states are of float32."""
    if recurrence.reduced_unfit():
        pytest.skip(recurrence.reduced_unfit())
    for kind, shape in (
        ("lstm", (6, 13, 31, 45)),
        ("gru", (9, 4, 8, 70)),
        ("tanh", (3, 40, 65, 33)),
        ("coupled", (5, 2, 3, 7)),
        ("lstm", (20, 2, 31, 130)),
    ):
        for S in (1, 2):
            d = drawn(kind, *shape, S=S, mask=True, peephole=True)
            for lengths in (None, torch.randint(0, shape[0] + 1, (shape[1],), generator=torch.Generator().manual_seed(1))):
                got, truth = both(d, lengths, reduced=True)
                assert 1e-5 < worst(got, truth) < 3e-2


def test_rounded_products_of_whole_numbers_are_exact():
    if recurrence.reduced_unfit():
        pytest.skip(recurrence.reduced_unfit())
    generator = torch.Generator().manual_seed(0)
    x, weight_ih = (torch.randint(-4, 5, shape, generator=generator).float() for shape in ((1, 37, 19), (21, 19)))
    weights = [rnn_cell.RELU.weights(weight_ih, torch.zeros(21, 21))]
    y = recur("relu", x, [torch.zeros(1, 37, 21)], weights, reduced=True)[0]
    assert torch.equal(y[0], (x[0] @ weight_ih.t()).relu())


def test_several_threads_of_python_at_once():
    d, _ = as_leaves(drawn("lstm", 20, 16, 8, 64, S=2), torch.float32)
    truth = [y.detach() for y in compiled(d, None)]
    wrong = []

    def work():
        for _ in range(10):
            got = compiled(d, None)
            got[0].sum().backward()
            wrong.extend(not torch.equal(a, b) for a, b in zip(got, truth, strict=True))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 4 * 10 * 3
    assert not any(wrong)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork():
    program = """
import os, torch
from twofold import kernels
from twofold.kernels.recurrence import recur
from twofold.time.rnn_cell import TANH
assert kernels.available()
torch.set_num_threads(1)
weights = [TANH.weights(torch.randn(96, 64), torch.randn(96, 96) / 10)]
x, h = torch.randn(50, 40, 64), torch.zeros(1, 40, 96)
before = recur("tanh", x, [h], weights)[0]
child = os.fork()
if not child:
    os._exit(0 if torch.equal(recur("tanh", x, [h], weights)[0], before) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_other_instruction_sets(capability):
    program = """
import torch
from test_recurrence import both, drawn, kernels, worst
assert kernels.available() and kernels.instruction_set() != "avx512"
for kind, shape, options in (
    ("lstm", (5, 13, 9, 37), {"S": 2, "peephole": True}), ("gru", (4, 3, 70, 66), {"norm": True, "mask": True}),
    ("coupled", (3, 20, 8, 8), {"zone": "drawn"}), ("relu", (7, 2, 5, 130), {}), ("tanh", (1, 3, 4, 19), {"norm": True}),
):
    d = drawn(kind, *shape, **options)
    for lengths in (None, torch.arange(shape[1]) % (shape[0] + 1)):
        error = worst(*both(d, lengths))
        assert error < 1e-4, (kind, error)
"""
    place = {"ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, **place}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


BAD = {
    "a state of another size": lambda a: a | {"state": [torch.zeros(1, 3, 5)]},
    "weights that do not fit": lambda a: a | {"weights": [None if n > 1 else torch.zeros(4, 3 - n) for n in range(9)]},
    "one bias": lambda a: a | {"weights": [*a["weights"][:2], torch.zeros(4), *[None] * 6]},
    "a length beyond the end": lambda a: a | {"lengths": torch.tensor([6, 1])},
    "a length too many": lambda a: a | {"lengths": torch.tensor([1, 1, 1])},
    "a negative length": lambda a: a | {"lengths": torch.tensor([-1, 1])},
    "float64": lambda a: a | {"x": a["x"].double()},
    "an unknown cell": lambda a: a | {"kind": 7},
    "missing draws": lambda a: a | {"noise": []},
    "a mask of another size": lambda a: a | {"noise": [torch.ones(2, 5), None, None]},
    "a strided input": lambda a: a | {"x": torch.zeros(5, 2, 6)[..., ::2]},
}


@pytest.mark.parametrize("what", BAD)
def test_the_operator_refuses(what):
    """Whoever calls it past Python gets a sentence, never a read beyond the end."""
    good = {"x": torch.zeros(5, 2, 3), "lengths": None, "state": [torch.zeros(1, 2, 4)], "noise": [None] * 3, "kind": 0}
    good["weights"] = [torch.zeros(4, 3), torch.zeros(4, 4), *[None] * 7]

    def call(a):
        return torch.ops.twofold.recurrence(a["x"], a["lengths"], a["state"], a["weights"], a["noise"], 0.0, 0.0, a["kind"], False)

    assert call(good)[0].shape == (5, 2, 4)
    with pytest.raises(ValueError, match="recurrence: "):
        call(BAD[what](good))


def test_unfit_says_why():
    d, _ = as_leaves(drawn("lstm", 2, 2, 3, 4), torch.float32)
    assert recurrence.unfit(d.x, d.state, d.weights) == ""
    assert "float64" in recurrence.unfit(d.x.double(), d.state, d.weights)
    projected = [d.weights[0]._replace(weight_hr=torch.zeros(2, 4))]
    assert recurrence.unfit(d.x, d.state, projected) == "has no weight_hr"
    assert "lengths on the CPU" in recurrence.unfit(d.x, d.state, d.weights, torch.zeros(2, dtype=torch.int64, device="meta"))
