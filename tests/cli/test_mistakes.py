"""Mistakes on the command line: what was expected, what came, and where to look."""

import pytest

from twofold.cli.main import main

MISTAKES = {
    "missing": (["evaluate"], "evaluate: RUN is missing. See: twofold evaluate --help."),
    "missing below": (["see", "kernels"], "see kernels: IMAGE is missing. See: twofold see kernels --help."),
    "no value": (["train", "digits", "--epochs"], "train: --epochs needs a value. See: twofold train --help."),
    "no value before another": (["train", "digits", "--out", "--overwrite"], "--out"),
    "too many": (
        ["recipes", "a b", "c"],
        "recipes: there is no place for 'a b', 'c'. A name with spaces goes in quotes. See: twofold recipes --help.",
    ),
    "twice": (["train", "--epochs", "1", "--epochs", "2"], "train: --epochs is given twice. Give it once."),
    "number": (
        ["sample", "x", "--length", "x"],
        "sample: expected --length to be a whole number, got 'x'. See: twofold sample --help.",
    ),
    "float": (["sample", "x", "--top-p", "all"], "sample: expected --top-p to be a number, got 'all'."),
    "flag": (["models", "--json=maybe"], "models: expected --json to be true or false, got 'maybe'."),
    "setting": (["train", "digits", "--optimizer", "adm"], "'rmsprop', 'adam', 'adamw' or 'muon', got 'adm'."),
    "choice": (["evaluate", "x", "--split", "tset"], 'Invalid value "tset" for --split. Choose from: "train", "validation", "test".'),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name, capsys):
    words, message = MISTAKES[name]
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("twofold: ") and captured.err.count("\n") == 1 and captured.out == ""
    assert message in captured.err
