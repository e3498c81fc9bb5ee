"""Text comes in as UTF-8 with plain line ends; what is not text is refused with the reason."""

import gzip
from pathlib import Path

import pytest

from twofold.data import plain_text
from twofold.data.plain_text import TextError, read_text


def refused(path: Path, data: bytes | None = None) -> str:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(TextError) as caught:
        read_text(path)
    assert str(caught.value) == f"text file {path}: {caught.value.reason}"
    return caught.value.reason


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.txt"


def test_mark_and_line_ends_are_dropped(path: Path) -> None:
    path.write_bytes("\ufeffcafé\r\nnext\nlast\r".encode())
    assert read_text(path) == "café\nnext\nlast\r"


@pytest.mark.parametrize("limit", range(1, 12))
def test_the_limit_counts_characters(path: Path, limit: int) -> None:
    text = "\U0001f600é\r\n日本語\r\nab\U0001f600"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_text(path, limit) == text.replace("\r\n", "\n")[:limit]


def test_a_mistake_beyond_the_limit_is_not_read(path: Path) -> None:
    path.write_bytes(b"a" * 100 + b"\xff")
    assert read_text(path, 10) == "a" * 10


def test_missing_folder_and_empty(path: Path) -> None:
    assert refused(path) == "there is no such file"
    assert refused(path.parent) == "is a folder, not a file"
    assert refused(path, b"") == "the file is empty (0 bytes)"


def test_latin_1_is_named_with_the_offset(path: Path) -> None:
    assert refused(path, "abc café".encode("latin-1")) == (
        "not UTF-8: byte 0xe9 at offset 7; it looks like latin-1; convert it: iconv -f ISO-8859-1 -t UTF-8 old.txt > new.txt"
    )


def test_the_offset_counts_the_mark(path: Path) -> None:
    assert "byte 0xe9 at offset 6" in refused(path, b"\xef\xbb\xbfabc\xe9 d")


def test_windows_1252_is_named(path: Path) -> None:
    assert "looks like windows-1252; convert it: iconv -f WINDOWS-1252" in refused(path, "“quoted”".encode("cp1252"))


def test_text_cut_inside_a_character(path: Path) -> None:
    assert "byte 0xc3 at offset 3" in refused(path, "abcé".encode()[:-1])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_utf_16_and_32_are_named(path: Path, encoding: str) -> None:
    assert f"it is {encoding.upper()} text; convert it: iconv" in refused(path, "hello".encode(encoding))


def test_archives_and_pictures_are_named(path: Path) -> None:
    assert refused(path, gzip.compress(b"hello")) == "it is a gzip archive: unpack it first"
    assert refused(path, b"PK\x03\x04rest").startswith("it is a zip archive")
    assert refused(path, b"\x89PNG\r\n\x1a\n") == "it is a picture"


def test_binary(path: Path) -> None:
    assert refused(path, b"abc\0def") == "it is not text: a zero byte at offset 3"
    assert refused(path, b"\x01\x02abc" * 10) == "it is not text: more than a twentieth of its bytes are control characters"


def test_too_large(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_text, "LARGEST", 1 << 30)
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)  # a hole: no bytes on the disk
    assert refused(path) == "1.0 GiB; at most 1 GiB is read whole. Use a part of it: --limit 107374182"


def test_a_limit_beyond_all_memory_reads_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    assert read_text(tmp_path / "a.txt", 1 << 60) == "abc"
    (tmp_path / "b.txt").symlink_to(tmp_path / "gone")
    with pytest.raises(TextError, match="is a link that leads nowhere"):
        read_text(tmp_path / "b.txt")
