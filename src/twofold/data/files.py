"""Files that are either whole or not there.

Every file is first written in full under a temporary name in its own folder and forced to the disk; only when the
last one is complete are they renamed. A full disk, a crash or an error before that leaves the folder as it was.
"""

import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp")


def left_of(name: str) -> str | None:
    """The file of which a killed write left this one behind; None for any other name."""
    found = _TEMPORARY.fullmatch(name)
    return found[1] if found else None


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
            # Not tempfile: its files are readable by the owner alone, and the mode would outlive the rename.
            temporary[path] = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
            with open(temporary[path], "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, written in temporary.items():
            os.replace(written, path)
    except BaseException:
        for written in temporary.values():
            written.unlink(missing_ok=True)
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        raise
    for folder in {path.parent for path in contents}:
        _sync(folder)


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
