"""The report of a run: folder/report.html, which opens anywhere with nothing beside it, and folder/pictures/NAME.png.

The page stays under 2 MB: where its pictures are too large, those in the page are drawn with fewer dots; the files
keep theirs. Everything is drawn before anything is written, and each file is written whole: a failure leaves the
folder as it was.
"""

import re
from pathlib import Path
from typing import Final

from twofold.data import files
from twofold.see import style
from twofold.see.page import Picture, Report, Table, page
from twofold.see.samples import Sample

__all__ = ["Picture", "Report", "Sample", "Table", "report"]

LIMIT: Final = 2_000_000  # bytes of the page
RESOLUTIONS: Final = (style.DPI, 120, 96, 80, 64, 48)  # dots per inch, tried in turn
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def report(folder: str | Path, contents: Report) -> Path:
    """Write the report into the folder, which is made if it is missing; return the path of its page.

    Raises ValueError, and writes nothing, if the title is empty, a picture's name is not a plain file name or comes
    twice, a row does not fit its table, or no resolution keeps the page under 2 MB.
    """
    _check(contents)
    folder = Path(folder)
    drawn = {picture.name: style.png_bytes(picture.figure) for picture in contents.pictures}
    written = {folder / "pictures" / f"{name}.png": png for name, png in drawn.items()}
    path = folder / "report.html"
    written[path] = _page_under_limit(contents, drawn)
    files.write_all(written)
    return path


def _page_under_limit(contents: Report, drawn: dict[str, bytes]) -> bytes:
    for dpi in RESOLUTIONS:
        if dpi != style.DPI:
            drawn = {picture.name: style.png_bytes(picture.figure, dpi) for picture in contents.pictures}
        written = page(contents, drawn).encode("utf-8")
        if len(written) < LIMIT:
            return written
    pictures = sum(len(png) for png in drawn.values())
    raise ValueError(
        f"report: expected a page under {LIMIT:,} bytes, got {len(written):,} even at {dpi} dots per inch, of which the "
        f"{len(drawn)} pictures are {pictures:,} before encoding. Give fewer pictures, tables or samples."
    )


def _check(contents: Report) -> None:
    if not contents.title.strip():
        raise ValueError("report title: expected a text, got an empty one")
    seen: set[str] = set()
    for picture in contents.pictures:
        if not NAME.fullmatch(picture.name):
            raise ValueError(
                f"report picture {picture.name!r}: expected a name of letters, digits, - and _ (at most 100), as it becomes a "
                "file name. The caption is the place for words."
            )
        # Some file systems hold "A.png" and "a.png" to be one file.
        if picture.name.lower() in seen:
            raise ValueError(f"report picture {picture.name!r}: expected each name once, got it twice")
        seen.add(picture.name.lower())
    for table in contents.tables:
        for number, row in enumerate(table.rows, 1):
            if not row or len(row) != len(table.header):
                raise ValueError(
                    f"report table {table.title!r}: expected {len(table.header)} values a row, as in the header, "
                    f"got {len(row)} in row {number}"
                )
