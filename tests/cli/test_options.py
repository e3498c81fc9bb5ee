"""Whole numbers on the command line: written as one or refused, by every option of every command."""

from importlib import import_module
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
from cyclopts import App

from twofold.cli.main import COMMANDS, main
from twofold.cli.options import read_whole


def commands():
    """(the words that call it, the function)"""
    for name, (place, _) in COMMANDS.items():
        module, _, attribute = place.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, App):
            yield from ((f"{name} {below}", found[below].default_command) for below in found if not below.startswith("-"))
        else:
            yield name, found


def whole_options():
    for words, function in commands():
        for name, hint in get_type_hints(function, include_extras=True).items():
            bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
            if bare is int or int in get_args(bare):
                yield words, f"--{name.replace('_', '-')}", hint


@pytest.mark.parametrize(("words", "option", "hint"), [pytest.param(*found, id=f"{found[0]} {found[1]}") for found in whole_options()])
def test_every_whole_number_is_read_in_one_place(words, option, hint):
    assert read_whole in [getattr(said, "converter", None) for said in get_args(hint)[1:]], f"{option}: use a kind of options.py"


def test_the_options_are_found():
    assert {("sample", "--length"), ("train", "--limit"), ("explain conv", "--filters")} <= {found[:2] for found in whole_options()}


@pytest.mark.parametrize("text", ["1.5", "2.0", "1e3", "0x10", "1_0", "½", "٣", ""])
def test_what_is_no_whole_number_is_refused(text, capsys):
    assert main(["sample", "run", f"--length={text}"]) == 2
    assert (
        capsys.readouterr().err == f"twofold: sample: expected --length to be a whole number, got {text!r}. See: twofold sample --help.\n"
    )


@pytest.mark.parametrize(("words", "option"), [("explain conv", "filters"), ("data check x", "image-size"), ("train digits", "limit")])
def test_an_option_that_may_be_left_out_is_refused_alike(words, option, capsys):
    assert main([*words.split(), f"--{option}", "2.7"]) == 2
    assert f"expected --{option} to be a whole number, got '2.7'" in capsys.readouterr().err


def test_a_sign_is_no_obstacle(capsys):
    assert main(["predict", "run", "x.png", "--top", "-1"]) == 2
    assert "expected --top of at least 1, got -1" in capsys.readouterr().err
    assert main(["explain", "conv", "--worked", "--size", "+4", "--seed", "1"]) == 0
    assert "input 4x4" in capsys.readouterr().out
