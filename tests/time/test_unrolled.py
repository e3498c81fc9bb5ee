"""Recurrent: any cell over a sequence, against torch's layers; lengths, direction, options, one's own cells; messages; mutants."""

import copy
import pickle
from typing import Any, NamedTuple

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from twofold import nn
from twofold.layers.check import check_message, noise
from twofold.time import recurrent, unrolled
from twofold.time.recurrent import Cell, Run
from twofold.time.unrolled import Recurrent

T, B, D, U = 5, 3, 2, 3
X, LENGTHS = noise(T, B, D, seed=1, grad=False), [3, 5, 0]
CELLS = {
    "tanh": (lambda: nn.RNNCell(D, U), lambda **o: torch.nn.RNN(D, U, **o)),
    "relu": (lambda: nn.RNNCell(D, U, nonlinearity="relu"), lambda **o: torch.nn.RNN(D, U, nonlinearity="relu", **o)),
    "gru": (lambda: nn.GRUCell(D, U), lambda **o: torch.nn.GRU(D, U, **o)),
    "lstm": (lambda: nn.LSTMCell(D, U), lambda **o: torch.nn.LSTM(D, U, **o)),
}
OTHERS = {
    "gru, reset before": lambda: nn.GRUCell(D, U, reset="before"),
    "lstm, all options": lambda: nn.LSTMCell(D, U, peephole=True, layer_norm=True),
    "lstm, coupled": lambda: nn.LSTMCell(D, U, coupled=True),
    "one's own": lambda: Leak(),
}


class Rate(NamedTuple):
    """The weight of a leaky sum."""

    a: Any


LEAK = Cell(
    drive=lambda x, weights: x,
    drive_back=lambda ddrive, x, weights: (ddrive, Rate(None)),
    step=lambda drive, state, weights, mask: ((state[0] + weights.a * (drive - state[0]),), drive - state[0]),
    step_back=lambda ds, apart, weights, mask: (weights.a * ds[0], ((1 - weights.a) * ds[0],), Rate((ds[0] * apart).sum())),
    states=("s",),
    weights=Rate,
    gates=1,
)


class Leak(torch.nn.Module):
    """A cell as users write one: s = s_before + a (x - s_before)."""

    input_size = hidden_size = D
    cell = LEAK

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(0.25))

    def weights(self):
        return Rate(self.a)


def build(name, module=unrolled, **options):
    torch.manual_seed(0)
    cell = (CELLS[name][0] if name in CELLS else OTHERS[name])().double()
    return module.Recurrent(cell, **options)


def torchs(name, layer, **options):
    theirs = CELLS[name][1](**options).double()
    theirs.load_state_dict({f"{key}_l0": value for key, value in layer.module.state_dict().items()})
    return theirs


def flat(state):
    return state if isinstance(state, tuple) else (state,)


def start(layer, rows=B, axis=False):
    """A state for the layer; with `axis` as torch's layers want it."""
    parts = tuple(noise(rows, layer.hidden_size, seed=10 + k)[None if axis else ...] for k, _ in enumerate(layer.cell.states))
    return parts if len(parts) > 1 else parts[0]


def everything(layer, x, state, **options):
    """Outputs, final state, and the gradients of the input, the state and all weights; the axis of layers in torch's states left out."""
    x = x.detach().requires_grad_()
    y, last = layer(x, state, **options)
    outputs = [y, *(part.reshape(part.shape[-2:]) if part.dim() == 3 else part for part in flat(last))]
    total = sum((noise(*out.shape, seed=20 + k, grad=False) * out).sum() for k, out in enumerate(outputs))
    found = torch.autograd.grad(total, [x, *flat(state), *layer.parameters()], allow_unused=True, materialize_grads=True)
    return [*outputs, *(part.reshape(part.shape[-2:]) if part.dim() == 3 and k else part for k, part in enumerate(found))]


def same(ours, theirs, relative=1e-12):
    return len(ours) == len(theirs) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=relative, atol=relative) for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_it_is_torchs_layer(name, batch_first):
    layer = build(name, batch_first=batch_first)
    theirs = torchs(name, layer, batch_first=batch_first)
    x = X.transpose(0, 1) if batch_first else X
    assert same(everything(layer, x, start(layer)), everything(theirs, x, start(layer, axis=True)))
    one, alone = layer(X[:, 0]), theirs(X[:, 0])
    assert same([one[0], *flat(one[1])], [alone[0], *(part[0] for part in flat(alone[1]))])
    h = start(layer, 1)
    row = layer(X[:, 0], tuple(part[0] for part in h) if isinstance(h, tuple) else h[0])[0]
    assert same([row], [layer(x[:1] if batch_first else x[:, :1], h)[0].flatten(0, 1)])


@pytest.mark.parametrize("name", [*CELLS, *OTHERS])
def test_the_sequence_is_step_by_step_and_reverse_is_flipped(name):
    layer, backwards = build(name), build(name, reverse=True)
    state = start(layer)
    truth = everything(layer, X, state)
    steps = []
    for x in X.split(1):
        y, state = layer(x, state)
        steps.append(y)
    assert same([torch.cat(steps), *flat(state)], truth[: 1 + len(flat(state))])
    y, last = backwards(X.flip(0), start(layer))
    assert same([y.flip(0), *flat(last)], truth[: 1 + len(flat(state))])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", [*CELLS, *OTHERS])
def test_lengths_are_the_rows_alone_whatever_stands_behind_their_ends(name, reverse):
    layer = build(name, reverse=reverse)
    dirty, state = X.clone(), start(layer)
    for b, n in enumerate(LENGTHS):
        dirty[n:, b] = float("nan")
    y, *others = everything(layer, dirty, state, lengths=LENGTHS)
    tensors = len(layer.cell.states)
    last, (dx, *dstate) = others[:tensors], others[tensors : 2 * tensors + 1]
    seen = noise(*y.shape, seed=20, grad=False), [noise(*part.shape, seed=21 + k, grad=False) for k, part in enumerate(last)]
    dweights = [torch.zeros_like(weight) for weight in layer.parameters()]
    for b, n in enumerate(LENGTHS):
        x = X[:n, b : b + 1].clone().requires_grad_()
        own = tuple(part[b : b + 1].detach().requires_grad_() for part in flat(state))
        y_b, last_b = layer(x, own if tensors > 1 else own[0])
        total = (y_b * seen[0][:n, b : b + 1]).sum() + sum((a * w[b : b + 1]).sum() for a, w in zip(flat(last_b), seen[1], strict=True))
        found = torch.autograd.grad(total, [x, *own, *layer.parameters()], allow_unused=True, materialize_grads=True)
        assert same([y[:n, b : b + 1], *(part[b : b + 1] for part in last)], [y_b, *flat(last_b)])
        assert same([dx[:n, b : b + 1], *(part[b : b + 1] for part in dstate)], found[: 1 + tensors])
        assert y[n:, b].count_nonzero() == 0 and dx[n:, b].count_nonzero() == 0
        dweights = [total + part for total, part in zip(dweights, found[1 + tensors :], strict=True)]
    assert same(others[2 * tensors + 1 :], dweights)


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_packed_steps_are_answered_as_torch_answers(name, in_order):
    layer = build(name)
    lengths = torch.tensor([5, 3, 3] if in_order else [3, 5, 3])
    packed = pack_padded_sequence(X, lengths, enforce_sorted=in_order)
    (y, last), (wanted, state) = layer(packed, start(layer)), torchs(name, layer)(packed, start(layer, axis=True))
    assert same([y.data, *flat(last)], [wanted.data, *(part[0] for part in flat(state))])
    assert torch.equal(y.batch_sizes, wanted.batch_sizes)
    assert all(a is b or torch.equal(a, b) for a, b in zip(y[2:], wanted[2:], strict=True))
    first = build(name, batch_first=True)
    assert torch.equal(first(packed, start(layer))[0].data, y.data)


def test_the_learned_state_begins_as_zeros_and_learns():
    layer = build("lstm", learn_state=True)
    assert layer.h_0.shape == layer.c_0.shape == (1, U) and not any(part.count_nonzero() for part in (layer.h_0, layer.c_0))
    y, _ = layer(X)
    assert torch.equal(y, build("lstm")(X)[0])
    torch.nn.init.normal_(layer.h_0), torch.nn.init.normal_(layer.c_0)
    given = tuple(part.detach().expand(B, U).clone().requires_grad_() for part in (layer.h_0, layer.c_0))
    learned = torch.autograd.grad(layer(X)[0].square().sum(), [layer.h_0, layer.c_0])
    wanted = torch.autograd.grad(layer(X, given)[0].square().sum(), given)
    assert same(learned, [part.sum(0, keepdim=True) for part in wanted])


def test_in_training_masks_are_drawn_in_use_zoneout_is_its_mean():
    layer = build("lstm", zoneout=(0.5, 0.25), recurrent_dropout=0.5)
    plain = build("lstm").cell, X, (torch.zeros(B, U, dtype=torch.float64),) * 2, layer.weights()
    torch.manual_seed(5)
    y, _ = layer(X)
    torch.manual_seed(5)
    zone = tuple(torch.bernoulli(torch.full((T, B, U), share, dtype=torch.float64)) for share in (0.5, 0.25))
    mask = torch.nn.functional.dropout(torch.ones(B, U, dtype=torch.float64), 0.5)
    assert torch.equal(y, recurrent.unroll(*plain, Run(mask_BR=mask, zone=zone))[0])
    assert not torch.equal(layer(X)[0], y)
    assert torch.equal(layer.eval()(X)[0], recurrent.unroll(*plain, Run(zone=(0.5, 0.25)))[0])


def test_zoneout_of_0_is_plain_and_of_1_stands_still():
    assert torch.equal(build("gru", zoneout=0.0)(X)[0], build("gru")(X)[0])
    layer = build("gru", zoneout=1)
    state = start(layer)
    assert torch.equal(layer(X, state)[0], state.expand(T, B, U)) and torch.equal(layer.eval()(X, state)[0], state.expand(T, B, U))


@pytest.mark.parametrize("steps", [0, 4])
def test_no_steps_and_no_rows(steps):
    layer = build("lstm")
    y, (h, c) = layer(torch.zeros(steps, 0, D, dtype=torch.float64), lengths=[])
    assert (y.shape, h.shape, c.shape) == ((steps, 0, U), (0, U), (0, U))
    y, (h, _) = layer(X[:0], start(layer))
    assert y.shape == (0, B, U) and torch.equal(h, start(layer)[0])
    y, (h, _) = layer(X[:steps], start(layer), lengths=[0] * B)
    assert y.count_nonzero() == 0 and torch.equal(h, start(layer)[0])


def test_a_nan_stays_in_its_own_row():
    dirty = X.clone()
    dirty[1, 0, 0] = float("nan")
    y, h = build("gru")(dirty)
    assert y[:1].isfinite().all() and y[1:, 0].isnan().all() and h[0].isnan().all()
    assert torch.equal(y[:, 1:], build("gru")(X)[0][:, 1:])


def test_second_derivatives():
    layer, x = build("lstm", recurrent_dropout=0.0, zoneout=(0.25, 0.0)).eval(), noise(3, 2, D, seed=1)
    state = start(layer, 2)

    def run(x, h, c):
        y, (h, c) = layer(x, (h, c), lengths=[3, 1])
        return y, h, c

    assert torch.autograd.gradgradcheck(run, (x, *state))


def test_it_can_be_copied_kept_and_streamed():
    layer = build("gru", learn_state=True)
    y, _ = layer(X)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301 (our own bytes)
        assert torch.equal(other(X)[0], y)
    assert list(layer.state_dict()) == ["h_0", *(f"module.{name}" for name in layer.module.state_dict())]
    feed = layer.stream(rows=B)
    assert torch.allclose(torch.cat([feed.push(X[:2]), feed.push(X[2]), feed.push(X[3:]), feed.close()]), y, rtol=1e-12)


def test_what_it_says_of_itself():
    layer = build("gru", reverse=True, zoneout=0.5)
    layer(X)
    assert layer.last_route == "plain"
    assert repr(layer).splitlines()[1].strip() == "reverse=True, zoneout=0.5"


MUTANTS = {
    "lengths forgotten": ("run = Run(lengths_B,", "run = Run(None,"),
    "direction forgotten": ("run = Run(lengths_B, self.reverse,", "run = Run(lengths_B, False,"),
    "mask forgotten": ("self.reverse, mask_BU, zone)", "self.reverse, None, zone)"),
    "zone forgotten": ("self.reverse, mask_BU, zone)", "self.reverse, mask_BU, ())"),
    "masks in use": ("dropping = self.training and self.recurrent_dropout", "dropping = self.recurrent_dropout"),
    "zone drawn in use": ("x_TBD, self.training) for share", "x_TBD, True) for share"),
    "zone's mean in training": ("x_TBD, self.training) for share", "x_TBD, False) for share"),
    "the given state forgotten": ("if state is None and self.learn_state", "if self.learn_state"),
    "the learned state forgotten": ("if state is None and self.learn_state", "if False"),
    "batch first forgotten in the output": ("return y_TBU.transpose(0, 1) if self.batch_first else y_TBU", "return y_TBU"),
    "the state's gradients exchanged": ("return dx_TBD, *dstate, *dweights", "return dx_TBD, *dstate[::-1], *dweights"),
    "the final state's gradient forgotten": ("tuple(dy[1:])", "tuple(0 * part for part in dy[1:])"),
}  # fmt: skip


def agrees(module):
    """Whether the module's Recurrent does what the loop does with the same masks."""
    for training in (True, False):
        options = {"batch_first": True, "reverse": True, "zoneout": (0.5, 0.25), "recurrent_dropout": 0.5, "learn_state": True}
        layer = build("lstm", module, **options).train(training)
        torch.nn.init.normal_(layer.h_0)
        torch.manual_seed(5)
        ours = everything(layer, X.transpose(0, 1), start(layer), lengths=LENGTHS)
        torch.manual_seed(5)
        drawn = tuple(torch.bernoulli(torch.full((T, B, U), share, dtype=torch.float64)) for share in (0.5, 0.25))
        mask = torch.nn.functional.dropout(torch.ones(B, U, dtype=torch.float64), 0.5) if training else None
        run = Run(torch.tensor(LENGTHS), True, mask, drawn if training else (0.5, 0.25))

        class Loop(torch.nn.Module):
            def __init__(self, cell):
                super().__init__()
                self.h_0, self.c_0, self.module = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1)), cell

            def forward(self, x, state, run=run):
                y, last, _ = recurrent.unroll(self.module.cell, x.transpose(0, 1), state, self.module.weights(), run)
                return y.transpose(0, 1), last

        theirs = everything(Loop(layer.module), X.transpose(0, 1), start(layer))
        assert same([part for k, part in enumerate(ours) if k not in (6, 7)], [part for k, part in enumerate(theirs) if k not in (6, 7)])
        learned = [part.detach().expand(B, U) for part in (layer.h_0, layer.c_0)]
        states = []
        for given in (None, tuple(learned)):
            torch.manual_seed(5)
            states.append(layer(X.transpose(0, 1), given)[1][0])
        assert torch.equal(*states)


def test_it_is_the_loop_with_masks_and_lengths():
    agrees(unrolled)


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    wrong = mutated(unrolled, *MUTANTS[name])
    with pytest.raises(AssertionError):
        agrees(wrong)


ONE, PAIR = Recurrent(nn.GRUCell(2, 3)), Recurrent(nn.LSTMCell(2, 3), batch_first=True)
STEPS = torch.zeros(5, 4, 2)
PACKED = pack_padded_sequence(STEPS, [5, 4, 4, 1])
BAD = {
    "no cell": (
        lambda: Recurrent(torch.nn.Linear(2, 3)),
        "Recurrent: expected a cell (nn.RNNCell, nn.GRUCell, nn.LSTMCell, or your own), got Linear. "
        "It has no cell, weights, input_size, hidden_size.",
    ),
    "torch's cell": (lambda: Recurrent(torch.nn.GRUCell(2, 3)), "It is torch's own: build it from twofold.nn, the weights load both ways."),
    "a layer": (lambda: Recurrent(nn.GRU(2, 3)), "got GRU. It runs over sequences by itself."),
    "a cell's class": (lambda: Recurrent(Leak), "got type."),
    "batch_first": (lambda: Recurrent(Leak(), 1), "Recurrent: expected batch_first to be True or False, got 1."),
    "zoneout": (lambda: Recurrent(Leak(), zoneout=1.5), "Recurrent: expected zoneout to be a probability from 0 to 1, got 1.5."),
    "two zoneouts": (lambda: Recurrent(Leak(), zoneout=(0.1, 0.2)), "Recurrent: expected zoneout to be one number, got (0.1, 0.2)."),
    "dropout": (lambda: Recurrent(Leak(), recurrent_dropout=-1), "expected recurrent_dropout to be a probability from 0 to 1, got -1."),
    "features": (lambda: ONE(STEPS[..., :1]), "Recurrent input: expected (T, B, D=2), got (5, 4, 1): D is 1, not 2."),
    "batch first": (lambda: PAIR(STEPS[..., :1]), "Recurrent input: expected (B, T, D=2), got (5, 4, 1): D is 1, not 2."),
    "dtype": (lambda: ONE(STEPS.double()), "Recurrent input: expected float32, the dtype of the weights, got float64."),
    "packed": (lambda: Recurrent(nn.GRUCell(3, 2))(PACKED), "Recurrent input (packed): expected (steps, D=3), got (14, 2): D is 2, not 3."),
    "packed, lengths": (lambda: ONE(PACKED, lengths=[5]), "Recurrent lengths: expected None with a PackedSequence, which has its own"),
    "rows of the state": (lambda: ONE(STEPS, torch.zeros(3, 3)), "Recurrent state h: expected (B=4, U=3), got (3, 3): B is 3, not 4."),
    "a state with layers": (lambda: ONE(STEPS, torch.zeros(1, 4, 3)), "expected (B=4, U=3), got (1, 4, 3): 3 axes, not 2."),
    "a pair for h": (lambda: ONE(STEPS, (torch.zeros(4, 3),) * 2), "Recurrent state: expected one tensor h, got tuple."),
    "h for a pair": (lambda: PAIR(STEPS, torch.zeros(5, 3)), "Recurrent state: expected 2 tensors (h, c), got one tensor (5, 3)."),
    "lengths": (lambda: PAIR(STEPS, lengths=[5] * 5), "Recurrent lengths: expected B=5 whole numbers from 0 to T=4, one a row, got 5"),
    "one row": (lambda: ONE(STEPS[:, 0], lengths=[5]), "expected None for one row (T, D), got some. Cut the row instead: x[:length]."),
    "streamed in reverse": (lambda: Recurrent(Leak(), reverse=True).stream(), "Recurrent stream: expected one direction"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    check_message(call, message)
