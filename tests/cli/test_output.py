"""What commands print: tables that read names as they are, JSON that every parser takes, CSV that keeps commas."""

import json

from twofold.cli.output import print_csv, print_json, print_table


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


def test_csv_keeps_commas_and_quotes(capsys):
    print_csv(("picture", "class"), [('a, "b".png', "c")])
    assert capsys.readouterr().out == 'picture,class\n"a, ""b"".png",c\n'
