"""What is remembered on disk: where it lies, whoever writes at once, and files that are not what they should be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from twofold.layers import choices
from twofold.layers.choices import Choice, keep, look_up, number, place


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TWOFOLD_CACHE", str(tmp_path / "deep" / "cache"))
    monkeypatch.setattr(choices, "_told", False)
    return tmp_path / "deep" / "cache"


FIRST, SECOND = Choice("native", {"vendor": 2.0, "native": 1.0}), Choice("vendor", {"vendor": 1.0, "native": 2.0})


def test_what_is_kept_is_found_again(cache):
    assert look_up("a") is None and number() == 0
    assert keep("a", FIRST) == FIRST and look_up("a") == FIRST
    document = json.loads(place().read_text())
    assert document["choices"] == {"a": {"route": "native", "milliseconds": {"vendor": 2.0, "native": 1.0}, "within": None}}
    assert "processor" in document["about"] and not list(cache.glob("*.tmp"))


def test_of_two_choices_the_first_stands_unless_it_was_made_for_want_of_time():
    hasty = Choice("vendor", {}, 2.0)
    assert keep("a", FIRST) == FIRST and keep("a", SECOND) == FIRST and keep("a", hasty) == FIRST
    assert keep("b", hasty) == hasty and keep("b", SECOND) == SECOND and look_up("b") == SECOND
    assert hasty.settles(2.0) and not hasty.settles(3.0) and FIRST.settles(1e9)


def test_processes_that_write_at_once_keep_each_others_choices():
    code = (
        "import sys; from twofold.layers.choices import Choice, keep\nfor n in range(25): keep(sys.argv[1] + str(n), Choice('vendor', {}))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    assert number() == 50 and look_up("a24") == look_up("b24") == Choice("vendor", {})


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b'{"choices": 3}', b"[" * 100_000, b'{"choices": {"a": 1}, "choices": []}'], ids=repr
)
def test_a_broken_file_is_told_of_once_and_replaced(content):
    keep("a", FIRST)
    place().write_bytes(content)
    with pytest.warns(RuntimeWarning, match="cannot be read") as told:
        assert look_up("a") is None and look_up("a") is None and keep("b", SECOND) == SECOND
    assert len(told) == 1 and look_up("b") == SECOND


@pytest.mark.parametrize(
    "entry",
    [7, {}, {"route": 1, "milliseconds": {}}, {"route": "vendor", "milliseconds": {"a": "x"}}, {"route": "v", "milliseconds": {"a": None}}],
)
def test_a_broken_entry_is_passed_over(entry):
    keep("a", FIRST)
    document = json.loads(place().read_text())
    place().write_text(json.dumps({"choices": {**document["choices"], "b": entry}}))
    assert look_up("b") is None and look_up("a") == FIRST


def test_a_folder_that_cannot_be_written_costs_one_warning(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TWOFOLD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(RuntimeWarning) as told:
        assert keep("a", FIRST) == FIRST and look_up("a") is None and keep("b", FIRST) == FIRST
    assert len(told) == 1


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TWOFOLD_CACHE": "/x/own", "XDG_CACHE_HOME": "/x/shared", "HOME": "/x/home"}, "/x/own"),
        ({"TWOFOLD_CACHE": "~/own", "HOME": "/x/home"}, "/x/home/own"),
        ({"TWOFOLD_CACHE": "", "XDG_CACHE_HOME": "/x/shared", "HOME": "/x/home"}, "/x/shared/twofold"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/x/home"}, "/x/home/.cache/twofold"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="the folders of Unix")
def test_the_folder_is_the_users_choice(monkeypatch, variables, expected):
    for name in ("TWOFOLD_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert choices.folder() == Path(expected)


def test_without_a_home_nothing_is_kept(monkeypatch):
    monkeypatch.setattr(choices, "folder", lambda: None)
    assert place() is None and look_up("a") is None and number() == 0 and keep("a", FIRST) == FIRST
