"""The first weights of a run: what the settings say stands in the model, and what cannot learn is refused before the first step."""

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from twofold import nn
from twofold.train.initialising import Initialisation, initialise


def loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x)[-1], y)


def batches():
    """One batch is all that may be asked for."""
    yield 3 * torch.randn(5, 16, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 4
    raise AssertionError("a second batch was asked for")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.layer, self.head = nn.Linear(8, 6), nn.LSTM(6, 7, forget_bias=1.0), nn.Linear(7, 4)

    def forward(self, x):
        return self.head(self.layer(self.first(x))[0])


def initialised(**settings):
    torch.manual_seed(0)
    model = Net()
    initialise(model, Initialisation(**settings), batches(), loss)
    return model


def same(a, b):
    return {name for name, values in a.state_dict().items() if torch.equal(values, b.state_dict()[name])}


def forget(model):
    return model.layer.bias_ih_l0[7:14].tolist(), model.layer.bias_hh_l0[7:14].tolist()


def test_without_a_setting_the_model_stays_as_it_is_built_and_torchs_generator_where_it_was():
    torch.manual_seed(0)
    model, state = Net(), torch.get_rng_state()
    assert same(initialised(), model) == set(model.state_dict()) and torch.equal(torch.get_rng_state(), state)


def test_biases_alone():
    built, model = initialised(), initialised(init_bias=0.01)
    assert same(built, model) == {"first.weight", "head.weight", "layer.weight_ih_l0", "layer.weight_hh_l0"}
    assert model.first.bias.tolist() == pytest.approx([0.01] * 6) and forget(model) == ([1.0] * 7, [0.0] * 7)
    model = initialised(forget_bias=2.0)
    assert forget(model) == ([2.0] * 7, [0.0] * 7)
    assert same(built, model) == set(built.state_dict()) - {"layer.bias_ih_l0"}


def test_a_scheme_and_its_biases():
    model = initialised(init="uniform(0.5, 0.6)", forget_bias=1.5)
    assert model.first.weight.min() >= 0.5 and model.layer.weight_hh_l0.min() >= 0.5
    assert model.first.bias.tolist() == [0.0] * 6 and forget(model)[0] == [1.5] * 7
    assert same(model, initialised(init="uniform(0.5, 0.6)", forget_bias=1.5)) == set(model.state_dict())


def test_from_data_by_the_first_batch():
    model = initialised(init="data", init_bias=0.01)
    x, _ = next(batches())
    assert model.first(x).var(correction=0).item() == pytest.approx(1, rel=1e-4) and (model.first.bias == 0.01).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "zeros"}, "init: 'zeros' makes all weights of a layer alike"),
        ({"init": "hee"}, 'Did you mean "he"?'),
        ({"init_bias": float("nan")}, "finite number"),
        ({"forget_bias": float("inf")}, "finite number"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValidationError) as error:
        Initialisation(**settings)
    assert message in str(error.value)


def test_a_forget_bias_needs_a_forget_gate():
    with pytest.raises(ValueError, match=r"forget_bias=1\.0, but Linear has no LSTM"):
        initialise(nn.Linear(8, 4), Initialisation(forget_bias=1.0), batches(), loss)


def test_zeros_are_refused_whatever_the_settings():
    model = Net()
    for values in model.parameters():
        torch.nn.init.zeros_(values)
    with pytest.raises(ValueError, match=r"all weights of Net are 0: every unit would compute the same.*\(symmetry\)"):
        initialise(model, Initialisation(), batches(), loss)
    initialise(model, Initialisation(init="he"), batches(), loss)


def test_a_constant_is_refused_by_the_first_batch_alone():
    model = Net()
    for values in model.parameters():
        torch.nn.init.constant_(values, 0.1)
    with pytest.raises(ValueError, match=r"the units of first \(Linear\), layer \(LSTM\) are all alike"):
        initialise(model, Initialisation(), batches(), loss)
