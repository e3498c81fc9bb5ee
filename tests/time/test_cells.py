"""The table of all cells, and what holds for each of them."""

import pytest
import torch

from twofold.layers.check import noise
from twofold.time import cells
from twofold.time.cells import CELLS

EVERY_CELL = pytest.mark.parametrize("name", CELLS)


def weights_of(cell, D, U):
    """All weights that the cell can have, without the projection."""
    G, found = cell.gates * U, {}
    for seed, name in enumerate(cell.weights._fields):
        shape = {"weight_ih": (G, D), "weight_hh": (G, U), "peephole": (G - U,), "norm_c": (U,), "norm_c_bias": (U,)}.get(name, (G,))
        if name != "weight_hr":
            found[name] = noise(*shape, seed=seed, grad=False)
    return cell.weights(**found)


def test_the_table_holds_every_cell_once():
    assert list(CELLS) == ["rnn_tanh", "rnn_relu", "gru", "gru_reset_before", "lstm", "lstm_coupled", "min_gru", "min_lstm"]
    assert len(set(CELLS.values())) == len(CELLS)
    assert [cell.gates for cell in CELLS.values()] == [1, 1, 3, 3, 4, 3, 2, 3]
    assert [len(cell.states) for cell in CELLS.values()] == [1, 1, 1, 1, 2, 2, 1, 1]
    assert cells.LSTM is CELLS["lstm"] and cells.Weights is CELLS["lstm"].weights


@EVERY_CELL
def test_the_drive_of_all_steps_is_that_of_each_and_its_gradients_add_up(name):
    cell = CELLS[name]
    weights, x_TBD, d_TBG = weights_of(cell, 3, 4), noise(5, 2, 3, seed=50, grad=False), noise(5, 2, cell.gates * 4, seed=51, grad=False)
    assert torch.allclose(cell.drive(x_TBD, weights), torch.stack([cell.drive(x, weights) for x in x_TBD]), rtol=1e-12)
    dx_TBD, dweights = cell.drive_back(d_TBG, x_TBD, weights)
    alone = [cell.drive_back(d, x, weights) for d, x in zip(d_TBG, x_TBD, strict=True)]
    assert torch.allclose(dx_TBD, torch.stack([dx for dx, _ in alone]), rtol=1e-12)
    for field, gradient in dweights._asdict().items():
        if gradient is not None:
            assert torch.allclose(gradient, sum(getattr(part, field) for _, part in alone), rtol=1e-10), field


@EVERY_CELL
def test_every_weight_has_its_gradient_from_the_drive_or_from_the_step_and_from_one_of_them_alone(name):
    cell = CELLS[name]
    weights, x_BD = weights_of(cell, 3, 4), noise(2, 3, seed=50, grad=False)
    state = tuple(noise(2, 4, seed=60 + place, grad=False) for place in range(len(cell.states)))
    after, saved = cell.step(cell.drive(x_BD, weights), state, weights, None)
    ddrive, dbefore, from_step = cell.step_back(tuple(map(torch.ones_like, after)), saved, weights, None)
    _, from_drive = cell.drive_back(ddrive, x_BD, weights)
    for field, weight, one, other in zip(weights._fields, weights, from_step, from_drive, strict=True):
        got = [gradient for gradient in (one, other) if gradient is not None]
        assert len(got) == (weight is not None), field
        assert not got or got[0].shape == weight.shape
    assert [d.shape for d in dbefore] == [s.shape for s in state]


@EVERY_CELL
def test_a_mask_of_ones_is_no_mask_and_one_of_zeros_hides_the_state_from_the_products(name):
    cell = CELLS[name]
    weights, drive = weights_of(cell, 3, 4), noise(2, cell.gates * 4, seed=50, grad=False)
    state = tuple(noise(2, 4, seed=60 + place, grad=False) for place in range(len(cell.states)))
    bare, ones = (cell.step(drive, state, weights, mask)[0] for mask in (None, torch.ones_like(state[0])))
    assert all(torch.equal(a, b) for a, b in zip(bare, ones, strict=True))
    if "weight_hh" in weights._fields:
        hidden, empty = (cell.step(drive, state, w, m)[0] for w, m in (
            (weights, torch.zeros_like(state[0])), (weights._replace(weight_hh=torch.zeros_like(weights.weight_hh)), None)))  # fmt: skip
        assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(hidden, empty, strict=True))


@EVERY_CELL
def test_gates_that_are_far_away_stay_finite(name):
    cell = CELLS[name]
    weights = weights_of(cell, 3, 4)
    state = tuple(noise(2, 4, seed=60 + place, grad=False) for place in range(len(cell.states)))
    for far in (1e3, -1e3, 1e30, -1e30):
        drive = far * (1 + noise(2, cell.gates * 4, seed=50, grad=False).abs())
        after, saved = cell.step(drive, state, weights, None)
        back = cell.step_back(tuple(map(torch.ones_like, after)), saved, weights, None)
        assert all(value.isfinite().all() for value in (*after, back[0], *back[1], *(w for w in back[2] if w is not None)))
