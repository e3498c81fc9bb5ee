"""Time: the loop and back-propagation through time, with a cell of two letters and with the LSTM; mutants of both passes."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from twofold import nn
from twofold.layers.check import Case, check, check_differences, check_expression, check_message, check_unused, noise
from twofold.layers.differentiable import differentiable
from twofold.time import cells, recurrent
from twofold.time.cells import Weights
from twofold.time.recurrent import Cell, Run, add, gradient_norms, over_time, state_gradients, unroll, unroll_back


class Decay(NamedTuple):
    """The weights of the smallest cell: s_t = x_t w_D + s_{t-1} v_D, D = U; `spare` is a weight that is absent."""

    w_D: Tensor
    v_D: Tensor
    spare: Tensor | None = None


DECAY = Cell(
    drive=lambda x, weights: x * weights.w_D,
    drive_back=lambda dd, x, weights: (dd * weights.w_D, Decay((dd * x).flatten(0, -2).sum(0), None)),
    step=lambda drive, state, weights, mask: ((drive + state[0] * weights.v_D,), state[0]),
    step_back=lambda ds, before, weights, mask: (ds[0], (ds[0] * weights.v_D,), Decay(None, (ds[0] * before).sum(0))),
    states=("s",),
    weights=Decay,
    gates=1,
)


def operation(cell, run=(), module=recurrent):
    """The unrolled cell as an operation of (x, *state, *weights), by the loop of `module`."""
    count = len(cell.states)

    def forward(x, *rest):
        y, state, saved = module.unroll(cell, x, rest[:count], cell.weights(*rest[count:]), module.Run(*run))
        return (y, *state), saved

    def backward(dy, saved):
        dx, dstate, dweights = module.unroll_back(cell, dy[0], tuple(dy[1:]), saved)
        return dx, *dstate, *dweights

    return differentiable(forward, backward)


def closed_form(x, s, w, v, spare):
    """s_T as a sum: v^T s_0 + sum_t v^(T-t) w x_t."""
    rows = [v ** (t + 1) * s + sum(v ** (t - k) * w * x[k] for k in range(t + 1)) for t in range(x.shape[0])]
    return torch.stack(rows), rows[-1]


def row_by_row(run):
    """The LSTM, each row by itself and only over its own steps, with joined weights: [x h] times [W_ih W_hh]."""

    def expression(x, h_0, c_0, *weights):
        weight_ih, weight_hh, bias_ih, bias_hh, weight_hr = weights[:5]
        zone = run.zone or (None, None)
        rows = []
        for b in range(x.shape[1]):
            n = x.shape[0] if run.lengths_B is None else int(run.lengths_B[b])
            y, h, c = [torch.zeros_like(h_0[b])] * x.shape[0], h_0[b], c_0[b]
            for t in sorted(range(n), reverse=run.reverse):
                seen = h if run.mask_BR is None else run.mask_BR[b] * h
                a = torch.cat((weight_ih, weight_hh), 1).mv(torch.cat((x[t, b], seen))) + bias_ih + bias_hh
                a_i, a_f, a_g, a_o = a.view(4, -1)
                i, f, o = (torch.exp(torch.nn.functional.logsigmoid(part)) for part in (a_i, a_f, a_o))
                c_new = torch.addcmul(f * c, i, torch.tanh(a_g))
                h_new = o * torch.tanh(c_new)
                h_new = h_new if weight_hr is None else weight_hr.mv(h_new)
                stays = [0.0 if m is None else m[t, b] if isinstance(m, Tensor) else m for m in zone]
                h, c = (m * old + (1 - m) * new for m, old, new in zip(stays, (h, c), (h_new, c_new), strict=True))
                y[t] = h
            rows.append((torch.stack(y), h, c))
        return torch.stack([row[0] for row in rows], 1), *(torch.stack([row[k] for row in rows]) for k in (1, 2))

    return expression


def lstm_arguments(T, B, D, U, R=None):
    weights = (noise(4 * U, D, seed=4), noise(4 * U, R or U, seed=5), noise(4 * U, seed=6), noise(4 * U, seed=7), R and noise(R, U, seed=8))
    return noise(T, B, D, seed=1), noise(B, R or U, seed=2), noise(B, U, seed=3), *weights, *[None] * (len(Weights._fields) - 5)


def share(*shape, seed):
    return noise(*shape, seed=seed, grad=False).sigmoid()


def mask(*shape, seed):
    return (noise(*shape, seed=seed, grad=False) > 0).double() * 2


LENGTHS = torch.tensor([2, 3, 0])  # any order, none at all, all of them
FULL = Run(LENGTHS, True, mask(3, 2, seed=10), (share(3, 3, 2, seed=11), share(3, 3, 2, seed=12)))
RUNS = {
    "plain": Run(),
    "reverse": Run(reverse=True),
    "lengths": Run(LENGTHS),
    "lengths, reverse": Run(LENGTHS, True),
    "mask": Run(mask_BR=mask(3, 2, seed=10)),
    "zone of numbers": Run(zone=(0.3, None)),
    "zone of the cell": Run(zone=(None, share(3, 3, 2, seed=12))),
    "zones": Run(zone=FULL.zone),
    "all": FULL,
    "all, forward": FULL._replace(reverse=False),
}
ARGUMENTS = lstm_arguments(3, 3, 2, 2)
DECAY_ARGUMENTS = noise(4, 3, 2, seed=1), noise(3, 2, seed=2), noise(2, seed=3), noise(2, seed=4), None


def test_a_small_cell_has_the_values_and_gradients_of_its_closed_form():
    check(Case(operation(DECAY), DECAY_ARGUMENTS, closed_form, rows=False))


@pytest.mark.parametrize(("T", "B", "D", "U", "R"), [(1, 3, 2, 2, None), (4, 1, 1, 3, 2)])
def test_the_lstm_has_those_of_an_independent_loop(T, B, D, U, R):
    check(Case(operation(cells.LSTM), lstm_arguments(T, B, D, U, R), row_by_row(Run()), rows=False, second_order=False))


@pytest.mark.parametrize("name", RUNS)
def test_however_it_runs_each_row_is_that_row_alone(name):
    case = Case(operation(cells.LSTM, RUNS[name]), ARGUMENTS, row_by_row(RUNS[name]), rows=False, second_order=name in ("plain", "all"))
    check_differences(case)
    check_expression(case)
    check_unused(case)


@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "gru_reset_before", "lstm"])
def test_the_sequence_is_step_by_step(cell):
    cell, (x, h, c, *_) = cells.CELLS[cell], lstm_arguments(5, 3, 2, 2)
    weights = cell.weights(noise(cell.gates * 2, 2, seed=4), noise(cell.gates * 2, 2, seed=5))
    first = state = (h, c)[: len(cell.states)]
    steps = []
    for x_1BD in x.split(1):
        y_t, state, _ = unroll(cell, x_1BD, state, weights)
        steps.append(y_t)
    y, last, _ = unroll(cell, x, first, weights)
    assert torch.allclose(torch.cat(steps), y, rtol=1e-14)
    assert all(torch.allclose(*parts, rtol=1e-14) for parts in zip(state, last, strict=True))


def results(run, x, dy, T=3, seed=0):
    """All that comes of both passes, in one list."""
    _, h, c, *weights = lstm_arguments(T, x.shape[1], 2, 2)
    y, state, saved = unroll(cells.LSTM, x, (h, c), Weights(*weights), run)
    dx, dstate, dweights = unroll_back(cells.LSTM, dy, (noise(*h.shape, seed=20), noise(*c.shape, seed=21)), saved)
    return [part.detach() for part in (y, *state, dx, *dstate, *dweights) if part is not None]


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e300])
@pytest.mark.parametrize("reverse", [False, True])
def test_what_stands_behind_a_rows_end_changes_nothing(garbage, reverse):
    x, dy, behind = noise(3, 3, 2, seed=1), noise(3, 3, 2, seed=2), torch.arange(3)[:, None] >= LENGTHS
    clean = results(Run(LENGTHS, reverse), x, dy)
    dirty = results(Run(LENGTHS, reverse), *(part.detach().masked_fill(behind[..., None], garbage) for part in (x, dy)))
    assert all(map(torch.equal, dirty, clean))
    assert clean[0][behind].count_nonzero() == 0 and clean[3][behind].count_nonzero() == 0


def test_a_row_that_stands_still_cannot_overflow():
    x, state, weights = torch.ones(3, 1, 1), (torch.full((1, 1), 1e38),), cells.RELU.weights(torch.ones(1, 1), torch.full((1, 1), 1e30))
    _, last, saved = unroll(cells.RELU, x, state, weights, Run(torch.tensor([0])))
    dx, dstate, dweights = unroll_back(cells.RELU, torch.ones(3, 1, 1), (torch.ones(1, 1),), saved)
    assert (last[0].item(), dstate[0].item()) == (state[0].item(), 1)
    assert dx.count_nonzero() == 0 and dweights.weight_hh.item() == 0


def test_zoneout_of_0_is_plain_and_of_1_stands_still():
    x, dy = noise(3, 3, 2, seed=1), noise(3, 3, 2, seed=2)
    for zone in ((0.0, 0.0), (torch.zeros(3, 3, 2), torch.zeros(3, 3, 2)), (None, None)):
        assert all(map(torch.equal, results(Run(zone=zone), x, dy), results(Run(), x, dy)))
    y, h, c, dx, dh, dc, *dweights = results(Run(zone=(1.0, 1.0)), x, dy)
    assert torch.equal(h, ARGUMENTS[1]) and torch.equal(c, ARGUMENTS[2]) and torch.equal(y, h.expand(3, 3, 2))
    assert torch.allclose(dh, noise(3, 2, seed=20) + dy.sum(0)) and torch.allclose(dc, noise(3, 2, seed=21))
    assert not any(part.count_nonzero() for part in (dx, *dweights))


def test_the_batch_permuted_is_the_output_permuted():
    order, x = torch.tensor([2, 0, 1]), noise(3, 3, 2, seed=1)
    _, h, c, *weights = ARGUMENTS
    y, state, _ = unroll(cells.LSTM, x, (h, c), Weights(*weights), FULL)
    run = Run(LENGTHS[order], True, FULL.mask_BR[order], tuple(zone[:, order] for zone in FULL.zone))
    permuted, last, _ = unroll(cells.LSTM, x[:, order], (h[order], c[order]), Weights(*weights), run)
    assert torch.allclose(permuted, y[:, order], rtol=1e-14)
    assert all(torch.allclose(ours, theirs[order], rtol=1e-14) for ours, theirs in zip(last, state, strict=True))


@pytest.mark.parametrize("run", [Run(), FULL, FULL._replace(lengths_B=None, reverse=False)])
def test_the_gradient_of_a_state_is_that_of_a_run_which_starts_there(run):
    x, h, c, *weights = (part if part is None else part.detach() for part in lstm_arguments(3, 3, 2, 2))
    weights, dy, dstate = Weights(*weights), noise(3, 3, 2, seed=30, grad=False), (noise(3, 2, seed=31), noise(3, 2, seed=32))
    trail = state_gradients(cells.LSTM, dy, dstate, unroll(cells.LSTM, x, (h, c), weights, run)[2])
    assert [part.shape for part in trail] == [(4, 3, 2)] * 2
    for t in range(4):
        kept, rest = (slice(3 - t, 3), slice(0, 3 - t)) if run.reverse else (slice(0, t), slice(t, 3))

        def part(which, run=run):
            inside = run.lengths_B if run.lengths_B is None else (run.lengths_B - which.start).clamp(0, which.stop - which.start)
            return run._replace(lengths_B=inside, zone=tuple(zone[which] for zone in run.zone))

        _, start, _ = unroll(cells.LSTM, x[kept], (h, c), weights, part(kept))
        _, wanted, _ = unroll_back(cells.LSTM, dy[rest], dstate, unroll(cells.LSTM, x[rest], start, weights, part(rest))[2])
        last = kept.start if run.reverse else t - 1  # the step that has just been read: its output is this state
        own = dy[last] * (True if run.lengths_B is None else (last < run.lengths_B)[:, None]) if t else 0
        assert torch.allclose(trail[0][t], wanted[0] + own) and torch.allclose(trail[1][t], wanted[1])


INSIDE = "None if self.lengths_B is None else valid(self.lengths_B, T)"
CARRY = "        shares = run.shares(t, dstate)\n"
BEFORE = "before = state if inside is None else"
OUTPUT = "after[0] if inside is None else torch.where(inside[t], after[0], 0)"
STEP = "cell.step(drive[t], before, weights, run.mask_BR)"
STEP_BACK = "cell.step_back(dafter, steps[t], weights, run.mask_BR)"
MUTANTS = {
    "dh of the later step dropped": ("(dstate[0] + dy[t], *dstate[1:])", "(dy[t], *dstate[1:])"),
    "dy dropped": ("(dstate[0] + dy[t], *dstate[1:])", "(dstate[0], *dstate[1:])"),
    "dy twice": ("(dstate[0] + dy[t],", "(dstate[0] + 2 * dy[t],"),
    "the state's other tensors dropped": ("dy[t], *dstate[1:])", "dy[t], *(0 * d for d in dstate[1:]))"),
    "dW of the last step only": ("dweights = add(dweights, dweights_t)", "dweights = dweights_t"),
    "dW of the first step only": ("dweights = add(dweights, dweights_t)", "dweights = dweights_t if t == 0 else dweights"),
    "dW of the drive dropped": ("dstate, add(dweights, dweights_drive)", "dstate, dweights"),
    "drive's gradients in reverse": ("torch.stack(ddrive)", "torch.stack(ddrive[::-1])"),
    "dy read forwards": ("torch.where(inside, dy_TBR, 0)).unbind()", "torch.where(inside, dy_TBR, 0)).unbind()[::-1]"),
    "steps read forwards": ("reversed(run.order(len(steps)))", "run.order(len(steps))"),
    "truncated to one step": (CARRY, f"        dstate = (dy[t], *(0 * d for d in dstate[1:]))\n{CARRY}"),
    "the state not carried": ("state = after if inside is None else", "state = state if inside is None else"),
    "the state not carried, with lengths": ("_where(inside[t], after, state)", "state"),
    "x read in reverse": ("cell.drive(x_TBD, weights).unbind()", "cell.drive(x_TBD, weights).unbind()[::-1]"),
    "the output before the step": (f"y[t] = {OUTPUT}", f"y[t] = {OUTPUT.replace('after', 'before')}"),
    "the output before zoneout": (OUTPUT, OUTPUT.replace("after", f"{STEP}[0]")),
    "the cell as the output": (OUTPUT, OUTPUT.replace("after[0]", "after[-1]")),
    "gradient of the initial state dropped": ("0), dstate, add(", "0), tuple(0 * d for d in dstate), add("),
    "reverse forgotten": ("range(T - 1, -1, -1) if self.reverse else range(T)", "range(T)"),
    "reverse where it was not asked": ("if self.reverse else range(T)", "if not self.reverse else range(T)"),
    "reverse starts in the padding": (BEFORE, f"inside = None if run.reverse else inside\n        {BEFORE}"),
    "the state at the padded end": ("_where(inside[t], after, state)", "after"),
    "outputs behind the end": (OUTPUT, "after[0]"),
    "one step too many": (INSIDE, INSIDE.replace("lengths_B,", "lengths_B + 1,")),
    "one step too few": (INSIDE, INSIDE.replace("lengths_B,", "lengths_B - 1,")),
    "dstate not frozen behind the end": ("_where(inside[t], dbefore, dstate)", "dbefore"),
    "dstate lost behind the end": ("_where(inside[t], dbefore, dstate)", "_where(inside[t], dbefore)"),
    "the steps behind the end learn": ("dafter if inside is None else _where(inside[t], dafter)", "dafter"),
    "dy behind the end counts": ("(dy_TBR if inside is None else torch.where(inside, dy_TBR, 0)).unbind()", "dy_TBR.unbind()"),
    "zone of the wrong step": ("share[t] if isinstance", "share[t - 1] if isinstance"),
    "zone in the order of reading": ("share[t] if isinstance", "share[-1 - t if self.reverse else t] if isinstance"),
    "zone of the state's first tensor for all": ("for share in self.zone]", "for share in self.zone[:1] * len(state)]"),
    "zone turned round": ("m * old + (1 - m) * new", "m * new + (1 - m) * old"),
    "zone forgotten in the gradient of the step": ("(1 - m) * ds", "ds"),
    "zone forgotten in the gradient of the old state": ("db + m * ds", "db"),
    "mask forgotten forward": (STEP, STEP.replace("run.mask_BR", "None")),
    "mask forgotten backward": (STEP_BACK, STEP_BACK.replace("run.mask_BR", "None")),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    module = mutated(recurrent, *MUTANTS[name])
    with pytest.raises(AssertionError):
        for run in RUNS.values():
            check_expression(Case(operation(cells.LSTM, run, module), ARGUMENTS, row_by_row(run), rows=False))


def test_garbage_behind_the_end_shows_where_it_is_multiplied_by_zero(mutated):
    x, behind = noise(3, 3, 2, seed=1, grad=False), torch.arange(3)[:, None] >= LENGTHS
    _, h, c, *weights = ARGUMENTS
    for right, wrong in (
        ("x_TBD if inside is None else torch.where(inside, x_TBD, 0)", "x_TBD if inside is None else x_TBD * inside"),
        ("torch.where(inside, dy_TBR, 0)", "dy_TBR * inside"),
    ):
        module = mutated(recurrent, right, wrong)
        dirty = x.masked_fill(behind[..., None], float("nan"))
        _, _, saved = module.unroll(cells.LSTM, dirty, (h, c), Weights(*weights), module.Run(LENGTHS))
        assert module.unroll_back(cells.LSTM, dirty, (h, c), saved)[2].weight_ih.isnan().any()


def test_the_gates_of_every_step_can_be_read():
    x, h, c, *weights = (a if a is None else a.detach() for a in lstm_arguments(4, 2, 3, 2))
    y, (last_h, last_c), saved = unroll(cells.LSTM, x, (h, c), Weights(*weights))
    assert len(saved.steps) == 4
    for t, step in enumerate(saved.steps):
        c_BU = step.f_BU * step.c_before_BU + step.i_BU * step.g_BU
        assert torch.equal(c_BU, saved.steps[t + 1].c_before_BU if t < 3 else last_c)
        assert torch.equal(y[t], step.o_BU * c_BU.tanh())
        assert torch.equal(step.h_before_BR, y[t - 1] if t else h)
    assert torch.equal(last_h, y[-1])


@pytest.mark.parametrize(("T", "lengths"), [(0, None), (0, [0, 0]), (3, [0, 0])])
def test_no_step_returns_the_initial_state_and_passes_its_gradient(T, lengths):
    x, h, c, *weights = lstm_arguments(T, 2, 3, 2)
    run = Run(None if lengths is None else torch.tensor(lengths))
    y, last_h, last_c = operation(cells.LSTM, run)(x, h, c, *weights)
    assert y.shape == (T, 2, 2) and y.count_nonzero() == 0
    assert torch.equal(last_h, h) and torch.equal(last_c, c)
    gradients = torch.autograd.grad((2 * last_h + 3 * last_c).sum() + y.sum(), [x, h, c, *weights[:4]])
    assert gradients[0].shape == x.shape
    assert torch.equal(gradients[1], torch.full_like(h, 2)) and torch.equal(gradients[2], torch.full_like(c, 3))
    assert all(g.count_nonzero() == 0 for g in (gradients[0], *gradients[3:]))
    _, _, saved = unroll(cells.LSTM, x, (h, c), Weights(*weights), run)
    assert torch.equal(state_gradients(cells.LSTM, y, (h, c), saved)[1], c.expand(T + 1, 2, 2))


def test_no_rows():
    y, h, c = operation(cells.LSTM, Run(torch.zeros(0, dtype=torch.int64)))(*lstm_arguments(3, 0, 3, 2))
    assert (y.shape, h.shape, c.shape) == ((3, 0, 2), (0, 2), (0, 2))


def test_gradients_vanish_or_explode_as_the_power_of_the_recurrent_weight():
    x, s, w = torch.zeros(50, 1, 2, dtype=torch.float64), noise(1, 2), noise(2)
    v = torch.tensor([0.5, 1.5], dtype=torch.float64)
    _, _, saved = unroll(DECAY, x, (s,), Decay(w, v))
    (ds,) = state_gradients(DECAY, torch.zeros_like(x), (torch.ones(1, 2, dtype=torch.float64),), saved)
    assert torch.allclose(ds[:, 0], v ** torch.arange(50, -1, -1)[:, None], rtol=1e-12)


def test_named_tuples_of_gradients_are_added_with_none_as_nothing():
    one = torch.ones(2)
    total = add(Decay(one, None), Decay(one, one))
    assert (total.w_D.tolist(), total.v_D.tolist(), total.spare) == ([2, 2], [1, 1], None)
    assert over_time([], one).shape == (0, 2)


# How gradients vanish and explode


def states_over_time(layer, x, top):
    """|dL/ds_t| of every layer and direction by autograd through torch's own cell, one step after the other."""
    trails, y = [], x
    for l_ in range(layer.num_layers):
        sides = []
        for place in range(l_ * layer.stack_shape.directions, (l_ + 1) * layer.stack_shape.directions):
            cell = torch.nn.LSTMCell(y.shape[-1], layer.hidden_size, dtype=torch.float64)
            cell.load_state_dict(dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), layer.weights(place)[:4], strict=True)))
            s = tuple(torch.zeros(x.shape[1], layer.hidden_size, dtype=torch.float64, requires_grad=True) for _ in "hc")
            trail, backwards = [s], place % layer.stack_shape.directions == 1
            for x_t in y.flip(0) if backwards else y:
                s = tuple(part.clone() for part in cell(x_t, s))  # h and c as two coordinates: c itself has made h, too
                trail.append(s)
            h = torch.stack([h for h, _ in trail[1:]])
            sides.append(h.flip(0) if backwards else h)
            trails.append(trail)
        y = torch.cat(sides, -1)
    last = trails[-layer.stack_shape.directions :]
    loss = sum(trail[-1][0].sum() for trail in last) if top is None else (top * y).sum()
    flat = [part for trail in trails for s in trail for part in s]
    found = torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True)
    return torch.stack(found).reshape(len(trails), x.shape[0] + 1, -1).norm(dim=-1)


@pytest.mark.parametrize("weighed", [False, True])
def test_gradient_norms_of_a_stack_are_those_of_autograd_through_torchs_cells(weighed):
    layer, x = nn.LSTM(3, 2, 2, bidirectional=True, dtype=torch.float64), noise(4, 2, 3, seed=1, grad=False)
    dy = noise(4, 2, 4, seed=2, grad=False) if weighed else None
    wanted = states_over_time(layer, x, dy)
    assert torch.allclose(gradient_norms(layer, x, dy, place=None), wanted, rtol=1e-12)
    assert torch.equal(gradient_norms(layer, x, dy), gradient_norms(layer, x, dy, place=None)[0])
    first = nn.LSTM(3, 2, 2, batch_first=True, bidirectional=True, dtype=torch.float64)
    first.load_state_dict(layer.state_dict())
    turned = dy if dy is None else dy.transpose(0, 1)
    assert torch.allclose(gradient_norms(first, x.transpose(0, 1), turned, place=3), wanted[3], rtol=1e-12)


def test_gradient_norms_of_lengths_are_those_of_the_rows_alone():
    layer, x, lengths = nn.GRU(3, 2, dtype=torch.float64), noise(4, 3, 3, seed=1, grad=False), [2, 4, 0]
    alone = [gradient_norms(layer, x[:n, b]) for b, n in enumerate(lengths)]
    squares = sum(torch.cat((norms, norms[-1:].expand(4 - n))).square() for norms, n in zip(alone, lengths, strict=True))
    assert torch.allclose(gradient_norms(layer, x, lengths=lengths).square(), squares, rtol=1e-12)


def test_gradient_norms_with_zoneout_use_its_mean_and_start_from_the_given_state():
    layer, x = nn.RNN(3, 2, zoneout=0.25, dtype=torch.float64), noise(4, 2, 3, seed=1, grad=False)
    h_0 = noise(1, 2, 2, seed=2, grad=False)
    _, _, saved = unroll(layer.cell, x, (h_0[0],), layer.weights(0), Run(zone=(0.25,)))
    (ds,) = state_gradients(layer.cell, torch.zeros(4, 2, 2), (torch.ones(2, 2),), saved)
    assert torch.allclose(gradient_norms(layer, x, state=h_0), ds.flatten(1).norm(dim=1), rtol=1e-12)
    assert not gradient_norms(layer, x).requires_grad


def test_what_gradient_norms_refuses():
    layer, x = nn.LSTM(3, 2, 2, bidirectional=True), torch.zeros(4, 2, 3)
    check_message(lambda: gradient_norms(torch.nn.LSTM(3, 2), x), "gradient_norms of LSTM", "twofold.nn", "torch's own")
    check_message(lambda: gradient_norms(layer, x, place=4), "gradient_norms of LSTM", "place from 0 to 3", "L=2", "S=2", "got 4")
    check_message(lambda: gradient_norms(layer, x, torch.zeros(4, 2, 2)), "LSTM dy", "(T=4, B=2, R=4)", "R is 2, not 4")
