"""A corpus: passages of text, as streams of codes under one vocabulary.

files -> text        joined by two empty lines
vocabulary           of the training passage alone, or the one given: that of a model which is to read the text
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from twofold.data.amount import amount
from twofold.data.folder import printable, printed
from twofold.data.plain_text import TextError, read_text
from twofold.data.values import Skipped, Text, TextSource
from twofold.data.vocabulary import Vocabulary

SEPARATOR = "\n\n\n"


class Passage(NamedTuple):
    """Text, the files that it is from, and where each of them begins in it."""

    text: str
    names: tuple[str, ...]
    starts: tuple[int, ...] = (0,)


class Passages(NamedTuple):
    """The three parts of a corpus."""

    train: Passage
    validation: Passage
    test: Passage


def gather(root: Path, names: Sequence[str], skipped: list[Skipped], limit: int | None, whole: bool = False) -> list[Passage]:
    """Files in the order given, one passage each, until together they reach `limit` characters: cut there, or stopped before it.

    whole: no file is cut; the first comes however long it is. Files that are not text are added to `skipped`.
    """
    passages: list[Passage] = []
    length = 0
    for name in names:
        if limit is not None and length >= limit:
            break
        try:
            text = read_text(root / name, None if whole else limit)
        except TextError as error:
            skipped.append(Skipped(name, error.reason))
            continue
        length += len(SEPARATOR) if passages else 0
        if limit is not None and length + len(text) > limit:
            if not whole:
                passages.append(Passage(text[: max(0, limit - length)], (printable(name),)))
            elif not passages:
                passages.append(Passage(text, (printable(name),)))
            break
        passages.append(Passage(text, (printable(name),)))
        length += len(text)
    return passages


def join(passages: Iterable[Passage]) -> Passage:
    """One passage of several; those without text leave no trace."""
    full = [passage for passage in passages if passage.text]
    ends = accumulate((len(passage.text) + len(SEPARATOR) for passage in full), initial=0)
    starts = tuple(end + start for end, passage in zip(ends, full, strict=False) for start in passage.starts)
    return Passage(SEPARATOR.join(p.text for p in full), tuple(name for p in full for name in p.names), starts)


def assemble(
    name: str,
    unit: str,
    parts: Passages,
    skipped: Sequence[Skipped] = (),
    notes: Sequence[str] = (),
    vocabulary: Vocabulary | None = None,
) -> TextSource:
    """The source of three passages. A vocabulary that is given brings its own unit. Raises ValueError where a passage is empty."""
    for part, passage in zip(("training", "validation", "test"), parts, strict=True):
        if not passage.text:
            files = amount(len(skipped), "file was", "files were")
            reason = f" {files} skipped: {printable(skipped[0].path)}: {skipped[0].reason}" if skipped else ""
            raise ValueError(f"{name}: no text is left for {part}. Give more text.{reason}")
    vocabulary = vocabulary or Vocabulary.of(parts.train.text, unit)
    train, validation, test = (encoded(passage, vocabulary) for passage in parts)
    return TextSource(name, vocabulary, train, validation, test, printed(skipped), tuple(notes))


def encoded(passage: Passage, vocabulary: Vocabulary) -> Text:
    """The passage in the codes of the vocabulary.

    Where the files begin is known of characters, and of words unless one of them reaches over a border.
    """
    codes_T = vocabulary.encode(passage.text)
    starts = passage.starts
    if vocabulary.unit != "character" and len(starts) > 1:
        pieces = [len(vocabulary.encode(passage.text[start:stop])) for start, stop in pairwise((*starts, len(passage.text)))]
        starts = tuple(accumulate(pieces[:-1], initial=0)) if sum(pieces) == len(codes_T) else (0,)
    return Text(codes_T, len(passage.text), passage.names, torch.tensor(starts))
