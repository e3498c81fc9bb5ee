"""Sources: the door to the data. A name in SOURCES or PUBLISHED, or a path; the task is found from what lies there.

class folders with pictures, records (CIFAR, IDX) -> classify        text -> language
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from twofold.data import digits as handwriting
from twofold.data import python_source as library
from twofold.data.cache import present
from twofold.data.findings import Findings, inspect
from twofold.data.folder import leads_nowhere, nearest, walk
from twofold.data.image_folder import image_folder
from twofold.data.layout import pictures_among
from twofold.data.normalising import normalised
from twofold.data.options import DataOptions
from twofold.data.pictures import is_picture
from twofold.data.preparation import Preparation
from twofold.data.published import PUBLISHED
from twofold.data.records import CIFAR, IDX, find_records, open_records
from twofold.data.standard import open_standard
from twofold.data.text_file import text_file, text_folder
from twofold.data.values import Images, ImageSource, Skipped, Source, Text, TextSource
from twofold.data.vocabulary import Vocabulary

__all__ = [
    "PUBLISHED",
    "SOURCES",
    "DataOptions",
    "Findings",
    "ImageSource",
    "Images",
    "Preparation",
    "Skipped",
    "Source",
    "SourceLine",
    "Text",
    "TextSource",
    "Vocabulary",
    "check",
    "describe",
    "open_source",
    "published_lines",
    "require",
    "source_lines",
    "task_of",
]

# Text in name only: read as prose, a model would learn commas and digits.
NOT_PROSE = frozenset({".csv", ".tsv", ".json", ".jsonl", ".parquet", ".npy", ".npz", ".pt", ".h5", ".xlsx"})


# What a user may point at.
BUILT_IN, DOWNLOADED = "built in", "downloaded set"
CLASS_FOLDERS, TEXTS, TEXT = "folder of class folders", "folder of text files", "text file"
RECORDS = (CIFAR, IDX)


class SourceLine(NamedTuple):
    """A source with a name, for people. bytes: to download, 0 for what comes with Twofold. present: whether it is on this machine."""

    name: str
    task: str
    sentence: str
    licence: str
    bytes: int = 0
    present: bool = True


def _digits(options: DataOptions, vocabulary: Vocabulary | None) -> ImageSource:
    options.only("digits")
    return handwriting.digits()


def _python_source(options: DataOptions, vocabulary: Vocabulary | None) -> TextSource:
    options.only("python-source", "limit", "unit")
    return library.python_source(options.limit or library.LIMIT, options.unit, vocabulary)


SOURCES: dict[str, Callable[[DataOptions, Vocabulary | None], Source]] = {"digits": _digits, "python-source": _python_source}


def source_lines() -> tuple[SourceLine, ...]:
    """One line for each of SOURCES."""
    return (
        SourceLine("digits", "classify", handwriting.SENTENCE, handwriting.LICENCE),
        SourceLine("python-source", "language", library.SENTENCE, library.LICENCE),
    )


def published_lines() -> tuple[SourceLine, ...]:
    """One line for each of PUBLISHED: the sets that `twofold data get` downloads."""
    return tuple(SourceLine(each.name, each.task, each.sentence, each.licence, each.size, present(each)) for each in PUBLISHED.values())


def open_source(source: str | Path, options: DataOptions | None = None, vocabulary: Vocabulary | None = None) -> Source:
    """The source that a name or a path stands for; a name comes first (write ./digits for a folder called digits).

    vocabulary: that of a model which is to read the text. Default: one is made of the training text.
    Raises ValueError: nothing there (with the nearest name), not downloaded, nothing to learn from, an option that does not apply.
    """
    return _opened(source, options or DataOptions(), vocabulary)[0]


def check(source: str | Path, options: DataOptions | None = None) -> Findings:
    """What a source holds and what is odd about it. Raises what open_source raises."""
    return inspect(*_opened(source, options or DataOptions()))


def describe(source: Source) -> list[str]:
    """Sentences for people about an opened source."""
    return inspect(source, "pictures" if isinstance(source, ImageSource) else "text").lines()


def task_of(source: str | Path) -> str:
    """The task that a source is for, found without reading it whole. Raises ValueError where nothing lies there."""
    return _task(source, _kind(source))


def _task(source: str | Path, kind: str) -> str:
    if kind == BUILT_IN:
        return {line.name: line.task for line in source_lines()}[str(source)]
    if kind == DOWNLOADED:
        return PUBLISHED[str(source)].task
    return "classify" if kind in (CLASS_FOLDERS, *RECORDS) else "language"


def require(source: str | Path) -> Path | None:
    """The path of a source, None for a name. Raises ValueError where nothing lies there, naming what is near."""
    if isinstance(source, str) and (source in SOURCES or source in PUBLISHED):
        return None
    path = Path(source).expanduser()
    if leads_nowhere(path):
        raise ValueError(f"{path} is a link that leads nowhere: {os.readlink(path)} is not there. {_expected()}")
    if not path.exists():
        near = next(iter(get_close_matches(str(source), _names(), 1)), None) or nearest(path)
        asked = f': did you mean "{near}"?' if near else "."
        raise ValueError(f'no source "{source}"{asked} {_expected()}')
    return path


def _opened(source: str | Path, options: DataOptions, vocabulary: Vocabulary | None = None) -> tuple[Source, str]:
    """The source, and what kind of thing the user pointed at."""
    kind = _kind(source)
    if options.normalise is None or _task(source, kind) == "language":
        return _read(source, kind, options, vocabulary), kind
    found = _read(source, kind, replace(options, normalise=None), vocabulary)
    assert isinstance(found, ImageSource)
    return normalised(found, options.normalise), kind


def _read(source: str | Path, kind: str, options: DataOptions, vocabulary: Vocabulary | None) -> Source:
    if kind == BUILT_IN:
        return SOURCES[str(source)](options, vocabulary)
    if kind == DOWNLOADED:
        return open_standard(str(source), options, vocabulary)
    path = Path(source).expanduser()
    if kind in RECORDS:
        options.only(kind)
        found = find_records(path)
        assert found is not None
        return open_records(path, found)
    if kind == CLASS_FOLDERS:
        return image_folder(path, options)
    return (text_folder if kind == TEXTS else text_file)(path, options, vocabulary)


def _kind(source: str | Path) -> str:
    path = require(source)
    if path is None:
        return BUILT_IN if source in SOURCES else DOWNLOADED
    if (records := find_records(path)) is not None:
        return records.kind
    if path.is_dir():
        return CLASS_FOLDERS if _holds_pictures(path) else TEXTS
    if path.suffix.lower() in NOT_PROSE:
        raise ValueError(f"{path} is a {path.suffix.lower()} file, not plain text. {_expected()}")
    if path.is_file() and os.access(path, os.R_OK) and is_picture(path):
        raise ValueError(f"{path} is one picture. {_expected()}")
    return TEXT


def _expected() -> str:
    return f"Expected a folder of class folders, a text file, or one of: {', '.join(_names())}"


def _names() -> tuple[str, ...]:
    return (*SOURCES, *PUBLISHED)


def _holds_pictures(folder: Path) -> bool:
    """True where pictures lie in folders, or are at least as many as the texts, or where there are no texts."""
    names, _ = walk(folder)
    texts = [name for name in names if name.lower().endswith(".txt")]
    pictures = pictures_among(folder, [name for name in names if not name.lower().endswith(".txt")], [])
    return not texts or len(pictures) >= len(texts) or any("/" in name for name in pictures)
