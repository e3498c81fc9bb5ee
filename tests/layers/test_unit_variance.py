"""Weights from data: the variance is 1 where it was not, by one division a layer, and nothing else is touched."""

import pytest
import torch
from torch import nn

from twofold.layers.initialize import initialize
from twofold.layers.unit_variance import scale_to_unit_variance


def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(128, 5))
    initialize(model, "orthogonal", bias=0.01)
    return model, 3 * torch.randn(16, 3, 8, 8)


def test_every_layer_gives_variance_one_and_has_only_been_divided():
    model, x = net()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    scaled = scale_to_unit_variance(model, lambda: model(x))
    assert [(line.layer, line.rounds) for line in scaled] == [("0", 1), ("2", 1), ("6", 1)]
    model.eval()
    for place, line in zip((0, 2, 6), scaled, strict=True):
        y = model[: place + 1](x)
        assert y.var(correction=0).item() == pytest.approx(1, rel=1e-4) and line.after == pytest.approx(1, rel=1e-4)
        ratio = before[f"{place}.weight"] / model[place].weight
        assert torch.allclose(ratio, torch.full_like(ratio, line.before**0.5), rtol=1e-4)
        assert torch.equal(model[place].bias, before[f"{place}.bias"])


def test_the_model_keeps_its_mode_and_loses_the_hooks():
    model, x = net()
    scale_to_unit_variance(model, lambda: model(x))
    assert model.training and not any(part._forward_hooks for part in model.modules())
    after = model[0].weight.clone()
    model(x)
    assert torch.equal(model[0].weight, after)


class Curved(nn.Module):
    """An output that is no multiple of the weight: Var[sqrt|w x|] goes with |w|, not w^2."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 1), 50.0))

    def forward(self, x):
        return (self.weight * x).abs().sqrt()


def test_rounds_are_bounded_and_go_on_to_the_tolerance():
    x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
    for most in (1, 3, 20):
        model = Curved()
        (line,) = scale_to_unit_variance(model, lambda model=model: model(x), most=most)
        assert line.rounds == min(most, 8)
        assert (abs(line.after - 1) <= 0.01) is (most == 20)


def test_a_weight_used_twice_is_scaled_once_and_tables_not_at_all():
    model = nn.Sequential(nn.Embedding(20, 6), nn.Linear(6, 6, bias=False), nn.Tanh(), nn.Linear(6, 6, bias=False), nn.Linear(6, 20))
    model[3].weight, model[4].weight = model[1].weight, model[0].weight
    table = model[0].weight.clone()
    scaled = scale_to_unit_variance(model, lambda: model(torch.arange(20)))
    assert [line.layer for line in scaled] == ["1"] and torch.equal(model[0].weight, table)


def test_frozen_weights_stay():
    model, x = net()
    model[0].weight.requires_grad_(False)
    assert [line.layer for line in scale_to_unit_variance(model, lambda: model(x))] == ["2", "6"]


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (nn.Sequential(nn.Linear(3, 2)), torch.ones(4, 3), "the output of 0 has variance 0.0 on the first batch"),
        (nn.Sequential(nn.Linear(3, 2)), torch.full((4, 3), float("nan")), "the output of 0 has variance nan on the first batch"),
        (nn.ReLU(), torch.ones(4, 3), "unit variance: ReLU has no layer whose output a weight of its own scales"),
    ],
)
def test_bad_input(model, x, message):
    initialize(model, "constant", value=1.0)
    with pytest.raises(ValueError) as error:
        scale_to_unit_variance(model, lambda: model(x))
    assert message in str(error.value)
