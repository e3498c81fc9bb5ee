"""Watching a run: the progress bar, the files that are written on the way, and Ctrl-C.

On a terminal a bar shows loss, score, items per second and time left; without one there is a line for each epoch. All of it goes to stderr.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.progress import Task as BarTask
from rich.text import Text
from torch import nn

from twofold.tasks.task import Task
from twofold.train.folder import RunFolder, told
from twofold.train.progress import Progress, save_progress
from twofold.train.settings import Settings

REFRESH = 0.1  # seconds between two pictures of the bar


class _Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: BarTask) -> Text:
        return Text(f"{task.fields['rate']:,.0f}/s")


class _Console(Console):
    """One that falls silent where whoever read it has gone. Training goes on: nobody has to look."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Watch:
    """Shows, writes and listens while `learn` runs."""

    stop = False

    def __init__(
        self, folder: RunFolder, task: Task, settings: Settings, steps: int, model: nn.Module, optimizer: torch.optim.Optimizer,
        description: dict[str, Any], quiet: bool = False,
    ) -> None:  # fmt: skip
        self.folder, self.task, self.settings, self.steps = folder, task, settings, steps
        self.model, self.optimizer, self.description = model, optimizer, description
        self.console = _Console(stderr=True, quiet=quiet, highlight=False, emoji=False)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), _Rate(), TimeRemainingColumn())
        self.bar = Bar(*columns, console=self.console, transient=True, auto_refresh=False, disable=not self.console.is_terminal)
        self.line = self.bar.add_task("", total=settings.learning.epochs * steps, told="", rate=0.0)
        self.score = ""
        self.since, self.items, self.shown = time.perf_counter(), 0, 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the block the bar is shown and the first Ctrl-C asks for a stop after the step in progress."""
        with _first_interrupt(self._interrupt), self.bar, self._events():
            yield

    def step(self, progress: Progress, loss: float, rate: float) -> None:
        """A step is done. Costs a few microseconds, and now and then a picture of the bar."""
        if self.stop:
            self._say("Ctrl-C: stopping after this step. Once more to abort at once.")
            return
        now = time.perf_counter()
        if now - self.shown < REFRESH:
            return
        done = progress.epoch * self.steps + progress.step
        if self.shown and progress.items > self.items:
            speed = (progress.items - self.items) / (now - self.since)
            self.bar.update(self.line, rate=speed)
        self.since, self.items, self.shown = now, progress.items, now
        self.events.add_scalar("step/loss", loss, done)
        self.events.add_scalar("step/rate", rate, done)
        if not self.bar.disable:
            told_now = f"loss {loss:.3f}  {self.score}"
            self.bar.update(self.line, completed=done, description=f"epoch {progress.epoch + 1}", told=told_now)
            self.bar.refresh()

    def epoch(self, progress: Progress, row: dict[str, Any], better: bool) -> None:
        """An epoch is done: keep the weights if they are the best, then the log, then the state."""
        if better:
            self.folder.write_model(self.model, self.description)
        self.folder.write_rows(progress.history)
        self.keep(progress)
        for part in ("train", "validation"):
            for name, value in row[part].items():
                self.events.add_scalar(f"{name}/{part}", value, row["step"])
        self.events.flush()
        self.score = " ".join(self.task.explain(row["validation"]))
        mark = "  best" if better else ""
        self._say(
            f"epoch {progress.epoch:>3}/{self.settings.learning.epochs}  loss {row['train']['loss']:.4f}  "
            f"validation {row['validation']['loss']:.4f}, {self.score}  {row['seconds']:.1f} s{mark}"
        )
        self.items, self.shown = 0, 0.0

    def keep(self, progress: Progress) -> None:
        """Write the state from which `--resume` goes on."""
        with told(self.folder.path):
            save_progress(self.folder.state, progress, self.model, self.optimizer)

    def _interrupt(self) -> None:
        self.stop = True  # and nothing more: the signal may come in the middle of anything, printing included

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)

    @contextmanager
    def _events(self) -> Iterator[None]:
        from torch.utils.tensorboard import SummaryWriter  # heavy: only where a run is on

        with told(self.folder.path):
            self.events = SummaryWriter(str(self.folder.path / "tensorboard"))
        try:
            yield
        finally:
            self.events.close()


@contextmanager
def _first_interrupt(ask: Any) -> Iterator[None]:
    """Within the block the first SIGINT calls `ask`; the second interrupts as usual.

    Nothing is changed in a thread, where SIGINT is ignored (as under nohup), and where its handler is none of Python's: it could not be
    put back.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        ask()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
