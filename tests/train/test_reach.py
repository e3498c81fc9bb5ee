"""The reach of the gradient: a known recurrence by hand, autograd over the whole, documents, and no trace of the measurement."""

import math

import pytest
import torch

from twofold import nn
from twofold.models.language import LanguageConfig, LanguageModel
from twofold.tasks.language import Window
from twofold.time.recurrent import gradient_norms
from twofold.train.reach import ReachRecord, reach

V, T, B = 5, 6, 2
X = torch.randint(V, (T, B), generator=torch.Generator().manual_seed(1))
WINDOW = Window(X, X.roll(-1, 0), False)


class Decay(torch.nn.Module):
    """s_t = w s_{t-1} + x_t, y_t = s_t: the gradient is multiplied by w at every step back."""

    def __init__(self, w):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(w))

    def forward(self, x, state=None):
        state = x.new_zeros(x.shape[1], 1) if state is None else state
        y = []
        for x_t in x:
            state = self.w * state + x_t
            y.append(state)
        return (torch.stack(y) if y else x), state


@pytest.mark.parametrize("w", [0.5, 1.0, 2.0])
def test_of_a_linear_recurrence_it_is_a_power(w):
    assert reach(Decay(w), torch.randn(4, 3, 1), torch.sum) == [w**k for k in (1, 2, 3, 4)]
    starts = torch.zeros(4, 3, dtype=torch.bool)
    starts[2, :2] = True  # two of three rows begin anew before step 2: their gradient ends there
    wanted = [w, *(w**k * math.sqrt(1 / 3) for k in (2, 3, 4))]
    assert reach(Decay(w), torch.randn(4, 3, 1), torch.sum, starts_TB=starts) == pytest.approx(wanted)


def test_of_a_layer_it_is_what_gradient_norms_says():
    torch.manual_seed(0)
    layer, x = nn.LSTM(3, 4, 1, dtype=torch.float64), torch.randn(T, 1, 3, dtype=torch.float64)
    assert reach(layer, x, torch.sum) == pytest.approx(gradient_norms(layer, x).tolist()[-2::-1])


def test_a_row_is_recorded_every_so_often_and_nothing_is_changed():
    torch.manual_seed(0)
    model = LanguageModel(LanguageConfig(V, 4, 5, 2, dropout=0.5)).train()
    model.dropout.eval()
    state = tuple(part.detach() for part in model(X)[1])
    before, random = {name: x.clone() for name, x in model.state_dict().items()}, torch.get_rng_state()
    record = ReachRecord(10)
    row = record.row(20, model, WINDOW, state)
    assert record.row(21, model, WINDOW, state) is None and ReachRecord(0).row(0, model, WINDOW, state) is None
    assert row["step"] == 20 and len(row["reach"]) == T and all(norm > 0 for norm in row["reach"])
    assert torch.equal(random, torch.get_rng_state()) and all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert model.training and model.lstm.training and not model.dropout.training and all(w.grad is None for w in model.parameters())
    assert record.row(30, model, WINDOW._replace(fresh=True), "never read")["reach"] != row["reach"]  # from the model's own start


def test_a_norm_that_is_no_number_is_none_in_the_row():
    model = LanguageModel(LanguageConfig(V, 4, 5))
    torch.nn.init.constant_(model.head.bias, math.nan)
    assert ReachRecord(1).row(3, model, WINDOW._replace(fresh=True), None)["reach"] == [None] * T
