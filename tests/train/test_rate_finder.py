"""The range test: rates and smoothing by their laws, where it stops, what it suggests, and that nothing is left of it."""

import copy
import math
import re

import pytest
import torch

from twofold import nn
from twofold.train.optimizers import Optimisation, build_optimizer, clip_gradient, give_rate
from twofold.train.rate_finder import find_rate, put_back


def test_rates_climb_in_a_geometric_series_and_the_loss_is_smoothed_without_bias():
    seen, losses = [], iter([3.0, 5.0, 1.0, *[2.0] * 20])
    curve = find_rate(lambda rate: seen.append(rate) or next(losses), 1e-4, 1.0, 13, 0.8)
    assert curve.rates == seen == pytest.approx([10 ** (-4 + i / 3) for i in range(13)])
    assert curve.losses == [3.0, 5.0, 1.0] + [2.0] * 10
    weights = [[0.8 ** (i - j) for j in range(i + 1)] for i in range(13)]
    means = [sum(w * loss for w, loss in zip(each, curve.losses, strict=False)) / sum(each) for each in weights]
    assert curve.smoothed == pytest.approx(means)


def valley(rate):
    """Flat, then falling, lowest at a rate of 0.1, then diverging."""
    return 1 + 2 / (1 + (rate / 1e-3) ** 2) + (rate / 0.3) ** 4


def test_the_suggestion_lies_between_the_steepest_fall_and_a_tenth_of_the_lowest():
    curve = find_rate(valley, smoothing=0.0)
    fine = [10 ** (-6 + 7 * i / 100_000) for i in range(100_000)]
    slopes = [(valley(r * 1.0001) - valley(r)) / math.log(1.0001) for r in fine]
    steepest = min(range(len(fine)), key=lambda i: slopes[i] if fine[i] < 0.03 else 0)
    lowest = min(fine, key=valley)
    assert curve.steepest == pytest.approx(fine[steepest], rel=0.2) and curve.tenth == pytest.approx(lowest / 10, rel=0.2)
    assert curve.suggested == pytest.approx(math.sqrt(curve.steepest * curve.tenth))
    assert curve.told().startswith(
        f"Suggested learning rate: {curve.suggested:.1e} (the loss falls fastest at {curve.steepest:.1e}; a tenth"
    )
    assert curve.smoothed[-1] > 4 * min(curve.smoothed) > curve.smoothed[-2] and curve.rates[-1] < 1  # it stopped where it diverged


@pytest.mark.parametrize(
    ("losses", "count"), [([1.0] * 5 + [math.nan], 5), ([1.0] * 5 + [math.inf], 5), ([1.0, 4.0, 4.01], 3), ([-1.0, 2.0, 2.01], 3)]
)
def test_it_stops_at_the_first_loss_that_is_no_number_or_far_above_the_lowest(losses, count):
    several = iter(losses + [0.5] * 10)
    curve = find_rate(lambda rate: next(several), steps=12, smoothing=0.0)
    assert len(curve.rates) == count and curve.suggested is None
    assert curve.told().startswith(f"The loss fell nowhere between 1.0e-06 and {curve.rates[-1]:.1e}: no learning rate")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 1.0, "high": 0.1}, "rate finder: expected rates that rise from above 0, got low=1 and high=0.1. Exchange them?"),
        ({"low": 0.0}, "rate finder: expected rates that rise from above 0, got low=0 and high=10."),
        ({"steps": 9}, "rate finder: expected 10 steps or more, got 9."),
        ({"smoothing": 1.0}, "rate finder: expected smoothing from 0 to below 1, got 1."),
        ({}, "rate finder: expected a finite loss, got none at the first rate, 1e-06. Look at the data or the initial weights."),
    ],
)
def test_what_cannot_be_tested(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        find_rate(lambda rate: math.nan, **settings)


def everything(model, optimizer):
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [None if w.grad is None else w.grad.clone() for w in model.parameters()]
    return tensors, gradients, copy.deepcopy(optimizer.state_dict()), [layer.training for layer in model.modules()], torch.get_rng_state()


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def start(kind, steps):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 8), nn.Linear(8, 2))
    model[0].eval()
    optimizer = build_optimizer(model, Optimisation(optimizer=kind))

    def step(rate):
        give_rate(optimizer, rate)
        loss = (model(torch.randn(16, 4)) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        clip_gradient(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    for _ in range(steps):
        step(0.01)
    return model, optimizer, step


@pytest.mark.parametrize("kind", ["adamw", "nesterov", "muon"])
@pytest.mark.parametrize("steps", [0, 2])
def test_everything_is_put_back_bit_for_bit_and_the_training_goes_on_as_if_nothing_had_been(kind, steps):
    *_, step = start(kind, steps)
    undisturbed = [step(0.01) for _ in range(3)]
    model, optimizer, step = start(kind, steps)
    before = everything(model, optimizer)
    with pytest.raises(KeyboardInterrupt), put_back(model, optimizer):
        curve = find_rate(step, steps=30)
        optimizer.param_groups[0]["initial_lr"] = 1.0
        model.eval()
        assert len(curve.rates) > 10 and not equal(everything(model, optimizer), before)
        raise KeyboardInterrupt
    assert equal(everything(model, optimizer), before)
    assert [step(0.01) for _ in range(3)] == undisturbed
