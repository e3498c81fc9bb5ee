"""twofold predict: the class of pictures, of folders of them, and of patterns, to the screen or into a file.

Rows are written as they come, so that any number of pictures needs no more memory than a batch.
"""

import csv
import io
import json as notation
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from twofold.cli.options import Flag, Whole
from twofold.cli.output import plain, print_line, print_table, visible

if TYPE_CHECKING:
    from twofold.data.values import Skipped
    from twofold.run import Prediction

FORMULA = re.compile(r"[=@\t\r+-]")  # with which a spreadsheet begins to compute
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
AT_ONCE = 1000  # rows of a table
HEADER = ("picture", "class", "probability", "then")


def predict(
    run: Path,
    *pictures: str,
    top: Whole = 3,
    resize: Flag = False,
    tta: str = "",
    format: Literal["table", "json", "csv"] | None = None,
    out: Path | None = None,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Name the class of pictures. Files that cannot be read are listed with the reason, and the rest is done.

    Parameters
    ----------
    run
        A run folder.
    pictures
        Picture files, folders of them, patterns such as "photos/*.jpg".
    top
        How many classes to list for each.
    resize
        Accept a size that the model has never seen, and scale it.
    tta
        Views of each picture whose probabilities are averaged: flip, "flip shift=1", "flip crops=0.875".
    format
        How to print: table, csv or json. Default: by the name of --out, else a table.
    out
        Write into this file, whole or not at all.
    overwrite
        Replace --out where it exists.
    json
        The same as --format json.
    """
    from twofold.predicting import find_pictures, predict_each
    from twofold.run import load

    if not pictures:
        raise ValueError("predict: name at least one picture: twofold predict RUN a.png b.png")
    if top < 1:
        raise ValueError(f"predict: expected --top of at least 1, got {top}.")
    if overwrite and out is None:
        raise ValueError("predict: --overwrite replaces the file of --out, and none is given. Leave it out.")
    if out is not None and out.exists() and (out.is_dir() or not overwrite):
        raise ValueError(f"predict: {out} is {'a folder' if out.is_dir() else 'there already: add --overwrite, or take another name'}.")
    opened = load(run)
    told = _Told()
    said = told.over(predict_each(opened, find_pictures(pictures), resize=resize, tta=tta))
    if opened.reading.temperature != 1:
        print(f"Probabilities with the temperature {opened.reading.temperature:.4g} (twofold calibrate).", file=sys.stderr)
    wanted = "json" if json else format or _by_name(out)
    if out is not None:
        _write(out, FORMATS[wanted](said, top))
        print_line(f"{told.done:,} pictures: {out}")
    elif wanted == "table":
        for rows in _rows(said, top):
            print_table(HEADER, rows)
    else:
        for piece in FORMATS[wanted](said, top):
            sys.stdout.write(piece)


class _Told:
    """Counts what was predicted, and says on the side what was not. Raises ValueError where not one picture could be read."""

    def __init__(self) -> None:
        self.done = 0

    def over(self, said: "Iterable[Prediction | Skipped]") -> "Iterator[Prediction | Skipped]":
        from twofold.data.values import Skipped

        unread: list[Skipped] = []
        for one in said:
            if not isinstance(one, Skipped):
                self.done += 1
                if self.done == 1:
                    for earlier in unread:
                        _tell(earlier)
                        yield earlier
                yield one
            elif self.done:
                _tell(one)
                yield one
            else:
                unread.append(one)
        if not self.done:
            path, reason = unread[0]
            alone = reason if path in reason else f"picture {path}: {reason}"
            for other in unread[1:]:
                _tell(other)
            raise ValueError(alone if len(unread) == 1 else f"predict: none of {len(unread):,} can be read. {alone}")


def _tell(unread: "Skipped") -> None:
    print(f"not read: {visible(unread.path)}: {visible(unread.reason)}", file=sys.stderr)


def _by_name(out: Path | None) -> str:
    """The format that a file's name asks for."""
    found = "" if out is None else out.suffix.lower().removeprefix(".")
    return found if found in FORMATS else "table"


def _as_json(said: "Iterable[Prediction | Skipped]", top: int) -> Iterator[str]:
    """A list; an entry with `error` is a file that could not be read."""
    from twofold.data.values import Skipped

    begin = "[\n"
    for p in said:
        if isinstance(p, Skipped):
            entry: dict[str, object] = {"picture": p.path, "error": p.reason}
        else:
            entry = {"picture": p.name, "class": p.label, "probability": p.probability, "ranking": p.ranking[:top]}
        yield begin + notation.dumps(plain(entry), allow_nan=False)
        begin = ",\n"
    yield "\n]\n"


def _as_csv(said: "Iterable[Prediction | Skipped]", top: int) -> Iterator[str]:
    """A line for each picture that was read. No cell begins a formula: see `harmless`."""
    from twofold.data.values import Skipped

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("picture", "class", "probability"))
    for p in said:
        if not isinstance(p, Skipped):
            name = f"./{p.name}" if FORMULA.match(p.name) else p.name
            writer.writerow((name, harmless(p.label), f"{p.probability:.6f}"))
            yield text.getvalue()
            text.seek(0)
            text.truncate()


def harmless(name: str) -> str:
    """A name that no spreadsheet takes for a formula: an apostrophe before = + - @, tab and return, unless it is a number.

    >>> [harmless(name) for name in ("cat", "=1+2", "-1", "@x")]
    ['cat', "'=1+2", '-1', "'@x"]
    """
    return f"'{name}" if FORMULA.match(name) and not NUMBER.fullmatch(name) else name


def _rows(said: "Iterable[Prediction | Skipped]", top: int) -> Iterator[list[tuple[str, str, str, str]]]:
    """Rows for people, a thousand at a time."""
    from twofold.data.values import Skipped

    rows = (
        (p.name, p.label, f"{p.probability:.1%}", ", ".join(f"{name} {share:.1%}" for name, share in p.ranking[1:top]))
        for p in said
        if not isinstance(p, Skipped)
    )
    while some := list(islice(rows, AT_ONCE)):
        yield some


def _as_table(said: "Iterable[Prediction | Skipped]", top: int) -> Iterator[str]:
    for rows in _rows(said, top):
        with redirect_stdout(io.StringIO()) as text:
            print_table(HEADER, rows)
        yield text.getvalue()


FORMATS: "dict[str, Callable[[Iterable[Prediction | Skipped], int], Iterator[str]]]" = {
    "json": _as_json,
    "csv": _as_csv,
    "table": _as_table,
}


def _write(out: Path, pieces: Iterable[str]) -> None:
    from twofold.data import files

    try:
        files.write_pieces(out.parent, out.name, (piece.encode("utf-8", "backslashreplace") for piece in pieces), lambda _: out.name)
    except OSError as error:
        raise ValueError(f"predict: cannot write {out}: {files.refusal(error)}.") from None
