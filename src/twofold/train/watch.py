"""Watching a run: the progress bar, the lines, and those who are told (keeper, trackers).

On a terminal a bar shows loss, score, items per second and time left; without one there is a line for each epoch. All of it goes to stderr.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.progress import Task as BarTask
from rich.text import Text

from twofold.train.keeper import Keeper
from twofold.train.learner import Learner, Outcome
from twofold.train.signals import Wish
from twofold.train.trackers import Trackers

AfterEpoch = Callable[[int, float, dict[str, float]], None]
REFRESH = 0.1  # seconds between two pictures of the bar


class _Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: BarTask) -> Text:
        return Text(f"{task.fields['rate']:,.0f}/s")


class _Console(Console):
    """One that falls silent where whoever read it has gone. Training goes on: nobody has to look."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Lines:
    """Sentences for people, on stderr."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = _Console(stderr=True, quiet=quiet, highlight=False, emoji=False)

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)


class Watch:
    """Shows, writes and listens while `learn` runs. trackers: None in all processes but the first.

    after_epoch: is told (epoch, score, scores), a larger score being better, and may end the run by raising.
    """

    def __init__(
        self, learner: Learner, keeper: Keeper, trackers: Trackers | None, wish: Wish, lines: Lines, after_epoch: AfterEpoch | None = None
    ) -> None:
        self.learner, self.keeper, self.trackers, self.wish, self.lines = learner, keeper, trackers, wish, lines
        self.after_epoch = after_epoch
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), _Rate(), TimeRemainingColumn())
        console = lines.console
        shown = console.is_terminal or console.is_jupyter
        self.bar = Bar(*columns, console=console, transient=True, auto_refresh=False, disable=not shown)
        self.line = self.bar.add_task("", total=learner.settings.learning.epochs * learner.steps, told="", rate=0.0)
        self.score = ""
        self.since, self.items, self.shown = time.perf_counter(), 0, 0.0
        self.told = False

    @property
    def stop(self) -> bool:
        """Whether a stop is wanted."""
        return self.wish.asked

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the block the bar is shown."""
        with self.bar:
            yield

    def step(self, learner: Learner, outcome: Outcome) -> None:
        """A step is done. Costs a few microseconds, and now and then a picture of the bar or a checkpoint."""
        if self.wish.asked and not self.told:
            self.told = True
            self.lines.say(f"{self.wish.name}: stopping after this step. Ctrl-C once more aborts at once.")
        if self.keeper.due(learner):
            self.keeper.save(learner)
        now = time.perf_counter()
        if now - self.shown < REFRESH:
            return
        progress, done = learner.progress, learner.number
        if self.shown and progress.items > self.items:
            speed = (progress.items - self.items) / (now - self.since)
            self.bar.update(self.line, rate=speed)
        self.since, self.items, self.shown = now, progress.items, now
        if self.trackers is not None:
            self.trackers.step(done, {"loss": outcome.loss, "rate": outcome.rate, "gradient": outcome.norm})
        if not self.bar.disable:
            told_now = f"loss {outcome.loss:.3f}  {self.score}"
            self.bar.update(self.line, completed=done, description=f"epoch {progress.epoch + 1}", told=told_now)
            self.bar.refresh()

    def epoch(self, learner: Learner, row: dict[str, Any], better: bool) -> None:
        """An epoch is done: keep the weights if they are the best, then the log, then the state."""
        self.keeper.epoch(learner, better)
        if self.trackers is not None:
            self.trackers.epoch(row["step"], row["epoch"], row, learner.model)
        self.score = " ".join(learner.task.explain(row["validation"]))
        mark = "  best" if better else ""
        self.lines.say(
            f"epoch {learner.progress.epoch:>3}/{learner.settings.learning.epochs}  loss {row['train']['loss']:.4f}  "
            f"validation {row['validation']['loss']:.4f}, {self.score}  {row['seconds']:.1f} s{mark}"
        )
        self.items, self.shown = 0, 0.0
        if self.after_epoch is not None:
            self.after_epoch(row["epoch"], learner.task.rank(row["validation"])[0], row["validation"])

    def go_back(self, learner: Learner) -> None:
        """Back to the last good state."""
        self.keeper.go_back(learner)
        self.items, self.shown = 0, 0.0
