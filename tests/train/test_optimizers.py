"""Optimisers and schedules: the rate at known steps, who decays, and the clipped norm."""

import math

import pytest
import torch

from twofold import nn
from twofold.train.optimizers import build_optimizer, clip_gradient, set_rate
from twofold.train.settings import Optimisation


def rates(steps, **settings):
    how = Optimisation(learning_rate=2.0, **settings)
    optimizer = build_optimizer(nn.Linear(2, 2), how)
    given = [set_rate(optimizer, how, step, steps) for step in range(steps)]
    assert optimizer.param_groups[0]["lr"] == optimizer.param_groups[1]["lr"] == given[-1]
    return given


def test_cosine_falls_from_the_rate_to_a_hundredth():
    given = rates(100, schedule="cosine", warmup=0.0)
    assert given[0] == pytest.approx(2.0, rel=1e-3) and given[-1] == pytest.approx(0.02)
    assert given[49] == pytest.approx(2.0 * (0.01 + 0.99 / 2))
    assert given == sorted(given, reverse=True)


def test_steps_are_tenths_at_a_half_and_three_quarters():
    given = rates(100, schedule="step", warmup=0.0)
    assert (given[49], given[50], given[74], given[75]) == pytest.approx((2.0, 0.2, 0.2, 0.02))


def test_warm_up_rises_in_a_line():
    given = rates(100, schedule="constant", warmup=0.1)
    assert given[:10] == pytest.approx([2.0 * (i + 1) / 10 for i in range(10)]) and set(given[10:]) == {2.0}


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_only_matrices_decay(kind):
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.bias.fill_(1.0)
    before = model.weight.detach().clone()
    optimizer = build_optimizer(model, Optimisation(optimizer=kind, learning_rate=0.1, weight_decay=0.5))
    (model(torch.zeros(1, 3)) * 0).sum().backward()
    optimizer.step()
    assert model.bias.tolist() == [1.0, 1.0]
    if kind == "adamw":
        assert torch.allclose(model.weight, before * (1 - 0.1 * 0.5))
    assert (model.weight.abs() < before.abs()).all()


def test_sgd_is_nesterovs():
    model = nn.Linear(1, 1, bias=False)
    theirs = torch.nn.Linear(1, 1, bias=False)
    theirs.load_state_dict(model.state_dict())
    ours = build_optimizer(model, Optimisation(optimizer="sgd", learning_rate=0.1, momentum=0.5, weight_decay=0.0))
    reference = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.5, nesterov=True)
    for optimizer, layer in ((ours, model), (reference, theirs)):
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(1, 1)).square().sum().backward()
            optimizer.step()
    assert torch.allclose(model.weight, theirs.weight, rtol=1e-6)


@pytest.mark.parametrize(("largest", "after"), [(1.0, 1.0), (100.0, 5.0), (0.0, 5.0)])
def test_clipping_scales_the_whole_gradient(largest, after):
    model = nn.Linear(1, 1)
    model.weight.grad, model.bias.grad = torch.full((1, 1), 3.0), torch.full((1,), 4.0)
    assert clip_gradient(model.parameters(), largest) == pytest.approx(5.0)
    assert math.hypot(model.weight.grad.item(), model.bias.grad.item()) == pytest.approx(after, rel=1e-5)
    assert model.weight.grad.item() / model.bias.grad.item() == pytest.approx(0.75)
