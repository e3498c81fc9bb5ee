"""Schemes on the command line: the canonical text in a summary, mistakes in three lines, pictures, and the search for nets."""

import json

import pytest

from twofold.cli.main import main
from twofold.cli.sweeping import known_kinds, refuse_impossible
from twofold.train.domain import parse

LONG = " ".join(["conv8 -> bn -> relu ->"] * 30) + " gap -> fc"  # longer than the name of a file may be


def test_a_summary_shows_shapes_and_the_canonical_text(capsys):
    assert main(["summary", "INPUT -> [CONV4 -> RELU -> POOL2]*2 -> FC", "--input", "3x12x20"]) == 0
    out = capsys.readouterr().out
    assert "scheme: [conv4 relu pool]*2 fc\n" in out
    assert [line.split()[2] for line in out.splitlines() if line.startswith(("conv2", "pool2", "flatten", "fc1"))] == [
        "1x4x6x10", "1x4x3x5", "1x60", "1x10",
    ]  # fmt: skip


def test_a_long_one_too_and_as_json(capsys):
    assert main(["summary", LONG, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == LONG and told["scheme"] == LONG.replace(" ->", "") and told["input"] == [1, 1, 28, 28]


@pytest.mark.parametrize(
    ("model", "lines"),
    {
        "[conv -> rleu]*2 fc": [
            "twofold: scheme, character 10: no layer 'rleu'. Did you mean \"relu\"?",
            "    [conv -> rleu]*2 fc",
            "             ^",
        ],
        "fc -> fc7": [
            "twofold: scheme, character 7: expected 3 class scores at the end, and fc7 gives 7. Leave its number out.",
            "    fc -> fc7",
            "          ^",
        ],
    }.items(),
)
def test_a_mistake_is_a_paragraph_and_two_lines(capsys, model, lines):
    assert main(["summary", model, "--config", "classes=3"]) == 2
    assert capsys.readouterr().err.splitlines() == lines


def test_a_picture_of_first_weights_has_a_short_name(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["see", "init", LONG, "--scheme", "built", "--input", "1x6x6"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["scheme-init.png"]
    assert f"1 scheme on {LONG}: scheme-init.png" in capsys.readouterr().out.replace("\n", "")


def test_nets_may_be_searched():
    space = parse("model=[conv8 relu pool]*1 fc|conv8->gap->fc", known_kinds({}))
    assert space["model"].values == ("[conv8 relu pool]*1 fc", "conv8->gap->fc")
    refuse_impossible("digits", space, {})
    with pytest.raises(ValueError, match="scheme, character 4: no layer 'gpa'"):
        refuse_impossible("digits", parse("model=fc|fc gpa fc", known_kinds({})), {})
