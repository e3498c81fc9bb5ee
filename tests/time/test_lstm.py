"""The LSTM over a sequence: the witnesses, torch's values and gradients, the laws of recurrence."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn as torch_nn
from torch.nn.utils.rnn import pack_padded_sequence

import twofold
from twofold.layers.check import Case, check, check_drop_in, noise
from twofold.time.cells import LSTMCell
from twofold.time.layer import Call
from twofold.time.lstm import LSTM, lstm


def expression(x, h, c, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, *_):
    """Gate by gate, with the weights of each gate cut out and logistic functions written with tanh."""
    y, h, c = [], h[0], c[0]
    for x_t in x.unbind():
        values = []
        for W, V, b, d in zip(
            weight_ih.chunk(4),
            weight_hh.chunk(4),
            bias_ih.chunk(4) if bias_ih is not None else [0] * 4,
            bias_hh.chunk(4) if bias_hh is not None else [0] * 4,
            strict=True,
        ):
            values.append((x_t.unsqueeze(1) * W).sum(-1) + (h.unsqueeze(1) * V).sum(-1) + b + d)
        i, f, o = ((1 + torch.tanh(values[k] / 2)) / 2 for k in (0, 1, 3))
        c = c * f + torch.tanh(values[2]) * i
        h = torch.tanh(c) * o
        h = h if weight_hr is None else (h.unsqueeze(1) * weight_hr).sum(-1)
        y.append(h)
    return torch.stack(y), h[None], c[None]


def arguments(T, B, D, U, R=None, bias=True, grad=True):
    biases = (noise(4 * U, seed=6), noise(4 * U, seed=7)) if bias else (None, None)
    weights = (noise(4 * U, D, seed=4), noise(4 * U, R or U, seed=5), *biases, noise(R, U, seed=8) if R else None)
    state = noise(1, B, R or U, seed=2), noise(1, B, U, seed=3)
    return noise(T, B, D, seed=1, grad=grad), *state, *weights, *[None] * 5, Call()


CASES = {
    "sequence": arguments(3, 2, 3, 2),
    "no bias": arguments(4, 2, 1, 3, bias=False),
    "projected": arguments(3, 2, 3, 2, R=1),
    "projected, no bias": arguments(2, 3, 2, 3, R=2, bias=False),
    "one step": arguments(1, 3, 2, 2),
    "one row": arguments(5, 1, 3, 2),
    "one unit": arguments(3, 2, 4, 1),
    "frozen input": arguments(3, 2, 3, 2, grad=False),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # torch says so once, in float32
@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    second_order = name in ("one step", "projected")
    check(Case(lstm, CASES[name], expression, rows=False, second_order=second_order))


def test_the_equations_in_numpy():
    x, (h,), (c,), W, V, b, d = (a.detach().numpy() for a in CASES["sequence"][:7])
    y, (last_h,), (last_c,) = lstm(*CASES["sequence"])
    for t in range(3):
        a_i, a_f, a_g, a_o = np.split(x[t] @ W.T + h @ V.T + b + d, 4, axis=1)
        c = c / (1 + np.exp(-a_f)) + np.tanh(a_g) / (1 + np.exp(-a_i))
        h = np.tanh(c) / (1 + np.exp(-a_o))
        assert np.abs(y[t].detach().numpy() - h).max() < 1e-12
    assert np.abs(last_h.detach().numpy() - h).max() < 1e-12
    assert np.abs(last_c.detach().numpy() - c).max() < 1e-12


SHAPES = list(itertools.product((1, 2, 3), (False, True), (False, True), (False, True), (0, 2)))


@pytest.mark.parametrize(("layers", "both", "batch_first", "bias", "projection"), SHAPES)
@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_stands_in_for_torch(layers, both, batch_first, bias, projection, route):
    options = (3, 4, layers, bias, batch_first, 0.0, both, projection)
    ours, theirs = LSTM(*options).double(), torch_nn.LSTM(*options).double()
    places = layers * (1 + both)
    with twofold.route(route):
        check_drop_in(ours, theirs, noise(5, 2, 3))
        check_drop_in(ours, theirs, noise(5, 3))
        state = (noise(places, 2, projection or 4, seed=2), noise(places, 2, 4, seed=3))
        x = noise(2, 5, 3) if batch_first else noise(5, 2, 3)
        results = []
        for layer in (ours, theirs):
            y, (h, c) = layer(x, state)
            loss = sum((value * noise(*value.shape, seed=10 + k)).sum() for k, value in enumerate((y, h, c)))
            results.append([y, h, c, *torch.autograd.grad(loss, [x, *state, *layer.parameters()])])
    assert ours.last_route == route
    for mine, torchs in zip(*results, strict=True):
        assert mine.shape == torchs.shape
        assert torch.allclose(mine, torchs, rtol=1e-12, atol=1e-12)


def layer_and_input(**options):
    """A layer of two levels in float64 by a fixed seed, an input (T=6, B=3, D=3)."""
    torch.manual_seed(0)
    return LSTM(3, 4, 2, **options).double(), noise(6, 3, 3)


@pytest.fixture(params=["plain", "vendor"])
def route(request):
    with twofold.route(request.param):
        yield request.param


def test_a_sequence_is_its_steps_with_the_cell(route):
    layer, cell, x = LSTM(3, 4).double(), LSTMCell(3, 4).double(), noise(6, 2, 3)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    y, (h, c) = layer(x)
    state = None
    for t in range(6):
        state = cell(x[t], state)
        assert torch.allclose(y[t], state[0], rtol=1e-12)
    assert torch.allclose(h[0], state[0], rtol=1e-12) and torch.allclose(c[0], state[1], rtol=1e-12)


def test_state_carried_across_a_split_equals_the_whole(route):
    layer, x = layer_and_input()
    whole, (h, c) = layer(x)
    first, state = layer(x[:2])
    second, (split_h, split_c) = layer(x[2:], state)
    assert torch.allclose(torch.cat((first, second)), whole, rtol=1e-12)
    assert torch.allclose(split_h, h, rtol=1e-12) and torch.allclose(split_c, c, rtol=1e-12)
    gradients = [torch.autograd.grad(y.pow(2).sum(), layer.parameters()) for y in (whole, torch.cat((first, second)))]
    assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(*gradients, strict=True))


def test_rows_are_independent_and_keep_their_order(route):
    layer, x = layer_and_input(bidirectional=True)
    y, (h, c) = layer(x)
    order = torch.tensor([2, 0, 1])
    other, (other_h, other_c) = layer(x[:, order])
    assert torch.allclose(other, y[:, order], rtol=1e-12)
    assert torch.allclose(other_h, h[:, order], rtol=1e-12) and torch.allclose(other_c, c[:, order], rtol=1e-12)
    assert torch.allclose(layer(x[:, 1:2])[0], y[:, 1:2], rtol=1e-12)
    assert torch.allclose(layer(x[:, 1])[0], y[:, 1], rtol=1e-12)


def test_both_directions_are_the_two_alone(route):
    both = LSTM(3, 4, bidirectional=True).double()
    weights = both.state_dict()
    one, other = LSTM(3, 4).double(), LSTM(3, 4).double()
    one.load_state_dict({name: value for name, value in weights.items() if "reverse" not in name})
    other.load_state_dict({name.removesuffix("_reverse"): value for name, value in weights.items() if "reverse" in name})
    x = noise(6, 2, 3)
    y, (h, _) = both(x)
    backwards, (h_reverse, _) = other(x.flip(0))
    assert torch.allclose(y, torch.cat((one(x)[0], backwards.flip(0)), -1), rtol=1e-12)
    assert torch.allclose(h[1], h_reverse[0], rtol=1e-12)


def test_batch_first_is_a_transpose(route):
    layer, x = layer_and_input()
    other, _ = layer_and_input(batch_first=True)
    y, (h, c) = layer(x)
    transposed, (other_h, other_c) = other(x.transpose(0, 1))
    assert torch.equal(transposed.transpose(0, 1), y) and torch.equal(other_h, h) and torch.equal(other_c, c)


@pytest.mark.parametrize("used", ["y", "h", "c"])
def test_outputs_that_nobody_uses_count_as_zeros(used):
    layer, x = layer_and_input(bidirectional=True)
    gradients = []
    for name in ("plain", "vendor"):
        with twofold.route(name):
            y, (h, c) = layer(x)
        chosen = {"y": y, "h": h, "c": c}[used]
        gradients.append(torch.autograd.grad((chosen * noise(*chosen.shape)).sum(), [x, *layer.parameters()], allow_unused=True))
    for plain, torchs in zip(*gradients, strict=True):
        truth = torch.zeros_like(plain) if torchs is None else torchs
        assert torch.allclose(plain, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch_first", [False, True])
def test_an_empty_sequence_returns_the_initial_state(batch_first, route):
    layer, _ = layer_and_input(bidirectional=True, proj_size=2, batch_first=batch_first)
    h, c = noise(4, 3, 2, seed=2), noise(4, 3, 4, seed=3)
    empty = torch.zeros((3, 0, 3) if batch_first else (0, 3, 3), dtype=torch.float64)
    y, (last_h, last_c) = layer(empty, (h, c))
    assert y.shape == ((3, 0, 4) if batch_first else (0, 3, 4))
    assert torch.equal(last_h, h) and torch.equal(last_c, c)
    assert layer.last_route == "plain"
    dh, dc = torch.autograd.grad((last_h * 2).sum() + last_c.sum(), [h, c])
    assert torch.equal(dh, torch.full_like(h, 2)) and torch.equal(dc, torch.ones_like(c))
    assert layer(empty)[1][1].count_nonzero() == 0
    assert layer(empty[:, 0] if not batch_first else empty[0])[0].shape == (0, 4)


@pytest.mark.parametrize("projection", [0, 2])
def test_an_empty_batch_has_zero_weight_gradient(projection, route):
    layer, _ = layer_and_input(bidirectional=True, proj_size=projection)
    y, (h, c) = layer(torch.zeros(5, 0, 3, dtype=torch.float64))
    assert y.shape == (5, 0, 2 * (projection or 4)) and h.shape == (4, 0, projection or 4) and c.shape == (4, 0, 4)
    (y.sum() + h.sum() + c.sum()).backward()
    assert all(weight.grad is not None and weight.grad.count_nonzero() == 0 for weight in layer.parameters())


def test_saturated_gates_stay_finite_over_ten_thousand_steps():
    layer = LSTM(1, 2, forget_bias=100.0)
    with torch.no_grad(), twofold.route("plain"):
        layer.weight_ih_l0.fill_(1e4)
        y, (h, c) = layer(torch.ones(10_000, 1, 1))
    assert y.isfinite().all() and h.isfinite().all()
    assert torch.allclose(c, torch.full_like(c, 10_000.0))


def test_nan_stays_in_its_row_and_after_its_step(route):
    layer, x = layer_and_input()
    x = x.detach()
    x[2, 1, 0] = float("nan")
    y, _ = layer(x)
    bad = y.isnan().all(-1)
    assert torch.equal(bad, y.isnan().any(-1))
    assert bad.t().tolist() == [[False] * 6, [False] * 2 + [True] * 4, [False] * 6]


def test_input_in_any_memory_layout_gives_the_same(route):
    layer, x = layer_and_input()
    x = x.detach()
    truth = layer(x)[0]
    wide = torch.stack((x, x), -1)[..., 0]
    turned = x.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    for other in (wide, turned, torch.cat((x, x))[:6]):
        assert torch.allclose(layer(other)[0], truth, rtol=1e-12)
    expanded = x[:, :1].expand(6, 3, 3)
    assert torch.allclose(layer(expanded)[0], layer(expanded.contiguous())[0], rtol=1e-12)
    state = tuple(part.expand(2, 3, 4) for part in (noise(1, 1, 4, seed=2), noise(1, 1, 4, seed=3)))
    assert torch.allclose(layer(x, state)[0], layer(x, [part.contiguous() for part in state])[0], rtol=1e-12)


def test_second_order_of_the_module_is_that_of_torch():
    layer, x = layer_and_input(bidirectional=True)
    results = []
    for name in ("plain", "vendor"):
        with twofold.route(name):
            y, (_, c) = layer(x)
        (dx,) = torch.autograd.grad(y.pow(3).sum() + c.pow(2).sum(), x, create_graph=True)
        results.append(torch.autograd.grad(dx.pow(2).sum(), [x, *layer.parameters()]))
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(*results, strict=True))


def test_function_transforms_see_through_the_plain_form():
    layer, x = layer_and_input()
    with twofold.route("plain"):
        mapped = torch.func.vmap(lambda row: layer(row)[0], in_dims=1, out_dims=1)(x)
        (dx,) = torch.autograd.grad(layer(x)[0].sum(), x)
        assert torch.allclose(torch.func.grad(lambda x: layer(x)[0].sum())(x.detach()), dx, rtol=1e-10)
        assert torch.allclose(mapped, layer(x)[0], rtol=1e-12)


def test_dropout_stands_between_the_layers_in_training_only():
    layer, x = layer_and_input(dropout=0.5)
    outputs = []
    for name in ("plain", "vendor", "plain"):
        torch.manual_seed(5)
        with twofold.route(name):
            outputs.append(layer(x)[0])
    assert torch.allclose(outputs[0], outputs[1], rtol=1e-12)  # the same generator, in the same order
    assert torch.equal(outputs[0], outputs[2])
    with twofold.route("plain"):
        assert not torch.allclose(layer(x)[0], outputs[0])
        layer.eval()
        assert torch.equal(layer(x)[0], layer(x)[0])


def test_dropout_with_one_layer_warns_as_torch_does():
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last recurrent layer"):
        LSTM(3, 4, dropout=0.5)


@pytest.mark.parametrize("name", ["plain", "vendor"])
def test_packed_sequences_take_the_route_that_is_asked_for(name):
    layer, x = layer_and_input(bidirectional=True)
    theirs = torch_nn.LSTM(3, 4, 2, bidirectional=True).double()
    theirs.load_state_dict(layer.state_dict())
    packed = pack_padded_sequence(x, [2, 6, 4], enforce_sorted=False)
    with twofold.route(name):
        y, (h, c) = layer(packed)
    assert layer.last_route == name
    truth, (true_h, true_c) = theirs(packed)
    assert torch.allclose(y.data, truth.data, rtol=1e-12)
    assert torch.allclose(h, true_h, rtol=1e-12) and torch.allclose(c, true_c, rtol=1e-12)


@pytest.mark.parametrize(("options", "R"), [({}, 4), ({"bidirectional": True}, 4), ({"proj_size": 2}, 2)])
def test_gates_are_those_of_the_forward_direction(options, R):
    layer, x = layer_and_input(**options, dropout=0.5)
    state = tuple(0.1 * noise(layer.stack_shape.places, 3, width, seed=2, grad=False) for width in (R, 4))
    gates = layer.gates(x, state)
    assert list(gates) == ["input", "forget", "candidate", "output", "cell", "hidden"]
    assert all(value.shape == (2, 6, 3, R if name == "hidden" else 4) for name, value in gates.items())
    assert not any(value.requires_grad for value in gates.values())
    layer.eval()
    y, (_, c) = layer(x, state)
    step = layer.stack_shape.directions
    assert torch.allclose(gates["hidden"][1], y[..., :R], rtol=1e-12)
    assert torch.allclose(gates["cell"][:, -1], c[::step], rtol=1e-12)
    before = torch.cat((state[1][::step].unsqueeze(1), gates["cell"][:, :-1]), 1)
    assert torch.allclose(gates["cell"], gates["forget"] * before + gates["input"] * gates["candidate"], rtol=1e-12)
    if R == 4:
        assert torch.allclose(gates["hidden"], gates["output"] * gates["cell"].tanh(), rtol=1e-12)


def test_gates_of_one_row_and_of_no_step():
    layer, x = layer_and_input(batch_first=True)
    assert torch.allclose(layer.gates(x[:, 0])["forget"][:, :, 0], layer.gates(x.transpose(0, 1))["forget"][:, :, 0], rtol=1e-12)
    assert {name: tuple(value.shape) for name, value in layer.gates(x[:, :0]).items()} == dict.fromkeys(
        ("input", "forget", "candidate", "output", "cell", "hidden"), (2, 0, 6, 4)
    )


def test_bfloat16_is_near_the_truth(route):
    layer, x = layer_and_input(bidirectional=True)
    truth = layer(x)[0]
    y, _ = layer.bfloat16()(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert (y.double() - truth).abs().max() < 2e-2


def test_the_route_by_itself_is_the_vendors():
    layer, x = layer_and_input()
    layer(x)
    assert layer.last_route == "vendor"
