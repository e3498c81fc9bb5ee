"""Watching: one line for each epoch where there is no terminal, a bar where there is one, and the first Ctrl-C as a wish."""

import io
import os
import signal

import pytest
import torch
from rich.console import Console

from twofold import nn
from twofold.tasks.classify import Classification
from twofold.train.folder import RunFolder
from twofold.train.optimizers import build_optimizer
from twofold.train.progress import Progress
from twofold.train.settings import Settings
from twofold.train.watch import Watch

ROW = {
    "epoch": 1, "step": 4, "seconds": 1.5, "rate": 0.1,
    "train": {"loss": 0.5}, "validation": {"loss": 0.25, "accuracy": 0.9, "top5": 1.0},
}  # fmt: skip


@pytest.fixture
def watch(tmp_path):
    model = nn.Linear(2, 2)
    settings = Settings.of("digits", epochs=2)
    optimizer = build_optimizer(model, settings.optimisation)
    return Watch(RunFolder(tmp_path / "run"), Classification(("a", "b")), settings, 4, model, optimizer, {"architecture": "x"})


def end_epoch(watch, progress, row=ROW):
    watch.epoch(progress, row, progress.end_epoch(row, (row["validation"]["accuracy"],)))


def test_without_a_terminal_there_is_a_line_for_each_epoch(watch, capsys):
    with watch.watching():
        watch.step(Progress(step=1, items=10), 0.5, 0.1)
        end_epoch(watch, Progress())
    err = capsys.readouterr().err
    assert err == "epoch   1/2  loss 0.5000  validation 0.2500, accuracy 90.00 %  1.5 s  best\n"


def test_on_a_terminal_a_bar_shows_loss_score_speed_and_time_left(tmp_path, watch, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr("twofold.train.watch._Console", lambda **_: Console(file=screen, force_terminal=True, width=120))
    monkeypatch.setattr("twofold.train.watch.REFRESH", 0.0)
    again = Watch(watch.folder, watch.task, watch.settings, 4, watch.model, watch.optimizer, {})
    progress = Progress()
    with again.watching():
        for step in (1, 2, 3):
            progress.advance(0.5, 100 * step, None)
            again.step(progress, 0.4567, 0.1)
    shown = screen.getvalue()
    assert "epoch 1" in shown and "loss 0.457" in shown and "/s" in shown and ":" in shown


def test_only_the_best_weights_are_kept(watch):
    with watch.watching():
        progress = Progress()
        end_epoch(watch, progress)
        kept = watch.model.weight.clone()
        with torch.no_grad():
            watch.model.weight.add_(1)
        end_epoch(watch, progress, {**ROW, "epoch": 2, "validation": {**ROW["validation"], "accuracy": 0.8}})
    other = nn.Linear(2, 2)
    watch.folder.read_weights(other)
    assert torch.equal(other.weight, kept)
    assert [row["epoch"] for row in watch.folder.read_rows()] == [1, 2]


def test_the_first_ctrl_c_asks_and_the_second_interrupts(watch, capsys):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), watch.watching():
        os.kill(os.getpid(), signal.SIGINT)
        assert watch.stop
        watch.step(Progress(), 0.5, 0.1)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert "Once more to abort at once" in capsys.readouterr().err


@pytest.mark.parametrize("before", [signal.SIG_IGN, None])
def test_an_interrupt_that_is_ignored_or_not_pythons_stays_so(watch, monkeypatch, before):
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
    monkeypatch.setattr(signal, "getsignal", lambda number: before)
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("the handler was replaced"))
    try:
        with watch.watching():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        monkeypatch.undo()
        signal.signal(signal.SIGINT, kept)
    assert not watch.stop


def test_a_reader_that_has_gone_stops_nothing(watch, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(watch.console, "_file", Gone())
    progress = Progress()
    with watch.watching():
        end_epoch(watch, progress)
        end_epoch(watch, progress, {**ROW, "epoch": 2})
    assert progress.epoch == 2 and watch.console.quiet
