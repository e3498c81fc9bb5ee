"""The cache: where downloaded sets lie, and how it is known that they are whole.

    $TWOFOLD_DATA, else $TWOFOLD_CACHE/data, else twofold/data in the user's cache folder:
    $XDG_CACHE_HOME, else ~/.cache (Linux), ~/Library/Caches (macOS), %LOCALAPPDATA% (Windows)

    NAME/             one set, renamed into place when it is complete
    NAME/record.json  size and sha256 of each of its files, and where they came from
    .NAME.lock        held by the one process that fetches it; the system lets go of it when that process ends, however it ends

A set is there where its files have the sizes of the record, and is opened only where they have the checksums of the record too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from twofold.data.files import write
from twofold.data.published import Published, bytes_in_words, sha256_of

RECORD = "record.json"
LARGEST_RECORD = 1 << 16  # bytes
LONGEST_WAIT = 3600.0  # seconds for another process
_LOOK = 0.1  # seconds between two looks at the lock


class Kept(NamedTuple):
    """What the record says of one file."""

    size: int
    sha256: str


def cache_folder() -> Path:
    """Where sets lie. Raises ValueError where the user has no home and names no folder."""
    if own := os.environ.get("TWOFOLD_DATA"):
        return _at_home(own)
    if shared := os.environ.get("TWOFOLD_CACHE"):
        return _at_home(shared) / "data"
    return _platform_folder() / "twofold" / "data"


def set_folder(published: Published) -> Path:
    """Where this set lies, or would lie."""
    return cache_folder() / published.name


def present(published: Published) -> bool:
    """Whether the set lies there with the sizes of its record."""
    folder = set_folder(published)
    record = read_record(folder, published)
    return bool(record) and all(_size(folder / name) == record[name].size for name in published.kept)


def opened(published: Published) -> dict[str, Path]:
    """The files of the set by name, their checksums compared with the record. Raises ValueError: not there, or not as it came."""
    folder = set_folder(published)
    get = f"twofold {published.asked}"
    if not present(published):
        own = f" To use your own folder called {published.name}, write ./{published.name}." if Path(published.name).exists() else ""
        raise ValueError(
            f"{published.name} is not on this machine ({folder}). Download it once, {bytes_in_words(published.size)}: {get} "
            f"(or, from files that you have: {get} --from FOLDER).{own}"
        )
    for name, kept in read_record(folder, published).items():
        if sha256_of(folder / name) != kept.sha256:
            raise ValueError(f"{published.name}: {folder / name} is not as it was downloaded: its sha256 has changed. Get it again: {get}")
    return {name: folder / name for name in published.kept}


def whole(published: Published) -> bool:
    """Whether the set lies there, checksums and all."""
    try:
        return bool(opened(published))
    except ValueError:
        return False


def read_record(folder: Path, published: Published) -> dict[str, Kept]:
    """Size and sha256 of each file that the set should have; empty where the record is missing, broken, or of other published files."""
    try:
        with (folder / RECORD).open("rb") as file:
            found = json.loads(file.read(LARGEST_RECORD))
        if any(found["published"][file.name]["sha256"] != file.sha256 for file in published.files):
            return {}
        files = found["files"]
        return {name: Kept(int(files[name]["bytes"]), str(files[name]["sha256"])) for name in published.kept}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return {}


def write_record(folder: Path, published: Published, came_from: dict[str, str]) -> None:
    """The record of the files that lie in `folder`; came_from: published file -> address or path."""
    files: dict[str, Any] = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in published.kept}
    record = {
        "set": published.name,
        "licence": published.licence,
        "files": files,
        "published": {file.name: {"bytes": file.size, "sha256": file.sha256, "from": came_from[file.name]} for file in published.files},
    }
    write(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())


@contextmanager
def alone(published: Published, waiting: Callable[[], None], longest: float = LONGEST_WAIT) -> Iterator[Path]:
    """Hold the lock of the set and hand out the cache folder. `waiting` is called once where another process holds it.

    Raises ValueError after `longest` seconds.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / f".{published.name}.lock"
    with lock.open("a+b") as file:
        until = time.monotonic() + longest
        if not _take(file):
            waiting()
            while not _take(file):
                if time.monotonic() > until:
                    held = f"another process has held {lock} for {longest:.0f} s"
                    raise ValueError(f"{published.asked}: {held}. Wait for it, or end it and try again.")
                time.sleep(_LOOK)
        yield folder


def _take(file: BinaryIO) -> bool:
    """Lock the file for this process alone, if no other has; closing it, or the end of the process, lets go."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _platform_folder() -> Path:
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):
        return Path(shared)
    if sys.platform == "win32":
        return _at_home(os.environ.get("LOCALAPPDATA") or "~/AppData/Local")
    return _at_home("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")


def _at_home(name: str) -> Path:
    try:
        return Path(name).expanduser().absolute()
    except RuntimeError:
        raise ValueError(f"there is no home folder for downloaded data ({name}). Name a folder: TWOFOLD_DATA=/path/to/data") from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
