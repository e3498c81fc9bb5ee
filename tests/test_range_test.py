"""The range test of a training that `fit` would begin: what it suggests, what it leaves untouched, and where it ends."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

import twofold
from twofold import nn
from twofold.range_test import find_rate

X = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
SET = TensorDataset(X, (X[:, 0] > 0).long())


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))


@pytest.mark.parametrize("more", [{}, {"init": "orthogonal", "dropout": 0.5, "ema": 0.9, "accumulate": 2}])
def test_a_model_that_is_given_is_as_before_and_the_suggestion_learns(more, tmp_path):
    model, before = net(), {name: value.clone() for name, value in net().state_dict().items()}
    generator = torch.get_rng_state()
    curve = find_rate((SET, SET), model=model, task=F.cross_entropy, batch_size=16, steps=60, **more)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and model[3].p == 0.1 and torch.equal(generator, torch.get_rng_state())
    assert curve.rates[0] == 1e-6 and curve.rates[0] < curve.suggested < curve.rates[-1]
    settings = {"learning_rate": curve.suggested, "epochs": 20, "batch_size": 16, "quiet": True, **more}
    run = twofold.fit((SET, SET), model=model, task=F.cross_entropy, out=tmp_path / "run", **settings)
    assert run.metrics["validation"]["accuracy"] > 0.9


def test_a_source_is_tested_with_its_recipe_and_the_same_call_gives_the_same_curve():
    first, again = (find_rate("digits", config={"stages": "8 M"}, steps=12) for _ in range(2))
    assert first == again and len(first.losses) == 12


@pytest.mark.parametrize("action", ["stop", "skip", "rollback"])
def test_a_loss_that_is_no_number_ends_the_test_whatever_would_follow_in_training(action):
    calls = []

    def loss(output, target):
        calls.append(0)
        return F.cross_entropy(output, target) * (math.nan if len(calls) > 20 else 1)

    curve = find_rate((SET, SET), model=net(), task=loss, batch_size=16, steps=50, non_finite=action)
    assert len(curve.losses) == 20 and all(map(math.isfinite, curve.losses))


def test_several_processes_are_refused():
    with pytest.raises(ValueError, match="find_rate: the range test runs in one process"):
        find_rate("digits", processes=2)
    with pytest.raises(ValueError, match="shard_weights cuts the weights over several processes, and this one is alone"):
        find_rate("digits", shard_weights=True)
