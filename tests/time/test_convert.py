"""Weights from and to Keras and ONNX, against loops in NumPy that follow their documents gate by gate."""

import itertools

import numpy as np
import pytest
import torch

from twofold import nn
from twofold.layers.check import noise
from twofold.time import convert
from twofold.time.convert import from_keras, from_onnx, to_keras, to_onnx

T, B, D, U = 5, 2, 3, 4
LAYERS = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


# Keras, rows first: `call` of the cells in keras/src/layers/rnn/simple_rnn.py, gru.py and lstm.py


def keras_step(name, arrays, x, state, reset_after):
    kernel, recurrent, *bias = arrays
    if name == "RNN":
        return [np.tanh(x @ kernel + sum(bias) + state[0] @ recurrent)]
    if name == "LSTM":
        (h, c), z = state, x @ kernel + state[0] @ recurrent + sum(bias)
        i, f, candidate, o = z[:, :U], z[:, U : 2 * U], z[:, 2 * U : 3 * U], z[:, 3 * U :]
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
        return [sigmoid(o) * np.tanh(c), c]
    (h,) = state
    input_bias, recurrent_bias = (bias[0] if reset_after else (bias[0], 0 * bias[0])) if bias else (np.zeros(3 * U),) * 2
    of_x = x @ kernel + input_bias
    z = sigmoid(of_x[:, :U] + h @ recurrent[:, :U] + recurrent_bias[:U])
    r = sigmoid(of_x[:, U : 2 * U] + h @ recurrent[:, U : 2 * U] + recurrent_bias[U : 2 * U])
    if reset_after:
        hh = np.tanh(of_x[:, 2 * U :] + r * (h @ recurrent[:, 2 * U :] + recurrent_bias[2 * U :]))
    else:
        hh = np.tanh(of_x[:, 2 * U :] + (r * h) @ recurrent[:, 2 * U :])
    return [z * h + (1 - z) * hh]


def keras_layer(name, arrays, x_BTD, reset_after):
    """The outputs of all steps; Bidirectional with merge_mode="concat" where there are arrays for two."""
    each = len(arrays) // 2 if len(arrays) > 3 else len(arrays)
    sides = []
    for s, own in enumerate(arrays[k : k + each] for k in range(0, len(arrays), each)):
        state, y = [np.zeros((B, U))] * (2 if name == "LSTM" else 1), np.zeros((B, T, U))
        for t in range(T)[:: -1 if s else 1]:
            state = keras_step(name, own, x_BTD[:, t], state, reset_after)
            y[:, t] = state[0]
        sides.append(y)
    return np.concatenate(sides, -1)


def keras_arrays(name, bias, reset_after, directions):
    G = {"RNN": 1, "GRU": 3, "LSTM": 4}[name] * U
    shape = (2, G) if name == "GRU" and reset_after else (G,)
    found = []
    for s in range(directions):
        found += [numbers(D, G, seed=s), numbers(U, G, seed=10 + s), *([numbers(*shape, seed=20 + s)] if bias else [])]
    return found


@pytest.mark.parametrize(
    ("name", "bias", "reset_after", "directions"), list(itertools.product(LAYERS, (True, False), (True, False), (1, 2)))
)
def test_keras_weights_compute_what_keras_computes_and_go_back(name, bias, reset_after, directions):
    arrays, x = keras_arrays(name, bias, reset_after, directions), numbers(B, T, D, seed=3)
    layer = from_keras(LAYERS[name], arrays, reset_after=reset_after)
    assert (layer.bias, layer.bidirectional, layer.batch_first, layer.weight_ih_l0.dtype) == (bias, directions == 2, True, torch.float64)
    y = layer(torch.tensor(x))[0].detach().numpy()
    assert np.abs(y - keras_layer(name, arrays, x, reset_after)).max() < 1e-12
    back = to_keras(layer)
    assert len(back) == len(arrays) and all(np.array_equal(a, b) for a, b in zip(back, arrays, strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_our_weights_compute_the_same_in_keras(name):
    layer = LAYERS[name](D, U, 2, bidirectional=True, batch_first=True).double()
    x = numbers(B, T, D, seed=3)
    y = keras_layer(name, to_keras(layer), x, True)
    y = keras_layer(name, to_keras(layer, 1), y, True)
    assert np.abs(y - layer(torch.tensor(x))[0].detach().numpy()).max() < 1e-12


def test_the_kind_of_a_keras_gru_is_told_by_its_bias():
    assert from_keras(nn.GRU, keras_arrays("GRU", True, True, 1)).reset == "after"
    assert from_keras(nn.GRU, keras_arrays("GRU", True, False, 1)).reset == "before"
    assert from_keras(nn.GRU, keras_arrays("GRU", False, False, 1)).reset == "after"  # Keras' default
    assert from_keras(nn.RNN, keras_arrays("RNN", True, True, 1), activation="relu", batch_first=False).nonlinearity == "relu"


# ONNX, steps first: the equations in the documentation of the operators RNN, GRU and LSTM


def onnx_layer(name, W, R, Bias, P, x_TBD, linear_before_reset):
    """Y of all steps, directions side by side, after activations Sigmoid and Tanh."""
    G, sides = W.shape[1] // U, []
    for s in range(len(W)):
        w, r = W[s].reshape(G, U, D), R[s].reshape(G, U, U)
        wb, rb = (Bias[s].reshape(2, G, U)) if Bias is not None else np.zeros((2, G, U))
        h, c, y = np.zeros((B, U)), np.zeros((B, U)), np.zeros((T, B, U))
        for t in range(T)[:: -1 if s else 1]:
            x = x_TBD[t]
            if name == "RNN":
                h = np.tanh(x @ w[0].T + h @ r[0].T + wb[0] + rb[0])
            elif name == "GRU":
                z = sigmoid(x @ w[0].T + h @ r[0].T + wb[0] + rb[0])
                reset = sigmoid(x @ w[1].T + h @ r[1].T + wb[1] + rb[1])
                if linear_before_reset:
                    hidden = np.tanh(x @ w[2].T + reset * (h @ r[2].T + rb[2]) + wb[2])
                else:
                    hidden = np.tanh(x @ w[2].T + (reset * h) @ r[2].T + rb[2] + wb[2])
                h = (1 - z) * hidden + z * h
            else:
                p_i, p_o, p_f = P[s].reshape(3, U) if P is not None else np.zeros((3, U))
                i = sigmoid(x @ w[0].T + h @ r[0].T + p_i * c + wb[0] + rb[0])
                f = sigmoid(x @ w[2].T + h @ r[2].T + p_f * c + wb[2] + rb[2])
                c = f * c + i * np.tanh(x @ w[3].T + h @ r[3].T + wb[3] + rb[3])
                o = sigmoid(x @ w[1].T + h @ r[1].T + p_o * c + wb[1] + rb[1])
                h = o * np.tanh(c)
            y[t] = h
        sides.append(y)
    return np.concatenate(sides, -1)


def onnx_arrays(name, bias, peephole, S):
    G = {"RNN": 1, "GRU": 3, "LSTM": 4}[name] * U
    Bias = numbers(S, 2 * G, seed=2) if bias else None
    return numbers(S, G, D), numbers(S, G, U, seed=1), Bias, numbers(S, 3 * U, seed=3) if peephole else None


ONNX = [(name, bias, peephole, S) for name, bias, peephole, S in itertools.product(LAYERS, (True, False), (False, True), (1, 2))]


@pytest.mark.parametrize(("name", "bias", "option", "S"), ONNX)
def test_onnx_weights_compute_what_onnx_computes_and_go_back(name, bias, option, S):
    """option: peepholes of the LSTM, linear_before_reset of the GRU, layout of the RNN."""
    arrays, x = onnx_arrays(name, bias, option and name == "LSTM", S), numbers(T, B, D, seed=3)
    settings = {"GRU": {"linear_before_reset": int(option)}, "RNN": {"layout": int(option)}, "LSTM": {}}[name]
    layer = from_onnx(LAYERS[name], *arrays, **settings)
    y, _ = layer(torch.tensor(x.swapaxes(0, 1) if layer.batch_first else x))
    y = y.detach().numpy()
    y = y.swapaxes(0, 1) if layer.batch_first else y
    assert np.abs(y - onnx_layer(name, *arrays, x, option)).max() < 1e-12
    back = to_onnx(layer)
    assert all(a is b is None or np.array_equal(a, b) for a, b in zip(back[:4], arrays, strict=True))
    wanted = {"hidden_size": U, "direction": ["forward", "bidirectional"][S - 1], "layout": int(layer.batch_first)}
    own = {"GRU": {"linear_before_reset": int(option)}, "RNN": {"activations": ["Tanh"] * S}, "LSTM": {}}[name]
    assert back.attributes == wanted | own


def test_the_defaults_of_an_onnx_gru_and_rnn():
    assert from_onnx(nn.GRU, *onnx_arrays("GRU", True, False, 1)).reset == "before"
    assert from_onnx(nn.RNN, *onnx_arrays("RNN", True, False, 1), activation="Relu").nonlinearity == "relu"
    assert to_onnx(nn.RNN(D, U, nonlinearity="relu")).attributes["activations"] == ["Relu"]


def test_lists_tensors_and_bfloat16_are_taken_and_nothing_is_shared():
    arrays = keras_arrays("LSTM", True, True, 1)
    wanted = from_keras(nn.LSTM, arrays).weight_ih_l0
    for form in (lambda a: a.tolist(), lambda a: torch.tensor(a).bfloat16(), torch.tensor):
        layer = from_keras(nn.LSTM, [form(a) for a in arrays])
        assert torch.allclose(layer.weight_ih_l0.double(), wanted, atol=0.02)
    assert all(a.dtype == np.float32 for a in to_keras(nn.LSTM(D, U).bfloat16()))
    layer = from_keras(nn.LSTM, arrays)
    arrays[0] += 1
    to_keras(layer)[0][:] = 0
    assert torch.equal(layer.weight_ih_l0, wanted)


def test_the_layers_may_train_with_their_dropouts():
    to_keras(nn.GRU(D, U, recurrent_dropout=0.5, weight_dropout=0.5))
    to_onnx(nn.LSTM(D, U, 2, dropout=0.5, peephole=True, forget_bias=1.0), 1)


MUTANTS = {
    "Keras' gates in our order": ('Gates("rzn", "zrn", "zrn", "GRU")', 'Gates("rzn", "rzn", "zrn", "GRU")'),
    "Keras' LSTM in ONNX' order": ('Gates("ifgo", "ifgo", "iofg", "LSTM")', 'Gates("ifgo", "iofg", "iofg", "LSTM")'),
    "ONNX' LSTM in our order": ('Gates("ifgo", "ifgo", "iofg", "LSTM")', 'Gates("ifgo", "ifgo", "ifgo", "LSTM")'),
    "peepholes in our order": ('Gates("ifo", "", "iof", "")', 'Gates("ifo", "", "ifo", "")'),
    "biases exchanged": ("zip((\"bias_ih\", \"bias_hh\"), B[s].chunk(2)", "zip((\"bias_hh\", \"bias_ih\"), B[s].chunk(2)"),
    "Keras' two biases exchanged": ('{"bias_ih": two[0], "bias_hh": two[1]}', '{"bias_ih": two[1], "bias_hh": two[0]}'),
    "the directions exchanged": ("suffixes = (\"_l0\", \"_l0_reverse\")", "suffixes = (\"_l0\", \"_l0_reverse\")[: len(places)][::-1]"),
    "reset turned": ('"after" if linear_before_reset else "before"', '"before" if linear_before_reset else "after"'),
    "reset of Keras turned": ('reset="after" if found else "before")', 'reset="before" if found else "after")'),
    "one of Keras' biases": ('== "after" else two.sum(0))', '== "after" else two[0])'),
    "the first layer always": ("layer.weights(number * S + s)", "layer.weights(s)"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated, monkeypatch):
    wrong = mutated(convert, *MUTANTS[name])
    for function in ("from_keras", "to_keras", "from_onnx", "to_onnx"):
        monkeypatch.setitem(globals(), function, getattr(wrong, function))
    with pytest.raises((AssertionError, ValueError)):
        for case in itertools.product(LAYERS, (True,), (True, False), (1, 2)):
            test_keras_weights_compute_what_keras_computes_and_go_back(*case)
        for case in ONNX:
            test_onnx_weights_compute_what_onnx_computes_and_go_back(*case)
        for kind in LAYERS:
            test_our_weights_compute_the_same_in_keras(kind)


def array(*shape):
    return noise(*shape, grad=False)


BAD = {
    "torch's own": (lambda: from_keras(torch.nn.LSTM, []), "from_keras: expected a layer of twofold.nn: RNN, GRU or LSTM, got LSTM."),
    "a name": (lambda: from_onnx("LSTM", None, None), "got 'LSTM'."),
    "a whole model": (lambda: from_keras(nn.LSTM, [array(1, 1)] * 9), "got 9 arrays. One layer at a time: layer.get_weights()."),
    "no list": (lambda: from_keras(nn.LSTM, array(3, 16)), "got Tensor."),
    "another kind": (lambda: from_keras(nn.GRU, [array(3, 16), array(4, 16)]), "expected matrices of 3 gates for U units"),
    "another layer's state": (lambda: from_keras(nn.LSTM, [array(3, 16), array(5, 20)]), "got (16, 3) and (20, 5) (gates first). Are they"),
    "a bias": (lambda: from_keras(nn.LSTM, [array(3, 16), array(4, 16), array(2, 16)]), "expected a bias (16,) for U=4, got (2, 16)."),
    "a bias of the other kind": (
        lambda: from_keras(nn.GRU, [array(3, 12), array(4, 12), array(12)], reset_after=True),
        "expected a bias (2, 12) for U=4, got (12,). A GRU has two biases where reset_after=True.",
    ),
    "whole numbers": (lambda: from_keras(nn.RNN, [np.zeros((3, 4), int), array(4, 4)]), "expected arrays of floating point, got int64."),
    "no directions": (lambda: from_onnx(nn.RNN, array(4, 3), array(4, 4)), "from_onnx: expected W (S, G, D) and R (S, G, U)"),
    "biases": (lambda: from_onnx(nn.RNN, array(1, 4, 3), array(1, 4, 4), array(1, 4)), "from_onnx: expected B (S=1, 8), got (1, 4)."),
    "peepholes of a GRU": (
        lambda: from_onnx(nn.GRU, array(1, 12, 3), array(1, 12, 4), None, array(1, 12)),
        "from_onnx: expected no P for GRU, got (1, 12): only the LSTM has peepholes.",
    ),
    "no array": (lambda: from_onnx(nn.RNN, array(1, 4, 3), None), "from_onnx: expected an array, got None."),
    "another layout": (
        lambda: from_onnx(nn.RNN, array(1, 4, 3), array(1, 4, 4), layout=2),
        "from_onnx: expected layout to be 0 or 1, as in the node, got 2.",
    ),
    "an activation": (lambda: from_onnx(nn.RNN, array(1, 4, 3), array(1, 4, 4), activation="Sigmoid"), "expected nonlinearity"),
    "peepholes in Keras": (
        lambda: to_keras(nn.LSTM(3, 4, peephole=True)),
        "to_keras: expected a layer that Keras has, too, got one with peepholes.",
    ),
    "much in ONNX": (
        lambda: to_onnx(nn.LSTM(3, 4, coupled=True, layer_norm=True, learn_state=True)),
        "got one with coupled gates and layer norm and a learnt initial state.",
    ),
    "a projection": (lambda: to_onnx(nn.LSTM(3, 4, proj_size=2)), "got one with a projection."),
    "zoneout": (lambda: to_keras(nn.RNN(3, 4, zoneout=0.1)), "got one with zoneout."),
    "number": (lambda: to_keras(nn.RNN(3, 4, 2), 2), "to_keras: expected number, that of a layer, from 0 to 1, got 2."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)
