"""twofold train --sweep: what may be searched, what is refused at the door, and what is told at the end."""

import json
import shlex
from pathlib import Path

import pytest

from twofold.cli.sweeping import best_command, known_kinds, print_trials, refuse_impossible, sweep_and_print
from twofold.cli.training import read_changes
from twofold.train.domain import Choice, Range, parse
from twofold.train.sweep import Trial


def trial(number, values, state="complete", scores=None, reason=""):
    return Trial(number, values, state, 0.5 if scores else None, scores or {}, 3, 1.25, Path("sweep") / f"trial-{number:03d}", reason)


def test_settings_and_the_models_own_options_may_be_searched():
    kinds = known_kinds({"model": "char-lstm"})
    assert (kinds["learning_rate"], kinds["epochs"], kinds["model"]) == ("real", "whole", "word")
    assert kinds["config.units"] == "whole" and "config.vocabulary" not in kinds and "source" not in kinds
    assert "config.units" in known_kinds({}) and "config.units" not in known_kinds({"model": "lenet5"})


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("lr=0..1", {}, "learning_rate: expected more than 0.* got 0"),
        ("epochs=0|5", {}, "epochs: expected 1 or more, got 0"),
        ("lr=1..2", {"learning_rate": 0.1}, "sweep: learning_rate is searched, but also given. Leave one of them out."),
        ("units=8|16", {"model": "char-lstm", "config": {"units": 8}}, "sweep: units is searched, but also given"),
        ("units=0|8", {"model": "char-lstm"}, "units"),
        ("model=lenet5|resnet9000", {}, "no model 'resnet9000'"),
    ],
)
def test_what_no_trial_could_have_is_refused_at_the_door(text, given, message):
    with pytest.raises(ValueError, match=message):
        refuse_impossible("digits", parse(text, known_kinds(given)), given)


def test_what_every_trial_can_have_passes():
    space = {"learning_rate": Range(1e-4, 0.1, log=True), "config.units": Choice((8, 16)), "epochs": Range(1, 3)}
    refuse_impossible("notes.txt", space, {"model": "char-lstm", "config": {"layers": 2}})


def test_the_command_of_the_best_trial_gives_the_same_settings_again():
    best = trial(1, {"learning_rate": 0.1 + 0.2, "config.stages": "8 M", "track": "a"})
    given = {"epochs": 3, "graph": False, "pictures": 1, "config": {"dropout": 0.25}, "augment": ["flip", "crop=4"]}
    words = shlex.split(best_command("my photos", best, given))
    assert words[:3] == ["twofold", "train", "my photos"]
    at = words.index("--config")
    assert read_changes(words[at + 1 :]) == {"dropout": 0.25, "stages": "8 M"}
    assert float(words[words.index("--learning-rate") + 1]) == 0.1 + 0.2
    assert "--no-graph" in words and shlex.join(words).count("--augment") == 2


def test_the_table_has_the_best_first_and_the_failed_last(capsys):
    trials = [
        trial(0, {"learning_rate": 0.1}, "failed", reason="out of memory"),
        trial(1, {"learning_rate": 0.00123456}, scores={"accuracy": 0.5}),
        trial(2, {"learning_rate": 0.01}, "pruned", {"accuracy": 0.75}),
    ]
    print_trials(trials, "accuracy")
    out = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert out == [
        "trial accuracy learning_rate epochs time state",
        "2 75.00 % 0.01 3 1.2 s pruned",
        "1 50.00 % 0.001235 3 1.2 s complete",
        "0 - 0.1 3 1.2 s failed: out of memory",
    ]


def test_a_sweep_from_its_line_to_its_table(tmp_path, capsys):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna")

    def fit(settings, out, after_epoch):
        assert settings["epochs"] == 2 and settings["config"] == {"stages": "8 M"}
        out.mkdir()
        for epoch in (1, 2):
            after_epoch(epoch, settings["momentum"], {"loss": 1.0, "accuracy": settings["momentum"]})

    given = {"epochs": 2, "model": "vgg-mini", "config": {"stages": "8 M"}, "seed": 3}
    sweep_and_print("digits", "momentum=0.1..0.4", given, fit, tmp_path / "sweep", 3, json=True)
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    best = max(told["trials"], key=lambda trial: trial["values"]["momentum"])
    assert len(told["trials"]) == 3 and told["best"] == best["number"] and best["scores"]["accuracy"] == best["values"]["momentum"]
    assert f"--momentum {best['values']['momentum']}" in told["command"] and "--config 'stages=8 M'" in told["command"]
    assert (tmp_path / "sweep" / "sweep.png").read_bytes().startswith(b"\x89PNG") and "trial 2: complete" in captured.err
    sweep_and_print("digits", "momentum=0.1..0.4", given, fit, tmp_path / "sweep", 3, json=False)
    captured = capsys.readouterr()
    assert "3 of 3 trials are over" in captured.err and f"best:     {best['folder']}" in captured.out
    assert f"command:  {told['command']}" in captured.out
