"""Schedules: the rate of every step, as a part of the learning rate.     t = (step + 1) / steps: the part of all steps that is done with it

    constant    1
    step        factor^k                                       k: milestones behind
    cosine      floor + (1 - floor) (1 + cos(pi u)) / 2        u: the part of the cycle that is done; one cycle: u = t
    one-cycle   up from 1/25 to 1 in the first `warmup` of the steps, then down to floor, both along half a cosine;
                the momentum down to `low_momentum` and up again, opposite to the rate
    plateau     1, times factor whenever `rate_patience` epochs brought nothing better, but not below floor
    warm-up     times min(1, t / warmup)                       all but one-cycle, whose rise it is

All but plateau follow from the number of the step alone, so a resumed run needs only that. A number below 1 is a part of the training,
from 1 on it is a number of epochs.

Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, eq. 5; Smith and Topin, "Super-convergence:
very fast training of neural networks using large learning rates", 2018, section 3; Goyal et al., "Accurate, large minibatch SGD", 2017,
section 2.2 (warm-up)
"""

import math
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from twofold.train.part import Part

START = 1 / 25  # where one-cycle begins: Smith and Topin's own choice, and torch's
WARMUP, RISE = 0.05, 0.3
USED_BY = {
    "milestones": ("step",),
    "rate_factor": ("step", "plateau"),
    "rate_floor": ("cosine", "one-cycle", "plateau"),
    "rate_patience": ("plateau",),
    "cycles": ("cosine",),
    "low_momentum": ("one-cycle",),
}


class Scheduling(Part):
    """How the rate changes over the training."""

    schedule: Literal["constant", "step", "cosine", "one-cycle", "plateau"] = "cosine"
    """Constant; down at the milestones; down along a cosine; up and down once; down when the validation gets no better."""
    warmup: Annotated[float, Field(ge=0)] | None = None
    """How long the rate rises: below 1 a part of the training, else epochs; 0: not. Default: 0.05, with one-cycle 0.3."""
    milestones: tuple[Annotated[float, Field(gt=0)], ...] = (0.5, 0.75)
    """step: where the rate falls: all below 1 (parts of the training), or all from 1 on (epochs)."""
    rate_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """step, plateau: what the rate is multiplied with when it falls."""
    rate_floor: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """cosine, one-cycle, plateau: the lowest rate, as a part of the learning rate."""
    rate_patience: Annotated[int, Field(ge=1)] = 3
    """plateau: the rate falls after this many epochs without a better validation score."""
    cycles: Annotated[int, Field(ge=1)] = 1
    """cosine: how often the rate falls; it starts anew between (warm restarts)."""
    low_momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """one-cycle: the momentum where the rate is highest. Default: it stays as it is. Usual: 0.85."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for name, schedules in USED_BY.items():
            value = getattr(self, name)
            if self.schedule not in schedules and value != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name}={value} is for schedule={' or '.join(schedules)}, but the schedule is {self.schedule}. Leave {name} out."
                )
        marks = self.milestones
        if any(left >= right for left, right in pairwise(marks)):
            raise ValueError(f"milestones: expected rising numbers, got {_list(marks)}. Put them in order, each once.")
        if any(mark < 1 for mark in marks) and any(mark >= 1 for mark in marks):
            raise ValueError(
                f"milestones: expected all below 1 (parts of the training) or all from 1 on (epochs), got {_list(marks)}. Write one kind."
            )
        return self


class Schedule:
    """The rate of each step of a run of `epochs` epochs of `steps` steps.

    momentum: the optimiser's, from which one-cycle descends.
    Raises ValueError for a warm-up or a milestone that lies beyond the training, for more cycles than steps, and for a low_momentum above
    the momentum.
    """

    def __init__(self, settings: Scheduling, learning_rate: float, epochs: int, steps: int, momentum: float = 0.0) -> None:
        self.settings, self.learning_rate, self.momentum_high = settings, learning_rate, momentum
        self.total, self.factor = max(epochs * steps, 1), 1.0
        self._best: tuple[float, ...] | None = None
        self._waited = 0
        given = (RISE if settings.schedule == "one-cycle" else WARMUP) if settings.warmup is None else settings.warmup
        _expect_within("warmup", given, epochs)
        for mark in settings.milestones if settings.schedule == "step" else ():
            _expect_within("milestones", mark, epochs)
        self.warmup = self._in_steps(given, steps)
        self.milestones = [self._in_steps(mark, steps) for mark in settings.milestones]
        if settings.cycles > self.total:
            raise ValueError(
                f"schedule: expected at most as many cycles as the training has steps, {self.total}, got {settings.cycles}. Train longer."
            )
        if settings.low_momentum is not None and settings.low_momentum > momentum:
            raise ValueError(
                f"schedule: expected low_momentum at most the momentum, {momentum:g}, got {settings.low_momentum:g}: one-cycle lowers it "
                "while the rate is high. Raise momentum."
            )

    def rate(self, step: int) -> float:
        """The rate of step `step`, counted from 0 over the whole training."""
        return self.learning_rate * self.factor * self._part(min(step, self.total - 1))

    def momentum(self, step: int) -> float | None:
        """The momentum of the step; None where the schedule leaves it alone."""
        low = self.settings.low_momentum
        return None if low is None else self._cycle(min(step, self.total - 1), self.momentum_high, low, self.momentum_high)

    def judge(self, rank: tuple[float, ...]) -> bool:
        """Hear how good the validation was, once after each epoch; larger is better. Whether the rate falls now."""
        if self.settings.schedule != "plateau":
            return False
        if self._best is None or rank > self._best:
            self._best, self._waited = rank, 0
            return False
        self._waited += 1
        if self._waited < self.settings.rate_patience:
            return False
        before, self._waited = self.factor, 0
        self.factor = max(before * self.settings.rate_factor, self.settings.rate_floor)
        return self.factor < before

    def state_dict(self) -> dict[str, Any]:
        """What does not follow from the number of the step."""
        return {"factor": self.factor, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        best = state["best"]
        self.factor, self._best, self._waited = state["factor"], None if best is None else tuple(best), state["waited"]

    def _part(self, step: int) -> float:
        """The rate of the step as a part of the learning rate, by the law alone."""
        how, done = self.settings, step + 1
        if how.schedule == "one-cycle":
            return self._cycle(step, START, 1.0, how.rate_floor)
        warm = min(1.0, done / self.warmup) if self.warmup else 1.0
        if how.schedule == "cosine":
            cycle = step * how.cycles // self.total
            return warm * _half_cosine(1.0, how.rate_floor, done * how.cycles / self.total - cycle)
        if how.schedule == "step":
            return warm * how.rate_factor ** sum(done > mark for mark in self.milestones)
        return warm

    def _cycle(self, step: int, first: float, middle: float, last: float) -> float:
        """One-cycle: from the first value to the middle one and on to the last, which the last step has."""
        top = self.warmup - 1  # the step, not a whole number, that has the middle value
        if top > 0 and step <= top:
            return _half_cosine(first, middle, step / top)
        top = max(top, 0.0)
        return _half_cosine(middle, last, (step - top) / max(self.total - 1 - top, 1.0))

    def _in_steps(self, length: float, steps: int) -> float:
        return length * self.total if length < 1 else length * steps


def _half_cosine(first: float, last: float, done: float) -> float:
    """From the first value (done = 0) to the last (done = 1)."""
    return last + (first - last) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _expect_within(name: str, length: float, epochs: int) -> None:
    if length >= max(epochs, 1):
        raise ValueError(
            f"schedule: expected {name} within the training of {epochs} epochs, got {length:g} epochs. Train longer, or write a number "
            "below 1 for a part of the training."
        )


def _list(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
