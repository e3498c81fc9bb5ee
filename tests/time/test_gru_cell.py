"""The GRU step: the four witnesses for every option in both conventions of the reset gate, torch's cell, and mutants."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn as torch_nn

import twofold
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, noise, outcome
from twofold.time import gru_cell
from twofold.time.gru_cell import AFTER, BEFORE, STEPS, GRUCell


def expression(reset):
    """Gate by gate, each with its own rows of the weights; sigmoid by tanh, the mean of state and candidate by lerp."""

    def compute(x, h, weight_ih, weight_hh, bias_ih, bias_hh, norm_ih, norm_hh, mask):
        U, seen = h.shape[1], h if mask is None else h * mask
        R, Z, N, RZ = slice(U), slice(U, 2 * U), slice(2 * U, 3 * U), slice(2 * U)

        def part(v, weight, gain, rows):
            q = torch.einsum("bk,gk->bg", v, weight[rows])
            return q if gain is None else F.layer_norm(q, q.shape[-1:], gain[rows])

        def bias(values, rows):
            return 0 if values is None else values[rows]

        gates = part(x, weight_ih, norm_ih, RZ) + part(seen, weight_hh, norm_hh, RZ) + bias(bias_ih, RZ) + bias(bias_hh, RZ)
        r, z = ((1 + torch.tanh(gates[:, rows] / 2)) / 2 for rows in (R, Z))
        if reset == "after":
            inner = r * (part(seen, weight_hh, norm_hh, N) + bias(bias_hh, N))
        else:
            inner = part(r * seen, weight_hh, norm_hh, N) + bias(bias_hh, N)
        a_n = part(x, weight_ih, norm_ih, N) + bias(bias_ih, N) + inner
        return torch.lerp((torch.exp(2 * a_n) - 1) / (torch.exp(2 * a_n) + 1), h, z)

    return compute


def arguments(B, D, U, options=("bias",), grad=True):
    gains = tuple(noise(3 * U, seed=seed) if name in options else None for name, seed in (("norm_ih", 6), ("norm_hh", 7)))
    biases = (noise(3 * U, seed=4), noise(3 * U, seed=5)) if "bias" in options else (None, None)
    mask = 2 * noise(B, U, seed=8, grad=False).ge(0).double() if "mask" in options else None
    return noise(B, D, seed=1, grad=grad), noise(B, U, seed=2), noise(3 * U, D, seed=3), noise(3 * U, U, seed=9), *biases, *gains, mask


def case(reset, given, module=gru_cell, second_order=False):
    operation = module.STEPS[reset, any(value is not None for value in given[6:])]
    rows = (0, 1) if given[-1] is None else (0, 1, 8)
    return Case(operation, given, expression(reset), row_arguments=rows, second_order=second_order)


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("chosen", list(product((0, 1), repeat=4)), ids=str)
def test_witnesses(reset, chosen):
    options = [name for name, take in zip(("bias", "norm_ih", "norm_hh", "mask"), chosen, strict=True) if take]
    check(case(reset, arguments(2, 4, 3, options), second_order=chosen in ((0, 0, 0, 0), (1, 1, 1, 1))))


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("sizes", [(1, 3, 2), (2, 1, 1), (0, 3, 2)])
def test_witnesses_at_the_smallest_sizes(reset, sizes):
    check(case(reset, arguments(*sizes, grad=False)))


def test_torchs_step_to_the_last_digits():
    operation, given = STEPS["after", False], arguments(5, 4, 3)
    ours, torchs = (outcome(lambda *a, route=route: operation.by(route, *a), given) for route in ("plain", "vendor"))
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(ours, torchs, strict=True))


def test_the_conventions_agree_where_the_reset_gate_is_open_and_differ_elsewhere():
    given = list(arguments(3, 4, 3))
    for wide, same in ((0.0, False), (1000.0, True)):
        given[4] = torch.cat((torch.full((3,), wide), noise(6, grad=False)))
        after, before = (STEPS[reset, False].by("plain", *given) for reset in ("after", "before"))
        assert torch.allclose(after, before, rtol=1e-12) == same


FINISH = "return ((1 - z) * n + z * h_before,), Saved(r, z, n, h_before,"
AFTER_N, BEFORE_N = "n = (x_n + r * inner).tanh()", "n = (a_n + q_n).tanh()"
AFTER_DH, BEFORE_DH = "dh_before = z * dh + masked(dseen, mask_BU)", "dh_before = z * dh + masked(dseen + r * dreset, mask_BU)"
AFTER_DQ = "dq = torch.cat((da_r, da_z, r * da_n), -1)"
MUTANTS = {
    "after: gates r and z exchanged": (
        "r, z = (x_r + q_r).sigmoid(), (x_z + q_z).sigmoid()",
        "z, r = (x_r + q_r).sigmoid(), (x_z + q_z).sigmoid()",
    ),
    "after: gates in the order z r n of the state alone": ("(q_r, q_z, inner) = drive_BG", "(q_z, q_r, inner) = drive_BG"),
    "after: gates interleaved": ("drive_BG.chunk(3, -1), q", "drive_BG.unflatten(-1, (-1, 3)).unbind(-1), q"),
    "after: reset before the product": (AFTER_N, "n = (x_n + (r * h_before) @ weights.weight_hh[2 * r.shape[-1]:].t()).tanh()"),
    "after: reset on the input's part, too": (AFTER_N, "n = (r * (x_n + inner)).tanh()"),
    "after: no reset": (AFTER_N, "n = (x_n + inner).tanh()"),
    "after: b_hn outside the reset": (
        AFTER_N,
        "n = (x_n + r * inner + (1 - r) * (0 if weights.bias_hh is None else weights.bias_hh[2 * r.shape[-1]:])).tanh()",
    ),
    "after: candidate through a sigmoid": (AFTER_N, "n = (x_n + r * inner).sigmoid()"),
    "after: mask on z h": (
        f"{AFTER_N}\n    {FINISH} inner",
        f"{AFTER_N}\n    return ((1 - z) * n + z * masked(h_before, mask_BU),), Saved(r, z, n, h_before, inner",
    ),
    "after: z and 1 - z exchanged": (
        f"{AFTER_N}\n    {FINISH} inner",
        f"{AFTER_N}\n    return (z * n + (1 - z) * h_before,), Saved(r, z, n, h_before, inner",
    ),
    "after: dz's h_before masked": (
        "    assert inner is not None\n    da_n = dh * (1 - z) * (1 - n * n)\n    da_z = dh * (h_before - n)",
        "    da_n = dh * (1 - z) * (1 - n * n)\n    da_z = dh * (masked(h_before, mask_BU) - n)",
    ),
    "after: da_r without the product's part": ("da_r = da_n * inner * r * (1 - r)", "da_r = da_n * h_before * r * (1 - r)"),
    "after: da_r's derivative missing": ("da_r = da_n * inner * r * (1 - r)", "da_r = da_n * inner"),
    "after: reset missing on the way back": (AFTER_DQ, "dq = torch.cat((da_r, da_z, da_n), -1)"),
    "after: reset on the input's gradient": ("return torch.cat((da_r, da_z, da_n), -1), (dh_before,)", "return dq, (dh_before,)"),
    "after: dh through z dropped": (AFTER_DH, "dh_before = masked(dseen, mask_BU)"),
    "after: mask on dh through z": (AFTER_DH, "dh_before = masked(z * dh + dseen, mask_BU)"),
    "after: dh through the product dropped": (AFTER_DH, "dh_before = z * dh"),
    "after: db_hh as db_ih": (
        "None if weights.bias_hh is None else dq.sum(0)",
        "None if weights.bias_hh is None else torch.cat((da_r, da_z, da_n), -1).sum(0)",
    ),
    "before: mask on z h": (
        f"{BEFORE_N}\n    {FINISH} None",
        f"{BEFORE_N}\n    return ((1 - z) * n + z * seen,), Saved(r, z, n, h_before, None",
    ),
    "before: gates r and z exchanged": ("r, z = (a_rz + q_rz)", "z, r = (a_rz + q_rz)"),
    "before: reset after the product": (
        "q_n, normal_n = product(r * seen, weight_n, gain_n)",
        "q_n, normal_n = product(seen, weight_n, gain_n)\n    q_n = r * q_n",
    ),
    "before: the update gate resets": ("q_n, normal_n = product(r * seen,", "q_n, normal_n = product(z * seen,"),
    "before: mask missing under the reset": ("q_n, normal_n = product(r * seen,", "q_n, normal_n = product(r * h_before,"),
    "before: b_hn forgotten": ("a_rz + bias_rz, a_n + bias_n", "a_rz + bias_rz, a_n"),
    "before: dh through the reset dropped": (BEFORE_DH, "dh_before = z * dh + masked(dseen, mask_BU)"),
    "before: dh through the reset without r": (BEFORE_DH, "dh_before = z * dh + masked(dseen + dreset, mask_BU)"),
    "before: da_r from the unmasked state": ("da_r = dreset * seen * r", "da_r = dreset * h_before * r"),
    "before: dW_n of the state": ("product_back(da_n, r * seen, weight_n", "product_back(da_n, seen, weight_n"),
    "before: dW's parts exchanged": ("torch.cat((dweight_rz, dweight_n))", "torch.cat((dweight_n, dweight_rz))"),
    "before: gains' parts exchanged": ("torch.cat((dgain_rz, dgain_n))", "torch.cat((dgain_n, dgain_rz))"),
    "input's norm in one part": (
        "q, _ = product(x_BD, weights.weight_ih, weights.norm_ih, parts(weights))",
        "q, _ = product(x_BD, weights.weight_ih, weights.norm_ih)",
    ),
    "input's norm in one part on the way back": (
        "product(x_BD, weights.weight_ih, weights.norm_ih, parts(weights))[1]",
        "product(x_BD, weights.weight_ih, weights.norm_ih)[1]",
    ),
    "parts exchanged": ("return 2 * U, U", "return U, 2 * U"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    wrong = mutated(gru_cell, *MUTANTS[name])
    with pytest.raises((AssertionError, RuntimeError)):
        for reset, options in product(("after", "before"), (("bias",), ("bias", "norm_ih", "norm_hh", "mask"))):
            check_expression(case(reset, arguments(3, 4, 3, options), wrong))


@pytest.mark.parametrize("name", ["after: dh through z dropped", "after: db_hh as db_ih", "before: dh through the reset without r"])
def test_finite_differences_catch_wrong_gradients_alone(name, mutated):
    with pytest.raises((AssertionError, RuntimeError)):
        check_differences(case(name.split(":")[0], arguments(3, 4, 3, ("bias", "mask")), mutated(gru_cell, *MUTANTS[name])))


@pytest.mark.parametrize("route", ["plain", "vendor", "auto"])
@pytest.mark.parametrize("bias", [True, False])
def test_stands_in_for_torch(route, bias):
    ours, theirs = GRUCell(3, 4, bias).double(), torch_nn.GRUCell(3, 4, bias).double()
    with twofold.route(route):
        check_drop_in(ours, theirs, noise(5, 3))
        check_drop_in(ours, theirs, noise(5, 3), noise(5, 4, seed=2))
        check_drop_in(ours, theirs, noise(3), noise(4, seed=2))
    assert ours.last_route == ("vendor" if route == "auto" else route)


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_module_with_options_is_the_expression(reset, layer_norm):
    cell, x, h = GRUCell(4, 3, reset=reset, layer_norm=layer_norm).double(), noise(5, 4, seed=1), noise(5, 3, seed=2)
    assert cell.cell is {"after": AFTER, "before": BEFORE}[reset]
    for name in ("norm_ih", "norm_hh") if layer_norm else ():
        assert cell.get_parameter(name).tolist() == [1.0] * 9
        cell.get_parameter(name).data = noise(9, seed=len(name), grad=False)
    for route in ("plain", "vendor", "auto"):
        with twofold.route(route):
            assert torch.allclose(cell(x, h), expression(reset)(x, h, *cell.weights(), None), rtol=1e-12)
        assert cell.last_route == ("vendor" if route != "plain" and reset == "after" and not layer_norm else "plain")
    assert repr(cell) == "GRUCell(4, 3" + ", reset='before'" * (reset == "before") + ", layer_norm=True" * layer_norm + ")"


BAD = {
    "reset": (
        lambda: GRUCell(3, 4, reset="never"),
        'GRUCell: expected reset "after" (the reset gate acts on the product U h: torch, cuDNN, Keras) or "before" (on the state h: '
        "Cho et al., 2014), got 'never'.",
    ),
    "reset as a switch": (lambda: GRUCell(3, 4, reset=True), "(on the state h: Cho et al., 2014), got True."),
    "layer norm of one unit": (lambda: GRUCell(3, 1, layer_norm=True), "GRUCell: expected hidden_size of at least 2 with layer_norm=True"),
    "layer norm in words": (lambda: GRUCell(3, 4, layer_norm="yes"), "GRUCell: expected layer_norm to be True or False, got 'yes'."),
    "a pair": (
        lambda: GRUCell(3, 4)(torch.zeros(2, 3), (torch.zeros(2, 4), torch.zeros(2, 4))),
        "GRUCell state: expected one tensor h, got tuple. Only an LSTM's state is a pair; pass nothing for zeros.",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
