"""twofold see init: numbers, a table, a picture, and sentences for mistakes."""

import json

import pytest
from PIL import Image

from twofold.cli.main import main


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(capsys, line):
    assert main(["see", "init", *line.split()]) == 0
    return capsys.readouterr().out


def test_numbers_and_picture(capsys, tmp_path):
    found = json.loads(said(capsys, "lenet5 --scheme built,uniform(-0.2,0.2),data --seed 1 --json"))
    assert list(found["schemes"]) == ["built", "uniform(-0.2,0.2)", "data"] and found["input"] == [32, 1, 28, 28]
    assert [size["layer"] for size in found["schemes"]["data"]] == ["conv1", "conv2", "fc1", "fc2", "fc3"]
    assert [size["signal"] for size in found["schemes"]["data"]] == pytest.approx([1] * 5, rel=1e-3)
    with Image.open(tmp_path / found["out"]) as picture:
        assert found["out"] == "lenet5-init.png" and picture.format == "PNG" and min(picture.size) > 500
    assert json.loads(said(capsys, "lenet5 --scheme built,uniform(-0.2,0.2),data --seed 1 --json")) == found


def test_the_tables_have_a_row_for_each_layer_and_a_column_for_each_scheme(capsys):
    lines = said(capsys, "char-lstm --input 5 --config units=32 --scheme built,identity --out a.png").splitlines()
    assert lines[0].strip() == "signal, input 5x32" and lines[1].split() == ["layer", "kind", "built", "identity"]
    assert [line.split()[0] for line in lines[2:6]] == ["embedding", "lstm", "bridge", "head"]
    assert lines[-1] == "2 schemes on char-lstm: a.png"


def test_large_pictures_come_in_small_batches(capsys, monkeypatch):
    monkeypatch.setattr("twofold.cli.see.VALUES", 5 * 28 * 28 - 1)
    assert json.loads(said(capsys, "lenet5 --scheme he --json"))["input"] == [4, 1, 28, 28]


MISTAKES = {
    "lenet5 --scheme hee": "got 'hee'. Did you mean \"he\"?",
    "lenet5 --scheme zeros": "(symmetry)",
    "lenet5 --scheme ,": "see init: expected 1 to 8 schemes in one picture, got 0.",
    "lenet5 --scheme identity": 'init: "identity" fills weights from state to state, and LeNet5 has no recurrent layer.',
    "lenet5 --out a.jpg": "see init: expected --out as the name of a PNG file, for example a.png, got a.jpg.",
    "lenet5 --input 28": "see init: expected --input as CxHxW",
    "lenet": 'did you mean "lenet5"?',
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes(capsys, line, tmp_path):
    assert main(["see", "init", *line.split()]) == 2
    assert MISTAKES[line] in capsys.readouterr().err and not list(tmp_path.iterdir())
