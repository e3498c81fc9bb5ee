"""Text of the user's own: one file, or a folder of .txt files.

fewer than MANY files     each file split by position, 90/5/5, order kept
MANY files or more        split by file, 90/5/5, by a hash of the name: a file never changes sides
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from twofold.data.amount import amount
from twofold.data.corpus import Passage, Passages, assemble, encoded, gather, join
from twofold.data.folder import printable, printed, walk
from twofold.data.options import DataOptions
from twofold.data.plain_text import LARGEST, read_text
from twofold.data.split import by_file, by_position
from twofold.data.values import Skipped, TextSource, Whole
from twofold.data.vocabulary import Vocabulary

SHORTEST = 1000  # characters
MANY = 20  # files


def text_file(path: str | Path, options: DataOptions | None = None, vocabulary: Vocabulary | None = None) -> TextSource:
    """One text file as a source. `limit` characters train; a twentieth as many each validate and test.

    Raises TextError (a file that is not text) and ValueError (too short, an option that does not apply).
    """
    options = options or DataOptions()
    options.only("text", "limit", "unit")
    path = Path(path)
    passage = Passage(read_text(path, _needed(options.limit)), (path.name,))
    return assemble(path.stem, options.unit, _by_position(str(path), [passage]), vocabulary=vocabulary)


def text_folder(path: str | Path, options: DataOptions | None = None, vocabulary: Vocabulary | None = None) -> TextSource:
    """A folder of .txt files (and its subfolders) as a source. Files that are not text are skipped with the reason."""
    options = options or DataOptions()
    options.only("text", "limit", "unit")
    root = Path(path)
    names, skipped = _texts(root)
    _refuse_large(root, names, options.limit)
    notes = _repeated(root, names)
    title = root.resolve().name
    if len(names) < MANY:
        passages = gather(root, names, skipped, _needed(options.limit))
        return assemble(title, options.unit, _by_position(str(path), passages, skipped), skipped, notes, vocabulary)
    files = by_file(names)
    held = None if options.limit is None else options.limit // 10
    parts = Passages(
        join(gather(root, files.train, skipped, options.limit)),
        join(gather(root, files.validation, skipped, held, whole=True)),
        join(gather(root, files.test, skipped, held, whole=True)),
    )
    _refuse_short(str(path), sum(len(part.text) for part in parts), skipped)
    return assemble(title, options.unit, parts, skipped, notes, vocabulary)


def whole_text(path: str | Path, vocabulary: Vocabulary) -> Whole:
    """A text file, or the .txt files of a folder, in one part. Raises TextError and ValueError where there is nothing to read."""
    root = Path(path)
    if not root.is_dir():
        return Whole(root.stem, encoded(Passage(read_text(root), (root.name,)), vocabulary))
    names, skipped = _texts(root)
    _refuse_large(root, names, None)
    passage = join(gather(root, names, skipped, None))
    if not passage.text:
        raise ValueError(f"{path}: none of its files can be read. {printable(skipped[0].path)}: {skipped[0].reason}")
    return Whole(root.resolve().name, encoded(passage, vocabulary), printed(skipped))


def _texts(root: Path) -> tuple[list[str], list[Skipped]]:
    """The .txt files below a folder, and what was left out. Raises ValueError where there are none."""
    found, skipped = walk(root)
    names = [name for name in found if name.lower().endswith(".txt")]
    if not names:
        among = amount(len(found), "file", "files")
        raise ValueError(f"{root}: expected .txt files, found none among {among}. Other text? Give the file itself")
    return names, skipped


def _needed(limit: int | None) -> int | None:
    """Characters of which 90 % are `limit`."""
    return None if limit is None else -(-limit * 10 // 9)


def _by_position(path: str, passages: Sequence[Passage], skipped: Sequence[Skipped] = ()) -> Passages:
    """Every passage in three: each part sees something of each file."""
    _refuse_short(path, sum(len(passage.text) for passage in passages), skipped)
    parts: tuple[list[Passage], list[Passage], list[Passage]] = ([], [], [])
    for text, names, _ in passages:
        watched, kept = by_position(len(text))
        for part, piece in zip(parts, (text[:watched], text[watched:kept], text[kept:]), strict=True):
            part.append(Passage(piece, names))
    return Passages(*map(join, parts))


def _refuse_short(path: str, length: int, skipped: Sequence[Skipped]) -> None:
    if length < SHORTEST:
        reason = f". Skipped: {printable(skipped[0].path)}: {skipped[0].reason}" if skipped else ""
        raise ValueError(
            f"{path}: expected at least {SHORTEST:,} characters of text to learn from and to check with, got {length:,}{reason}"
        )


def _refuse_large(root: Path, names: list[str], limit: int | None) -> None:
    size = sum((root / name).stat().st_size for name in names)
    if limit is None and size > LARGEST:
        raise ValueError(
            f"{root}: {size / 2**30:.1f} GiB of text; at most {LARGEST >> 30} GiB is read whole. Use a part of it: --limit {LARGEST // 10}"
        )


def _repeated(root: Path, names: list[str]) -> list[str]:
    """A sentence where files hold the same bytes: what is learnt in one split may be asked in another."""
    same_size: dict[int, list[str]] = {}
    for name in names:
        same_size.setdefault((root / name).stat().st_size, []).append(name)
    again = []
    for size, group in same_size.items():
        first: dict[bytes, str] = {}
        for name in group if len(group) > 1 and 0 < size <= LARGEST else ():
            key = sha256((root / name).read_bytes()).digest()
            if first.setdefault(key, name) != name:
                again.append(f"{name} = {first[key]}")
    repeat = amount(len(again), "file repeats", "files repeat")
    return [f"{repeat} another file byte for byte: {again[0]}"] if again else []
