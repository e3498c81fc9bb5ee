"""The LSTM step: the four witnesses, mutants, and the cell module."""

import numpy as np
import pytest
import torch
from torch import nn as torch_nn

import twofold
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, noise
from twofold.time import cells
from twofold.time.cells import LSTMCell, lstm_step


def expression(x, h, c, weight_ih, weight_hh, bias_ih, bias_hh):
    """One product of [x h] with the joined weights, and sigmoids written with exp."""
    a = torch.einsum("bk,gk->bg", torch.cat((x, h), 1), torch.cat((weight_ih, weight_hh), 1))
    if bias_ih is not None:
        a = a + bias_ih + bias_hh
    U = c.shape[1]
    i, f, o = (1 / (1 + torch.exp(-a[:, k * U : (k + 1) * U])) for k in (0, 1, 3))
    g = 2 / (1 + torch.exp(-2 * a[:, 2 * U : 3 * U])) - 1
    c = f * c + i * g
    return o * (2 / (1 + torch.exp(-2 * c)) - 1), c


def arguments(B, D, U, bias=True, grad=True):
    weights = (noise(4 * U, D, seed=4), noise(4 * U, U, seed=5))
    biases = (noise(4 * U, seed=6), noise(4 * U, seed=7)) if bias else (None, None)
    return noise(B, D, seed=1, grad=grad), noise(B, U, seed=2), noise(B, U, seed=3), *weights, *biases


CASES = {
    "rows": arguments(3, 4, 2),
    "no bias": arguments(3, 2, 3, bias=False),
    "one row": arguments(1, 3, 2),
    "one unit": arguments(2, 3, 1),
    "one feature": arguments(2, 1, 2),
    "frozen input": arguments(2, 3, 2, grad=False),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    check(Case(lstm_step, CASES[name], expression, row_arguments=(0, 1, 2), second_order=name in ("rows", "no bias")))


def test_the_equations_in_numpy():
    x, h, c, W, V, b, d = (a.detach().numpy() for a in arguments(3, 4, 2))
    new_h, new_c = lstm_step(*arguments(3, 4, 2))
    for row in range(3):
        for u in range(2):
            a_i, a_f, a_g, a_o = (
                sum(W[r, k] * x[row, k] for k in range(4)) + sum(V[r, k] * h[row, k] for k in range(2)) + b[r] + d[r]
                for r in (u, 2 + u, 4 + u, 6 + u)
            )
            cell = c[row, u] / (1 + np.exp(-a_f)) + np.tanh(a_g) / (1 + np.exp(-a_i))
            assert new_c[row, u].item() == pytest.approx(cell, rel=1e-12)
            assert new_h[row, u].item() == pytest.approx(np.tanh(cell) / (1 + np.exp(-a_o)), rel=1e-12)


ORDER = "a_i, a_f, a_g, a_o = a_BG.chunk"
MUTANTS = {
    "gates i and f exchanged": (ORDER, "a_f, a_i, a_g, a_o = a_BG.chunk"),
    "gates f and g exchanged": (ORDER, "a_i, a_g, a_f, a_o = a_BG.chunk"),
    "gates g and o exchanged": (ORDER, "a_i, a_f, a_o, a_g = a_BG.chunk"),
    "gates in the order i o f g": (ORDER, "a_i, a_o, a_f, a_g = a_BG.chunk"),
    "gates interleaved": ("a_BG.chunk(4, dim=-1)", "a_BG.unflatten(-1, (-1, 4)).unbind(-1)"),
    "forget gate not applied": ("c = f * c_before_BU + i * g", "c = c_before_BU + i * g"),
    "input gate not applied": ("c = f * c_before_BU + i * g", "c = f * c_before_BU + g"),
    "forget and input gate coupled": ("c = f * c_before_BU + i * g", "c = f * c_before_BU + (1 - f) * g"),
    "tanh missing at the output": ("m = o * c.tanh()", "m = o * c"),
    "output gate not applied": ("m = o * c.tanh()", "m = c.tanh()"),
    "candidate through a sigmoid": ("a_g.tanh(), a_o", "a_g.sigmoid(), a_o"),
    "state swapped": ("h_before_BR, c_before_BU = state", "c_before_BU, h_before_BR = state"),
    "outputs swapped": ("return (h, c), Saved", "return (c, h), Saved"),
    "no recurrent matrix": ("drive_BG + h_before_BR @", "drive_BG + 0 * h_before_BR @"),
    "second bias forgotten": ("a_BG = a_BG + weights.bias_hh", "pass"),
    "first bias forgotten": ("else drive_BG + weights.bias_ih", "else drive_BG"),
    "dc of the later step dropped": ("dc = dc + dm * o", "dc = dm * o"),
    "dc through h dropped": ("dc = dc + dm * o * (1 - tanh_c * tanh_c)", "dc = dc + 0 * dm"),
    "dc through h without the derivative of tanh": ("dm * o * (1 - tanh_c * tanh_c)", "dm * o"),
    "derivative of i missing": ("da_i = dc * g * i * (1 - i)", "da_i = dc * g"),
    "da_f from the new cell": ("da_f = dc * c_before_BU *", "da_f = dc * c *"),
    "derivative of g as a sigmoid's": ("da_g = dc * i * (1 - g * g)", "da_g = dc * i * g * (1 - g)"),
    "da_o without tanh": ("da_o = dm * tanh_c * o", "da_o = dm * c * o"),
    "gradients of gates permuted": ("torch.cat((da_i, da_f, da_g, da_o)", "torch.cat((da_f, da_i, da_g, da_o)"),
    "dc before without the forget gate": ("@ weights.weight_hh, dc * f", "@ weights.weight_hh, dc"),
    "dh before dropped": ("dc_before_BU = da_BG @", "dc_before_BU = 0 * da_BG @"),
    "dW_hh dropped": ("da_BG.t() @ h_before_BR, None", "0 * da_BG.t() @ h_before_BR, None"),
    "dW_hh of the new state": ("da_BG.t() @ h_before_BR, None", "da_BG.t() @ (o * tanh_c), None"),
    "bias gradient of one of two": ("else da_BG.sum(0)", "else 0 * da_BG.sum(0)"),
    "bias gradient as a mean": ("else da_NG.sum(0)", "else da_NG.mean(0)"),
    "dx dropped": ("dx_BD = da_BG @ weights.weight_ih", "dx_BD = 0 * da_BG @ weights.weight_ih"),
    "dW_ih of half": ("dweight_ih = da_NG.t()", "dweight_ih = 0.5 * da_NG.t()"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    right, wrong = MUTANTS[name]
    case = Case(mutated(cells, right, wrong).lstm_step, CASES["rows"], expression, second_order=False)
    with pytest.raises(AssertionError):
        check_expression(case)


@pytest.mark.parametrize("name", ["dc of the later step dropped", "da_f from the new cell", "bias gradient of one of two"])
def test_finite_differences_catch_wrong_gradients_alone(name, mutated):
    right, wrong = MUTANTS[name]
    case = Case(mutated(cells, right, wrong).lstm_step, CASES["rows"], expression, second_order=False)
    with pytest.raises((AssertionError, RuntimeError)):
        check_differences(case)


def test_an_unchanged_copy_passes(mutated):
    copy = mutated(cells, "c = f * c_before_BU + i * g", "c = i * g + f * c_before_BU")
    check_expression(Case(copy.lstm_step, CASES["rows"], expression))


@pytest.mark.parametrize("route", ["plain", "vendor", "auto"])
@pytest.mark.parametrize("bias", [True, False])
def test_stands_in_for_torch(route, bias):
    ours, theirs = LSTMCell(3, 4, bias).double(), torch_nn.LSTMCell(3, 4, bias).double()
    with twofold.route(route):
        check_drop_in(ours, theirs, noise(5, 3))
        check_drop_in(ours, theirs, noise(3))
        h, c = noise(5, 4, seed=2), noise(5, 4, seed=3)
        for mine, torchs in zip(ours(noise(5, 3), (h, c)), theirs(noise(5, 3), (h, c)), strict=True):
            assert torch.allclose(mine, torchs, rtol=1e-12, atol=1e-12)
    assert ours.last_route == ("vendor" if route == "auto" else route)


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_an_empty_batch_has_zero_weight_gradient(route):
    cell = LSTMCell(3, 4)
    with twofold.route(route):
        h, c = cell(torch.zeros(0, 3))
    (h.sum() + c.sum()).backward()
    assert h.shape == c.shape == (0, 4)
    assert all(weight.grad is not None and weight.grad.count_nonzero() == 0 for weight in cell.parameters())


@pytest.mark.parametrize("route", ["plain", "vendor"])
def test_input_in_any_memory_layout_gives_the_same(route):
    cell = LSTMCell(3, 4).double()
    x = noise(5, 3, grad=False)
    with twofold.route(route):
        truth = cell(x)[0]
        for other in (x.t().contiguous().t(), torch.stack((x, x), 2)[..., 0]):
            assert not other.is_contiguous()
            assert torch.allclose(cell(other)[0], truth, rtol=1e-12)
        assert torch.allclose(cell(x[:1].expand(5, 3))[0], cell(x[:1])[0].expand(5, 4), rtol=1e-12)


def test_nan_stays_in_its_row():
    x = noise(3, 3, grad=False)
    x[1, 0] = float("nan")
    with twofold.route("plain"):
        h, c = LSTMCell(3, 4).double()(x)
    assert h.isnan().all(1).tolist() == c.isnan().all(1).tolist() == [False, True, False]


BAD = {
    "features": (lambda: LSTMCell(3, 4)(torch.zeros(2, 5)), "LSTMCell input: expected (B, D=3), got (2, 5): D is 5, not 3."),
    "sequence": (
        lambda: LSTMCell(3, 4)(torch.zeros(7, 2, 3)),
        "LSTMCell input: expected (B, D=3), got (7, 2, 3): 3 axes, not 2. "
        "A sequence? LSTMCell takes one step: loop over x[t], or use LSTM.",
    ),
    "tokens": (lambda: LSTMCell(3, 4)(torch.zeros(2, 3, dtype=torch.int64)), "Put an Embedding in front"),
    "numpy": (lambda: LSTMCell(3, 4)(np.zeros((2, 3))), "LSTMCell input: expected a torch tensor, got numpy.ndarray."),
    "dtype": (
        lambda: LSTMCell(3, 4)(torch.zeros(2, 3).double()),
        "LSTMCell input: expected float32, the dtype of the weights, got float64.",
    ),
    "one state": (
        lambda: LSTMCell(3, 4)(torch.zeros(2, 3), torch.zeros(2, 4)),
        "LSTMCell state: expected 2 tensors (h, c), got one tensor (2, 4). It carries both from step to step: pass the pair (h, c)",
    ),
    "state units": (
        lambda: LSTMCell(3, 4)(torch.zeros(2, 3), (torch.zeros(2, 4), torch.zeros(2, 5))),
        "LSTMCell state c: expected (B=2, U=4), got (2, 5): U is 5, not 4.",
    ),
    "state rows": (
        lambda: LSTMCell(3, 4)(torch.zeros(2, 3), (torch.zeros(6, 4), torch.zeros(6, 4))),
        "LSTMCell state h: expected (B=2, U=4), got (6, 4): B is 6, not 2. Carried over from a batch of another size?",
    ),
    "state of a single row": (
        lambda: LSTMCell(3, 4)(torch.zeros(3), (torch.zeros(1, 4), torch.zeros(1, 4))),
        "LSTMCell state h: expected (U=4), got (1, 4): 2 axes, not 1.",
    ),
    "state dtype": (
        lambda: LSTMCell(3, 4)(torch.zeros(2, 3), (torch.zeros(2, 4), torch.zeros(2, 4).double())),
        "LSTMCell state c: expected float32, the dtype of the weights, got float64.",
    ),
    "construction": (lambda: LSTMCell(3, 0), "LSTMCell: expected hidden_size to be a whole number of at least 1, got 0."),
    "bias": (lambda: LSTMCell(3, 4, 2), "LSTMCell: expected bias to be True or False, got 2."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
