"""What all cells have in common as modules: single rows, copies, transforms, precision; and one test for each message."""

import copy
import pickle

import numpy as np
import pytest
import torch

import twofold
from twofold.layers.check import noise
from twofold.time.cells import GRUCell, LSTMCell, RNNCell

CELLS = {
    "RNNCell": lambda **options: RNNCell(3, 4, **options),
    "RNNCell, layer norm": lambda **options: RNNCell(3, 4, nonlinearity="relu", layer_norm=True, **options),
    "GRUCell": lambda **options: GRUCell(3, 4, **options),
    "GRUCell, reset before": lambda **options: GRUCell(3, 4, reset="before", layer_norm=True, **options),
    "LSTMCell": lambda **options: LSTMCell(3, 4, **options),
    "LSTMCell, all options": lambda **options: LSTMCell(3, 4, peephole=True, coupled=True, layer_norm=True, **options),
}
EVERY_CELL = pytest.mark.parametrize("name", CELLS)


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def given(name, *shape, **kind):
    """A state for the cell."""
    values = tuple(noise(*shape, 4, seed=seed, grad=False).to(**kind) for seed in (5, 6)[: 1 + name.startswith("LSTM")])
    return values if len(values) > 1 else values[0]


@EVERY_CELL
def test_no_state_is_zeros_and_a_single_row_is_a_batch_of_one(name):
    cell, x = CELLS[name]().double(), noise(3, seed=1, grad=False)
    zeros = torch.zeros(1, 4, dtype=torch.float64)
    batch = cell(x[None], (zeros, zeros) if name.startswith("LSTM") else zeros)
    for row, whole in zip(parts(cell(x)), parts(batch), strict=True):
        assert row.shape == (4,) and torch.allclose(row, whole[0], rtol=1e-12)
    state = given(name)
    whole = cell(x[None], tuple(s[None] for s in state) if isinstance(state, tuple) else state[None])
    assert all(torch.allclose(a, b[0], rtol=1e-12) for a, b in zip(parts(cell(x, state)), parts(whole), strict=True))


@EVERY_CELL
def test_the_cell_and_its_weights_are_those_of_the_module(name):
    cell = CELLS[name]().double()
    x, state = noise(2, 3, seed=1, grad=False), given(name, 2)
    weights = cell.weights()
    assert type(weights) is cell.cell.weights
    assert [w.data_ptr() for w in weights if w is not None] == [p.data_ptr() for _, p in sorted(
        cell.named_parameters(), key=lambda item: weights._fields.index(item[0]))]  # fmt: skip
    assert cell.weight_hh.shape == (cell.cell.gates * 4, 4)
    after, _ = cell.cell.step(cell.cell.drive(x, weights), parts(state), weights, None)
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(after, parts(cell(x, state)), strict=True))


@EVERY_CELL
def test_copies_and_state_dicts_keep_the_options(name):
    cell, x = CELLS[name](), noise(2, 3, dtype=torch.float32, grad=False)
    restored = CELLS[name]()
    restored.load_state_dict(cell.state_dict())
    for other in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell)), restored):  # noqa: S301 (our own)
        assert repr(other) == repr(cell)
        assert all(torch.equal(a, b) for a, b in zip(parts(other(x)), parts(cell(x)), strict=True))


@EVERY_CELL
def test_function_transforms_see_through_the_plain_form(name):
    cell, x, state = CELLS[name]().double(), noise(5, 3, seed=1, grad=False), given(name, 5)
    with twofold.route("plain"):
        outputs = torch.vmap(lambda x, s: parts(cell(x, s)))(x, state)
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(outputs, parts(cell(x, state)), strict=True))


@EVERY_CELL
def test_bias_can_be_absent_and_the_device_and_dtype_chosen(name):
    cell = CELLS[name](bias=False, dtype=torch.float64, device="meta")
    assert cell.bias_ih is None and cell.bias_hh is None and not any(key.startswith("bias") for key in cell.state_dict())
    assert all(p.dtype == torch.float64 and p.is_meta for p in cell.parameters())


@EVERY_CELL
def test_bfloat16_is_near_the_truth(name):
    cell, x = CELLS[name](), noise(5, 3, dtype=torch.float32, grad=False)
    truth = parts(cell(x, given(name, 5, dtype=torch.float32)))
    with twofold.route("plain"):
        got = parts(cell.bfloat16()(x.bfloat16(), given(name, 5, dtype=torch.bfloat16)))
    for a, b in zip(got, truth, strict=True):
        assert a.dtype == torch.bfloat16 and torch.allclose(a.float(), b, atol=0.1)


@EVERY_CELL
def test_autocast_computes_in_the_wider_precision(name):
    cell, x, state = CELLS[name](), noise(5, 3, dtype=torch.float32, grad=False), given(name, 5, dtype=torch.float32)
    with twofold.route("plain"):
        truth = parts(cell(x.bfloat16().float(), state))
        with torch.autocast("cpu", torch.bfloat16):
            got = parts(cell(x.bfloat16(), state))
    assert all(a.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(got, truth, strict=True))


def zeros(*shape, **kind):
    return torch.zeros(shape, **kind)


BAD = {
    "features": (lambda: LSTMCell(3, 4)(zeros(2, 5)), "LSTMCell input: expected (B, D=3), got (2, 5): D is 5, not 3."),
    "features of a row": (lambda: GRUCell(3, 4)(zeros(5)), "GRUCell input: expected (D=3), got (5,): D is 5, not 3."),
    "sequence": (
        lambda: RNNCell(3, 4)(zeros(7, 2, 3)),
        "RNNCell input: expected (B, D=3), got (7, 2, 3): 3 axes, not 2. A sequence? RNNCell takes one step: loop over x[t], or use RNN.",
    ),
    "tokens": (lambda: LSTMCell(3, 4)(zeros(2, 3, dtype=torch.int64)), "Put an Embedding in front"),
    "numpy": (lambda: LSTMCell(3, 4)(np.zeros((2, 3))), "LSTMCell input: expected a torch tensor, got numpy.ndarray."),
    "dtype": (lambda: GRUCell(3, 4)(zeros(2, 3).double()), "GRUCell input: expected float32, the dtype of the weights, got float64."),
    "device": (lambda: RNNCell(3, 4)(zeros(2, 3, device="meta")), "RNNCell input: expected device cpu, where the weights are, got meta."),
    "one state for two": (
        lambda: LSTMCell(3, 4)(zeros(2, 3), zeros(2, 4)),
        "LSTMCell state: expected 2 tensors (h, c), got one tensor (2, 4). It carries both from step to step: pass the pair (h, c)",
    ),
    "a pair for one": (
        lambda: RNNCell(3, 4)(zeros(2, 3), (zeros(2, 4), zeros(2, 4))),
        "RNNCell state: expected one tensor h, got tuple. Only an LSTM's state is a pair; pass nothing for zeros.",
    ),
    "an array for one": (
        lambda: GRUCell(3, 4)(zeros(2, 3), np.zeros((2, 4))),
        "GRUCell state: expected one tensor h, got numpy.ndarray. Convert it with torch.as_tensor(...); pass nothing for zeros.",
    ),
    "state units": (
        lambda: LSTMCell(3, 4)(zeros(2, 3), (zeros(2, 4), zeros(2, 5))),
        "LSTMCell state c: expected (B=2, U=4), got (2, 5): U is 5, not 4.",
    ),
    "state rows": (
        lambda: GRUCell(3, 4)(zeros(2, 3), zeros(6, 4)),
        "GRUCell state h: expected (B=2, U=4), got (6, 4): B is 6, not 2. Carried over from a batch of another size?",
    ),
    "state of a single row": (
        lambda: LSTMCell(3, 4)(zeros(3), (zeros(1, 4), zeros(1, 4))),
        "LSTMCell state h: expected (U=4), got (1, 4): 2 axes, not 1.",
    ),
    "state dtype": (
        lambda: LSTMCell(3, 4)(zeros(2, 3), (zeros(2, 4), zeros(2, 4).double())),
        "LSTMCell state c: expected float32, the dtype of the weights, got float64.",
    ),
    "no units": (lambda: LSTMCell(3, 0), "LSTMCell: expected hidden_size to be a whole number of at least 1, got 0."),
    "half a feature": (lambda: GRUCell(2.5, 4), "GRUCell: expected input_size to be a whole number of at least 1, got 2.5."),
    "too many weights": (
        lambda: GRUCell(3, 2**40),
        "GRUCell: expected at most 2147483647 weights in a matrix, got 3 * 1099511627776 * 3. Too many for any memory.",
    ),
    "too many recurrent weights": (
        lambda: RNNCell(3, 2**20),
        "RNNCell: expected at most 2147483647 weights in a matrix, got 1048576 * 1048576. Too many for any memory.",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
