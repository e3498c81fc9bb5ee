"""Schemes by name: the numbers that a name stands for, over a whole model, and the sentences for names that stand for none."""

import pytest
import torch

from twofold import nn
from twofold.layers.schemes import SCHEMES, apply_scheme, read_scheme


def model():
    return nn.Sequential(nn.Linear(200, 300), nn.ReLU(), nn.RNN(300, 300))


def unused():
    raise AssertionError("no scheme but data asks for a batch")


MOMENTS = {
    "uniform": (0.0, 0.04 / 3),
    "uniform(-1, 2)": (0.5, 9 / 12),
    "normal": (0.0, 1e-4),
    " normal( 3, 0.5 ) ": (3.0, 0.25),
    "lecun": (0.0, 1 / 200),
    "glorot": (0.0, 2 / 500),
    "glorot_uniform": (0.0, 2 / 500),
    "he": (0.0, 2 / 200),
    "he_uniform": (0.0, 2 / 200),
    "orthogonal": (0.0, 1 / 300),
    "orthogonal(2)": (0.0, 4 / 300),
    "identity": (0.0, 2 / 500),
}


@pytest.mark.parametrize("text", MOMENTS)
def test_a_name_stands_for_its_distribution(text):
    torch.manual_seed(0)
    net = model()
    apply_scheme(net, text, unused, bias=0.01)
    mean, variance = MOMENTS[text]
    weight = net[0].weight.double()
    assert weight.mean().item() == pytest.approx(mean, abs=5 * (variance / weight.numel()) ** 0.5)
    assert weight.var().item() == pytest.approx(variance, rel=0.03) and (net[0].bias == 0.01).all()
    assert torch.equal(net[2].weight_hh_l0, torch.eye(300)) is (text == "identity")


def test_data_starts_orthogonal_and_is_scaled_by_the_batch():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 10)), 5 * torch.randn(64, 20)
    apply_scheme(net, "data", lambda: net(x))
    product = net[0].weight.t() @ net[0].weight
    assert torch.allclose(product, product[0, 0] * torch.eye(20), atol=1e-5)
    assert [net[: place + 1](x).var(correction=0).item() for place in (0, 2)] == pytest.approx([1, 1], rel=1e-4)


@pytest.mark.parametrize("name", SCHEMES)
def test_the_seed_of_torch_decides(name):
    nets = []
    for seed in (3, 3, 4):
        net = model()
        torch.manual_seed(seed)
        x = torch.randn(4, 5, 200)
        apply_scheme(net, name, lambda net=net, x=x: net(x))
        nets.append(net[0].weight)
    assert torch.equal(nets[0], nets[1]) and not torch.equal(nets[0], nets[2])


BAD = {
    "constant": "init: 'constant' makes all weights of a layer alike, so all its units would compute the same",
    "zeros": "(symmetry). Take a random scheme",
    "constant(0.5)": "init: 'constant(0.5)' makes all weights of a layer alike",
    "xavier": "init: expected a scheme of uniform, normal, lecun, glorot, he, lecun_uniform",
    "gloro": "got 'gloro'. Did you mean \"glorot\"?",
    "he(2)": "init: expected he without numbers, got 'he(2)'.",
    "data()": "init: expected data without numbers",
    "uniform(0.2)": "init: expected uniform(low, high) with finite numbers, got 'uniform(0.2)'.",
    "normal(0, nan)": "init: expected normal(mean, std) with finite numbers",
    "orthogonal(a)": "init: expected orthogonal(gain)",
    "uniform(0, 1": "init: expected a scheme of",
    "": "got ''.",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_names(text):
    with pytest.raises(ValueError) as error:
        read_scheme(text)
    assert BAD[text] in str(error.value)


def test_identity_needs_a_recurrent_layer():
    with pytest.raises(ValueError, match="Linear has no recurrent layer"):
        apply_scheme(nn.Linear(2, 2), "identity", unused)
