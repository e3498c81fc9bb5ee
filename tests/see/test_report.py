"""One page that opens alone, under 2 MB, beside the same pictures as files; and nothing at all on failure."""

import base64
import os
import re

import numpy as np
import pytest

from twofold.see import report as report_module
from twofold.see import style
from twofold.see.confusion import confusion
from twofold.see.report import LIMIT, Picture, Report, Sample, Table, report


def noise(seed, width=10):
    """A figure that no compression makes small."""
    figure = style.figure(width, width)
    axes = figure.subplots()
    axes.imshow(np.random.default_rng(seed).integers(0, 256, (900, 900, 3), dtype=np.uint8), interpolation="nearest")
    return figure


def contents(**changed):
    matrix = Picture("confusion", confusion([[3, 1], [0, 4]], ["<b>", "dog"]), "Confusion.", "Matrix of 2 classes")
    given = Report("Run", [("accuracy", "87.5 %")], {"seed": 0}, [matrix], samples=[Sample("temperature 1", "<script>")])
    return given._replace(**changed)


def inline(path):
    return [base64.b64decode(found) for found in re.findall(r"base64,([^\"]*)", path.read_text("utf-8"))]


def test_the_page_and_the_pictures_are_written_and_nothing_else(tmp_path):
    path = report(tmp_path / "runs" / "one", contents())
    assert path == tmp_path / "runs" / "one" / "report.html"
    assert {str(found.relative_to(path.parent)) for found in path.parent.rglob("*")} == {
        "report.html",
        "pictures",
        os.path.join("pictures", "confusion.png"),
    }
    assert inline(path) == [(path.parent / "pictures" / "confusion.png").read_bytes()]


def test_other_files_of_the_run_stay(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}")
    report(str(tmp_path), contents())
    assert (tmp_path / "metrics.jsonl").read_text() == "{}"


def test_the_same_contents_give_the_same_bytes(tmp_path):
    first, second = (report(tmp_path / name, contents()).read_bytes() for name in "ab")
    assert first == second


def test_names_from_outside_are_text_in_the_page(tmp_path):
    hostile = "<script>alert(1)</script>"
    given = contents(notes=[hostile], tables=[Table(hostile, ("class",), [(hostile,)])], settings={"out": hostile})
    written = report(tmp_path, given).read_text("utf-8")
    assert "<script" not in written
    assert written.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 4


def test_a_file_name_that_is_no_unicode_is_written(tmp_path):
    given = contents(notes=[b"caf\xe9.png".decode("utf-8", "surrogateescape")])
    assert "caf\ufffd.png" in report(tmp_path, given).read_text("utf-8")


def test_large_pictures_are_drawn_with_fewer_dots_in_the_page_alone(tmp_path):
    path = report(tmp_path, contents(pictures=[Picture("noise", noise(0, 7), "Noise.", "Noise")]))
    assert path.stat().st_size < LIMIT
    (small,) = inline(path)
    large = (tmp_path / "pictures" / "noise.png").read_bytes()
    assert len(small) < len(large) > LIMIT * 3 / 4
    assert large == style.png_bytes(noise(0, 7))


def test_what_cannot_be_made_small_is_refused_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(report_module, "LIMIT", 9_000)
    with pytest.raises(ValueError, match=r"a page under 9,000 bytes, got .* even at 48 dots per inch.*the 1 pictures are"):
        report(tmp_path / "run", contents())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../evil", "a/b", "a\\b", ".hidden", "a.png", "x" * 101, "name\n", "CON:"])
def test_a_name_that_is_no_plain_file_name_is_refused_and_writes_nothing(tmp_path, name):
    given = contents(pictures=[contents().pictures[0]._replace(name=name)])
    with pytest.raises(ValueError, match=r"report picture .*: expected a name of letters, digits, - and _"):
        report(tmp_path / "run", given)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_comes_twice_is_refused():
    first = contents().pictures[0]
    with pytest.raises(ValueError, match="report picture 'Confusion': expected each name once, got it twice"):
        report("unused", contents(pictures=[first, first._replace(name="Confusion")]))


@pytest.mark.parametrize(("row", "got"), [((1,), 1), ((1, 2, 3), 3), ((), 0)])
def test_a_row_that_does_not_fit_its_table_is_refused(row, got):
    table = Table("Classes", ("class", "recall"), [("cat", 1), row])
    with pytest.raises(ValueError, match=rf"report table 'Classes': expected 2 values a row, .*, got {got} in row 2"):
        report("unused", contents(tables=[table]))


def test_an_empty_title_is_refused():
    with pytest.raises(ValueError, match="report title: expected a text, got an empty one"):
        report("unused", contents(title=" "))


def test_a_full_disk_leaves_the_old_report_as_it_was(tmp_path, monkeypatch):
    old = report(tmp_path, contents()).read_bytes()
    picture = (tmp_path / "pictures" / "confusion.png").read_bytes()
    before = sorted(tmp_path.rglob("*"))
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    other = Picture("confusion", confusion([[1, 0], [0, 1]], ["a", "b"]), "", "")
    with pytest.raises(OSError, match="No space left"):
        report(tmp_path, contents(title="New", pictures=[other]))
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "report.html").read_bytes() == old
    assert (tmp_path / "pictures" / "confusion.png").read_bytes() == picture
