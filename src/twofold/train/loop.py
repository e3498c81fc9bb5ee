"""The loop: every run, of every task, goes through it.

for each epoch:  for each batch:  loss -> gradient -> clip -> step;    then validate, and keep the best
"""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from twofold.tasks.task import Task
from twofold.train.batches import Batches
from twofold.train.optimizers import clip_gradient, set_rate
from twofold.train.progress import Progress
from twofold.train.settings import Settings


class Watcher(Protocol):
    """Whoever looks on: shows progress, writes what is to be kept, and may ask for a stop."""

    stop: bool

    def step(self, progress: Progress, loss: float, rate: float) -> None: ...

    def epoch(self, progress: Progress, row: dict[str, Any], better: bool) -> None: ...


class Data(NamedTuple):
    """What a run learns from, and what it is judged by after each epoch."""

    training: Batches
    validation: Callable[[], Iterable[Any]]


class NotFiniteError(ValueError):
    """The loss or the gradient is no number any more. The weights are those of before the step."""


def learn(
    model: nn.Module, task: Task, data: Data, settings: Settings, optimizer: torch.optim.Optimizer, progress: Progress, watch: Watcher
) -> None:
    """Train until the last epoch, until patience ends, or until `watch.stop`. Everything that changes is in `progress`."""
    learning, how = settings.learning, settings.optimisation
    steps, parameters = data.training.steps(), [p for p in model.parameters() if p.requires_grad]
    if progress.step > steps:
        raise ValueError(
            f"resume: {progress.step} steps of the epoch are done, but with this data and these settings it has {steps}. "
            "Restore both, or train anew."
        )
    while progress.epoch < learning.epochs and not progress.tired(learning.patience) and not watch.stop:
        began = time.perf_counter()
        model.train()
        rate = 0.0
        for batch in data.training.epoch(progress.epoch, progress.step):
            rate = set_rate(optimizer, how, progress.epoch * steps + progress.step, learning.epochs * steps)
            loss, items, carried = task.loss(model, batch, progress.carried)
            optimizer.zero_grad()
            loss.backward()
            value, norm = loss.item(), clip_gradient(parameters, how.clip)
            if not math.isfinite(value + norm):
                raise NotFiniteError(_diverged(progress, value, norm, rate))
            optimizer.step()
            progress.advance(value, items, carried)
            watch.step(progress, value, rate)
            if watch.stop:
                break
        if progress.step == steps:
            seen = {"loss": progress.loss_sum / progress.items}
            scores = task.evaluate(model, data.validation()).scores
            progress.seconds += time.perf_counter() - began
            row = {
                "epoch": progress.epoch + 1,
                "step": (progress.epoch + 1) * steps,
                "seconds": round(progress.seconds, 3),
                "rate": rate,
                "train": seen,
                "validation": scores,
            }
            watch.epoch(progress, row, progress.end_epoch(row, task.rank(scores)))
        else:
            progress.seconds += time.perf_counter() - began


def _diverged(progress: Progress, loss: float, norm: float, rate: float) -> str:
    return (
        f"training stopped in epoch {progress.epoch + 1}, step {progress.step + 1}: the loss is {loss:.4g} and the gradient's norm "
        f"{norm:.4g}. Likely the learning rate of {rate:.2g} is too high: try a tenth of it."
    )
