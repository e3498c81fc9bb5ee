"""twofold doctor: what is installed, and with --routes what a model's layers take, and how long each route takes."""

import json

import pytest

from twofold.cli import routes
from twofold.cli.main import main
from twofold.layers import choices, measured


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("TWOFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measured, "_remembered", {})
    monkeypatch.setattr(routes, "ALONE", 0.01)
    monkeypatch.setattr(routes, "STEPS", 0.05)


def said(capsys, *words):
    assert main(["doctor", *words]) == 0
    return capsys.readouterr().out


WIDE = ["--routes", "vgg-mini", "--input", "1x24x24", "--batch", "4", "--config", "stages=20 M 24"]


def test_what_is_measured_is_told_with_its_place(capsys):
    choices.keep("a", choices.Choice("vendor", {}))
    found = json.loads(said(capsys, "--json"))
    assert found["measured routes"] == f"{choices.place()}, 1 choices"


def test_every_layer_has_a_route_a_reason_and_times(capsys):
    found = json.loads(said(capsys, *WIDE, "--json"))
    assert found["model"] == "vgg-mini" and found["input"] == [4, 1, 24, 24] and found["precision"] == "full"
    assert found["choices"] == str(choices.place())
    layers = {layer["name"]: layer for layer in found["layers"]}
    second = layers["features.conv2"]
    assert second["kind"] == "Conv2d" and second["input"] == [4, 20, 12, 12]
    assert {"vendor", "vendor channels last"} <= set(second["milliseconds"]) and all(t > 0 for t in second["milliseconds"].values())
    assert not any("bf16" in wanted for layer in found["layers"] for wanted in layer["milliseconds"])
    assert layers["dropout"]["why"] == "only one"
    for layer in found["layers"]:
        assert layer["why"] and (layer["route"] in layer["milliseconds"] or layer["route"] == "fused")
    assert found["step_milliseconds"]["auto"] > 0 and found["step_milliseconds"]["vendor"] > 0


def test_the_choices_that_were_missing_are_made(capsys):
    found = json.loads(said(capsys, "--routes", "vgg-mini", "--input", "1x24x24", "--batch", "32", "--config", "stages=20 24", "--json"))
    second = next(layer for layer in found["layers"] if layer["name"] == "features.conv2")
    assert second["why"] == "measured" and choices.number() >= 1


def test_the_table_shows_the_same(capsys):
    out = said(capsys, *WIDE, "--precision", "bf16")
    assert out.startswith("vgg-mini, input 4x1x24x24, ") and "training step: auto " in out and f"choices: {choices.place()}" in out
    head = next(line for line in out.splitlines() if line.startswith("layer"))
    assert head.split()[:6] == ["layer", "kind", "input", "route", "why", "vendor"]


def test_text_models_and_odd_words(capsys):
    found = json.loads(said(capsys, "--routes", "char-lstm", "--input", "5", "--batch", "2", "--config", "units=16", "--json"))
    assert found["input"] == [5, 2] and [layer["name"] for layer in found["layers"]][:2] == ["embedding", "dropout"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--batch", "4"], "doctor: --input, --batch, --precision and --config say how to run a model"),
        (["--routes", "lenet"], 'did you mean "lenet5"?'),
        (["--routes", "lenet5", "--input", "28"], "doctor: expected --input as CxHxW, for example 3x64x64, got '28'"),
        (["--routes", "lenet5", "--batch", "0"], "doctor: expected --batch of at least 1"),
        (["--routes", "lenet5", "--batch", "9000000"], "values in all, got --batch 9000000 of 1x28x28."),
    ],
)
def test_mistakes_are_told(capsys, words, complaint):
    assert main(["doctor", *words]) == 2
    assert complaint in capsys.readouterr().err
