"""Obtaining a published set: from the network or from the user's own files, into the cache, whole or not at all.

    fetch or copy   ->   size and sha256   ->   unpack   ->   record   ->   rename into place

All of it happens under the lock of the set, in the folder .NAME.part beside the place where it will lie. What was fetched stays there when
something stops it, and the next attempt goes on from it.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from twofold.data.archives import unpack
from twofold.data.cache import RECORD, alone, set_folder, whole, write_record
from twofold.data.downloads import DownloadError, Listener, Patience, fetch
from twofold.data.packed import unpacked
from twofold.data.published import Published, PublishedFile, bytes_in_words

PACKED = (".gz", ".xz")  # endings under which a user's copy of a published file may be packed
SPARE = 1 << 24  # bytes of disk that are left over
_PIECE = 1 << 20


class Obtained(NamedTuple):
    """Where the set lies, how many files and bytes it is, and whether it came just now or lay there before."""

    folder: Path
    files: int
    bytes: int
    new: bool


def obtain(
    published: Published, origin: str | Path | None = None, patience: Patience | None = None, listener: Listener | None = None
) -> Obtained:
    """The set, in the cache. origin: a folder with the published files, or the file itself; default: the network.

    Raises ValueError: no address served it, a file that is not the published one, too little disk; nothing is left half done in the cache.
    """
    listener = listener or Listener()
    with alone(published, lambda: listener.say(f"another process is fetching {published.name}; waiting for it")) as root:
        there = set_folder(published)
        new = not whole(published)
        if new:
            _obtain(published, root, None if origin is None else Path(origin).expanduser(), patience or Patience(), listener)
        return Obtained(there, len(published.kept), sum((there / name).stat().st_size for name in published.kept), new)


def _obtain(published: Published, root: Path, origin: Path | None, patience: Patience, listener: Listener) -> None:
    work = root / f".{published.name}.part"
    work.mkdir(exist_ok=True)
    try:
        came_from = _gather(published, work, origin, patience, listener)
    except ValueError:
        with suppress(OSError):
            work.rmdir()  # where nothing came
        raise
    for file in published.files:
        if file.members:
            members = dict(file.members)
            for name in members:
                (work / Path(name).name).unlink(missing_ok=True)  # of an attempt that was stopped
            unpack(work / file.name, members, work)
    write_record(work, published, came_from)
    for path in work.iterdir():
        if path.name not in (*published.kept, RECORD):
            path.unlink()
    _place(work, root / published.name)


def _gather(published: Published, work: Path, origin: Path | None, patience: Patience, listener: Listener) -> dict[str, str]:
    """Bring every published file into `work`, and say of each where it came from."""
    _refuse_full(published, work)
    if origin is not None:
        return {file.name: str(_copy(published, file, origin, work, listener)) for file in published.files}
    try:
        return {file.name: fetch(file, work, patience, listener) for file in published.files}
    except DownloadError as error:
        own = f"Files that you have: twofold {published.asked} --from FOLDER"
        raise DownloadError(f"{published.asked}: {error}. What came is kept, and the same command goes on from there. {own}") from None


def _place(work: Path, there: Path) -> None:
    """Rename the complete folder into place; what lay there, damaged, goes."""
    if not os.path.lexists(there):
        os.replace(work, there)
        return
    aside = there.with_name(f".{there.name}.{secrets.token_hex(4)}.old")
    os.replace(there, aside)
    os.replace(work, there)
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink()


def _copy(published: Published, file: PublishedFile, origin: Path, work: Path, listener: Listener) -> Path:
    """Copy the user's file, packed or not, to `work`, if it is the published one; return where it lay. Raises ValueError."""
    found = _find(published, file, origin)
    listener.begin(file.name, file.size)
    copy = work / f"{file.name}.copy"
    count = 0
    with copy.open("wb") as out:
        if found.suffix in PACKED and found.name != file.name:
            with unpacked(published.asked, found) as content:
                while count <= file.size and (piece := content.read(_PIECE)):
                    count += out.write(piece)
        else:
            with found.open("rb") as content:
                while count <= file.size and (piece := content.read(_PIECE)):
                    count += out.write(piece)
                    listener.at(min(count, file.size))
    fault = file.fault(copy) if count <= file.size else f"it has more than the {file.size:,} bytes of the published one"
    if fault:
        copy.unlink()
        raise ValueError(f"{published.asked}: {found} is not the published {file.name}: {fault}.")
    os.replace(copy, work / file.name)
    return found.absolute()


def _find(published: Published, file: PublishedFile, origin: Path) -> Path:
    """The user's copy of a published file. Raises ValueError."""
    names = [file.name, *(f"{file.name}{ending}" for ending in PACKED)]
    if origin.is_dir():
        for name in names:
            if (origin / name).is_file():
                return origin / name
        wanted = ", ".join(each.name for each in published.files)
        raise ValueError(f"{published.asked}: {file.name} is not in {origin}. Expected there, as published: {wanted}.")
    if not origin.is_file():
        raise ValueError(f"{published.asked}: --from {origin}: there is no such file or folder.")
    if len(published.files) > 1:
        wanted = ", ".join(each.name for each in published.files)
        raise ValueError(f"{published.asked}: --from {origin} is one file. Give the folder that holds {wanted}.")
    return origin


def _refuse_full(published: Published, work: Path) -> None:
    """Raise ValueError where the disk cannot hold the set."""
    there = sum(path.stat().st_size for path in work.iterdir() if path.is_file())
    needed, free = published.room + SPARE - there, shutil.disk_usage(work).free
    if free < needed:
        raise ValueError(
            f"{published.asked}: it takes {bytes_in_words(needed)} of disk, {bytes_in_words(free)} are free at {work.parent}. "
            "Make room, or name another folder: TWOFOLD_DATA=/path/to/data"
        )
