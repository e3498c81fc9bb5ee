"""The loop: every run, of every task, goes through it.

for each epoch:  for each batch:  a step of the learner;    then validate, and keep the best
"""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol

import torch

from twofold.train.batches import Batches
from twofold.train.learner import Learner, Outcome
from twofold.train.machine import placed
from twofold.train.replicas import align


class Data(NamedTuple):
    """What a run learns from, and what it is judged by after each epoch."""

    training: Batches
    validation: Callable[[], Iterable[Any]]


class Watcher(Protocol):
    """Whoever looks on: shows progress, writes what is to be kept, goes back where that is asked for, and may want a stop."""

    @property
    def stop(self) -> bool: ...

    def step(self, learner: Learner, outcome: Outcome) -> None: ...

    def epoch(self, learner: Learner, row: dict[str, Any], better: bool) -> None: ...

    def go_back(self, learner: Learner) -> None: ...


class _Stopped(Exception):  # noqa: N818 (the end of a judgement is no error)
    """A stop was wanted while an epoch was being judged."""


def learn(learner: Learner, data: Data, watch: Watcher) -> None:
    """Train until the last epoch, until patience ends, or until a stop is wanted. Everything that changes is in the learner.

    A stop does not wait for the validation: an epoch whose steps are done is judged when the run goes on.
    """
    progress, steps = learner.progress, learner.steps
    learner.names = getattr(data.training, "names", None)
    if progress.step > steps:
        raise ValueError(
            f"resume: {progress.step} steps of the epoch are done, but with this data and these settings it has {steps}. "
            "Restore both, or train anew."
        )
    stop = learner.world.any_of(watch.stop)
    while learner.unfinished() and not stop:
        learner.begin()
        for batch in _left(learner, data):
            outcome = learner.step(batch, data.training.share(progress.step), watch.stop)
            if outcome.action == "rollback":
                watch.go_back(learner)
                break
            watch.step(learner, outcome)
            stop = outcome.stop if learner.world.processes > 1 else watch.stop  # several stop together, so a step later
            if stop:
                break
        if progress.step < steps or stop:
            continue
        if learner.unsound():
            watch.go_back(learner)
        elif (judged := judge_epoch(learner, data, watch)) is not None:
            watch.epoch(learner, *judged)
        else:
            stop = True


def _left(learner: Learner, data: Data) -> Iterator[Any]:
    """The batches of the epoch that are left. What the data draw at the beginning of an epoch (a DataLoader its order) is drawn as then."""
    progress = learner.progress
    if progress.step == learner.steps:
        return iter(())
    batches, now = iter(data.training.epoch(progress.epoch, progress.step)), torch.get_rng_state()
    if progress.step == 0:
        progress.begun = now
        return batches
    torch.set_rng_state(progress.begun)
    first = list(islice(batches, 1))
    torch.set_rng_state(now)
    return chain(first, batches)


def judge_epoch(learner: Learner, data: Data, watch: Watcher) -> tuple[dict[str, Any], bool] | None:
    """The epoch's row for the log, and whether it was the best so far; None where a stop was wanted meanwhile, and nothing has changed."""
    progress, world = learner.progress, learner.world
    seen = {"loss": progress.loss_sum / progress.items if progress.items else float("nan")}
    rate = learner.schedule.rate(learner.number - 1) * learner.guard.rate
    learner.clock.start()
    align(learner.model, world)
    scores = world.agree(_scores(learner, data, watch) if world.first or learner.sharded else None)
    learner.clock.lap("validation")
    if scores is None:
        return None
    row: dict[str, Any] = {
        "epoch": progress.epoch + 1,
        "step": (progress.epoch + 1) * learner.steps,
        "seconds": round(sum(learner.clock.seconds.values()), 3),
        "rate": rate,
        "train": seen,
        "validation": scores,
    }
    row |= {"reach": progress.reach} if progress.reach else {}
    rank = tuple(-math.inf if math.isnan(part) else part for part in learner.task.rank(scores))  # nothing is worse, and nothing as bad
    learner.schedule.judge(rank)
    return row, progress.end_epoch(row, rank)


def _scores(learner: Learner, data: Data, watch: Watcher) -> dict[str, float] | None:
    try:
        with learner.judged():
            return learner.task.evaluate(learner.model, _until_stopped(placed(data.validation(), learner.model), learner, watch)).scores
    except _Stopped:
        return None


def _until_stopped(batches: Iterable[Any], learner: Learner, watch: Watcher) -> Iterator[Any]:
    for batch in batches:
        if learner.world.any_of(watch.stop) if learner.sharded else watch.stop:  # who is judging stops, and those who judge with it
            raise _Stopped
        yield batch
