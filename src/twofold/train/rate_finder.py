"""The range test of the learning rate: one short training while the rate climbs, and where its loss falls best.

    rate      r_i = low (high / low)^(i / (N - 1)), i = 0 .. N-1
    loss      s_i = (1 - b) sum of b^(i-j) l_j over j <= i, divided by 1 - b^(i+1)          l: as it came, s: smoothed
    stop      l_i not finite, or s_i more than 3 |m| above the lowest so far, m (of a positive loss: more than 4 m)
    steepest  the rate where s falls fastest, ds / d ln r, up to its minimum
    tenth     a tenth of the rate where s is lowest
    suggested the geometric mean of both

Both are rules of thumb. The first is often early, the second late where the loss is lowest just before it diverges, and the first tenth of
the steps and the last five say little of either, as in fastai.

Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3; stop, steepest and tenth: Howard and Gugger, "fastai: a
layered API for deep learning", 2020, section 2 (lr_find)
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn

LOWEST_STEPS = 10
DIVERGED = 3.0  # times |lowest| above the lowest


class RateCurve(NamedTuple):
    """What the test saw, and what it suggests; None where the loss never fell."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    steepest: float | None
    tenth: float | None
    suggested: float | None

    def told(self) -> str:
        """The suggestion in a sentence."""
        if self.suggested is None or self.steepest is None or self.tenth is None:
            return f"The loss fell nowhere between {self.rates[0]:.1e} and {self.rates[-1]:.1e}: no learning rate to suggest."
        return (
            f"Suggested learning rate: {self.suggested:.1e} (the loss falls fastest at {self.steepest:.1e}; a tenth of where it is lowest "
            f"is {self.tenth:.1e})."
        )


def find_rate(step: Callable[[float], float], low: float = 1e-6, high: float = 10.0, steps: int = 100, smoothing: float = 0.9) -> RateCurve:
    """Train for at most `steps` steps with rates from low to high.

    step: makes one training step at a rate and returns the loss from before it. What the steps change stays changed: see `put_back`.
    smoothing: b of the law above.
    Raises ValueError for rates that do not rise from above zero, for fewer than 10 steps, for a smoothing outside 0..1, and where the very
    first loss is no number.
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"rate finder: expected rates that rise from above 0, got low={low:g} and high={high:g}. Exchange them?")
    if steps < LOWEST_STEPS:
        raise ValueError(f"rate finder: expected {LOWEST_STEPS} steps or more, got {steps}. The usual number is 100.")
    if not 0 <= smoothing < 1:
        raise ValueError(f"rate finder: expected smoothing from 0 to below 1, got {smoothing:g}. Usual: 0.9.")
    rates, losses, smoothed, running = [], [], [], 0.0
    for i in range(steps):
        rate = low * (high / low) ** (i / (steps - 1))
        loss = step(rate)
        if not math.isfinite(loss):
            break
        running = smoothing * running + (1 - smoothing) * loss
        rates.append(rate)
        losses.append(loss)
        smoothed.append(running / (1 - smoothing ** (i + 1)))
        lowest = min(smoothed)
        if smoothed[-1] > lowest + DIVERGED * abs(lowest):
            break
    if not rates:
        raise ValueError(
            f"rate finder: expected a finite loss, got none at the first rate, {low:g}. Look at the data or the initial weights."
        )
    return RateCurve(rates, losses, smoothed, *_suggest(rates, smoothed, steps))


def _suggest(rates: list[float], smoothed: list[float], steps: int) -> tuple[float | None, float | None, float | None]:
    """(steepest, tenth, suggested)"""
    first = steps // 10  # the smoothed loss of a few batches jumps
    if len(rates) <= first + 1:
        return None, None, None
    lowest = min(range(first, len(rates)), key=smoothed.__getitem__)
    slopes = [(after - before) / math.log(b / a) for (before, after), (a, b) in zip(pairwise(smoothed), pairwise(rates), strict=True)]
    place = min(range(first, lowest), key=slopes.__getitem__, default=None)
    if place is None or slopes[place] >= 0:
        return None, None, None
    steepest, tenth = rates[place], rates[lowest] / 10
    return steepest, tenth, math.sqrt(steepest * tenth)


@contextmanager
def put_back(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """After the block, whatever happens in it, everything is as before, bit for bit: weights and their gradients, buffers, the mode of
    every layer, the optimiser's state and groups, torch's random generators.
    """
    tensors = {name: tensor.detach().clone() for name, tensor in _tensors(model)}
    gradients = {name: None if w.grad is None else w.grad.detach().clone() for name, w in model.named_parameters()}
    modes = [(layer, layer.training) for layer in model.modules()]
    state = {w: copy.deepcopy(values) for w, values in optimizer.state.items()}
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    groups = copy.deepcopy(groups)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in _tensors(model):
                    tensor.copy_(tensors[name])
            for name, w in model.named_parameters():
                w.grad = gradients[name]
            for layer, training in modes:
                layer.training = training
            optimizer.state.clear()
            optimizer.state.update(state)
            for group, before in zip(optimizer.param_groups, groups, strict=True):
                for name in group.keys() - before.keys() - {"params"}:
                    del group[name]
                group.update(before)


def _tensors(model: nn.Module) -> list[tuple[str, Any]]:
    return [*model.named_parameters(), *model.named_buffers()]
