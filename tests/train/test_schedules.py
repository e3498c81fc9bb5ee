"""Schedules: every law against torch's scheduler of the same law and at known steps, and the sentences for what cannot be."""

import math
import re

import pytest
import torch
from torch.optim import lr_scheduler as theirs

from twofold.train.schedules import Schedule, Scheduling

RATE = 2.0


def ours(epochs, steps, momentum=0.95, **settings):
    return Schedule(Scheduling(**settings), RATE, epochs, steps, momentum)


def rates(schedule, count):
    return [schedule.rate(step) for step in range(count)]


def of_torch(build, count):
    """The rates and momenta of torch's scheduler: number 0 before its first step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], RATE, momentum=0.95)
    scheduler, seen = build(optimizer), []
    for step in range(count):
        if step:
            optimizer.step()
            scheduler.step()
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
    return [list(numbers) for numbers in zip(*seen, strict=True)]


# Where the law asks for the part of the steps that is done, our step s is torch's s + 1: our first step counts as done.
SAME = {
    "constant": ({"schedule": "constant", "warmup": 0.0}, lambda o: theirs.ConstantLR(o, 1.0), 1),
    "warm-up": ({"schedule": "constant", "warmup": 0.1}, lambda o: theirs.LinearLR(o, 1e-9, 1.0, 12), 1),
    "warm-up of epochs": ({"schedule": "constant", "warmup": 3}, lambda o: theirs.LinearLR(o, 1e-9, 1.0, 30), 1),
    "cosine": (
        {"schedule": "cosine", "warmup": 0.0, "rate_floor": 0.05},
        lambda o: theirs.CosineAnnealingLR(o, 120, 0.05 * RATE),
        1,
    ),
    "step": (
        {"schedule": "step", "warmup": 0.0, "rate_factor": 0.2, "milestones": (0.25, 0.5)},
        lambda o: theirs.MultiStepLR(o, [30, 60], 0.2),
        0,
    ),
    "step of epochs": (
        {"schedule": "step", "warmup": 0.0, "milestones": (3, 7, 11)},
        lambda o: theirs.MultiStepLR(o, [30, 70, 110], 0.1),
        0,
    ),
    "one-cycle": (
        {"schedule": "one-cycle", "rate_floor": 0.001},
        lambda o: theirs.OneCycleLR(o, RATE, 120, pct_start=0.3, cycle_momentum=False, div_factor=25, final_div_factor=40),
        0,
    ),
    "one-cycle, long rise": (
        {"schedule": "one-cycle", "warmup": 0.45},
        lambda o: theirs.OneCycleLR(o, RATE, 120, pct_start=0.45, cycle_momentum=False, div_factor=25, final_div_factor=4),
        0,
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_the_law_is_torchs(name):
    settings, build, shift = SAME[name]
    expected = of_torch(build, 120 + shift)[0][shift:]
    assert rates(ours(12, 10, **settings), len(expected)) == pytest.approx(expected, rel=1e-6)


def test_warm_restarts_are_torchs():
    given = rates(ours(12, 10, schedule="cosine", warmup=0.0, cycles=3, rate_floor=0.1), 120)
    expected = of_torch(lambda o: theirs.CosineAnnealingWarmRestarts(o, 40, 1, 0.1 * RATE), 120)[0]
    for step in range(120):  # where torch is at the top again we are at the end of the cycle
        assert given[step] == pytest.approx(0.1 * RATE if step % 40 == 39 else expected[step + 1])


def test_the_momentum_goes_opposite_to_the_rate_as_torchs():
    schedule = ours(12, 10, schedule="one-cycle", low_momentum=0.85)
    _, expected = of_torch(lambda o: theirs.OneCycleLR(o, RATE, 120, base_momentum=0.85, max_momentum=0.95), 120)
    assert [schedule.momentum(step) for step in range(120)] == pytest.approx(expected)
    assert ours(12, 10, schedule="one-cycle").momentum(5) is None


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one-cycle"])
@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 2), (3, 7)])
def test_first_and_last_rates_are_those_of_the_law_however_short_the_training(schedule, epochs, steps):
    chosen = ours(epochs, steps, schedule=schedule, warmup=0.0)
    given = rates(chosen, epochs * steps)
    assert all(0 < rate <= RATE for rate in given)
    ends = {"constant": RATE, "step": 0.01 * RATE, "cosine": 0.01 * RATE, "one-cycle": 0.01 * RATE}
    if (schedule, epochs * steps) != ("one-cycle", 1):
        assert given[-1] == pytest.approx(ends[schedule])
    assert chosen.rate(10**6) == given[-1]  # who goes on beyond the end keeps the last rate


def test_cosine_with_its_usual_warm_up_at_known_steps():
    schedule = ours(10, 10)
    assert rates(schedule, 5) == pytest.approx(
        [RATE * (s + 1) / 5 * (0.01 + 0.99 * (1 + math.cos(math.pi * (s + 1) / 100)) / 2) for s in range(5)]
    )
    assert schedule.rate(49) == pytest.approx(RATE * (0.01 + 0.99 / 2)) and schedule.rate(99) == pytest.approx(RATE * 0.01)


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_plateau_is_torchs(patience):
    torch.manual_seed(0)
    scores = [*[0.5] * 6, *torch.rand(40).tolist(), 2.0, *[0.5] * 20, math.nan, 3.0, *[0.1] * 30]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], RATE)
    scheduler = theirs.ReduceLROnPlateau(optimizer, "max", 0.5, patience - 1, threshold=0, min_lr=0.01 * RATE, eps=0)
    schedule = ours(200, 1, schedule="plateau", warmup=0.0, rate_factor=0.5, rate_patience=patience)
    for epoch, score in enumerate(scores):
        before = schedule.rate(epoch)
        fell = schedule.judge((score, 0.0))
        scheduler.step(score)
        assert schedule.rate(epoch + 1) == pytest.approx(optimizer.param_groups[0]["lr"])
        assert fell is (schedule.rate(epoch + 1) < before)
        resumed = ours(200, 1, schedule="plateau", warmup=0.0, rate_factor=0.5, rate_patience=patience)
        resumed.load_state_dict(schedule.state_dict())
        schedule = resumed
    assert schedule.rate(0) == pytest.approx(0.01 * RATE)


def test_other_schedules_do_not_hear_the_validation():
    schedule = ours(4, 5, schedule="constant", warmup=0.0)
    assert not any(schedule.judge((0.0,)) for _ in range(20)) and schedule.rate(3) == RATE


BAD = {
    "milestones for cosine": ({"milestones": (3, 6)}, "milestones=(3.0, 6.0) is for schedule=step, but the schedule is cosine. Leave"),
    "patience for one-cycle": (
        {"schedule": "one-cycle", "rate_patience": 5},
        "rate_patience=5 is for schedule=plateau, but the schedule is one",
    ),
    "factor for constant": (
        {"schedule": "constant", "rate_factor": 0.5},
        "rate_factor=0.5 is for schedule=step or plateau, but the schedule",
    ),
    "floor for step": ({"schedule": "step", "rate_floor": 0.5}, "rate_floor=0.5 is for schedule=cosine or one-cycle or plateau"),
    "momentum for plateau": ({"schedule": "plateau", "low_momentum": 0.5}, "low_momentum=0.5 is for schedule=one-cycle"),
    "order": ({"schedule": "step", "milestones": (6, 3)}, "milestones: expected rising numbers, got 6, 3. Put them in order, each once."),
    "twice": ({"schedule": "step", "milestones": (6, 6)}, "milestones: expected rising numbers, got 6, 6."),
    "mixed": ({"schedule": "step", "milestones": (0.5, 6)}, "all below 1 (parts of the training) or all from 1 on (epochs), got 0.5, 6."),
    "long milestone": (
        {"schedule": "step", "milestones": (3, 10)},
        "schedule: expected milestones within the training of 10 epochs, got 10 epo",
    ),
    "long warm-up": (
        {"warmup": 12},
        "schedule: expected warmup within the training of 10 epochs, got 12 epochs. Train longer, or write a number",
    ),
    "cycles": ({"cycles": 41}, "schedule: expected at most as many cycles as the training has steps, 40, got 41. Train longer."),
    "momentum": (
        {"schedule": "one-cycle", "low_momentum": 0.97},
        "schedule: expected low_momentum at most the momentum, 0.95, got 0.97: one-cycle lowers it while the rate is high. Raise momentum.",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_contradictions(name):
    settings, message = BAD[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        ours(10, 4, **settings)
