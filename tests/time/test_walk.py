"""Streams on compiled steps: the layer's own outputs and state, whatever changes on the way; what is handed out is never written again."""

import pytest
import torch

import twofold
from twofold import kernels, nn
from twofold.layers.check import noise
from twofold.time.stream import stream

pytestmark = pytest.mark.skipif(not kernels.available(), reason=kernels.reason() or "there are native kernels")

D, U = 5, 19
LAYERS = {
    "tanh": lambda **more: nn.RNN(D, U, **more),
    "relu": lambda **more: nn.RNN(D, U, nonlinearity="relu", **more),
    "gru": lambda **more: nn.GRU(D, U, **more),
    "gru without bias": lambda **more: nn.GRU(D, U, bias=False, **more),
    "gru, layer norm": lambda **more: nn.GRU(D, U, layer_norm=True, **more),
    "gru, zoneout": lambda **more: nn.GRU(D, U, zoneout=0.3, **more),
    "lstm": lambda **more: nn.LSTM(D, U, **more),
    "lstm, all": lambda **more: nn.LSTM(D, U, peephole=True, layer_norm=True, zoneout=(0.2, 0.4), learn_state=True, **more),
    "coupled": lambda **more: nn.LSTM(D, U, coupled=True, peephole=True, **more),
}


def parts_of(state):
    return state if isinstance(state, tuple) else (state,)


def near(a, b, tolerance=2e-6):
    assert a.shape == b.shape
    return torch.allclose(a, b, rtol=0, atol=tolerance)


def build(name, **more):
    torch.manual_seed(2)
    layer = LAYERS[name](**more).eval()
    for parameter in layer.parameters():
        parameter.data.uniform_(-0.25, 0.25)
    return layer


def feed_of(layer, x):
    """A stream under way: one step is behind it."""
    feed = stream(layer, x.shape[1])
    first = feed.push(x[0])
    assert feed._walk is not None
    return feed, first


@pytest.mark.parametrize("rows", [1, 3, 7])
@pytest.mark.parametrize("name", LAYERS)
def test_streamed_is_offline(name, rows):
    for layers, batch_first, sizes in ((1, False, (1,) * 9), (2, True, (2, 1, 0, 1, 4, 1)), (3, False, (1, 1, 5, 1, 1))):
        layer = build(name, num_layers=layers, batch_first=batch_first)
        x = noise(9, rows, D, grad=False, dtype=torch.float32)
        x = x.transpose(0, 1) if batch_first else x
        with twofold.route("plain"):
            truth, last = layer(x)
        feed = stream(layer, rows)
        pieces = [feed.push(piece) for piece in x.split(sizes, int(batch_first))]
        assert feed._walk is not None and layer.last_route == "native"
        assert near(torch.cat(pieces, int(batch_first)), truth)
        assert all(near(a, b) for a, b in zip(parts_of(feed.state), parts_of(last), strict=True))


def test_what_was_handed_out_stays_as_it_is():
    layer, x = build("lstm", num_layers=2), noise(6, 1, D, grad=False, dtype=torch.float32)
    feed, first = feed_of(layer, x)
    kept, state = first.clone(), feed.state
    copies = [part.clone() for part in state]
    later = [feed.push(step) for step in x[1:4]]
    assert torch.equal(first, kept) and all(map(torch.equal, state, copies))
    assert near(torch.cat([first, *later]), layer(x[:4])[0])
    for part in feed.state:
        part.zero_()  # a copy, too
    assert near(feed.push(x[4:]), layer(x)[0][4:])
    feed.state = state
    assert near(feed.push(x[1]), later[0])


def double(layer):
    layer.double()


def transpose_a_weight(layer):
    layer.weight_hh_l0.data = layer.weight_hh_l0.data.t().contiguous().t()


def other_parameter(layer):
    layer.weight_ih_l0 = torch.nn.Parameter(layer.weight_ih_l0.detach() * 0.5)


def in_place(layer):
    with torch.no_grad():
        layer.weight_ih_l0.mul_(0.5)
        layer.bias_hh_l0.add_(0.25)


def parametrised(layer):
    torch.nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")


def hooked(layer):
    layer.register_forward_hook(lambda module, given, came: (came[0] + 1, came[1]))


@pytest.mark.parametrize("change", [in_place, other_parameter, transpose_a_weight, parametrised, hooked, double])
def test_the_layer_may_change_between_two_steps(change):
    layer, x = build("gru"), noise(5, 2, D, grad=False, dtype=torch.float32)
    feed, _ = feed_of(layer, x)
    feed.push(x[1])
    state = feed.state
    change(layer)
    wide = x.to(next(layer.parameters()).dtype)
    state = state.to(wide.dtype)
    if change is double:
        feed.state = state  # the old one is float32, which the layer says
    y, _ = layer(wide[2:], state)
    assert near(torch.cat([feed.push(step) for step in wide[2:]]), y)


@pytest.mark.parametrize("around", [lambda: twofold.route("plain"), lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_route_that_is_asked_for_is_taken_in_the_middle(around):
    layer, x = build("lstm"), noise(5, 1, D, grad=False, dtype=torch.float32)
    feed, _ = feed_of(layer, x)
    state = feed.state
    with around():
        y, _ = layer(x[1:3], state)
        route = layer.last_route
        layer.last_route = ""
        streamed = feed.push(x[1:3])
        assert layer.last_route == route
    assert torch.equal(streamed, y)


def test_a_layer_that_begins_to_drop_is_refused():
    layer, x = build("lstm", num_layers=2, dropout=0.5), noise(5, 1, D, grad=False, dtype=torch.float32)
    feed, _ = feed_of(layer, x)
    layer.train()
    with pytest.raises(ValueError, match="in training with dropout=0.5"):
        feed.push(x[1])


def test_bad_steps_are_refused_and_lose_nothing():
    layer, x = build("lstm"), noise(5, 2, D, grad=False, dtype=torch.float32)
    feed, _ = feed_of(layer, x)
    for wrong in (x[1].double(), x[1, :1], x[1, :, :3], "x", x[1].to("meta")):
        with pytest.raises(ValueError, match="LSTM"):
            feed.push(wrong)
    assert near(feed.push(x[1:]), layer(x)[0][1:])


def test_the_class_refuses_what_it_would_read_beyond_its_end():
    make, four = torch.classes.twofold.RecurrenceStream, torch.zeros(1, 1, 4)
    w = [torch.zeros(16, 3), torch.zeros(16, 4), None, None, None, None, None, None, None]
    y = make(3, [four, four], w, 0.0, 0.0).push(torch.zeros(1, 1, 3))
    assert y.shape == (1, 1, 4) and not y.any()
    cases = (
        lambda: make(9, [four, four], w, 0.0, 0.0),
        lambda: make(3, [four], w, 0.0, 0.0),
        lambda: make(3, [four, torch.zeros(1, 1, 5)], w, 0.0, 0.0),
        lambda: make(3, [four, four], w[:5], 0.0, 0.0),
        lambda: make(3, [four, four], [None, *w[1:]], 0.0, 0.0),
        lambda: make(3, [four, four], [w[0], torch.zeros(16, 3), *w[2:]], 0.0, 0.0),
        lambda: make(3, [four.double(), four.double()], w, 0.0, 0.0),
        lambda: make(3, [four, four], w, 0.0, 0.0).push(torch.zeros(1, 1, 4)),
        lambda: make(3, [four, four], w, 0.0, 0.0).push(torch.zeros(1, 2, 3)),
        lambda: make(3, [four, four], w, 0.0, 0.0).push(torch.zeros(1, 3)),
    )
    for case in cases:
        with pytest.raises(ValueError, match="recurrence"):
            case()


WALKS = {
    "the state from before the step": ("self._push(", "self._push(0 * "),
    "weights not looked at": ("known.get(name) is weight", "True"),
    "the route not looked at": ("wanted_route() == self._route", "True"),
    "hooks not looked at": ("not layer._forward_hooks", "True"),
    "training not looked at": ("not layer.training", "True"),
    "axes not turned back": ("y.transpose(0, 1) if y is not None and self._swapped else y", "y"),
}


@pytest.mark.parametrize("mistake", WALKS)
def test_mistakes_are_seen(mistake, mutated, monkeypatch):
    from twofold.time import face, walk

    wrong = mutated(walk, *WALKS[mistake])
    monkeypatch.setattr(face, "Walk", wrong.Walk)
    with pytest.raises((AssertionError, RuntimeError, pytest.fail.Exception)):
        test_streamed_is_offline("lstm", 3)
        for change in (in_place, other_parameter, hooked):
            test_the_layer_may_change_between_two_steps(change)
        test_the_route_that_is_asked_for_is_taken_in_the_middle(lambda: twofold.route("plain"))
        test_a_layer_that_begins_to_drop_is_refused()
