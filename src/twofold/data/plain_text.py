"""Plain text: the one door by which a text file comes in.

    bytes -> UTF-8, byte-order mark dropped, \\r\\n -> \\n

What is not text is refused with the reason: a picture, an archive, another encoding (which is named), a zero byte.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

LARGEST = 1 << 30  # bytes
_SAMPLE = 1 << 16  # bytes looked at to name an encoding
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_KNOWN = {
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"PK\x03\x04": "a zip archive (or an office document): unpack it, or save it as plain text",
    b"\xfd7zXZ\0": "an xz archive: unpack it first",
    b"BZh": "a bzip2 archive: unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it first",
    b"%PDF-": "a PDF document: save it as plain text",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    codecs.BOM_UTF32_LE: "UTF-32 text; convert it: iconv -f UTF-32 -t UTF-8",
    codecs.BOM_UTF16_LE: "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8",
}


class TextError(ValueError):
    """A text file that cannot be read: `path` and `reason`, a phrase."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"text file {path}: {reason}")
        self.path = str(path)
        self.reason = reason


def read_text(path: str | Path, limit: int | None = None) -> str:
    """The first `limit` characters of a text file, or all of it.

    Raises TextError: missing, a folder, empty, binary, not UTF-8 (with the offset and the likely encoding), larger than LARGEST
    bytes where no limit was given.
    """
    file = Path(path)
    if not file.exists():
        raise TextError(path, "is a link that leads nowhere" if file.is_symlink() else "there is no such file")
    if not file.is_file():
        raise TextError(path, "is a folder, not a file" if file.is_dir() else "is not a regular file")
    size = file.stat().st_size
    if limit is None and size > LARGEST:
        raise TextError(
            path, f"{size / 2**30:.1f} GiB; at most {LARGEST >> 30} GiB is read whole. Use a part of it: --limit {LARGEST // 10}"
        )
    # A character takes 4 bytes at most, \r\n two. Never more than the file has: the reader takes memory for what it is asked.
    wanted = size + 1 if limit is None else min(size + 1, 4 * limit + len(codecs.BOM_UTF8) + 1)
    try:
        with file.open("rb") as stream:
            data = stream.read(wanted)
    except PermissionError as error:
        raise TextError(path, "no permission to read it") from error
    if not data:
        raise TextError(path, "the file is empty (0 bytes)")
    _refuse_binary(path, data)
    start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    try:  # a character that the limit cuts in two is no mistake
        text = codecs.getincrementaldecoder("utf-8")().decode(data[start:], final=len(data) >= size)
    except UnicodeDecodeError as error:
        offset = start + error.start
        raise TextError(path, f"not UTF-8: byte {data[offset]:#04x} at offset {offset:,}; it looks like {_encoding(data)}") from error
    return text.replace("\r\n", "\n")[:limit]


def _refuse_binary(path: str | Path, data: bytes) -> None:
    for signature, name in _KNOWN.items():
        if data.startswith(signature):
            raise TextError(path, f"it is {name}")
    zero = data.find(0)
    if zero >= 0:
        raise TextError(path, f"it is not text: a zero byte at offset {zero:,}")
    sample = data[:_SAMPLE]
    if len(_CONTROL.findall(sample)) > len(sample) // 20:
        raise TextError(path, "it is not text: more than a twentieth of its bytes are control characters")


def _encoding(data: bytes) -> str:
    """The likely encoding of bytes that are not UTF-8, and how to convert them."""
    high = [byte for byte in data[: 16 * _SAMPLE] if byte >= 0x80]
    name = "windows-1252" if any(byte < 0xA0 for byte in high) else "latin-1"
    command = {"latin-1": "ISO-8859-1", "windows-1252": "WINDOWS-1252"}[name]
    return f"{name}; convert it: iconv -f {command} -t UTF-8 old.txt > new.txt"
