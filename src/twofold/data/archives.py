"""Archives: named members taken out of a tar or zip archive, read one by one.

A member is written under the last part of its name into a folder of ours, so that no name in an archive is ever a path on the disk.
And the whole archive is refused where any member is hostile: a name that is absolute, climbs (..), repeats or hides (control characters,
backslashes, colons); a link, a device or anything else that is neither file nor folder; more than MOST_MEMBERS of them; more unpacked than
LARGEST bytes or RATIO times the archive; more of a member than is known of it; what is encrypted.

tarfile's own extraction is not used: its filter can be passed in Python 3.11.7. Python reads a tar's extended headers whole into memory, as
long as they say they are; here no single read exceeds 64 KiB, and none goes backwards.
"""

from __future__ import annotations

import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, NoReturn, Protocol, cast

from twofold.data.packed import unpacked

MOST_MEMBERS = 1_000
LARGEST = 1 << 30  # bytes unpacked
RATIO = 100  # bytes unpacked for each packed one
SMALL = 1 << 20  # bytes that any archive may hold, however well they were packed: a tar of little is mostly zeros
LONGEST_NAME = 255  # bytes
DIRECTORY = 1 << 20  # bytes of a zip's list of members
_PIECE = 1 << 16
_END = struct.Struct("<4s4H2LH")  # a zip's end record: signature, disks, entries, size and place of the list, length of the comment

# What Python's readers raise where an archive makes no sense.
_BROKEN: tuple[type[Exception], ...] = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)
_BROKEN += (EOFError, RecursionError, UnicodeError, NotImplementedError, OverflowError)


class ArchiveError(ValueError):
    """An archive that is broken, hostile, or lacks what it should hold."""


class _Readable(Protocol):
    def read(self, count: int, /) -> bytes: ...


def unpack(archive: Path, members: Mapping[str, int], folder: Path) -> None:
    """Write each of `members` (path inside the archive -> the most bytes that it may have) into `folder`, under its last name.

    Raises ArchiveError, or ValueError for a file that is missing or cut; then nothing of it is left in `folder`.
    """
    written: list[Path] = []
    try:
        with archive.open("rb") as file:
            start = file.read(4)
        (_unpack_zip if start == b"PK\3\4" else _unpack_tar)(archive, members, folder, written)
        missing = [name for name in members if folder / PurePosixPath(name).name not in written]
        if missing:
            _refuse(archive, f"{missing[0]} is not in it")
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, _BROKEN):
            raise ArchiveError(f"archive: {archive} is broken: {error}. Download it again.") from error
        raise


def _unpack_tar(archive: Path, members: Mapping[str, int], folder: Path, written: list[Path]) -> None:
    seen: set[str] = set()
    with unpacked("archive", archive) as content:
        guarded = _Guarded(content, archive)
        for member in _tar_members(guarded):
            _judge(archive, member.name, seen)
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or member.sparse is not None:
                _refuse(archive, f"{member.name!r} is neither a file nor a folder")
            if member.name in members and not member.isdir():
                guarded.seek(member.offset_data)
                _copy(archive, guarded, member.name, member.size, members[member.name], folder, written)


def _tar_members(guarded: _Guarded) -> Iterator[tarfile.TarInfo]:
    with tarfile.TarFile(fileobj=cast(IO[bytes], guarded)) as tar:
        yield from tar


def _unpack_zip(archive: Path, members: Mapping[str, int], folder: Path, written: list[Path]) -> None:
    _judge_directory(archive)
    seen: set[str] = set()
    with zipfile.ZipFile(archive) as content:
        entries = content.infolist()
        for entry in entries:
            name = entry.orig_filename
            _judge(archive, name, seen)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                _refuse(archive, f"{name!r} is neither a file nor a folder")
            if entry.flag_bits & 1:
                _refuse(archive, f"{name!r} is encrypted")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                _refuse(archive, f"{name!r} is packed in a way that is not used here")
        limit = _limit(archive)
        if sum(entry.file_size for entry in entries) > limit:
            _refuse(archive, f"it says that it unpacks to more than {limit:,} bytes")
        for entry in entries:
            if entry.orig_filename in members and not entry.is_dir():
                with content.open(entry) as source:
                    _copy(archive, source, entry.filename, entry.file_size, members[entry.filename], folder, written)


def _judge_directory(archive: Path) -> None:
    """Before Python reads a zip's list of members into memory: that it is one list, of bounded length, at the end of the file."""
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - _END.size))
        end = file.read()
    if len(end) < _END.size or not end.startswith(b"PK\5\6"):
        _refuse(archive, "its end is not that of a zip archive. Cut short?")
    _, _, _, _, entries, size, _, _ = _END.unpack(end)
    if entries > MOST_MEMBERS or size > DIRECTORY:
        _refuse(archive, f"it lists {entries:,} members in {size:,} bytes, more than {MOST_MEMBERS:,} in {DIRECTORY:,}")


def _judge(archive: Path, name: str, seen: set[str]) -> None:
    """Refuse a name that no honest archive has. `seen` collects the names."""
    inside = name.removesuffix("/").removeprefix("./")
    folded = inside.casefold()
    if folded in seen:
        _refuse(archive, f"{name!r} is in it twice")
    seen.add(folded)
    if len(seen) > MOST_MEMBERS:
        _refuse(archive, f"it has more than {MOST_MEMBERS:,} members")
    hidden = not name.isprintable() or any(sign in name for sign in "\\:") or len(name.encode("utf-8", "surrogateescape")) > LONGEST_NAME
    if hidden or (inside != "." and any(part in ("", ".", "..") for part in inside.split("/"))):
        _refuse(archive, f"{name[:80]!r} leads out of the folder, or hides where it leads")


def _copy(archive: Path, source: _Readable, name: str, size: int, most: int, folder: Path, written: list[Path]) -> None:
    """The next `size` bytes as a new file."""
    if not 0 <= size <= most:
        _refuse(archive, f"{name} has {size:,} bytes, {most:,} at most are known of it")
    target = folder / PurePosixPath(name).name
    with target.open("xb") as out:
        written.append(target)
        left = size
        while left and (piece := source.read(min(_PIECE, left))):
            out.write(piece)
            left -= len(piece)
    if left:
        _refuse(archive, f"{name} ends after {size - left:,} of {size:,} bytes. Cut short?")


class _Guarded:
    """The content of a packed archive, for tarfile: read forwards, in small pieces, up to a limit."""

    def __init__(self, content: BinaryIO, archive: Path) -> None:
        self.content, self.archive, self.place, self.limit = content, archive, 0, _limit(archive)

    def tell(self) -> int:
        return self.place

    def seek(self, place: int, whence: int = 0) -> int:
        if whence or place < self.place:
            _refuse(self.archive, "its headers lead backwards")
        while self.place < place and self.read(min(_PIECE, place - self.place)):
            pass
        return self.place

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _PIECE:
            _refuse(self.archive, f"a header in it is longer than {_PIECE:,} bytes")
        piece = self.content.read(count)
        self.place += len(piece)
        if self.place > self.limit:
            _refuse(self.archive, f"it unpacks to more than {self.limit:,} bytes")
        return piece


def _limit(archive: Path) -> int:
    return min(LARGEST, max(SMALL, RATIO * archive.stat().st_size))


def _refuse(archive: Path, reason: str) -> NoReturn:
    raise ArchiveError(f"archive: {archive} is refused: {reason}.")
