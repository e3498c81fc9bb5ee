"""Text of the user's own is split in order, or by file where there are many."""

from pathlib import Path

import pytest

from twofold.data import text_file as module
from twofold.data.options import DataOptions
from twofold.data.text_file import text_file, text_folder

TEXT = "".join(f"line {i}\n" for i in range(1000))


def test_one_file_is_split_in_order(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(TEXT)
    source = text_file(tmp_path / "book.txt")
    parts = (source.train, source.validation, source.test)
    assert "".join(source.vocabulary.decode(part.codes_T) for part in parts) == TEXT
    assert [part.characters for part in parts] == [len(TEXT) * 18 // 20, 444, 445]
    assert (source.name, source.train.names) == ("book", ("book.txt",))


def test_the_limit_is_of_training_characters(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(TEXT)
    for limit in (1000, 1001, 3333, 5000):
        source = text_file(tmp_path / "book.txt", DataOptions(limit=limit))
        assert source.train.characters == limit
        assert source.vocabulary.decode(source.train.codes_T) == TEXT[:limit]


def test_words(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(TEXT)
    source = text_file(tmp_path / "book.txt", DataOptions(unit="word"))
    assert source.vocabulary.unit == "word"
    assert source.vocabulary.decode(source.train.codes_T) == TEXT[: source.train.characters]
    assert len(source.train.codes_T) < source.train.characters / 2


def test_too_short(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 999)
    with pytest.raises(ValueError, match=r"a.txt: expected at least 1,000 characters of text .* got 999"):
        text_file(tmp_path / "a.txt")


def test_an_option_of_pictures_does_not_apply(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image_size=8 does not apply to text \(options that do: limit, unit\)"):
        text_file(tmp_path / "a.txt", DataOptions(image_size=8))


def test_few_files_are_each_split_in_order(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name * 1000)
    (tmp_path / "other.md").write_text("d" * 1000)
    source = text_folder(tmp_path)
    assert source.vocabulary.decode(source.validation.codes_T) == "\n\n\n".join(name * 50 for name in "abc")
    assert source.test.names == ("a.txt", "b.txt", "c.txt")
    assert source.name == tmp_path.name


def test_many_files_are_split_by_file(tmp_path: Path) -> None:
    for i in range(40):
        (tmp_path / f"{i}.txt").write_text(f"{i:02}" * 500)
    source = text_folder(tmp_path)
    names = [*source.train.names, *source.validation.names, *source.test.names]
    assert sorted(names) == sorted(f"{i}.txt" for i in range(40))
    assert min(len(source.validation.names), len(source.test.names)) >= 1
    assert source.train.characters == len(source.train.names) * 1003 - 3
    limited = text_folder(tmp_path, DataOptions(limit=2500))
    assert limited.train.characters == 2500
    assert limited.train.names == source.train.names[:3]


def test_files_that_are_not_text_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_bytes("café".encode("latin-1"))
    source = text_folder(tmp_path)
    assert [file.path for file in source.skipped] == ["b.txt"]
    assert "looks like latin-1" in source.skipped[0].reason


def test_a_folder_too_short_says_what_was_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"got 0. Skipped: a.txt: the file is empty"):
        text_folder(tmp_path)


def test_a_folder_without_text(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(TEXT)
    with pytest.raises(ValueError, match=r"expected .txt files, found none among 1 file. Other text\? Give the file itself"):
        text_folder(tmp_path)


def test_repeated_files_are_said(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(TEXT)
    (tmp_path / "c.txt").write_text(TEXT.upper())
    assert text_folder(tmp_path).notes == ("1 file repeats another file byte for byte: b.txt = a.txt",)


def test_a_large_folder_names_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    monkeypatch.setattr(module, "LARGEST", 5000)
    with pytest.raises(ValueError, match="Use a part of it: --limit 500"):
        text_folder(tmp_path)
    assert text_folder(tmp_path, DataOptions(limit=1000)).train.characters == 1000
