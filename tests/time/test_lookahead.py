"""Look-ahead: against a loop of single rows and steps, the bidirectional layer, its own stream; what it may not see; mutants."""

import gc
import itertools

import pytest
import torch
from torch import nn as torch_nn
from torch.nn.utils.rnn import pack_sequence

import twofold
from twofold import nn
from twofold.layers.check import check_message, noise, outcome
from twofold.time import lookahead
from twofold.time.lookahead import LookAhead

T, B, D, U = 6, 4, 4, 2  # D = 2U: what another layer would read has the right shape
X = noise(T, B, D, seed=1, grad=False)
KINDS = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}
STATES = {"RNN": 1, "GRU": 1, "LSTM": 2}
DEPTHS = list(itertools.product(KINDS, (1, 2, 3)))
WINDOWS = [(k, False) for k in range(T + 1)] + [(k, True) for k in range(1, T + 1)]


def build(kind, layers=1, **options):
    torch.manual_seed(3)
    return KINDS[kind](D, U, layers, bidirectional=True, **options).double()


def step(kind, x, state, weights):
    """One step of one row, gate by gate."""
    W, V, b, d = weights
    if kind == "RNN":
        return (torch.tanh(W @ x + b + V @ state[0] + d),)
    ax, ah = (W @ x + b).unflatten(0, (-1, U)), (V @ state[0] + d).unflatten(0, (-1, U))
    if kind == "GRU":
        r, z = torch.sigmoid(ax[0] + ah[0]), torch.sigmoid(ax[1] + ah[1])
        return (z * state[0] + (1 - z) * torch.tanh(ax[2] + r * ah[2]),)
    i, f, o = (torch.sigmoid(ax[g] + ah[g]) for g in (0, 1, 3))
    c = f * state[1] + i * torch.tanh(ax[2] + ah[2])
    return o * torch.tanh(c), c


def loop(layer, k, chunked, x, hx=None, lengths=None, weights=None):
    """The law, read aloud: for every row and step, walk there from the past and from the end of what may be seen."""
    kind, rows, weights = type(layer).__name__, [], weights or dict(layer.named_parameters())
    sides = [[weights[name] for name in names] for names in layer._all_weights]
    hx = hx if hx is None or isinstance(hx, tuple) else (hx,)
    for b in range(x.shape[1]):
        n = x.shape[0] if lengths is None else lengths[b]
        u = list(x[:n, b])
        for place in range(0, 2 * layer.num_layers, 2):
            begin = [[part[p, b] for part in hx] if hx else [x.new_zeros(U)] * STATES[kind] for p in (place, place + 1)]
            past, forward, reverse = begin[0], [], []
            for t in range(n):
                past = step(kind, u[t], past, sides[place])
                forward.append(past[0])
                end = min((t // k + 1) * k - 1 if chunked else t + k, n - 1)
                future = begin[1]
                for s in range(end, t - 1, -1):
                    future = step(kind, u[s], future, sides[place + 1])
                reverse.append(future[0])
            u = [torch.cat(pair) for pair in zip(forward, reverse, strict=True)]
        rows.append(torch.stack([*u, *[x.new_zeros(2 * U)] * (x.shape[0] - n)]))
    return torch.stack(rows, 1)


def given(kind, layers, seed=5):
    state = tuple(noise(2 * layers, B, U, seed=seed + i, grad=False) for i in range(STATES[kind]))
    return state if len(state) > 1 else state[0]


def far(a, b):
    assert a.shape == b.shape
    return (a - b).abs().max().item() if a.numel() else 0.0


@pytest.mark.parametrize(("kind", "layers"), DEPTHS)
def test_it_is_the_loop_with_and_without_lengths_and_a_state(kind, layers):
    layer, lengths = build(kind, layers), [6, 0, 1, 4]
    for k, chunked in WINDOWS if layers == 2 else [(2, False), (4, False), (2, True), (4, True)]:
        ahead = LookAhead(layer, k, chunked)
        hx = given(kind, layers)
        with torch.no_grad():
            assert far(ahead(X), loop(layer, k, chunked, X)) < 1e-12
            assert far(ahead(X, hx, lengths), loop(layer, k, chunked, X, hx, lengths)) < 1e-12


@pytest.mark.parametrize(("kind", "layers"), DEPTHS)
def test_all_ahead_is_the_bidirectional_layer(kind, layers):
    layer, hx = build(kind, layers), given(kind, layers)
    truth, alone = layer(X, hx)[0], layer(X[:1])[0]
    for ahead in (LookAhead(layer, T - 1), LookAhead(layer, T + 3), LookAhead(layer, T, chunked=True)):
        assert far(ahead(X, hx), truth) < 1e-12
    assert far(LookAhead(layer, 0)(X[:1]), alone) < 1e-12
    assert far(LookAhead(layer, T - 2)(X, hx), truth) > 1e-6


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_loop_and_of_finite_differences(kind, chunked):
    layer, lengths = build(kind, 2), [5, 2, 0]
    ahead, names = LookAhead(layer, 2, chunked), [name for name, _ in layer.named_parameters()]

    def ours(x, *hx_and_weights):
        weights = {f"layer.{name}": value for name, value in zip(names, hx_and_weights[tensors:], strict=True)}
        return torch.func.functional_call(ahead, weights, (x, hx_and_weights[:tensors] if tensors > 1 else hx_and_weights[0], lengths))

    def theirs(x, *hx_and_weights):
        weights = dict(zip(names, hx_and_weights[tensors:], strict=True))
        return loop(layer, 2, chunked, x, hx_and_weights[:tensors], lengths, weights)

    tensors = STATES[kind]
    state = [noise(4, 3, U, seed=7 + i) for i in range(tensors)]
    arguments = (noise(5, 3, D, seed=2), *state, *(p.detach().clone().requires_grad_() for p in layer.parameters()))
    for a, b in zip(outcome(ours, arguments), outcome(theirs, arguments), strict=True):
        assert far(a, b) < 1e-12
    with twofold.route("plain"):
        assert torch.autograd.gradcheck(ours, arguments, fast_mode=True)


@pytest.mark.parametrize(("k", "chunked"), WINDOWS)
def test_an_output_does_not_see_behind_its_delay(k, chunked):
    layers, length = 2, 14
    ahead, x = LookAhead(build("LSTM", layers), k, chunked), noise(length, 1, D, grad=False)
    with torch.no_grad():
        y = ahead(x)
        for s in range(length):
            changed = x.clone()
            changed[s] += 1
            moved = ((ahead(changed) - y).abs() > 1e-12).any(-1)[:, 0].tolist()  # which outputs see step s
            assert moved == [s <= ((t // k + 1) * k - 1 if chunked else t + layers * k) for t in range(length)]


def test_what_stands_behind_a_rows_end_is_not_read():
    layer, x = build("LSTM", 2), X.clone().requires_grad_()
    with torch.no_grad():
        x[3:, 1] = torch.nan
    y = LookAhead(layer, 2)(x, lengths=[6, 3, 0, 6])
    (dx,) = torch.autograd.grad(y.square().sum(), x)
    assert y[3:, 1].count_nonzero() == y[:, 2].count_nonzero() == dx[3:, 1].count_nonzero() == dx[:, 2].count_nonzero() == 0
    assert far(y[:3, 1], LookAhead(layer, 2)(X[:3, 1:2])[:, 0]) < 1e-12
    assert dx.isfinite().all()


def test_forms_of_the_input():
    layer = build("LSTM", batch_first=True)
    ahead, truth = LookAhead(layer, 2), LookAhead(build("LSTM"), 2)(X)
    assert torch.equal(ahead(X.transpose(0, 1)), truth.transpose(0, 1))
    assert far(ahead(X[:, 0]), truth[:, 0]) < 1e-12
    assert ahead(X[:0].transpose(0, 1)).shape == (B, 0, 2 * U)
    feed = ahead.stream(B)
    parts = [feed.push(X[:4].transpose(0, 1)), feed.push(X[4]), feed.push(X[5:].transpose(0, 1)), feed.close()]
    assert [part.shape[1] for part in parts] == [2, 1, 1, 2]
    assert far(torch.cat(parts, 1), truth.transpose(0, 1)) < 1e-12


def test_weights_are_shared():
    layer = build("LSTM")
    ahead = LookAhead(layer, 2)
    assert ahead.layer is layer
    assert {name.removeprefix("layer.") for name in ahead.state_dict()} == set(layer.state_dict())


OPTIONS = {
    "projection": ("LSTM", {"proj_size": 1}),
    "peephole, layer norm": ("LSTM", {"peephole": True, "layer_norm": True}),
    "coupled, zoneout": ("LSTM", {"coupled": True, "zoneout": (0.2, 0.4)}),
    "reset before, learnt state": ("GRU", {"reset": "before", "learn_state": True}),
    "all that is dropped": ("GRU", {"recurrent_dropout": 0.5, "weight_dropout": 0.5, "dropout": 0.5}),
    "relu, learnt state": ("RNN", {"nonlinearity": "relu", "learn_state": True}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_layers_options_hold_ahead_and_in_streams(name):
    kind, options = OPTIONS[name]
    layer = build(kind, 2, **options).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1)
    assert far(LookAhead(layer, T)(X), layer(X)[0]) < 1e-12
    assert far(LookAhead(layer, T)(X, lengths=[6, 2, 0, 5]), layer(X, lengths=[6, 2, 0, 5])[0]) < 1e-12
    for k, chunked in [(2, False), (3, True)]:
        ahead = LookAhead(layer, k, chunked).eval()
        assert far(fed(ahead.stream(B), X, [1, 3, 2]), ahead(X)) < 1e-12


def compositions(total):
    """All ways to cut `total` steps into pushes."""
    for cuts in itertools.product((False, True), repeat=total - 1):
        ends = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), total]
        yield [b - a for a, b in itertools.pairwise(ends)]


def fed(feed, x, sizes):
    """The outputs of a stream that is pushed so many steps at a time."""
    parts = [feed.push(part) for part in x.split(sizes)]
    return torch.cat([*parts, feed.close()])


@pytest.mark.parametrize(("kind", "layers"), DEPTHS)
def test_streamed_is_offline_however_the_six_steps_are_cut(kind, layers):
    layer, x = build(kind, layers), X[:, :1]
    for k, chunked in WINDOWS if kind == "RNN" else [(2, False), (3, True)]:
        ahead = LookAhead(layer, k, chunked)
        truth, feed = ahead(x), ahead.stream()
        for sizes in compositions(T):
            assert far(fed(feed, x, sizes), truth) < 1e-12
            feed.reset()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_streamed_is_offline_for_random_cuts_of_fifty_steps(dtype, chunked):
    generator = torch.Generator().manual_seed(0)
    for kind, layers in itertools.product(KINDS, (1, 2, 3)):
        layer, x = build(kind, layers).to(dtype), noise(50, 2, D, grad=False, dtype=dtype)
        for k in (1, 4, 7, 49, 50):
            ahead = LookAhead(layer, k, chunked)
            sizes = torch.randint(0, 9, (30,), generator=generator).cumsum(0).clamp(max=50).diff(prepend=torch.tensor([0])).tolist()
            assert sum(sizes) == 50
            assert far(fed(ahead.stream(2), x, sizes), ahead(x)) < 1e-6


def test_every_output_comes_at_once_when_it_is_determined():
    for layers, (k, chunked) in itertools.product((1, 2, 3), WINDOWS):
        feed = LookAhead(build("LSTM", layers), k, chunked).stream(B)
        told = list(itertools.accumulate(len(feed.push(step)) for step in X))
        assert told == [t // k * k if chunked else max(t - layers * k, 0) for t in range(1, T + 1)]
        assert len(feed.close()) == T - told[-1]


def test_the_state_can_be_taken_and_given_back_and_begins_where_told():
    layer = build("LSTM", 2)
    ahead, hx = LookAhead(layer, 2), given("LSTM", 2)
    feed, other = ahead.stream(B), ahead.stream(B)
    feed.state = hx
    head = feed.push(X[:3])
    kept = feed.state
    rest = torch.cat((feed.push(X[3:]), feed.close()))
    assert far(torch.cat((head, rest)), ahead(X, hx)) < 1e-12
    other.state = kept
    assert torch.equal(torch.cat((other.push(X[3:]), other.close())), rest)
    other.reset()
    assert far(fed(other, X, [1, 5]), ahead(X)) < 1e-12


def held_bytes(state):
    if isinstance(state, torch.Tensor):
        return state.untyped_storage().nbytes()
    return sum(held_bytes(part) for part in state) if isinstance(state, tuple) else 0


@pytest.mark.parametrize(("layers", "k", "chunked"), [(1, 5, False), (2, 3, False), (2, 4, True)])
def test_ten_thousand_steps_take_no_more_memory_than_a_few(layers, k, chunked):
    feed = LookAhead(build("LSTM", layers), k, chunked).stream()
    x, most, alive, done = noise(40, 1, D), [], [], 0
    for size in itertools.cycle((1, 7, 0, 40, 12)):
        done += len(feed.push(x[:size]))
        most.append(held_bytes(feed.state))
        if len(most) % 100 == 0:
            alive.append(sum(type(thing) is torch.Tensor for thing in gc.get_objects()))
        if done >= 10_000:
            break
    assert max(most) <= 8 * (2 * layers * U + k * D + (layers - 1) * k * 2 * U)  # h and c of every layer, k steps of what it reads
    assert len(alive) >= 8
    assert max(alive) == min(alive)


def test_a_stream_keeps_no_gradients_and_sees_new_weights_and_not_what_becomes_of_its_input():
    layer = build("LSTM", 2)
    ahead, x = LookAhead(layer, 2), X.clone().requires_grad_()
    feed = ahead.stream(B)
    y = feed.push(x)
    assert not any(t.requires_grad for t in (y, *feed.state.forward, *feed.state.waiting))
    kept = feed.state
    with torch.no_grad():
        layer.weight_hh_l0_reverse.mul_(2)
        layer.weight_ih_l1.mul_(2)
        x.zero_()
    other = ahead.stream(B)
    other.state = kept
    rest = feed.close()
    assert torch.equal(other.close(), rest)
    assert far(torch.cat((y, rest)), LookAhead(layer, 2)(X)) > 1e-3
    fresh = ahead.stream(B)
    fresh.push(X)
    assert far(fresh.close()[-1, :, U:], ahead(X)[-1, :, U:]) < 1e-12


LAYER = build("LSTM")
BAD = {
    "no layer": (lambda: LookAhead(torch_nn.Linear(2, 3), 2), ("LookAhead: expected a bidirectional", "got Linear")),
    "torch's own": (lambda: LookAhead(torch_nn.GRU(2, 3, bidirectional=True), 2), ("torch's own GRU", "twofold.nn")),
    "one direction": (lambda: LookAhead(nn.LSTM(2, 3), 2), ("expected two directions", "bidirectional=True")),
    "negative": (lambda: LookAhead(LAYER, -1), ("steps", "at least 0", "-1")),
    "half a step": (lambda: LookAhead(LAYER, 1.5), ("steps", "1.5")),
    "a switch": (lambda: LookAhead(LAYER, True), ("steps", "True")),
    "no chunk": (lambda: LookAhead(LAYER, 0, chunked=True), ("a chunk's number of steps", "at least 1", "0")),
    "no switch": (lambda: LookAhead(LAYER, 2, chunked=3), ("chunked", "True or False", "3")),
    "features": (lambda: LookAhead(LAYER, 2)(X[..., :2]), ("LSTM input", "D=4", "D is 2, not 4")),
    "state": (lambda: LookAhead(LAYER, 2)(X, X), ("LSTM state", "2 tensors", "(h, c)")),
    "too long": (lambda: LookAhead(LAYER, 2)(X, lengths=[7, 1, 1, 1]), ("LookAhead", "lengths", "7", "6")),
    "packed": (lambda: LookAhead(LAYER, 2)(pack_sequence([X[:, 0]])), ("LookAhead input", "PackedSequence", "lengths")),
    "a held state of other rows": (lambda: give(lookahead.LookAhead(LAYER, 2), 3), ("LookAhead state forward", "B=4", "B is 3, not 4")),
    "a held state of more layers": (lambda: give(LookAhead(build("LSTM", 2), 2), B), ("LookAhead state", "expected", "got")),
    "a held state of another dtype": (lambda: give(LookAhead(build("LSTM").float(), 2), B), ("LookAhead state", "float64", "float32")),
}  # fmt: skip


def give(other, rows):
    """Give a stream of LAYER the state of another layer's stream."""
    from_other, to_ours = other.stream(rows), LookAhead(LAYER, 2).stream(B)
    from_other.push(X[:, :rows].to(next(other.parameters()).dtype))
    to_ours.state = from_other.state


@pytest.mark.parametrize("name", BAD)
def test_messages(name):
    check_message(BAD[name][0], *BAD[name][1])


MUTANTS = {
    "one step less ahead": ("T, self.steps)\n", "T, max(self.steps - 1, 1))\n"),
    "told one step early": ("max(T - self.steps, 0)", "max(T - self.steps + 1, 0)"),
    "told one step late": ("max(T - self.steps, 0)", "max(T - self.steps - 1, 0)"),
    "chunks sliding": ("(chunked if self.chunked else sliding)", "(sliding)"),
    "weights of the first layer's reverse direction": ("self._ahead(2 * number + 1,", "self._ahead(1,"),
    "both directions with the forward weights": ("self._ahead(2 * number + 1,", "self._ahead(2 * number,"),
    "sides exchanged": ("torch.cat((y_TBR, ahead_TBR), dim=-1)", "torch.cat((ahead_TBR, y_TBR), dim=-1)"),
    "the forward state not carried": ("forward.append(state)", "forward.append(tuple(part[number] for part in held.forward))"),
    "the reverse direction begins from the forward's state": ("tuple(part[place].repeat", "tuple(part[place - 1].repeat"),
    "state of the rows repeated in their place": ("part[place].repeat(copies, 1)", "part[place].repeat_interleave(copies, 0)"),
    "waiting steps lost": ("waiting.append(x_TBD[ready:].clone())", "waiting.append(x_TBD[T:].clone())"),
    "all that was pushed kept alive": ("waiting.append(x_TBD[ready:].clone())", "waiting.append(x_TBD[ready:])"),
    "one window forwards": ("run(x_TBD.flip(0), 1).flip(0)[:ready]", "run(x_TBD, 1)[:ready]"),
    "one window for too many steps": ("seen >= T:", "seen + 1 >= T:"),
    "lengths forgotten": (", True, lengths)", ", True, None)"),
    "garbage behind the end": ("y_TBR = clear(y_TBR, inside_TB)", "y_TBR = y_TBR + 0"),
    "dropped too early": ("self.layer._dropout(y_TBR) if number else y_TBR", "self.layer._dropout(y_TBR)"),
}  # fmt: skip


def disagrees(module):
    """Whether this look-ahead differs from the loop, from its own stream, or holds more than it should."""
    layer, hx, lengths = build("LSTM", 2), given("LSTM", 2), [6, 2, 5, 4]
    for k, chunked in [(1, False), (2, False), (4, False), (2, True), (4, True)]:
        ahead = module.LookAhead(layer, k, chunked)
        with torch.no_grad():
            truth = loop(layer, k, chunked, X, hx)
            apart = far(ahead(X, hx), truth) + far(ahead(X, hx, lengths), loop(layer, k, chunked, X, hx, lengths))
        feed = ahead.stream(B)
        feed.state = hx
        head = feed.push(X[:1])
        told = len(head) + len(middle := feed.push(X[1:5]))
        held = held_bytes(feed.state[1:])
        rest = torch.cat((head, middle, feed.push(X[5:]), feed.close()))
        late = told != (5 // k * k if chunked else max(5 - 2 * k, 0))
        fat = held > 8 * B * (2 * 2 * U + k * D + k * 2 * U)
        if apart > 1e-9 or rest.shape != truth.shape or far(rest, truth) > 1e-9 or late or fat:
            return True
    for layers in (1, 2):
        silent = build("LSTM", layers)
        silent._dropout = torch.zeros_like
        y, silenced = module.LookAhead(silent, 2)(X), module.LookAhead(silent, 2)(0 * X)
        if torch.equal(y, silenced) == (layers == 1):
            return True
    return False


def test_no_disagreement():
    assert not disagrees(lookahead)


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    wrong = mutated(lookahead, *MUTANTS[name])
    try:
        caught = disagrees(wrong)
    except RuntimeError as error:  # torch: sizes that do not fit together
        caught = "size" in str(error)
    assert caught
