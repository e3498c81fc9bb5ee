"""What commands print: tables that read names as they are, JSON that every parser takes."""

import io
import json
import sys

import pytest

from twofold.cli.output import print_json, print_line, print_table, visible


def test_names_are_never_read_as_markup(capsys):
    print_table(("name", "count"), [("[red]x[/red]", 1234), ("b", 5)])
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out and "1,234" in out


def test_a_table_without_rows_has_its_header(capsys):
    print_table(("name", "count"), [])
    assert capsys.readouterr().out.split() == ["name", "count"]


def test_json_has_null_where_numbers_end(capsys):
    print_json({"a": float("nan"), "b": [float("inf"), 1.5], "ö": ("x", None, True)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "ö": ["x", None, True]}


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\x1b[31m", "a\\x1b[31m"), ("a\nb", "a\\nb"), ("\u202egnp", "\\u202egnp"), ("\udcff", "\\udcff"), ("Größe 写真　é.png", None)],
)
def test_control_characters_are_written_out(capsys, name, shown):
    assert visible(name) == (shown or name)
    print_table(("name",), [(name,)], name)
    print_line(name)
    assert capsys.readouterr().out.split("\n")[-2] == (shown or name)


def test_json_is_json_in_every_encoding(monkeypatch):
    for encoding in ("ascii", "utf-8"):
        screen = io.TextIOWrapper(io.BytesIO(), encoding, "backslashreplace")
        monkeypatch.setattr(sys, "stdout", screen)
        print_json({"name": "é\udcff"})
        screen.flush()
        assert json.loads(screen.buffer.getvalue().decode(encoding)) == {"name": "é\udcff"}


def test_a_reader_of_a_table_that_has_gone_is_no_exit_of_our_own(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(BrokenPipeError):
        print_table(("name",), [("a",)])
