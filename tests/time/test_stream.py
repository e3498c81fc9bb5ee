"""Streams of one direction: the layer's own outputs however the sequence is cut, the state, what is refused; mutants."""

import gc
import itertools

import pytest
import torch
from torch import nn as torch_nn

from twofold import nn
from twofold.layers.check import check_message, noise
from twofold.time import stream as stream_module
from twofold.time.lookahead import LookAhead
from twofold.time.stream import stream

T, B, D, U = 6, 3, 4, 2
X = noise(T, B, D, seed=1, grad=False)
KINDS = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}


def build(kind, layers=1, **options):
    torch.manual_seed(3)
    return KINDS[kind](D, U, layers, **options).double()


def far(a, b):
    assert a.shape == b.shape
    return (a - b).abs().max().item() if a.numel() else 0.0


def parts_of(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize(("kind", "layers"), list(itertools.product(KINDS, (1, 2, 3))))
def test_streamed_is_offline_however_the_six_steps_are_cut(kind, layers):
    layer = build(kind, layers)
    truth, last = layer(X)
    feed = stream(layer, B)
    for cuts in itertools.product((False, True), repeat=T - 1):
        pieces = torch.tensor_split(X, [i + 1 for i, cut in enumerate(cuts) if cut])
        y = [feed.push(piece[0] if len(piece) == 1 else piece) for piece in pieces]
        assert [len(part) for part in y] == [len(piece) for piece in pieces]
        assert far(torch.cat(y), truth) < 1e-12
        assert all(far(a, b) < 1e-12 for a, b in zip(parts_of(feed.state), parts_of(last), strict=True))
        assert feed.close().shape == (0, B, U)
        feed.reset()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_streamed_is_offline_for_random_cuts_of_fifty_steps(dtype, kind):
    generator = torch.Generator().manual_seed(0)
    for layers, batch_first in itertools.product((1, 2, 3), (False, True)):
        layer = build(kind, layers, batch_first=batch_first).to(dtype)
        x, time = noise(50, 2, D, grad=False, dtype=dtype), int(batch_first)
        sizes = torch.randint(0, 9, (30,), generator=generator).cumsum(0).clamp(max=50).diff(prepend=torch.tensor([0])).tolist()
        x = x.transpose(0, 1) if batch_first else x
        feed = stream(layer, 2)
        y = torch.cat([feed.push(piece) for piece in x.split(sizes, time)], time)
        assert far(y, layer(x)[0]) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_is_the_layers_own_and_can_be_set_and_forgotten(kind):
    layer = build(kind, 2)
    truth, last = layer(X[:4])
    feed, other = stream(layer, B), stream(layer, B)
    assert feed.state is None
    feed.push(X[:4])
    assert all(torch.equal(a, b) for a, b in zip(parts_of(feed.state), parts_of(last), strict=True))
    other.state = last
    assert far(other.push(X[4:]), layer(X)[0][4:]) < 1e-12
    other.close()
    other.reset()
    assert other.state is None
    assert far(other.push(X[:4]), truth) < 1e-12
    other.state = None
    assert far(other.push(X[:4]), truth) < 1e-12


def test_nothing_is_asked_of_gradients_and_new_weights_are_seen():
    layer, x = build("LSTM", 2), X.clone().requires_grad_()
    feed = stream(layer, B)
    y = feed.push(x[:3])
    assert not any(t.requires_grad for t in (y, *feed.state))
    kept = tuple(part.clone() for part in feed.state)
    with torch.no_grad():
        layer.weight_hh_l0.mul_(2)
    assert torch.equal(feed.push(x[3:]), layer(X[3:], kept)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_steps_leave_the_state_alone(kind):
    feed, x, alive = stream(build(kind)), noise(100, 1, D, grad=False), []
    for number in range(1000):
        feed.push(x[: 1 + number % 19])  # 10,000 steps in all
        held = sum(part.untyped_storage().nbytes() for part in parts_of(feed.state))
        assert held == 8 * U * len(parts_of(feed.state))
        if number % 100 == 99:
            alive.append(sum(type(thing) is torch.Tensor for thing in gc.get_objects()))
    assert max(alive) == min(alive)


def fails(feed, *words):
    check_message(lambda: feed.push(X), *words)


def test_messages():
    layer = build("LSTM")
    feed = stream(layer, B)
    for x, words in {
        "a list": ([1.0], ("LSTM stream", "torch tensor", "list")),
        "rows": (X[:, :2], ("LSTM stream", "(k, B=3, D=4)", "(6, 2, 4)", "B is 2, not 3", "keeps its 3 rows")),
        "rows of a step": (X[0, :2], ("LSTM stream", "(B=3, D=4)", "(2, 4)", "B is 2, not 3", "keeps its 3 rows")),
        "features": (X[..., :3], ("LSTM stream", "(k, B=3, D=4)", "D is 3, not 4")),
        "one step of one row": (X[0, 0], ("LSTM stream", "1 axes", "x[None]")),
        "whole numbers": (X.long(), ("LSTM input", "floating point", "int64")),
        "dtype": (X.float(), ("LSTM input", "float64", "float32")),
    }.values():
        check_message(lambda x=x: feed.push(x), *words)
    check_message(lambda: setattr(feed, "state", (X, X)), "LSTM state h", "L=1", "B=3")
    check_message(lambda: setattr(feed, "state", X), "LSTM state", "2 tensors")
    first = stream(build("LSTM", batch_first=True), B)
    check_message(lambda: first.push(X), "(B=3, k, D=4)", "(6, 3, 4)", "B is 6, not 3")
    assert far(feed.push(X), layer(X)[0]) < 1e-12  # what was refused left no trace
    feed.close()
    check_message(lambda: feed.push(X), "LSTM stream", "after close()", "reset()")
    assert feed.close().shape == (0, B, U)
    check_message(lambda: stream(layer, 0), "LSTM stream", "rows", "at least 1", "0")
    check_message(lambda: stream(torch_nn.Linear(2, 3)), "Linear stream", "recurrent layer", "nn.LookAhead")
    check_message(
        lambda: stream(build("LSTM", bidirectional=True)), "LSTM stream", "one direction", "nn.LookAhead(layer, steps=5).stream()"
    )
    dropping = build("GRU", 2, dropout=0.5)
    check_message(lambda: stream(dropping, B).push(X), "GRU stream", "in training with dropout=0.5", "layer.eval()")
    assert far(stream(dropping.eval(), B).push(X), dropping(X)[0]) < 1e-12
    ahead = LookAhead(build("LSTM", 2, dropout=0.5, bidirectional=True), 2)
    check_message(lambda: ahead.stream(B).push(X), "LookAhead stream", "dropout=0.5")
    ahead.layer.eval()
    feed = ahead.stream(B)
    assert far(torch.cat((feed.push(X), feed.close())), ahead(X)) < 1e-12


MUTANTS = {
    "the state not carried": ("y, self._state = self._advance", "y, _ = self._advance"),
    "a graph kept": ("        with torch.no_grad():\n            y,", "        with torch.enable_grad():\n            y,"),
    "reset keeps the state": ("self._state, self._walk, self.closed = None, None, False", "self.closed = False"),
    "reset stays closed": ("self._state, self._walk, self.closed = None, None, False", "self._state = self._walk = None"),
    "close does not close": ("        self.closed = True\n", ""),
    "close without telling": ("self._next(self._nothing(), not self.closed)", "self._next(self._nothing(), False)"),
    "every push the last": ("return self._next(x, False)", "return self._next(x, True)"),
    "a step as rows": ("return x.unsqueeze(self._time)", "return x.unsqueeze(self._time).transpose(0, 1)"),
    "batch first ignored": ('1 if getattr(layer, "batch_first", False) else 0', "0"),
    "rows not asked": ("x.shape[1 - self._time] != self.rows or ", ""),
    "a set state forgotten": ("self._state, self._walk = state, None", "pass"),
    "the closed take more": ("        if self.closed:\n", "        if False:\n"),
}  # fmt: skip


def behaves(module):
    """What a stream owes, asked of this module's."""
    layer = build("LSTM", batch_first=True)
    ahead = LookAhead(build("LSTM", bidirectional=True), 2)
    x = X.transpose(0, 1)
    truth, seen = layer(x)[0].detach(), ahead(X)
    feed, waiting = module.stream(layer, B), module.Stream(ahead, B, ahead.advance)
    for _ in range(2):
        y = [feed.push(x[:, :2]), feed.push(x[:, 2]), feed.push(x[:, 3:])]
        assert not y[0].requires_grad
        assert far(torch.cat(y, 1), truth) < 1e-12
        feed.close()
        check_message(lambda: feed.push(x), "after close()")
        feed.reset()
        assert far(torch.cat((waiting.push(X[:4]), waiting.push(X[4:]), waiting.close())), seen) < 1e-12
        waiting.reset()
    feed.state = layer(x[:, :3])[1]
    assert far(feed.push(x[:, 3:]), truth[:, 3:]) < 1e-12
    check_message(lambda: feed.push(x[:2]), "LSTM stream", "B is 2, not 3")


def test_it_behaves():
    behaves(stream_module)


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    wrong = mutated(stream_module, *MUTANTS[name])
    with pytest.raises((AssertionError, ValueError)):
        behaves(wrong)
