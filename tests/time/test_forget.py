"""The forget gate's bias at the start."""

import pytest
import torch
from torch import nn as torch_nn

from twofold.time.cells import LSTMCell
from twofold.time.lstm import LSTM


def test_the_two_biases_of_every_forget_gate_add_up():
    layer = LSTM(3, 4, 2, bidirectional=True, forget_bias=1.5)
    for suffix in ("l0", "l0_reverse", "l1", "l1_reverse"):
        total = getattr(layer, f"bias_ih_{suffix}") + getattr(layer, f"bias_hh_{suffix}")
        assert total[4:8].tolist() == [1.5] * 4
        assert all(value != 1.5 for value in (*total[:4].tolist(), *total[8:].tolist()))


def test_the_rest_starts_as_torch_starts():
    torch.manual_seed(3)
    ours = LSTM(3, 4, forget_bias=1.0)
    torch.manual_seed(3)
    theirs = torch_nn.LSTM(3, 4)
    assert torch.equal(ours.weight_ih_l0, theirs.weight_ih_l0) and torch.equal(ours.weight_hh_l0, theirs.weight_hh_l0)
    assert torch.equal(ours.bias_ih_l0[:4], theirs.bias_ih_l0[:4]) and torch.equal(ours.bias_hh_l0[8:], theirs.bias_hh_l0[8:])


def test_it_is_shown_and_set_again_at_reset():
    for layer in (LSTM(3, 4, forget_bias=1), LSTMCell(3, 4, forget_bias=1)):
        assert repr(layer) == f"{type(layer).__name__}(3, 4, forget_bias=1.0)"
        bias_ih, bias_hh = (bias for name, bias in layer.named_parameters() if name.startswith("bias"))
        with torch.no_grad():
            bias_ih.fill_(9)
        layer.reset_parameters()
        assert (bias_ih + bias_hh)[4:8].tolist() == [1.0] * 4


BAD = {
    "no bias": (
        lambda: LSTM(3, 4, bias=False, forget_bias=1.0),
        "LSTM: expected bias=True with forget_bias=1.0, got bias=False: there is no bias to set.",
    ),
    "nan": (lambda: LSTM(3, 4, forget_bias=float("nan")), "LSTM: expected forget_bias to be a finite number or None, got nan."),
    "switch": (lambda: LSTMCell(3, 4, forget_bias=True), "LSTMCell: expected forget_bias to be a finite number or None, got True."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
