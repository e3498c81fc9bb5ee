"""The LSTM step: the four witnesses for every option and all of them together, torch's cell, the equations in NumPy, and mutants."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn as torch_nn

import twofold
from twofold.layers.check import Case, check, check_differences, check_drop_in, check_expression, noise, outcome
from twofold.time import lstm_cell
from twofold.time.lstm_cell import COUPLED, LSTM, LSTMCell, Weights, lstm_step


def expression(coupled):
    """Gate by gate from joined weights, sigmoids written with exp, peepholes as diagonal matrices."""

    def compute(x, h, c, *rest):
        w, mask, U = Weights(*rest[:-1]), rest[-1], c.shape[1]
        h = h if mask is None else torch.einsum("br,br->br", h, mask)
        if w.norm_ih is None and w.norm_hh is None:
            a = torch.einsum("bk,gk->bg", torch.cat((x, h), 1), torch.cat((w.weight_ih, w.weight_hh), 1))
        else:
            parts = ((x, w.weight_ih, w.norm_ih), (h, w.weight_hh, w.norm_hh))
            a = sum(F.linear(v, W) if gain is None else F.layer_norm(F.linear(v, W), (len(W),), gain) for v, W, gain in parts)
        if w.bias_ih is not None:
            a = a + (w.bias_ih + w.bias_hh)
        a = dict(zip("igo" if coupled else "ifgo", a.unflatten(1, (-1, U)).unbind(1), strict=True))
        look = dict.fromkeys("ifo", torch.zeros(U, U, dtype=x.dtype))
        if w.peephole is not None:
            look |= {gate: torch.diag(p) for gate, p in zip("io" if coupled else "ifo", w.peephole.unflatten(0, (-1, U)), strict=True)}
        i = 1 / (1 + torch.exp(-a["i"] - c @ look["i"]))
        f = 1 - i if coupled else 1 / (1 + torch.exp(-a["f"] - c @ look["f"]))
        c = f * c + i * (2 / (1 + torch.exp(-2 * a["g"])) - 1)
        o = 1 / (1 + torch.exp(-a["o"] - c @ look["o"]))
        e = c if w.norm_c is None else F.layer_norm(c, (U,), w.norm_c, w.norm_c_bias)
        m = o * (2 / (1 + torch.exp(-2 * e)) - 1)
        return m if w.weight_hr is None else torch.einsum("bu,ru->br", m, w.weight_hr), c

    return compute


NORMS = ("norm_ih", "norm_hh", "norm_c", "norm_c_bias")
OPTIONS = ("bias", "projection", "peephole", "norm", "mask")


def arguments(B, D, U, options=("bias",), coupled=False, grad=True):
    G, R = (3 if coupled else 4) * U, U - 1 if "projection" in options else U
    sizes = {"weight_ih": (G, D), "weight_hh": (G, R)}
    sizes |= {"bias_ih": (G,), "bias_hh": (G,)} if "bias" in options else {}
    sizes |= {"weight_hr": (R, U)} if "projection" in options else {}
    sizes |= {"peephole": (G - U,)} if "peephole" in options else {}
    sizes |= {name: (G,) if "hh" in name or "ih" in name else (U,) for name in NORMS if "norm" in options or name in options}
    weights = Weights(**{name: noise(*size, seed=4 + Weights._fields.index(name)) for name, size in sizes.items()})
    mask = 2 * noise(B, R, seed=20, grad=False).ge(0).double() if "mask" in options else None
    return noise(B, D, seed=1, grad=grad), noise(B, R, seed=2), noise(B, U, seed=3), *weights, mask


def case(given, coupled=False, module=lstm_cell, second_order=False):
    bare = all(value is None for value in given[7:])
    operation = module.coupled_step if coupled else module.lstm_step if bare else module.lstm_step_with_options
    rows = (0, 1, 2) if given[-1] is None else (0, 1, 2, 13)
    return Case(operation, given, expression(coupled), row_arguments=rows, second_order=second_order)


@pytest.mark.parametrize("coupled", [False, True], ids=["", "coupled"])
@pytest.mark.parametrize("chosen", list(product((0, 1), repeat=5)), ids=str)
def test_witnesses(chosen, coupled):
    options = [name for name, take in zip(OPTIONS, chosen, strict=True) if take]
    check(case(arguments(2, 4, 3, options, coupled), coupled, second_order=sum(chosen) in (0, 5)))


@pytest.mark.parametrize("options", [*((name,) for name in NORMS[:3]), ("norm_c", "norm_c_bias")], ids=str)
def test_witnesses_of_one_norm_alone(options):
    check(case(arguments(2, 4, 3, options)))


@pytest.mark.parametrize("sizes", [(1, 3, 2), (2, 3, 1), (2, 1, 2), (0, 3, 2)])
def test_witnesses_at_the_smallest_sizes(sizes):
    check(case(arguments(*sizes, grad=False)))
    check(case(arguments(*sizes, ("peephole",), True), True))


def test_torchs_step_to_the_last_digits():
    ours, torchs = (outcome(lambda *a, route=route: lstm_step.by(route, *a), arguments(5, 4, 3)) for route in ("plain", "vendor"))
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(ours, torchs, strict=True))


def test_the_equations_in_numpy():
    x, h, c, W, V, b, d, _, p, *_ = (a if a is None else a.detach().numpy() for a in arguments(3, 4, 2, ("bias", "peephole")))
    new_h, new_c = lstm_cell.lstm_step_with_options(*arguments(3, 4, 2, ("bias", "peephole")))
    for row in range(3):
        for u in range(2):
            a_i, a_f, a_g, a_o = (
                sum(W[r, k] * x[row, k] for k in range(4)) + sum(V[r, k] * h[row, k] for k in range(2)) + b[r] + d[r]
                for r in (u, 2 + u, 4 + u, 6 + u)
            )
            i, f = (1 / (1 + np.exp(-a - w * c[row, u])) for a, w in ((a_i, p[u]), (a_f, p[2 + u])))
            cell = c[row, u] * f + np.tanh(a_g) * i
            assert new_c[row, u].item() == pytest.approx(cell, rel=1e-12)
            assert new_h[row, u].item() == pytest.approx(np.tanh(cell) / (1 + np.exp(-a_o - p[4 + u] * cell)), rel=1e-12)


STATE_PART = "q, normal = product(h_before if mask_BR is None else mask_BR * h_before, weights.weight_hh, weights.norm_hh"
ORDER = "a_i, *a_f, a_g, a_o = a.chunk"
O_LOOKS, C_NEW = "o = look(a_o, p_o, c).sigmoid()", "c = f * c_before + i * g"
F_GATE = "f = 1 - i if coupled else look(a_f[0], p_f[0], c_before).sigmoid()"
I_GATE = "i = look(a_i, p_i, c_before).sigmoid()"
BEFORE = "da_before = [di * i * (1 - i)] if coupled else [di * i * (1 - i), dc * c_before * f * (1 - f)]"
MUTANTS = {
    "gates i and f exchanged": (ORDER, "*a_f, a_i, a_g, a_o = a.chunk"),
    "gates f and g exchanged": (ORDER, "a_i, a_g, *a_f, a_o = a.chunk"),
    "gates g and o exchanged": (ORDER, "a_i, *a_f, a_o, a_g = a.chunk"),
    "gates in the order i o f g": (ORDER, "a_i, a_o, *a_f, a_g = a.chunk"),
    "gates interleaved": ("a.chunk(3 if coupled else 4, -1)", "a.unflatten(-1, (-1, 3 if coupled else 4)).unbind(-1)"),
    "forget gate not applied": (C_NEW, "c = c_before + i * g"),
    "input gate not applied": (C_NEW, "c = f * c_before + g"),
    "always coupled": (C_NEW, "c = f * c_before + (1 - f) * g"),
    "tanh missing at the output": ("return c_BU.tanh(), None", "return c_BU, None"),
    "output gate not applied": ("m = o * e\n", "m = e\n"),
    "candidate through a sigmoid": ("g = a_g.tanh()", "g = a_g.sigmoid()"),
    "state swapped": ("h_before, c_before = state", "c_before, h_before = state"),
    "outputs swapped": ("return (h, c), Saved", "return (c, h), Saved"),
    "no recurrent matrix": ("a = drive_BG + q", "a = drive_BG + 0 * q"),
    "second bias forgotten": ("a = a + weights.bias_hh", "pass"),
    "first bias forgotten": ("else q + weights.bias_ih", "else q"),
    "dc of the later step dropped": ("dc = look(dc + de, p_o, da_o)", "dc = look(de, p_o, da_o)"),
    "dc through h dropped": ("dc = look(dc + de, p_o, da_o)", "dc = look(dc, p_o, da_o)"),
    "dc through h without the derivative of tanh": ("squash_back(dm * o * (1 - e * e),", "squash_back(dm * o,"),
    "derivative of i missing": (BEFORE, BEFORE.replace("di * i * (1 - i), dc", "di, dc")),
    "da_f from the new cell": (BEFORE, BEFORE.replace("c_before * f", "c * f")),
    "derivative of g as a sigmoid's": ("da_g = dc * i * (1 - g * g)", "da_g = dc * i * g * (1 - g)"),
    "da_o without tanh": ("da_o = dm * e * o * (1 - o)", "da_o = dm * c * o * (1 - o)"),
    "gradients of gates permuted": ("torch.cat((*da_before, da_g, da_o), -1)", "torch.cat((da_g, *da_before, da_o), -1)"),
    "gradients of i and f exchanged": ("torch.cat((*da_before, da_g, da_o), -1)", "torch.cat((*da_before[::-1], da_g, da_o), -1)"),
    "dc before without the forget gate": ("dc_before = dc * f", "dc_before = dc"),
    "dh before dropped": ("return da_BG, (dh_before, dc_before)", "return da_BG, (0 * dh_before, dc_before)"),
    "dW_hh dropped": ("Weights(None, dweight_hh,", "Weights(None, 0 * dweight_hh,"),
    "dW_hh of the new state": ("seen = h_before if mask_BR is None else mask_BR * h_before", "seen = (o * e)[:, : h_before.shape[1]]"),
    "bias gradient of one of two": ("None if weights.bias_hh is None else da_BG.sum(0)", "None"),
    "bias gradient as a mean": ("da_BG.flatten(0, -2).sum(0)", "da_BG.flatten(0, -2).mean(0)"),
    "dx dropped": ("return dx_BD, Weights(dweight_ih", "return 0 * dx_BD, Weights(dweight_ih"),
    "dW_ih of half": ("return dx_BD, Weights(dweight_ih", "return dx_BD, Weights(0.5 * dweight_ih"),
    # the projection
    "projection forgotten": ("h = m if weights.weight_hr is None else m @ weights.weight_hr.t()", "h = m[:, : h_before.shape[1]]"),
    "the cell projected": ("else m @ weights.weight_hr.t()", "else (c @ weights.weight_hr.t()).tanh()"),
    "dW_hr of the cell": ("dh.t() @ (o * e)", "dh.t() @ c"),
    "dW_hr dropped": ("dbias_hh, dweight_hr, dpeephole", "dbias_hh, None, dpeephole"),
    # peepholes
    "o looks at the old cell": (O_LOOKS, "o = look(a_o, p_o, c_before).sigmoid()"),
    "i looks at the new cell": (C_NEW, f"{C_NEW}\n    i = look(a_i, p_i, c).sigmoid()\n    {C_NEW}"),
    "o does not look": (O_LOOKS, "o = a_o.sigmoid()"),
    "f does not look": (F_GATE, "f = 1 - i if coupled else a_f[0].sigmoid()"),
    "f looks through i's weights": (F_GATE, F_GATE.replace("p_f[0]", "p_i")),
    "i looks at the squashed cell": (I_GATE, "i = look(a_i, p_i, c_before.tanh()).sigmoid()"),
    "i looks at the output": (
        I_GATE,
        "i = look(a_i, p_i, (h_before @ weights.weight_hr if weights.weight_hr is not None else h_before)).sigmoid()",
    ),
    "o looks at the normalised cell": (O_LOOKS, "o = look(a_o, p_o, c if weights.norm_c is None else normalize(c)[0]).sigmoid()"),
    "peepholes in the order i o f": ("p_i, *p_f, p_o = peepholes", "p_i, p_o, *p_f = peepholes"),
    "dc through o's peephole dropped": ("dc = look(dc + de, p_o, da_o)", "dc = dc + de"),
    "dc before through the peepholes dropped": ("dc_before = look(dc_before, p, da)", "pass"),
    "dp_o of the old cell": ("(da_o * c).sum(0)", "(da_o * c_before).sum(0)"),
    "dp_i of the new cell": ("(da * c_before).sum(0)", "(da * c).sum(0)"),
    "dp as a mean": ("(da_o * c).sum(0)", "(da_o * c).mean(0)"),
    # coupled gates
    "coupled: f gates, i = 1 - f": (C_NEW, "c = i * c_before + (1 - i) * g if coupled else f * c_before + i * g"),
    "coupled: minus sign missing": ("dc * (g - c_before) if coupled", "dc * (g + c_before) if coupled"),
    "coupled: the forget gate's term dropped": ("dc * (g - c_before) if coupled", "dc * g if coupled"),
    "coupled: minus the new cell": ("dc * (g - c_before) if coupled", "dc * (g - c) if coupled"),
    "coupled: f = i": ("f = 1 - i if coupled", "f = i if coupled"),
    # layer norm
    "the normed cell stays": (
        "e, normal_c = squash(c, weights)",
        "e, normal_c = squash(c, weights)\n    c = e if normal_c is not None else c",
    ),
    "the shift of c forgotten": ("else scaled + weights.norm_c_bias", "else scaled"),
    "the gain of c forgotten": ("scaled = normal * weights.norm_c\n", "scaled = normal\n"),
    "norm_c after the tanh": (
        "(scaled if weights.norm_c_bias is None else scaled + weights.norm_c_bias).tanh(), saved",
        "normal.tanh() * weights.norm_c + (0 if weights.norm_c_bias is None else weights.norm_c_bias), saved",
    ),
    "norm of c dropped on the way back": ("normalize_back(de_BU * weights.norm_c, saved)", "de_BU * weights.norm_c"),
    "the gain of c dropped on the way back": ("normalize_back(de_BU * weights.norm_c, saved)", "normalize_back(de_BU, saved)"),
    "dnorm_c of the cell": ("(de_BU * saved.normals[0]).sum(0)", "de_BU.sum(0)"),
    "dnorm_c and its shift exchanged": ("None, dnorm_hh, dnorm_c, dnorm_c_bias)", "None, dnorm_hh, dnorm_c_bias, dnorm_c)"),
    "the later step's dc led through the norm": (
        "dc = look(dc + de, p_o, da_o)",
        "dc = look(dc + de if normal_c is None else normalize_back(dc * weights.norm_c, normal_c) + de, p_o, da_o)",
    ),
    "gates normed one by one": (
        f"{STATE_PART})",
        f"{STATE_PART}, (c_before.shape[-1],) * (3 if coupled else 4))",
    ),
    "gains exchanged": (
        "mask_BR * h_before, weights.weight_hh, weights.norm_hh)",
        "mask_BR * h_before, weights.weight_hh, weights.norm_ih)",
    ),
    "input's norm forgotten on the way back": (
        "x_BD, weights.weight_ih, weights.norm_ih, normal)",
        "x_BD, weights.weight_ih, weights.norm_ih, None)",
    ),
    # recurrent dropout
    "mask ignored": ("product(h_before if mask_BR is None else mask_BR * h_before,", "product(h_before,"),
    "mask on the output": ("return (h, c), Saved", "return (h if mask_BR is None else mask_BR * h, c), Saved"),
    "mask dropped on the way back": ("dh_before = dseen if mask_BR is None else mask_BR * dseen", "dh_before = dseen"),
    "mask dropped in dW": ("seen = h_before if mask_BR is None else mask_BR * h_before", "seen = h_before"),
}
ALL = [((), False), (("bias",), False), (OPTIONS, False), (("bias", "peephole"), False), (OPTIONS, True)]


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    wrong = mutated(lstm_cell, *MUTANTS[name])
    with pytest.raises((AssertionError, RuntimeError)):
        for options, coupled in ALL:
            check_expression(case(arguments(3, 4, 3, options, coupled), coupled, wrong))


@pytest.mark.parametrize("name", ["dc of the later step dropped", "da_f from the new cell", "dp_o of the old cell", "mask dropped in dW"])
def test_finite_differences_catch_wrong_gradients_alone(name, mutated):
    wrong = mutated(lstm_cell, *MUTANTS[name])
    with pytest.raises((AssertionError, RuntimeError)):
        check_differences(case(arguments(3, 4, 3, OPTIONS), False, wrong))


def test_an_unchanged_copy_passes(mutated):
    copy = mutated(lstm_cell, C_NEW, "c = i * g + f * c_before")
    for options, coupled in ALL:
        check_expression(case(arguments(3, 4, 3, options, coupled), coupled, copy))


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


EVERY = [dict(zip(("peephole", "coupled", "layer_norm"), chosen, strict=True)) for chosen in product((False, True), repeat=3)]


@pytest.mark.parametrize("options", EVERY[1:], ids=str)
def test_the_module_with_options_is_the_expression(options):
    cell = LSTMCell(4, 3, **options).double()
    given = noise(5, 4, seed=1), noise(5, 3, seed=2), noise(5, 3, seed=3)
    for seed, value in enumerate(cell.parameters()):
        value.data = noise(*value.shape, seed=10 + seed, grad=False)
    assert cell.cell is (COUPLED if options["coupled"] else LSTM)
    for route in ("plain", "vendor", "auto"):
        with twofold.route(route):
            outputs = cell(given[0], given[1:])
        for got, truth in zip(outputs, expression(options["coupled"])(*given, *cell.weights(), None), strict=True):
            assert torch.allclose(got, truth, rtol=1e-12)
        assert cell.last_route == "plain"
    assert repr(cell) == f"LSTMCell(4, 3, {', '.join(f'{name}=True' for name, on in options.items() if on)})"
    copy = LSTMCell(4, 3, **options).double()
    copy.load_state_dict(cell.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(copy(given[0]), cell(given[0]), strict=True))


def test_options_begin_as_said_and_the_rest_as_torch_begins():
    torch.manual_seed(3)
    ours = LSTMCell(3, 16, peephole=True, layer_norm=True)
    torch.manual_seed(3)
    theirs = torch_nn.LSTMCell(3, 16)
    assert all(torch.equal(ours.get_parameter(name), value) for name, value in theirs.named_parameters())
    for _ in range(2):
        assert ours.peephole.shape == (48,) and 0 < ours.peephole.abs().max() <= 0.25 and ours.peephole.unique().numel() > 40
        assert {name: (value.shape[0], *value.unique().tolist()) for name, value in ours.named_parameters() if "norm" in name} == {
            "norm_ih": (64, 1.0), "norm_hh": (64, 1.0), "norm_c": (16, 1.0), "norm_c_bias": (16, 0.0),
        }  # fmt: skip
        for value in ours.parameters():
            value.data.fill_(7)
        ours.reset_parameters()


@pytest.mark.parametrize("options", EVERY, ids=str)
def test_nan_stays_in_its_row(options):
    x = noise(3, 3, grad=False)
    x[1, 0] = float("nan")
    with twofold.route("plain"):
        h, c = LSTMCell(3, 4, **options).double()(x)
    assert h.isnan().all(1).tolist() == c.isnan().all(1).tolist() == [False, True, False]


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


BAD = {
    "coupled with a forget bias": (
        lambda: LSTMCell(3, 4, coupled=True, forget_bias=1.0),
        "LSTMCell: expected no forget_bias with coupled=True, got 1.0: the forget gate is 1 - i and has no bias of its own.",
    ),
    "layer norm of one unit": (
        lambda: LSTMCell(3, 1, layer_norm=True),
        "LSTMCell: expected hidden_size of at least 2 with layer_norm=True, got 1: the variance of one number is 0",
    ),
    "peephole in words": (lambda: LSTMCell(3, 4, peephole="yes"), "LSTMCell: expected peephole to be True or False, got 'yes'."),
    "coupled in numbers": (lambda: LSTMCell(3, 4, coupled=1), "LSTMCell: expected coupled to be True or False, got 1."),
    "bias": (lambda: LSTMCell(3, 4, 2), "LSTMCell: expected bias to be True or False, got 2."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
