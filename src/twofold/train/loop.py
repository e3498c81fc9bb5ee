"""The loop: every run, of every task, goes through it.

for each epoch:  for each batch:  a step of the learner;    then validate, and keep the best
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from twofold.train.batches import Batches
from twofold.train.learner import Learner, Outcome


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


def learn(learner: Learner, data: Data, watch: Watcher) -> None:
    """Train until the last epoch, until patience ends, or until a stop is wanted. Everything that changes is in the learner."""
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
        for batch in data.training.epoch(progress.epoch, progress.step):
            outcome = learner.step(batch, data.training.share(progress.step), watch.stop)
            if outcome.action == "rollback":
                watch.go_back(learner)
                break
            watch.step(learner, outcome)
            stop = outcome.stop if learner.world.processes > 1 else watch.stop  # several stop together, so a step later
            if stop:
                break
        if progress.step == steps and learner.unsound():
            watch.go_back(learner)
        elif progress.step == steps:
            watch.epoch(learner, *judge_epoch(learner, data))


def judge_epoch(learner: Learner, data: Data) -> tuple[dict[str, Any], bool]:
    """The epoch's row for the log, and whether it was the best so far."""
    progress, task, world = learner.progress, learner.task, learner.world
    seen = {"loss": progress.loss_sum / progress.items if progress.items else float("nan")}
    rate = learner.schedule.rate(learner.number - 1) * learner.guard.rate
    learner.clock.start()
    with learner.judged():
        scores = world.agree(task.evaluate(learner.model, data.validation()).scores if world.first else None)
    learner.clock.lap("validation")
    row: dict[str, Any] = {
        "epoch": progress.epoch + 1,
        "step": (progress.epoch + 1) * learner.steps,
        "seconds": round(sum(learner.clock.seconds.values()), 3),
        "rate": rate,
        "train": seen,
        "validation": scores,
    }
    row |= {"reach": progress.reach} if progress.reach else {}
    rank = task.rank(scores)
    learner.schedule.judge(rank)
    return row, progress.end_epoch(row, rank)
