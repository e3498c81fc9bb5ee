"""twofold explain: pages, JSON, a picture, and sentences for mistakes."""

import json

import pytest
from PIL import Image

from twofold.cli.main import main
from twofold.see.worked import Example, work


def said(capsys, line):
    assert main(["explain", *line.split()]) == 0
    return capsys.readouterr().out


def test_the_first_layer_of_a_resnet(capsys):
    page = said(capsys, "conv --input 3x224x224 --kernel 7 --stride 2 --padding 3 --filters 64")
    assert page.startswith("Conv2d(3, 64, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3))\n")
    assert "floor((224 + 3 + 3 - 1*(7-1) - 1) / 2) + 1 = floor(223/2) + 1 = 112" in page and "((7*7*3)+1)*64 = 9,472" in page


@pytest.mark.parametrize(
    ("words", "output", "parameters"),
    [
        ("conv --input 3x1000 --kernel 5 --filters 8 --padding 0+1 --dilation 2", [1, 8, 993], 128),
        ("conv --input 2x9x7 --kernel 2x3 --filters 4 --padding 0+1x2+0 --stride 1x2 --groups 2 --no-bias", [1, 4, 9, 4], 24),
        ("conv --input 8x16x32x32 --kernel 3 --depthwise --padding same_lower --stride 2", [1, 8, 8, 16, 16], 224),
        ("conv --input 4x9x9 --kernel 3 --depthwise --filters 8 --padding full", [1, 8, 11, 11], 80),
        ("conv --input 3x16x16 --kernel 4 --stride 2 --padding 1 --filters 4 --transposed --output-padding 1", [1, 4, 33, 33], 196),
        ("pool --input 8x98x98 --kernel 3 --ceil", [1, 8, 33, 33], 0),
        ("pool --input 8x98 --kernel 3 --stride 2 --padding 1 --kind average", [1, 8, 49], 0),
        ("pool --input 8x6x8x8 --kernel 2 --kind power --dilation 2", [1, 8, 2, 3, 3], 0),
        ("pool --input 8x16x16 --adaptive 7x5 --kind average", [1, 8, 7, 5], 0),
    ],
)
def test_settings_reach_the_layer(capsys, words, output, parameters):
    found = json.loads(said(capsys, f"{words} --json"))
    assert (found["output"], found["parameters"]) == (output, parameters)


def test_the_worked_example_as_text_json_and_picture(capsys, tmp_path):
    page = said(capsys, f"conv --worked --out {tmp_path / 'worked.png'}")
    assert page == f"{work()}\npicture: {tmp_path / 'worked.png'}\n"
    with Image.open(tmp_path / "worked.png") as picture:
        assert picture.width == 1440
    found = json.loads(said(capsys, "conv --worked --size 4 --kernel 2 --stride 1 --padding 0 --seed 5 --json"))
    assert found["dx"] == work(Example(4, 2, 1, 0, 5)).dx.tolist() and found["out"] is None


MISTAKES = {
    "conv": "expected --input as CxT, CxHxW or CxDxHxW, for example 3x224x224, got ''",
    "conv --input 3x0x9": "expected --input as CxT, CxHxW or CxDxHxW, for example 3x224x224, got '3x0x9'",
    "conv --input 3x9x9 --filters 2": "explain conv: --kernel is missing. For example: --input 3x224x224 --kernel 7",
    "conv --input 3x9x9 --kernel 2": "explain conv: --filters is missing.",
    "conv --input 3x9x9 --kernel a --filters 2": "expected --kernel as a whole number or one for each axis, such as 3 or 3x5, got 'a'",
    "conv --input 3x9x9 --kernel 3x3x3 --filters 2": "Conv2d: expected kernel_size to be one whole number or two",
    "conv --input 3x9x9 --kernel 0 --filters 2": "Conv2d: expected kernel_size to be one whole number or two, from 1 to 2147483647, got 0.",
    "conv --input 3x9x9 --kernel 3 --filters 2 --stride 0": "Conv2d: expected stride to be one whole number or two",
    "conv --input 3x9x9 --kernel 3 --filters 2 --padding sam": 'expected padding to be whole numbers or one of "valid", "same"',
    "conv --input 3x9x9 --kernel 10 --filters 2": "Conv2d input: the kernel 10x10 does not fit into the padded map 9x9",
    "conv --input 3x9x9 --kernel 3 --filters 2 --groups 2": "Conv2d: expected in_channels to be a multiple of groups=2, got 3.",
    "conv --input 3x90000x90000 --kernel 3 --filters 2": "Conv2d input: expected outputs of at most 2147483647 numbers",
    "conv --input 3x9x9 --kernel 3 --depthwise --groups 3": "explain conv: --depthwise already says --groups",
    "conv --input 3x9x9 --kernel 3 --depthwise --filters 4": "expected out_channels to be a multiple of groups=3, got 4",
    "conv --input 3x9x9 --kernel 3 --filters 2 --output-padding 1": "explain conv: --output-padding belongs to --transposed.",
    "conv --input 3x9x9 --kernel 3 --filters 2 --size 4": "the options --size, --seed and --out belong to --worked; leave out --size.",
    "conv --worked --input 3x3x3 --transposed": "one filter on a small square; leave out --input, --transposed.",
    "conv --worked --kernel 9": "worked example: expected kernel from 1 to 4, got 9. It has to fit on a page.",
    "conv --worked --kernel 2x2": "explain conv --worked: expected --kernel as one whole number, got '2x2'.",
    "conv --worked --out a.jpg": "expected --out as the name of a PNG file, for example convolution.png, got a.jpg.",
    "pool --input 8x9x9": "explain pool: --kernel is missing.",
    "pool --input 8x9x9 --kernel 3 --padding 2": "MaxPool2d: expected padding of at most half the kernel 3x3, got 2",
    "pool --input 8x9x9 --adaptive 3 --kernel 2": "explain pool: --adaptive chooses the windows itself; leave out --kernel.",
    "pool --input 8x9x9 --adaptive 3 --kind power": "explain pool: --adaptive goes with --kind max or average, not power.",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_answered_in_one_paragraph(capsys, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", *words.split()]) == 2
    captured = capsys.readouterr()
    assert MISTAKES[words] in captured.err and captured.err.count("\n") == 1 and captured.out == "" and list(tmp_path.iterdir()) == []


def test_the_summary_of_a_model_has_the_same_arithmetic(capsys):
    assert main(["summary", "lenet5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert (found["multiply_adds"], found["bytes"]) == (416_520, sum(layer["bytes"] for layer in layers.values()))
    assert (layers["pool2"]["field"], layers["pool2"]["stride"], layers["fc1"]["stride"]) == ([16, 16], [4, 4], None)
    assert main(["summary", "lenet5"]) == 0
    page = capsys.readouterr().out
    assert "multiply-adds: 416,520" in page and "16x16" in page and "4x4" in page
