"""What recurrent layers expect: one message, one test."""

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from twofold.time.lstm import LSTM


def zeros(*shape, **options):
    return torch.zeros(shape, **options)


def pair(*shape):
    return zeros(*shape), zeros(*shape)


BAD = {
    "features": (
        lambda: LSTM(3, 4)(zeros(7, 2, 5)),
        "LSTM input: expected (T, B, D=3), got (7, 2, 5): D is 5, not 3.",
    ),
    "features of a batch": (lambda: LSTM(3, 4, batch_first=True)(zeros(2, 7, 5)), "LSTM input: expected (B, T, D=3), got (2, 7, 5)"),
    "features of a row": (lambda: LSTM(3, 4)(zeros(7, 5)), "LSTM input: expected (T, D=3), got (7, 5): D is 5, not 3."),
    "features in the middle": (
        lambda: LSTM(3, 4)(zeros(2, 3, 7)),
        "D is 7, not 3. Features on axis 1? Move them last: x.transpose(1, 2).",
    ),
    "a series without its axis": (
        lambda: LSTM(1, 4)(zeros(32, 100)),
        "D is 100, not 1. One number a step? Give it an axis of its own: x.unsqueeze(-1).",
    ),
    "images": (
        lambda: LSTM(3, 4)(zeros(7, 2, 3, 5)),
        "LSTM input: expected (T, B, D=3), got (7, 2, 3, 5): 4 axes, not 3. "
        "Images over time? Make one axis of their features: x.flatten(2).",
    ),
    "vector": (lambda: LSTM(3, 4)(zeros(3)), "LSTM input: expected (T, B, D=3), got (3,): 1 axes, not 3."),
    "tokens": (
        lambda: LSTM(3, 4)(zeros(7, 2, dtype=torch.int64)),
        "LSTM input: expected floating point, got int64. Token numbers? Put an Embedding in front",
    ),
    "numpy": (lambda: LSTM(3, 4)(np.zeros((7, 2, 3))), "LSTM input: expected a torch tensor, got numpy.ndarray."),
    "dtype": (lambda: LSTM(3, 4)(zeros(7, 2, 3).double()), "LSTM input: expected float32, the dtype of the weights, got float64."),
    "device": (lambda: LSTM(3, 4)(zeros(7, 2, 3, device="meta")), "LSTM input: expected device cpu, where the weights are, got meta."),
    "one state tensor": (
        lambda: LSTM(3, 4)(zeros(7, 2, 3), zeros(1, 2, 4)),
        "LSTM state: expected 2 tensors (h, c), got one tensor (1, 2, 4). It carries both from step to step: "
        "pass the pair (h, c), or nothing for zeros.",
    ),
    "state of one": (lambda: LSTM(3, 4)(zeros(7, 2, 3), (zeros(1, 2, 4),)), "LSTM state: expected 2 tensors (h, c), got 1 things."),
    "state in a dict": (lambda: LSTM(3, 4)(zeros(7, 2, 3), {"h": 0}), "LSTM state: expected 2 tensors (h, c), got dict."),
    "state of arrays": (
        lambda: LSTM(3, 4)(zeros(7, 2, 3), (np.zeros((1, 2, 4)), zeros(1, 2, 4))),
        "LSTM state h: expected a torch tensor, got numpy.ndarray.",
    ),
    "state layers": (
        lambda: LSTM(3, 4, 2)(zeros(7, 2, 3), pair(3, 2, 4)),
        "LSTM state h: expected (L=2, B=2, U=4), got (3, 2, 4): L is 3, not 2.",
    ),
    "state directions": (
        lambda: LSTM(3, 4, 3, bidirectional=True)(zeros(7, 2, 3), pair(3, 2, 4)),
        "LSTM state h: expected (2L=6, B=2, U=4), got (3, 2, 4): 2L is 3, not 6. Two directions keep two states a layer.",
    ),
    "state units": (
        lambda: LSTM(3, 4, proj_size=2)(zeros(7, 2, 3), (zeros(1, 2, 2), zeros(1, 2, 2))),
        "LSTM state c: expected (L=1, B=2, U=4), got (1, 2, 2): U is 2, not 4.",
    ),
    "state rows": (
        lambda: LSTM(3, 4)(zeros(7, 2, 3), pair(1, 5, 4)),
        "B is 5, not 2. Carried over from a batch of another size? Start the odd batch from zeros, or leave it out.",
    ),
    "batch first given to time first": (
        lambda: LSTM(3, 4)(zeros(2, 7, 3), pair(1, 2, 4)),
        "LSTM state h: expected (L=1, B=7, U=4), got (1, 2, 4): B is 2, not 7. Rows as many as the input's steps: "
        "is the input (B, T, D)? Build the layer with batch_first=True.",
    ),
    "time first given to batch first": (
        lambda: LSTM(3, 4, batch_first=True)(zeros(7, 2, 3), pair(1, 2, 4)),
        "is the input (T, B, D)? Build the layer with batch_first=False.",
    ),
    "state batch first": (
        lambda: LSTM(3, 4, 2, batch_first=True)(zeros(5, 7, 3), pair(5, 2, 4)),
        "A state has its layers first, whatever batch_first says: transpose(0, 1).",
    ),
    "state of a batch for a row": (
        lambda: LSTM(3, 4)(zeros(7, 3), pair(1, 1, 4)),
        "LSTM state h: expected (L=1, U=4), got (1, 1, 4): 3 axes, not 2. A state has as many axes as its input.",
    ),
    "state dtype": (
        lambda: LSTM(3, 4)(zeros(7, 2, 3), (zeros(1, 2, 4), zeros(1, 2, 4).double())),
        "LSTM state c: expected float32, the dtype of the weights, got float64.",
    ),
    "packed features": (
        lambda: LSTM(3, 4)(pack_padded_sequence(zeros(7, 2, 5), [7, 3])),
        "LSTM input (packed): expected (steps, D=3), got (10, 5): D is 5, not 3.",
    ),
    "packed state": (
        lambda: LSTM(3, 4)(pack_padded_sequence(zeros(7, 2, 3), [7, 3]), pair(1, 3, 4)),
        "LSTM state h: expected (L=1, B=2, U=4), got (1, 3, 4): B is 3, not 2.",
    ),
    "hidden size": (lambda: LSTM(3, 0), "LSTM: expected hidden_size to be a whole number of at least 1, got 0."),
    "layers": (lambda: LSTM(3, 4, -1), "LSTM: expected num_layers to be a whole number of at least 1, got -1."),
    "dropout among the switches": (
        lambda: LSTM(3, 4, 2, 0.5),
        "LSTM: expected bias to be True or False, got 0.5. Dropout? Name it: dropout=0.5.",
    ),
    "switch": (lambda: LSTM(3, 4, batch_first="yes"), "LSTM: expected batch_first to be True or False, got 'yes'."),
    "dropout": (lambda: LSTM(3, 4, 2, dropout=1.5), "LSTM: expected dropout to be a probability from 0 to 1, got 1.5."),
    "projection": (
        lambda: LSTM(3, 4, proj_size=4),
        "LSTM: expected proj_size to be a whole number from 0 (none) to hidden_size - 1 = 3, got 4.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
