"""`twofold predict` of folders: three formats, into files, whole or not at all; what could not be read is said, and the rest is done."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import twofold
from twofold.cli import predicting
from twofold.cli.main import main
from twofold.cli.predicting import harmless
from twofold.data.values import Skipped
from twofold.run import Prediction


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("predicting") / "run"
    twofold.fit("digits", out=place, quiet=True, epochs=1, config={"stages": "8 M"})
    return place


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "many").mkdir()
    for number in range(3):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "many" / f"{number}.png")
    (tmp_path / "many" / "1b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path / "many"


def ask(capsys, *words, code=0):
    assert main(["predict", *map(str, words)]) == code
    return capsys.readouterr()


def test_json_lists_what_was_read_and_what_was_not(capsys, run, folder):
    said = ask(capsys, run, folder, "--format", "json", "--top", "2")
    entries = json.loads(said.out)
    assert [Path(entry["picture"]).name for entry in entries] == ["0.png", "1.png", "1b.png", "2.png"]
    assert set(entries[2]) == {"picture", "error"} and "broken" in entries[2]["error"]
    assert entries[0]["ranking"][0] == [entries[0]["class"], entries[0]["probability"]] and len(entries[0]["ranking"]) == 2
    assert said.err.startswith(f"not read: {folder}/1b.png: ") and said.err.count("\n") == 1


def test_csv_holds_what_was_read(capsys, run, folder):
    rows = list(csv.reader(io.StringIO(ask(capsys, run, f"{folder}/*.png", "--format", "csv").out)))
    assert rows[0] == ["picture", "class", "probability"] and [row[0] for row in rows[1:]] == [f"{folder}/{n}.png" for n in range(3)]


def test_the_file_takes_the_format_of_its_name_and_is_not_replaced_unasked(capsys, run, folder, tmp_path):
    out = tmp_path / "said.csv"
    said = ask(capsys, run, folder, "--out", out)
    assert said.out == f"3 pictures: {out}\n" and out.read_text().startswith("picture,class,probability\n")
    before = out.read_bytes()
    assert "there already: add --overwrite" in ask(capsys, run, folder / "0.png", "--out", out, code=2).err
    assert out.read_bytes() == before
    ask(capsys, run, folder / "0.png", "--out", out, "--overwrite", "--format", "json")
    assert [Path(entry["picture"]).name for entry in json.loads(out.read_text())] == ["0.png"]
    ask(capsys, run, folder, "--out", tmp_path / "said.txt")
    assert "0.png" in (tmp_path / "said.txt").read_text()


def test_nothing_is_left_where_nothing_could_be_read(capsys, run, folder, tmp_path):
    said = ask(capsys, run, folder / "1b.png", folder / "no.png", "--out", tmp_path / "said.json", code=2).err
    assert "none of 2 can be read" in said and "1b.png" in said and f"not read: {folder}/no.png: there is no such file" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many"]


def test_an_end_in_the_middle_leaves_the_old_file(capsys, run, folder, tmp_path, monkeypatch):
    (tmp_path / "said.csv").write_text("old")

    def stops(*_, **__):
        yield Prediction("a.png", "cat", 0.5, (("cat", 0.5),))
        raise KeyboardInterrupt

    monkeypatch.setattr("twofold.predicting.predict_each", stops)
    ask(capsys, run, folder, "--out", tmp_path / "said.csv", "--overwrite", code=130)
    assert (tmp_path / "said.csv").read_text() == "old" and len(list(tmp_path.iterdir())) == 2


MISTAKES = {
    "a folder": (["--out", "{tmp}"], "is a folder"),
    "overwrite": (["--overwrite"], "--overwrite replaces the file of --out, and none is given"),
    "top": (["--top", "0"], "expected --top of at least 1, got 0"),
    "views": (["--tta", "fold"], "expected flip, shift=PIXELS"),
    "no place": (["--out", "{tmp}/many/0.png/x.csv"], "cannot write"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(capsys, run, folder, tmp_path, name):
    words, message = MISTAKES[name]
    assert message in ask(capsys, run, folder, *(word.format(tmp=tmp_path) for word in words), code=2).err


def test_no_cell_begins_a_formula():
    names = {"cat": "cat", "=1+1": "'=1+1", "-1": "-1", "+2.5": "+2.5", "-a": "'-a", "@sum": "'@sum", "\tx": "'\tx"}
    assert {name: harmless(name) for name in names} == names
    said = [Prediction(name, name, 0.5, ()) for name in ("=cmd|'x'.png", "a,b.png", "-1")]
    rows = list(csv.reader(io.StringIO("".join(predicting._as_csv(said, 1)))))
    assert [row[:2] for row in rows[1:]] == [["./=cmd|'x'.png", "'=cmd|'x'.png"], ["a,b.png", "a,b.png"], ["./-1", "-1"]]


def test_numbers_that_json_lacks_and_names_that_are_no_text(tmp_path):
    said = [Prediction("\udcff.png", "ä", float("nan"), (("ä", float("nan")),)), Skipped("b", "gone")]
    entries = json.loads("".join(predicting._as_json(said, 1)))
    assert entries == [
        {"picture": "\udcff.png", "class": "ä", "probability": None, "ranking": [["ä", None]]},
        {"picture": "b", "error": "gone"},
    ]
    predicting._write(tmp_path / "x.csv", predicting._as_csv(said, 1))
    assert (tmp_path / "x.csv").read_text().splitlines()[1] == "\\udcff.png,ä,nan"


def test_a_long_table_comes_in_parts(capsys, run, folder, monkeypatch):
    monkeypatch.setattr(predicting, "AT_ONCE", 2)
    assert ask(capsys, run, folder).out.count("probability") == 2
