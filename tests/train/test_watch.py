"""Watching: one line for each epoch where there is no terminal, a bar where there is one, and a signal as a wish."""

import io

import pytest
import torch
from rich.console import Console

from twofold import nn
from twofold.tasks.classify import Classification
from twofold.train.checkpoints import Keeping
from twofold.train.folder import RunFolder
from twofold.train.keeper import Keeper
from twofold.train.learner import Learner, Outcome
from twofold.train.settings import Settings
from twofold.train.signals import Wish
from twofold.train.watch import Lines, Watch

ROW = {
    "epoch": 1, "step": 4, "seconds": 1.5, "rate": 0.1,
    "train": {"loss": 0.5}, "validation": {"loss": 0.25, "accuracy": 0.9, "top5": 1.0},
}  # fmt: skip
WELL = Outcome(0.4567, 0.1, 1.0, "", False)


def build(tmp_path, **settings):
    lines = Lines()
    learner = Learner(nn.Linear(2, 2), Classification(("a", "b")), Settings.of("digits", epochs=2, **settings), 4)
    keeper = Keeper(RunFolder(tmp_path / "run"), Keeping(), {"architecture": "x"}, lines.say)
    return Watch(learner, keeper, None, Wish(), lines)


@pytest.fixture
def watch(tmp_path):
    return build(tmp_path)


def end_epoch(watch, row=ROW):
    better = watch.learner.progress.end_epoch(row, (row["validation"]["accuracy"],))
    watch.epoch(watch.learner, row, better)
    watch.keeper.wait()


def test_without_a_terminal_there_is_a_line_for_each_epoch(watch, capsys):
    with watch.watching():
        watch.step(watch.learner, WELL)
        end_epoch(watch)
    err = capsys.readouterr().err
    assert err == "epoch   1/2  loss 0.5000  validation 0.2500, accuracy 90.00 %  1.5 s  best\n"


def test_on_a_terminal_a_bar_shows_loss_score_speed_and_time_left(tmp_path, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr("twofold.train.watch._Console", lambda **_: Console(file=screen, force_terminal=True, width=120))
    monkeypatch.setattr("twofold.train.watch.REFRESH", 0.0)
    watch = build(tmp_path)
    with watch.watching():
        for step in (1, 2, 3):
            watch.learner.progress.advance(0.5, 100 * step, None)
            watch.step(watch.learner, WELL)
    shown = screen.getvalue()
    assert "epoch 1" in shown and "loss 0.457" in shown and "/s" in shown and ":" in shown


def test_a_signal_is_answered_once_and_stops(watch, capsys):
    assert not watch.stop
    watch.wish.ask(15)
    for _ in range(3):
        watch.step(watch.learner, WELL)
    assert watch.stop and capsys.readouterr().err.count("SIGTERM: stopping after this step") == 1


def test_a_reader_that_has_gone_stops_nothing(watch, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(watch.lines.console, "_file", Gone())
    with watch.watching():
        end_epoch(watch)
        end_epoch(watch, {**ROW, "epoch": 2})
    assert watch.learner.progress.epoch == 2 and watch.lines.console.quiet


def test_it_goes_back_to_the_last_checkpoint(watch):
    watch.keeper.begin(watch.learner)
    before = watch.learner.model.weight.detach().clone()
    with torch.no_grad():
        watch.learner.model.weight.add_(1)
    watch.learner.guard.rate = 0.25
    watch.go_back(watch.learner)
    assert torch.equal(watch.learner.model.weight, before) and watch.learner.guard.rate == 0.25
