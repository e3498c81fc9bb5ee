"""Files are whole or not there, and a failure leaves the folder as it was."""

import hashlib
import os
import stat

import pytest

from twofold.data import files


def test_all_files_have_their_content_and_nothing_else_lies_there(tmp_path):
    files.write_all({tmp_path / "a" / "one": b"1", tmp_path / "two": b"2"})
    assert (tmp_path / "a" / "one").read_bytes() == b"1"
    assert {path.name for path in tmp_path.rglob("*")} == {"a", "one", "two"}


def test_the_new_content_replaces_the_old(tmp_path):
    for content in (b"old and long", b"new"):
        files.write(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_files_get_the_mode_that_any_new_file_gets(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    files.write(tmp_path / "file", b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "file")]
    assert modes[0] == modes[1]


def test_a_failure_before_the_last_file_is_complete_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "one").write_bytes(b"old")
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_all({tmp_path / "one": b"new", tmp_path / "made" / "deep" / "two": b"2"})
    assert {path.name for path in tmp_path.rglob("*")} == {"one"}
    assert (tmp_path / "one").read_bytes() == b"old"


def test_a_folder_in_the_way_is_named_before_anything_is_replaced(tmp_path):
    (tmp_path / "one").write_bytes(b"old")
    (tmp_path / "two").mkdir()
    with pytest.raises(IsADirectoryError, match=r"two: expected a file's path, got a folder"):
        files.write_all({tmp_path / "one": b"new", tmp_path / "two": b"2"})
    assert (tmp_path / "one").read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_what_a_killed_write_leaves_behind_is_known_by_its_name(tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr(os, "fsync", lambda handle: left.extend(path.name for path in tmp_path.iterdir()))
    files.write(tmp_path / "model.json", b"x")
    assert [files.left_of(name) for name in left[:1]] == ["model.json"]
    assert [files.left_of(name) for name in ("model.json", ".model.json.tmp", ".a.0123456789abcdeg.tmp", "a.0123456789abcdef.tmp")] == [
        None
    ] * 4


def test_a_file_in_pieces_is_named_by_its_sum(tmp_path):
    pieces = (b"one", memoryview(b"two"), b"")
    written = files.write_pieces(tmp_path / "made", "working", pieces, lambda total: f"{total[:4]}.bin")
    total = hashlib.sha256(b"onetwo").hexdigest()
    assert written == (tmp_path / "made" / f"{total[:4]}.bin", 6, total)
    assert [path.read_bytes() for path in (tmp_path / "made").iterdir()] == [b"onetwo"]


def test_pieces_that_fail_leave_nothing(tmp_path):
    def pieces():
        yield b"one"
        assert [files.left_of(path.name) for path in (tmp_path / "made").iterdir()] == ["working"]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        files.write_pieces(tmp_path / "made", "working", pieces(), lambda total: "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "words"), [(28, "the disk is full"), (27, "the disk is full"), (30, "Read-only file system")])
def test_a_refusal_is_put_into_words(number, words):
    assert files.refusal(OSError(number, os.strerror(number))) == words
