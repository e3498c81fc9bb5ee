"""Penalties: gradients by autograd of what is written and by the law, who is chosen, the largest norm, and dropout everywhere."""

import re

import pytest
import torch

from twofold import nn
from twofold.train.penalties import Penalties, Regularisation, choose, set_dropout


def build():
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ConvTranspose2d(2, 4, 2, groups=2))
    layers = {"features": features, "lstm": nn.LSTM(3, 4), "head": nn.Linear(4, 2)}
    return nn.ModuleDict(layers).double()


def penalty(weights, l1, l2):
    return sum(l1 * w.abs().sum() + l2 / 2 * w.square().sum() for w in weights)


@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.7), (0.3, 0.7), (0.0, 0.0)])
@pytest.mark.parametrize("patterns", [(), ("lstm", "head.bias")])
def test_what_is_added_is_the_gradient_of_the_penalty(l1, l2, patterns):
    model = build()
    with torch.no_grad():
        model["head"].weight[0, 0] = model["lstm"].weight_ih_l0[0, 0] = 0.0
    settings = Regularisation(l1=l1, l2=l2, penalise=patterns if l1 or l2 else ())
    penalties = Penalties(model, settings)
    chosen = [w for name, w in model.named_parameters() if name in penalties.chosen]
    for w in model.parameters():
        w.grad = torch.ones_like(w)
    model["head"].weight.grad = None  # what the loss does not reach is penalised all the same
    before = {name: 0 if w.grad is None else 1 for name, w in model.named_parameters()}
    penalties.add()
    value = penalty(chosen, l1, l2)
    expected = torch.autograd.grad(value, chosen) if l1 or l2 else [torch.zeros_like(w) for w in chosen]
    added = dict(zip(penalties.chosen, expected, strict=True))
    for name, w in model.named_parameters():
        gradient = torch.zeros_like(w) if w.grad is None else w.grad
        torch.testing.assert_close(gradient, before[name] + added.get(name, torch.zeros_like(w)))
        torch.testing.assert_close(gradient, before[name] + (name in added) * (l1 * w.detach().sign() + l2 * w.detach()))
    assert penalties.value() == pytest.approx(float(torch.as_tensor(value).detach()))


def test_frozen_weights_get_no_gradient():
    model = build()
    model["lstm"].requires_grad_(False)
    Penalties(model, Regularisation(l1=1.0)).add()
    assert model["lstm"].weight_hh_l0.grad is None and model["head"].weight.grad is not None


MATRICES = ["features.0.weight", "features.2.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "head.weight"]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ((), MATRICES),
        (("*",), MATRICES),
        (("lstm", "features.0"), ["features.0.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"]),
        (("features.*",), MATRICES[:2]),
        (("features",), MATRICES[:2]),
        (("head.*",), ["head.weight", "head.bias"]),
        (("lstm.weight_hh_l?",), ["lstm.weight_hh_l0"]),
        (("*.bias",), ["features.0.bias", "features.1.bias", "features.2.bias", "head.bias"]),
    ],
)
def test_patterns_choose_the_matrices_of_layers_else_tensors(patterns, names):
    assert list(choose(build(), patterns)) == names


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("haed", "'haed', which fits none that has weights. Near: head"),
        ("features.1", "Near: features.2, features.0"),
        ("zzz*", "Near: features, "),
    ],
)
def test_a_pattern_that_fits_nothing_is_refused_with_near_names(pattern, near):
    with pytest.raises(ValueError, match=re.escape("penalise: expected names of the model's layers or weights, got ")) as error:
        Penalties(build(), Regularisation(l1=1.0, penalise=(pattern,)))
    assert near in str(error.value)


def test_names_without_a_penalty_contradict_themselves():
    message = "penalise=lstm, head chooses weights, but l1, l2 and max_norm are 0. Set one, or leave penalise out."
    with pytest.raises(ValueError, match=re.escape(message)):
        Regularisation(penalise=("lstm", "head"))


def test_the_weights_of_every_unit_are_brought_back_to_the_largest_norm():
    model, before = build(), build()
    Penalties(model, Regularisation(max_norm=0.4)).constrain()
    old = dict(before.named_parameters())
    for name, w in model.named_parameters():
        if name not in MATRICES:
            assert torch.equal(w, old[name])
        elif name != "features.2.weight":
            torch.testing.assert_close(w.detach(), torch.renorm(old[name].detach(), 2, 0, 0.4), rtol=1e-5, atol=0)  # it adds 1e-7
            rows = zip(w.flatten(1), old[name].flatten(1), strict=True)
            assert all(new.norm() <= 0.4 + 1e-12 and (new.norm() > 0.4 - 1e-12 or torch.equal(new, row)) for new, row in rows)
            assert not torch.equal(w, old[name])


def test_a_unit_of_a_transposed_convolution_is_a_column_of_its_group():
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, groups=2)).double()
    with torch.no_grad():
        model[0].weight.mul_(10)
    old = model[0].weight.detach().clone()
    Penalties(model, Regularisation(max_norm=1.0)).constrain()
    for group in range(2):
        for unit in range(3):
            leads = old[2 * group : 2 * group + 2, unit]
            torch.testing.assert_close(model[0].weight[2 * group : 2 * group + 2, unit].detach(), leads / max(1.0, leads.norm().item()))
    x = torch.zeros(1, 4, 1, 1, dtype=torch.float64)
    x[0, :2] = 1.0  # the first group's inputs reach its units alone
    assert (nn.functional.conv_transpose2d(x, model[0].weight, groups=2)[0, 3:] == 0).all()


@pytest.mark.parametrize("p", [0.0, 0.25])
def test_dropout_reaches_every_layer_that_drops(p):
    model = nn.ModuleList(
        [
            nn.Dropout(0.5),
            nn.Sequential(nn.Dropout2d(0.5), nn.AlphaDropout(0.5)),
            nn.LSTM(2, 3, 2, dropout=0.5),
            nn.GRU(2, 3),
            nn.MultiheadAttention(4, 2, 0.5),
        ]
    )
    assert set_dropout(model, p) == 5
    assert [model[0].p, model[1][0].p, model[1][1].p, model[2].dropout, model[3].dropout, model[4].dropout] == [p, p, p, p, 0.0, p]
    if p == 0:
        x = torch.randn(4, 1, 2)
        assert torch.equal(model[2].train()(x)[0], model[2].eval()(x)[0])


def test_dropout_of_a_model_without_any_is_refused():
    message = "dropout=0.3: expected a model with dropout layers, got one without. Leave dropout out"
    with pytest.raises(ValueError, match=re.escape(message)):
        set_dropout(nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2)), 0.3)
