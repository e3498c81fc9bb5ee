"""Packed bytes: a file as it is, in gzip or in xz, told by its first bytes, never by its name.

What comes out is bounded by whoever asks: a packed file of a megabyte may hold a gigabyte.
"""

import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

_PIECE = 1 << 20  # bytes read at once: memory grows with what a file holds, not with what it says


@contextmanager
def unpacked(who: str, path: Path) -> Iterator[BinaryIO]:
    """The file's content, to be read inside the block. ValueError, from `who`, for a file that is missing, no file, cut or broken."""
    if not path.is_file():
        reason = "a folder, not a file" if path.is_dir() else "not a regular file" if path.exists() else "missing"
        raise ValueError(f"{who}: {path} is {reason}.")
    try:
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            if start.startswith(b"\x1f\x8b"):
                with gzip.open(file) as content:
                    yield cast(BinaryIO, content)
            elif start == b"\xfd7zXZ\0":
                with lzma.open(file) as content:
                    yield cast(BinaryIO, content)
            else:
                yield file
    except EOFError as error:
        raise ValueError(f"{who}: {path} is cut short: its packed content has no end. Download it again.") from error
    except (zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(f"{who}: {path} is broken: its packed content cannot be read ({error}). Download it again.") from error
    except PermissionError as error:
        raise ValueError(f"{who}: no permission to read {path}.") from error


def read_up_to(file: BinaryIO, count: int) -> bytearray:
    """The next `count` bytes, or all that are left where there are fewer."""
    content = bytearray()
    while len(content) < count and (piece := file.read(min(_PIECE, count - len(content)))):
        content += piece
    return content
