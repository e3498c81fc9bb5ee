"""minGRU and minLSTM: both forms against an independent expression and each other, mutants, and the layers."""

import copy
import pickle

import pytest
import torch

import twofold
from twofold.layers.check import Case, check, check_differences, check_expression, noise, outcome
from twofold.time import minimal
from twofold.time.minimal import MIN_GRU, MIN_LSTM, MinGRU, MinLSTM, scan

LENGTHS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 33]


def expression(gates):
    """h_t as a sum over all steps before it: products of what is kept times what was taken, with no recurrence."""

    def compute(x, h, weight_ih, bias_ih):
        a = torch.einsum("tbd,gd->tbg", x, weight_ih)
        *a, g = (a if bias_ih is None else a + bias_ih).unflatten(2, (gates, -1)).unbind(2)
        if gates == 2:
            keep = 1 / (1 + torch.exp(a[0]))
        else:
            i, f = (1 / (1 + torch.exp(-part)) for part in a)
            keep = f / (f + i)
        y = [
            torch.prod(keep[: t + 1], 0) * h + sum(torch.prod(keep[s + 1 : t + 1], 0) * (1 - keep[s]) * g[s] for s in range(t + 1))
            for t in range(len(x))
        ]
        return torch.stack(y) if y else h.expand(0, *h.shape), y[-1] if y else h

    return compute


def arguments(T, B, D, U, gates, bias=True, grad=True):
    weights = noise(gates * U, D, seed=3), noise(gates * U, seed=4) if bias else None
    return noise(T, B, D, seed=1, grad=grad), noise(B, U, seed=2), *weights


def parallel(operation):
    """The parallel form as an operation of its own."""
    return operation.others["parallel"].compute.func.__self__


KINDS = {"minGRU": ("min_gru", 2), "minLSTM": ("min_lstm", 3)}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@EVERY_KIND
@pytest.mark.parametrize("T", [0, 1, 4, 5])
@pytest.mark.parametrize("form", ["one by one", "parallel"])
def test_witnesses(kind, T, form):
    name, gates = KINDS[kind]
    operation = getattr(minimal, name)
    given = arguments(T, 2, 3, 2, gates, bias=T != 4, grad=T != 1)
    check(Case(parallel(operation) if form == "parallel" else operation, given, expression(gates), rows=False))


@EVERY_KIND
@pytest.mark.parametrize("T", LENGTHS)
def test_both_forms_are_equal_at_every_length(kind, T):
    name, gates = KINDS[kind]
    operation, given = getattr(minimal, name), arguments(T, 3, 4, 2, gates)
    one, other = (outcome(lambda *a, route=route: operation.by(route, *a), given) for route in ("plain", "parallel"))
    assert len(one) == 6
    for a, b in zip(one, other, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("T", LENGTHS[1:])
def test_the_scan_is_the_loop_and_takes_a_number_of_operations_that_grows_with_log_t(T):
    a, b = noise(T, 2, seed=1, grad=False), noise(T, 2, seed=2, grad=False)
    h, loop = torch.zeros(2, dtype=torch.float64), []
    for t in range(T):
        h = a[t] * h + b[t]
        loop.append(h)
    assert torch.allclose(scan(a, b), torch.stack(loop), rtol=1e-12, atol=1e-12)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        scan(a, b)
    joins = sum(event.count for event in seen.key_averages() if event.key in ("aten::mul", "aten::add"))
    assert joins == 5 * (T.bit_length() - 1)


BACK_K, E_BACK = "dk = e * (h_before - g) * keep * take", "return odds_back(dk, e * take, drive_BG, gates), (e * keep,), Weights(None)"
ODDS = "return (-a[0] if gates == 2 else F.logsigmoid(a[1]) - F.logsigmoid(a[0])), g"
MUTANTS = {
    "keep and take exchanged": ("return k.sigmoid(), (-k).sigmoid(), g", "return (-k).sigmoid(), k.sigmoid(), g"),
    "take not the rest of keep": ("return k.sigmoid(), (-k).sigmoid(), g", "return k.sigmoid(), 0 * k + 1, g"),
    "minGRU: z kept instead of 1 - z": (ODDS, ODDS.replace("-a[0] if", "a[0] if")),
    "minLSTM: i and f exchanged": (
        ODDS,
        ODDS.replace("F.logsigmoid(a[1]) - F.logsigmoid(a[0])", "F.logsigmoid(a[0]) - F.logsigmoid(a[1])"),
    ),
    "minLSTM: i and f not normalised by their sum": (ODDS, ODDS.replace("F.logsigmoid(a[1]) - F.logsigmoid(a[0])", "a[1]")),
    "minLSTM: odds of the arguments": (ODDS, ODDS.replace("F.logsigmoid(a[1]) - F.logsigmoid(a[0])", "a[1] - a[0]")),
    "candidate squashed": (ODDS, ODDS.replace(", g", ", g.tanh()")),
    "bias forgotten": ("else q + weights.bias_ih", "else q"),
    "dk without h_before": (BACK_K, "dk = -e * g * keep * take"),
    "dk without the candidate": (BACK_K, "dk = e * h_before * keep * take"),
    "dk's derivative missing": (BACK_K, "dk = e * (h_before - g)"),
    "dg of the whole": (E_BACK, E_BACK.replace("e * take", "e")),
    "minGRU: minus sign missing": ("da = [-dk] if", "da = [dk] if"),
    "minLSTM: minus sign missing": ("else [-dk * (-a[0]).sigmoid()", "else [dk * (-a[0]).sigmoid()"),
    "minLSTM: derivative of i for 1 - i": ("else [-dk * (-a[0]).sigmoid()", "else [-dk * a[0].sigmoid()"),
    "minLSTM: derivative of f of i": ("dk * (-a[1]).sigmoid()]", "dk * (-a[0]).sigmoid()]"),
    "db dropped": ("else ddrive_BG.flatten(0, -2).sum(0)", "else 0 * ddrive_BG.flatten(0, -2).sum(0)"),
}
ONE_BY_ONE = {
    "loop: nothing kept": ("return (keep * h_before + take * g,)", "return (take * g,)"),
    "loop: all kept": ("return (keep * h_before + take * g,)", "return (h_before + take * g,)"),
    "loop: dh of the later step stopped": (E_BACK, E_BACK.replace("(e * keep,)", "(0 * e,)")),
    "loop: dh of the later step whole": (E_BACK, E_BACK.replace("(e * keep,)", "(e,)")),
    "loop: final state's gradient dropped": ("unroll_back(cell, dy[0], (dy[1],), saved)", "unroll_back(cell, dy[0], (0 * dy[1],), saved)"),
}
ALL_AT_ONCE = {
    "scan: the initial state forgotten": ("torch.cat((h_BU[None], take * g))", "torch.cat((0 * h_BU[None], take * g))"),
    "scan: the state after for the state before": ("keep, take, g, h[:-1])", "keep, take, g, h[1:])"),
    "scan: the joined share forgets one step": ("a_TBU[second] * a_TBU[first],", "a_TBU[second],"),
    "scan: neighbours joined in the other order": (
        "a_TBU[second] * b_TBU[first] + b_TBU[second]",
        "a_TBU[first] * b_TBU[second] + b_TBU[first]",
    ),
    "scan: filled in from the later neighbour": ("later[: (T - 1) // 2] + b_TBU[2::2]", "later[-((T - 1) // 2) :] + b_TBU[2::2]"),
    "scan back: shares one step off": ("torch.cat((edge, edge, keep.flip(0)))", "torch.cat((edge, keep.flip(0), edge))"),
    "scan back: shares not reversed": ("torch.cat((edge, edge, keep.flip(0)))", "torch.cat((edge, edge, keep))"),
    "scan back: final state's gradient dropped": ("dy_TBU, dlast[None])).flip(0)", "dy_TBU, 0 * dlast[None])).flip(0)"),
    "scan back: e one step off": ("cell.step_back((e[1:],)", "cell.step_back((e[:-1],)"),
    "scan back: dh_0 of the first step": ("return dx_TBD, e[0], *dweights", "return dx_TBD, e[1], *dweights"),
}


@pytest.mark.parametrize("name", [*MUTANTS, *ONE_BY_ONE, *ALL_AT_ONCE])
def test_mutants_are_caught(name, mutated):
    wrong = mutated(minimal, *(MUTANTS | ONE_BY_ONE | ALL_AT_ONCE)[name])
    forms = [form for form, others in ((lambda o: o, ALL_AT_ONCE), (parallel, ONE_BY_ONE)) if name not in others]
    for form in forms:
        with pytest.raises(AssertionError):
            for kind, gates in KINDS.values():
                check_expression(Case(form(getattr(wrong, kind)), arguments(7, 2, 3, 2, gates), expression(gates)))


def test_finite_differences_catch_wrong_gradients_alone(mutated):
    wrong = mutated(minimal, *MUTANTS["minLSTM: derivative of f of i"])
    with pytest.raises((AssertionError, RuntimeError)):
        check_differences(Case(wrong.min_lstm, arguments(3, 2, 3, 2, 3), expression(3)))


LAYERS = {"minGRU": (MinGRU, MIN_GRU), "minLSTM": (MinLSTM, MIN_LSTM)}


@EVERY_KIND
@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_is_the_expression_in_every_form_of_its_input(kind, bias):
    layer = LAYERS[kind][0](3, 4, bias=bias).double()
    first = LAYERS[kind][0](3, 4, batch_first=True, bias=bias).double()
    first.load_state_dict(layer.state_dict())
    x, h = noise(5, 2, 3, seed=1, grad=False), noise(1, 2, 4, seed=2, grad=False)
    y, last = expression(KINDS[kind][1])(x, h[0], layer.weight_ih, layer.bias_ih)
    for route, taken in (("plain", "plain"), ("auto", "parallel"), ("vendor", "parallel")):
        with twofold.route(route):
            results = layer(x, h), tuple(map(torch.Tensor.contiguous, first(x.transpose(0, 1), h))), layer(x[:, 1], h[:, 1])
        assert layer.last_route == taken
        for (got, state), (wanted, end) in zip(
            results, ((y, last[None]), (y.transpose(0, 1), last[None]), (y[:, 1], last[1:])), strict=True
        ):
            assert got.shape == wanted.shape and torch.allclose(got, wanted, rtol=1e-12)
            assert state.shape == end.shape and torch.allclose(state, end, rtol=1e-12)
    zeros = layer(x, torch.zeros(1, 2, 4, dtype=torch.float64))
    assert all(torch.equal(a, b) for a, b in zip(layer(x), zeros, strict=True))


@EVERY_KIND
def test_a_sequence_in_two_pieces_is_the_whole(kind):
    layer, x = LAYERS[kind][0](3, 4).double(), noise(9, 2, 3, grad=False)
    whole, last = layer(x)
    for cut in (0, 1, 4, 9):
        first, state = layer(x[:cut])
        second, end = layer(x[cut:], state)
        assert torch.allclose(torch.cat((first, second)), whole, rtol=1e-12) and torch.allclose(end, last, rtol=1e-12)


@EVERY_KIND
def test_the_state_is_a_mean_of_what_was_seen_however_long_and_far(kind):
    layer = LAYERS[kind][0](1, 2)
    for scale in (1.0, 1e4, -1e4):
        x = scale * noise(4097, 3, 1, dtype=torch.float32).abs().detach()
        x.requires_grad_()
        y, _ = layer(x)
        candidates = x.detach() @ layer.weight_ih[-2:].t() + layer.bias_ih[-2:]
        assert y.min() >= min(0, candidates.min()) and y.max() <= max(0, candidates.max())
        y.sum().backward()
        assert x.grad.isfinite().all()


@EVERY_KIND
def test_nan_stays_in_its_row_and_after_its_step(kind):
    x = noise(6, 3, 2, grad=False)
    x[2, 1, 0] = float("nan")
    for route in ("plain", "auto"):
        with twofold.route(route):
            y, _ = LAYERS[kind][0](2, 4).double()(x)
        assert y.isnan().all(2).nonzero().tolist() == [[t, 1] for t in range(2, 6)]
        assert y.isnan().any(2).sum() == 4


@EVERY_KIND
def test_copies_keep_the_options_and_compilers_see_through(kind):
    layer, x = LAYERS[kind][0](3, 4, batch_first=True, bias=False), noise(2, 5, 3, dtype=torch.float32, grad=False)
    name = type(layer).__name__
    assert repr(layer) == f"{name}(3, 4, batch_first=True, bias=False)"
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301 (our own)
        assert torch.equal(other(x)[0], layer(x)[0])
    exported = torch.export.export(layer, (x,), strict=False).module()
    assert torch.allclose(exported(x)[0], layer(x)[0], atol=1e-6)
    outputs = torch.vmap(lambda row: layer(row[None])[0][0])(x)
    assert torch.allclose(outputs, layer(x)[0], atol=1e-6)


def zeros(*shape, **kind):
    return torch.zeros(shape, **kind)


BAD = {
    "hidden size": (lambda: MinGRU(3, 0), "MinGRU: expected hidden_size to be a whole number of at least 1, got 0."),
    "weights": (lambda: MinLSTM(3, 2**40), "MinLSTM: expected at most 2147483647 weights in a matrix, got 3 * 1099511627776 * 3."),
    "switch": (lambda: MinGRU(3, 4, 2), "MinGRU: expected batch_first to be True or False, got 2."),
    "features": (lambda: MinGRU(3, 4)(zeros(5, 2, 7)), "MinGRU input: expected (T, B, D=3), got (5, 2, 7): D is 7, not 3."),
    "tokens": (lambda: MinLSTM(3, 4)(zeros(5, 2, dtype=torch.int64)), "Put an Embedding in front"),
    "state units": (
        lambda: MinGRU(3, 4)(zeros(5, 2, 3), zeros(1, 2, 5)),
        "MinGRU state h: expected (L=1, B=2, U=4), got (1, 2, 5): U is 5, not 4.",
    ),
    "state without its layer": (lambda: MinGRU(3, 4)(zeros(5, 2, 3), zeros(2, 4)), "MinGRU state h: expected (L=1, B=2, U=4), got (2, 4)"),
    "batch first": (lambda: MinLSTM(3, 4)(zeros(2, 5, 3), zeros(1, 2, 4)), "Build the layer with batch_first=True."),
    "a pair": (lambda: MinLSTM(3, 4)(zeros(5, 2, 3), (zeros(1, 2, 4),) * 2), "MinLSTM state: expected one tensor h, got tuple."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
