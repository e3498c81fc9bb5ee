"""Files that are either whole or not there.

Every file is first written in full under a temporary name in its own folder and forced to the disk; only when the
last one is complete are they renamed, and then the folder is forced to the disk, too. A full disk, a crash or an error before
that leaves the folder as it was.
"""

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp")


class Written(NamedTuple):
    """What a file became: its path, its bytes, and their sum."""

    path: Path
    size: int
    sha256: str


def left_of(name: str) -> str | None:
    """The file of which a killed write left this one behind; None for any other name."""
    found = _TEMPORARY.fullmatch(name)
    return found[1] if found else None


def refusal(error: OSError) -> str:
    """Why the system refused, in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk is full"
    return error.strerror or str(error)


def write(path: Path, content: bytes) -> None:
    """Write one file whole, or not at all."""
    write_all({path: content})


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Write several files. Nothing is renamed before all are on the disk; missing folders are made, and removed on failure."""
    made: list[Path] = []
    temporary: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            if path.is_dir():
                raise IsADirectoryError(f"{path}: expected a file's path, got a folder")
            made += _make(path.parent)
            temporary[path] = _temporary(path.parent, path.name)
            _fill(temporary[path], [content])
        for path, written in temporary.items():
            os.replace(written, path)
    except BaseException:
        _undo(temporary.values(), made)
        raise
    for folder in {path.parent for path in (*contents, *made)}:
        _sync(folder)


def write_pieces(folder: Path, working_name: str, pieces: Iterable[bytes | memoryview], name: Callable[[str], str]) -> Written:
    """Write one file piece by piece, summing on the way; `name` gives its name from its sha256. Whole, or not at all.

    `working_name` is what `left_of` says of the temporary file if the write is killed.
    """
    made: list[Path] = []
    temporary = _temporary(folder, working_name)
    try:
        made = _make(folder)
        size, sha256 = _fill(temporary, pieces)
        path = folder / name(sha256)
        os.replace(temporary, path)
    except BaseException:
        _undo([temporary], made)
        raise
    for place in {folder, *(inner.parent for inner in made)}:
        _sync(place)
    return Written(path, size, sha256)


def _temporary(folder: Path, name: str) -> Path:
    # Not tempfile: its files are readable by the owner alone, and the mode would outlive the rename.
    return folder / f".{name}.{secrets.token_hex(8)}.tmp"


def _fill(path: Path, pieces: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Make the file and force it to the disk; its size and sha256."""
    total = hashlib.sha256()
    with open(path, "xb") as file:
        for piece in pieces:
            total.update(piece)
            file.write(piece)
        file.flush()
        size = file.tell()
        os.fsync(file.fileno())
    return size, total.hexdigest()


def _undo(temporary: Iterable[Path], made: list[Path]) -> None:
    for written in temporary:
        written.unlink(missing_ok=True)
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a folder with its parents; return those that were missing, outermost first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _sync(folder: Path) -> None:
    # Windows cannot open a folder; its rename is durable without this.
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
