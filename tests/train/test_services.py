"""wandb, trackio and mlflow are told the same, each in its own words. Stand-ins for them write down every call."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from twofold.train.trackers import Trackers, Watching


class Recorder:
    """A module or an object that has every name, is callable, and writes down what it was called with."""

    def __init__(self, calls, called="", known=None):
        self.__dict__.update(known or {}, calls=calls, called=called)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Recorder(self.calls, f"{self.called}.{name}".lstrip("."))

    def __call__(self, *arguments, **options):
        self.calls.append((self.called, arguments, options))
        known = {"id": "id-1", "name": options.get("name", ""), "info": SimpleNamespace(run_id="id-1")}
        return Recorder(self.calls, "run", known)


FINAL = {"final": True, "test": {"accuracy": 0.5}}


@pytest.fixture
def play(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def play(name, state=None, number=0, final=FINAL):
        calls, said = [], []
        monkeypatch.setitem(sys.modules, name, Recorder(calls))
        trackers = Trackers(Watching(track=name, histograms=1), said.append)
        trackers.load_state_dict(state or {})
        model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(model.weight)
        trackers.begin(tmp_path / "mine", {"source": "digits", "learning": {"epochs": 2}}, model, number=number)
        trackers.step(5, {"loss": 0.5})
        trackers.epoch(10, 1, {"train": {"loss": 0.25}, "validation": {"accuracy": 0.75}}, model)
        trackers.picture(10, "filters", np.zeros((2, 2)))
        trackers.end(final)
        assert said == []
        return calls, trackers.state_dict()

    return play


SETTINGS = {"source": "digits", "epochs": 2}
NUMBERS = [({"step/loss": 0.5}, {"step": 5}), ({"loss/train": 0.25, "accuracy/validation": 0.75}, {"step": 10})]


def named(calls, name):
    return [(*arguments, options) for called, arguments, options in calls if called == name]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio(play, name):
    calls, state = play(name)
    ((begun),) = named(calls, "init")
    assert (begun[0]["project"], begun[0]["name"], begun[0]["config"]) == ("twofold", "mine", SETTINGS)
    logged = named(calls, "run.log")
    assert logged[:2] == NUMBERS
    assert [(list(what), when) for what, when in logged[2:4]] == [(["weights/weight"], {"step": 10}), (["filters"], {"step": 10})]
    ((distribution),) = named(calls, "Histogram")
    assert distribution[0]["np_histogram"][0].sum() == 1
    assert named(calls, "Image")[0][0].shape == (2, 2, 3)
    final = {"final/accuracy/test": 0.5}
    if name == "wandb":
        assert begun[0]["mode"] == "offline" and "resume" not in begun[0]
        assert named(calls, "run.summary.update") == [(final, {})] and calls[-1] == ("run.finish", (), {"exit_code": 0})
        assert state == {"wandb": "id-1"}
    else:
        assert begun[0]["resume"] == "never" and logged[-1] == (final, {}) and calls[-1] == ("finish", (), {})
        assert state == {"trackio": "mine"}


def test_mlflow(play):
    calls, state = play("mlflow")
    assert [called for called, _, _ in calls[:3]] == ["set_experiment", "start_run", "log_params"]
    assert named(calls, "start_run") == [({"run_name": "mine", "nested": True},)]
    assert named(calls, "log_params") == [({"source": "digits", "epochs": "2"}, {})]
    spread = {"weights/weight/mean": 1.0, "weights/weight/deviation": 0.0}
    assert named(calls, "log_metrics") == [*NUMBERS, (spread, {"step": 10}), ({"final/accuracy/test": 0.5}, {})]
    assert named(calls, "log_image")[0][1] == {"artifact_file": "filters/00000010.png"}
    assert calls[-1] == ("end_run", ("FINISHED",), {}) and state == {"mlflow": "id-1"}


def test_a_resumed_run_goes_on_under_its_old_name(play):
    again = {
        "wandb": ("init", {"id": "old", "resume": "allow"}),
        "trackio": ("init", {"name": "old", "resume": "allow"}),
        "mlflow": ("start_run", {"run_id": "old", "nested": True}),
    }
    for name, (call, options) in again.items():
        calls, _ = play(name, {name: "old"}, number=5)
        ((begun),) = named(calls, call)
        assert begun[0] | options == begun[0], name


def test_a_broken_off_run_has_failed(play):
    assert play("wandb", final=None)[0][-1] == ("run.finish", (), {"exit_code": 1})
    assert play("mlflow", final=None)[0][-1] == ("end_run", ("FAILED",), {})


@pytest.mark.parametrize("how", ["mode", "key", "netrc"])
def test_wandb_is_online_for_a_user_who_has_a_key_or_says_so(play, tmp_path, monkeypatch, how):
    if how == "netrc":
        (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password key")
    else:
        monkeypatch.setenv({"mode": "WANDB_MODE", "key": "WANDB_API_KEY"}[how], "online")
    ((begun),) = named(play("wandb")[0], "init")
    assert "mode" not in begun[0]
