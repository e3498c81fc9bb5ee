"""The simple recurrent step: the four witnesses for every option, torch's cell, and mutants."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn as torch_nn

import twofold
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, noise, outcome
from twofold.time import rnn_cell
from twofold.time.rnn_cell import RELU, STEPS, TANH, RNNCell


def expression(relu):
    """tanh and ReLU written otherwise, one product per matrix, torch's layer norm."""

    def compute(x, h, weight_ih, weight_hh, bias_ih, bias_hh, norm_ih, norm_hh, mask):
        a = 0 if bias_ih is None else bias_ih
        for v, weight, gain in ((x, weight_ih, norm_ih), (h if mask is None else torch.einsum("bu,bu->bu", h, mask), weight_hh, norm_hh)):
            part = F.linear(v, weight)
            a = a + (part if gain is None else F.layer_norm(part, part.shape[-1:], gain))
        a = a if bias_hh is None else a + bias_hh
        return (a + a.abs()) / 2 if relu else 1 - 2 / (1 + torch.exp(2 * a))

    return compute


def arguments(B, D, U, options=("bias",), grad=True):
    gains = tuple(noise(U, seed=seed) if name in options else None for name, seed in (("norm_ih", 6), ("norm_hh", 7)))
    biases = (noise(U, seed=4), noise(U, seed=5)) if "bias" in options else (None, None)
    mask = 2 * noise(B, U, seed=8, grad=False).ge(0).double() if "mask" in options else None
    return noise(B, D, seed=1, grad=grad), noise(B, U, seed=2), noise(U, D, seed=3), noise(U, U, seed=9), *biases, *gains, mask


def case(nonlinearity, given, module=rnn_cell, second_order=False):
    operation = module.STEPS[nonlinearity, any(value is not None for value in given[6:])]
    rows = (0, 1) if given[-1] is None else (0, 1, 8)
    return Case(operation, given, expression(nonlinearity == "relu"), row_arguments=rows, second_order=second_order)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("chosen", list(product((0, 1), repeat=4)), ids=str)
def test_witnesses(nonlinearity, chosen):
    options = [name for name, take in zip(("bias", "norm_ih", "norm_hh", "mask"), chosen, strict=True) if take]
    check(case(nonlinearity, arguments(2, 4, 3, options), second_order=chosen in ((0, 0, 0, 0), (1, 1, 1, 1))))


@pytest.mark.parametrize("sizes", [(1, 3, 2), (2, 1, 1), (0, 3, 2)])
def test_witnesses_at_the_smallest_sizes(sizes):
    check(case("tanh", arguments(*sizes, grad=False)))


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_torchs_step_to_the_last_digits(nonlinearity):
    operation, given = STEPS[nonlinearity, False], arguments(5, 4, 3)
    ours, torchs = (outcome(lambda *a, route=route: operation.by(route, *a), given) for route in ("plain", "vendor"))
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(ours, torchs, strict=True))


MUTANTS = {
    "input's bias forgotten": ("else q + weights.bias_ih", "else q"),
    "state's bias forgotten": ("a = a + weights.bias_hh", "pass"),
    "tanh for relu": ("a.relu() if relu else a.tanh()", "a.tanh()"),
    "state not read": ("a = drive_BU + q", "a = drive_BU + 0 * q"),
    "mask on the output": (
        "return (h,), Saved(h, h_before, normal)",
        "return (h if mask_BU is None else h * mask_BU,), Saved(h, h_before, normal)",
    ),
    "mask ignored": ("q, normal = product(seen,", "q, normal = product(h_before,"),
    "mask dropped on the way back": ("dh_before = dseen if mask_BU is None else mask_BU * dseen", "dh_before = dseen"),
    "mask dropped in dW": ("product_back(da, seen,", "product_back(da, h_before,"),
    "derivative of tanh from before the step": ("dh * (1 - h * h)", "dh * (1 - h_before * h_before)"),
    "derivative of tanh missing": ("dh * (1 - h * h)", "dh"),
    "relu open below 0": ("torch.where(h <= 0, 0, dh)", "dh"),
    "dbias_ih dropped": ("dbias_ih, norm_ih=dnorm_ih)", "0 * dbias_ih, norm_ih=dnorm_ih)"),
    "dbias_hh dropped": ("None, dbias_hh, None, dnorm_hh)", "None, 0 * dbias_hh, None, dnorm_hh)"),
    "gains exchanged": ("product(seen, weights.weight_hh, weights.norm_hh)", "product(seen, weights.weight_hh, weights.norm_ih)"),
    "dnorm_hh in the place of dnorm_ih": ("dbias_hh, None, dnorm_hh)", "dbias_hh, dnorm_hh, None)"),
    "input's norm forgotten on the way back": (
        "product_back(da_BU, x_BD, weights.weight_ih, weights.norm_ih, normal)",
        "product_back(da_BU, x_BD, weights.weight_ih, weights.norm_ih, None)",
    ),
    "dh_before dropped": ("return da, (dh_before,),", "return da, (0 * dh_before,),"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    wrong = mutated(rnn_cell, *MUTANTS[name])
    with pytest.raises(AssertionError):
        for nonlinearity, options in product(("tanh", "relu"), (("bias",), ("bias", "norm_ih", "norm_hh", "mask"))):
            check_expression(case(nonlinearity, arguments(3, 4, 3, options), wrong))


@pytest.mark.parametrize("name", ["mask dropped in dW", "derivative of tanh missing", "dbias_hh dropped"])
def test_finite_differences_catch_wrong_gradients_alone(name, mutated):
    with pytest.raises((AssertionError, RuntimeError)):
        check_differences(case("tanh", arguments(3, 4, 3, ("bias", "mask")), mutated(rnn_cell, *MUTANTS[name])))


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("route", ["plain", "vendor", "auto"])
@pytest.mark.parametrize("bias", [True, False])
def test_stands_in_for_torch(nonlinearity, route, bias):
    ours, theirs = (n.RNNCell(3, 4, bias, nonlinearity).double() for n in (rnn_cell, torch_nn))
    with twofold.route(route):
        check_drop_in(ours, theirs, noise(5, 3))
        check_drop_in(ours, theirs, noise(5, 3), noise(5, 4, seed=2))
        check_drop_in(ours, theirs, noise(3), noise(4, seed=2))
    assert ours.last_route == ("vendor" if route == "auto" else route)
    assert ours.cell is (RELU if nonlinearity == "relu" else TANH)


def test_the_module_with_layer_norm_is_the_expression():
    cell, x, h = RNNCell(4, 3, layer_norm=True).double(), noise(5, 4, seed=1), noise(5, 3, seed=2)
    for name in ("norm_ih", "norm_hh"):
        cell.get_parameter(name).data = noise(3, seed=len(name), grad=False)
    for route in ("plain", "vendor", "auto"):
        with twofold.route(route):
            assert torch.allclose(cell(x, h), expression(False)(x, h, *cell.weights(), None), rtol=1e-12)
        assert cell.last_route == "plain"
    assert repr(cell) == "RNNCell(4, 3, layer_norm=True)"
    assert list(cell.state_dict()) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "norm_ih", "norm_hh"]


def test_the_weights_begin_as_torchs_and_the_gains_as_one():
    torch.manual_seed(3)
    ours = RNNCell(3, 4, layer_norm=True)
    torch.manual_seed(3)
    theirs = torch_nn.RNNCell(3, 4)
    for _ in range(2):
        assert torch.equal(ours.norm_ih, torch.ones(4)) and torch.equal(ours.norm_hh, torch.ones(4))
        assert all(torch.equal(ours.get_parameter(name), value) for name, value in theirs.named_parameters())
        torch.manual_seed(5)
        ours.reset_parameters()
        torch.manual_seed(5)
        theirs.reset_parameters()


BAD = {
    "nonlinearity": (lambda: RNNCell(3, 4, nonlinearity="sigmoid"), 'RNNCell: expected nonlinearity "tanh" or "relu", got \'sigmoid\'.'),
    "layer norm of one unit": (
        lambda: RNNCell(3, 1, layer_norm=True),
        "RNNCell: expected hidden_size of at least 2 with layer_norm=True, got 1",
    ),
    "layer norm in words": (lambda: RNNCell(3, 4, layer_norm="yes"), "RNNCell: expected layer_norm to be True or False, got 'yes'."),
    "no units": (lambda: RNNCell(3, 0), "RNNCell: expected hidden_size to be a whole number of at least 1, got 0."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
