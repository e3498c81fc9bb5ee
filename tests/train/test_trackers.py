"""All trackers of a run: told in order, dropped when they fail, refused when they are not installed."""

import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from twofold.train import trackers as page
from twofold.train.trackers import Trackers, Watching

ROW = {"epoch": 2, "train": {"loss": 1.0}, "validation": {"loss": 0.5, "worst": "cat"}, "rate": 0.1}


class Fake:
    name, known_as = "wandb", "mine"

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        def tell(*what):
            self.told.append((name, *what))
            print("chatter")
            if name in FAIL:
                raise FAIL[name]

        return tell


FAIL = {}


@pytest.fixture
def fake(monkeypatch):
    FAIL.clear()
    monkeypatch.setitem(sys.modules, "wandb", object())
    monkeypatch.setitem(page.SERVICES, "wandb", Fake)


def begun(tmp_path, said=None, draw=None, **watching):
    trackers = Trackers(Watching(track=("wandb",), **watching), (said if said is not None else []).append, draw)
    fake = trackers.active[0]
    trackers.begin(tmp_path, {"learning": {"epochs": 3}}, nn.Linear(1, 1))
    return trackers, fake


def test_numbers_are_named_metric_first_and_words_left_out(tmp_path, fake, capsys):
    trackers, kept = begun(tmp_path)
    trackers.step(7, {"loss": 2.0})
    trackers.epoch(8, 2, ROW, nn.Linear(1, 1))
    trackers.end({"final": True, "test": {"accuracy": 0.5, "odd": float("nan")}})
    assert kept.told[0][1].settings == {"epochs": 3}
    assert kept.told[1:] == [
        ("step", 7, {"step/loss": 2.0}),
        ("epoch", 8, {"loss/train": 1.0, "loss/validation": 0.5}),
        ("end", {"final/accuracy/test": 0.5}),
    ]
    assert capsys.readouterr().out == ""  # what a tracker prints is no output of a command


def test_a_model_of_which_no_picture_can_be_drawn_is_told_once(tmp_path, fake):
    said = []

    def draw(model):
        raise RuntimeError("no convolution\nanywhere")

    trackers, kept = begun(tmp_path, said, draw, pictures=1)
    for epoch in (1, 2):
        trackers.epoch(epoch, epoch, ROW, nn.Linear(1, 1))
    assert said == ["pictures of the model cannot be drawn: no convolution. The run goes on without them."]
    assert [each[0] for each in kept.told] == ["begin", "epoch", "epoch"]


def test_histograms_and_pictures_come_when_it_is_their_turn(tmp_path, fake):
    trackers, kept = begun(tmp_path, None, lambda model: {"filters": np.zeros((2, 2))}, histograms=2, pictures=3)
    model = nn.Linear(2, 1)
    model.weight.grad = torch.tensor([[float("inf"), 3.0]])
    for epoch in range(1, 7):
        trackers.epoch(10 * epoch, epoch, ROW, model)
    assert [(what[0], what[1], what[2]) for what in kept.told if what[0] == "picture"] == [
        ("picture", 30, "filters"),
        ("picture", 60, "filters"),
    ]
    histograms = [what for what in kept.told if what[0] == "histogram"]
    assert [what[1:3] for what in histograms[:3]] == [(20, "weights/weight"), (20, "gradients/weight"), (20, "weights/bias")]
    assert {what[1] for what in histograms} == {20, 40, 60}
    assert histograms[1][3].tolist() == [3.0]  # what is no number has no place in a distribution


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("gone.\nlong story"), "gone"),
        (KeyError(), "KeyError"),
    ],
)
@pytest.mark.parametrize("when", ["begin", "step", "epoch", "picture", "end"])
def test_a_tracker_that_fails_is_told_once_and_dropped(tmp_path, fake, when, error, reason):
    FAIL[when] = error
    said = []
    trackers, kept = begun(tmp_path, said)
    for number in (1, 2):
        trackers.step(number, {"loss": 2.0})
        trackers.epoch(number, number, ROW, nn.Linear(1, 1))
        trackers.picture(number, "a", np.zeros((2, 2)))
    trackers.end(None)
    assert said == [f"wandb failed: {reason}. The run goes on without it."]
    assert trackers.active == [] and [what[0] for what in kept.told].count(when) <= 2 and kept.told[-1] == ("end", None)


def test_the_others_go_on(tmp_path, fake):
    FAIL["begin"] = RuntimeError("no network")
    trackers = Trackers(Watching(track=("wandb", "tensorboard", "wandb")), lambda line: None)
    trackers.begin(tmp_path, {}, nn.Linear(1, 1))
    assert [tracker.name for tracker in trackers.active] == ["tensorboard"]
    trackers.end(None)


def test_an_interrupt_is_no_failure_of_a_tracker(tmp_path, fake):
    trackers, _ = begun(tmp_path)
    FAIL["step"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        trackers.step(1, {"loss": 1.0})


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_one_that_is_not_installed_is_answered_with_the_line_that_installs_it(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=f"^settings: track={name} needs a package that is not installed: pip install {name}$"):
        Trackers(Watching(track=name), print)


def test_one_that_is_broken_is_not_installed_once_more(monkeypatch, tmp_path):
    (tmp_path / "wandb.py").write_text("import no_such_package_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ValueError, match=r"track=wandb: the package is installed, but cannot be imported \(No module named"):
        Trackers(Watching(track=("wandb",)), print)


def test_names_may_stand_in_one_word_and_others_are_refused():
    assert Watching(track="wandb, tensorboard").track == ("wandb", "tensorboard")
    assert Watching(track="").track == () == Watching(track=[]).track
    assert Watching().track == ("tensorboard",)
    with pytest.raises(ValidationError, match="'tensorboard', 'wandb', 'mlflow' or 'trackio'"):
        Watching(track="comet")
