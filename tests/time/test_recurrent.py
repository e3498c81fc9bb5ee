"""Time: the loop and back-propagation through time, with a cell of two letters and with the LSTM; mutants of both passes."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from twofold.layers.check import Case, check, check_expression, noise
from twofold.layers.differentiable import differentiable
from twofold.time import cells, recurrent
from twofold.time.cells import Weights
from twofold.time.recurrent import Cell, add, over_time, unroll


class Decay(NamedTuple):
    """The weights of the smallest cell: s_t = x_t w_D + s_{t-1} v_D, D = U; `spare` is a weight that is absent."""

    w_D: Tensor
    v_D: Tensor
    spare: Tensor | None = None


DECAY = Cell(
    drive=lambda x, weights: x * weights.w_D,
    drive_back=lambda dd, x, weights: (dd * weights.w_D, Decay((dd * x).flatten(0, -2).sum(0), None)),
    step=lambda drive, state, weights: ((drive + state[0] * weights.v_D,), state[0]),
    step_back=lambda ds, before, weights: (ds[0], (ds[0] * weights.v_D,), Decay(None, (ds[0] * before).sum(0))),
    states=("s",),
)


def operation(cell, weights_of, module=recurrent):
    """The unrolled cell as an operation of (x, *state, *weights), by the loop of `module`."""
    count = len(cell.states)

    def forward(x, *rest):
        y, state, saved = module.unroll(cell, x, rest[:count], weights_of(*rest[count:]))
        return (y, *state), saved

    def backward(dy, saved):
        dx, dstate, dweights = module.unroll_back(cell, dy[0], tuple(dy[1:]), saved)
        return dx, *dstate, *dweights

    return differentiable(forward, backward)


def closed_form(x, s, w, v, spare):
    """s_T as a sum: v^T s_0 + sum_t v^(T-t) w x_t."""
    rows = [v ** (t + 1) * s + sum(v ** (t - k) * w * x[k] for k in range(t + 1)) for t in range(x.shape[0])]
    return torch.stack(rows), rows[-1]


def lstm_expression(x, h, c, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr):
    """A loop over joined weights: [x h] times [W_ih W_hh]."""
    y, U = [], c.shape[1]
    for t in range(x.shape[0]):
        a = torch.einsum("bk,gk->bg", torch.cat((x[t], h), 1), torch.cat((weight_ih, weight_hh), 1)) + bias_ih + bias_hh
        gates = a.unflatten(1, (4, U))
        i, f, o = (torch.exp(torch.nn.functional.logsigmoid(gates[:, k])) for k in (0, 1, 3))
        c = torch.addcmul(f * c, i, torch.tanh(gates[:, 2]))
        h = o * torch.tanh(c)
        h = h if weight_hr is None else torch.einsum("bu,ru->br", h, weight_hr)
        y.append(h)
    return torch.stack(y), h, c


def lstm_arguments(T, B, D, U, R=None):
    weights = (noise(4 * U, D, seed=4), noise(4 * U, R or U, seed=5), noise(4 * U, seed=6), noise(4 * U, seed=7))
    return noise(T, B, D, seed=1), noise(B, R or U, seed=2), noise(B, U, seed=3), *weights, R and noise(R, U, seed=8)


DECAY_ARGUMENTS = noise(4, 3, 2, seed=1), noise(3, 2, seed=2), noise(2, seed=3), noise(2, seed=4), None


def test_a_small_cell_has_the_values_and_gradients_of_its_closed_form():
    check(Case(operation(DECAY, Decay), DECAY_ARGUMENTS, closed_form, rows=False))


@pytest.mark.parametrize(("T", "B", "D", "U", "R"), [(3, 2, 3, 2, None), (1, 3, 2, 2, None), (4, 1, 1, 3, 2)])
def test_the_lstm_has_those_of_an_independent_loop(T, B, D, U, R):
    check(Case(operation(cells.LSTM, Weights), lstm_arguments(T, B, D, U, R), lstm_expression, rows=False, second_order=T == 3))


MUTANTS = {
    "dh of the later step dropped": ("(dstate[0] + dy_BU, *dstate[1:])", "(dy_BU, *dstate[1:])"),
    "dy dropped": ("(dstate[0] + dy_BU, *dstate[1:])", "(dstate[0], *dstate[1:])"),
    "dy twice": ("(dstate[0] + dy_BU,", "(dstate[0] + 2 * dy_BU,"),
    "the state's other tensors dropped": ("dy_BU, *dstate[1:])", "dy_BU, *(0 * d for d in dstate[1:]))"),
    "dW of the last step only": ("dweights = add(dweights, dweights_t)", "dweights = dweights_t"),
    "dW of the first step only": ("dweights = add(dweights, dweights_t)", "dweights = dweights_t if step is saved.steps[0] else dweights"),
    "dW of the drive dropped": ("dstate, add(dweights, dweights_drive)", "dstate, add(dweights, dweights)"),
    "drive's gradients in reverse": ("torch.stack(ddrive[::-1])", "torch.stack(ddrive)"),
    "dy read forwards": ("zip(reversed(dy_TBU.unbind())", "zip(dy_TBU.unbind()"),
    "steps read forwards": ("reversed(saved.steps), strict", "saved.steps, strict"),
    "truncated to one step": ("cell.step_back(dstate, step,", "cell.step_back((dy_BU, *(0 * d for d in dstate[1:])), step,"),
    "the state not carried": ("state, saved = cell.step(drive_BG, state, weights)", "_, saved = cell.step(drive_BG, state, weights)"),
    "x read in reverse": ("cell.drive(x_TBD, weights).unbind()", "cell.drive(x_TBD, weights).flip(0).unbind()"),
    "the output before the step": ("y.append(state[0])", "y.append(saved.h_before_BR)"),
    "the cell as the output": ("y.append(state[0])", "y.append(state[-1])"),
    "gradient of the initial state dropped": ("return dx_TBD, dstate, add(", "return dx_TBD, tuple(0 * d for d in dstate), add("),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, mutated):
    wrong = operation(cells.LSTM, Weights, mutated(recurrent, *MUTANTS[name]))
    with pytest.raises(AssertionError):
        check_expression(Case(wrong, lstm_arguments(3, 2, 3, 2), lstm_expression, rows=False))


def test_the_gates_of_every_step_can_be_read():
    x, h, c, *weights = (a if a is None else a.detach() for a in lstm_arguments(4, 2, 3, 2))
    y, (last_h, last_c), saved = unroll(cells.LSTM, x, (h, c), Weights(*weights))
    assert len(saved.steps) == 4
    for t, step in enumerate(saved.steps):
        assert torch.equal(step.c_BU, step.f_BU * step.c_before_BU + step.i_BU * step.g_BU)
        assert torch.equal(y[t], step.o_BU * step.c_BU.tanh())
        assert torch.equal(step.h_before_BR, y[t - 1] if t else h)
    assert torch.equal(last_h, y[-1]) and torch.equal(last_c, saved.steps[-1].c_BU)


def test_no_step_returns_the_initial_state_and_passes_its_gradient():
    x, h, c, *weights = lstm_arguments(0, 2, 3, 2)
    y, last_h, last_c = operation(cells.LSTM, Weights)(x, h, c, *weights)
    assert y.shape == (0, 2, 2)
    assert torch.equal(last_h, h) and torch.equal(last_c, c)
    gradients = torch.autograd.grad((2 * last_h + 3 * last_c).sum() + y.sum(), [x, h, c, *weights[:4]])
    assert gradients[0].shape == x.shape
    assert torch.equal(gradients[1], torch.full_like(h, 2)) and torch.equal(gradients[2], torch.full_like(c, 3))
    assert all(g.count_nonzero() == 0 for g in gradients[3:])


def test_gradients_vanish_or_explode_as_the_power_of_the_recurrent_weight():
    x, s, w = torch.zeros(50, 1, 2, dtype=torch.float64), noise(1, 2), noise(2)
    v = torch.tensor([0.5, 1.5], dtype=torch.float64, requires_grad=True)
    _, last = operation(DECAY, Decay)(x, s, w, v, None)
    (ds,) = torch.autograd.grad(last.sum(), s)
    assert torch.allclose(ds[0], v.detach() ** 50, rtol=1e-12)


def test_named_tuples_of_gradients_are_added_with_none_as_nothing():
    one = torch.ones(2)
    total = add(Decay(one, None), Decay(one, one))
    assert (total.w_D.tolist(), total.v_D.tolist(), total.spare) == ([2, 2], [1, 1], None)
    assert over_time([], one).shape == (0, 2)
