"""The product that gates see: with and without layer norm, in one part and in two; mutants of both passes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn as torch_nn

from twofold.layers.check import Case, check, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.time import product as module
from twofold.time.product import expect_layer_norm, start_norms


def operation(module, parts):
    """(v, weight, gain) -> q, by the functions of `module`."""

    def forward(v, weight, gain):
        q, saved = module.product(v, weight, gain, parts)
        return q, (v, weight, gain, saved)

    return differentiable(forward, lambda dq, saved: module.product_back(dq, *saved))


def expression(parts):
    def compute(v, weight, gain):
        a = torch.einsum("...k,gk->...g", v, weight)
        if gain is None:
            return a
        together = zip(a.split(parts or a.shape[-1], -1), gain.split(parts or a.shape[-1]), strict=True)
        return torch.cat([F.layer_norm(part, part.shape[-1:], scale, eps=1e-5) for part, scale in together], -1)

    return compute


def arguments(*leading, gains=True):
    return noise(*leading, 4, seed=1), noise(9, 4, seed=2), noise(9, seed=3) if gains else None


CASES = {
    "bare": (arguments(3, gains=False), ()),
    "gains": (arguments(3), ()),
    "two parts": (arguments(3), (6, 3)),
    "steps and rows": (arguments(2, 3), (6, 3)),
    "no rows": (arguments(0), (6, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_witnesses(name):
    given, parts = CASES[name]
    check(Case(operation(module, parts), given, expression(parts), linear=name == "bare"))


MUTANTS = {
    "all in one part": ("a.split(parts or a.shape[-1], -1)", "a.split(a.shape[-1], -1)"),
    "eps of another size": ("EPS = 1e-5", "EPS = 1e-3"),
    "gain not applied": ("return normal * gain, saved", "return normal, saved"),
    "normalised although there is no gain": ("if gain is None:\n        return a, None", "gain = 1.0 if gain is None else gain"),
    "gain's gradient of the product": ("(dq * torch.cat(saved.normals, -1))", "(dq * (v @ weight.t()))"),
    "gain dropped on the way back": ("normalize_back(dq * gain, saved)", "normalize_back(dq, saved)"),
    "normalisation dropped on the way back": ("normalize_back(dq * gain, saved)", "dq * gain"),
    "rates exchanged": ("zip(dn.split([normal.shape[-1] for normal in saved.normals], -1), *saved,",
                        "zip(dn.split([normal.shape[-1] for normal in saved.normals], -1), saved.normals, saved.rates[::-1],"),
    "dv from what came": ("return da @ weight,", "return dq @ weight,"),
    "dW from what came": ("da.flatten(0, -2).t() @", "dq.flatten(0, -2).t() @"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    wrong = operation(mutated(module, *MUTANTS[name]), (6, 3))
    with pytest.raises(AssertionError):
        for case in (CASES["bare"], CASES["two parts"]):
            check_expression(Case(wrong, case[0], expression((6, 3))))


def test_gains_begin_as_one_and_the_shift_as_nothing():
    layer = torch_nn.Module()
    for name in ("norm_ih_l0", "norm_c", "norm_c_bias_l0_reverse", "bias_ih"):
        layer.register_parameter(name, torch_nn.Parameter(torch.full((2,), 9.0)))
    start_norms(layer)
    assert {name: value.tolist() for name, value in layer.named_parameters()} == {
        "norm_ih_l0": [1, 1], "norm_c": [1, 1], "norm_c_bias_l0_reverse": [0, 0], "bias_ih": [9, 9],
    }  # fmt: skip


def test_one_number_cannot_be_normalised():
    expect_layer_norm("GRU", True, 2)
    expect_layer_norm("GRU", False, 1)
    with pytest.raises(ValueError, match="GRU: expected hidden_size of at least 2 with layer_norm=True, got 1: the variance of one number"):
        expect_layer_norm("GRU", True, 1)
