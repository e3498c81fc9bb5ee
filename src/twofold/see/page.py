"""What a report says, and its page of HTML: nothing in it is fetched, nothing in it runs.

The page holds its style and its pictures. Its content security policy forbids everything else, and every text that
comes from outside is escaped. Headings descend without gaps: the title, the sections, the tables and samples in them.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twofold.see.escape import escape
from twofold.see.samples import Sample, samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS_AT_MOST: Final = 500  # of one table
LONGEST_CELL: Final = 2_000  # characters
POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE: Final = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 65rem; background: #fff; color: #1b1f24;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1.5rem; }
h2 { font-size: 1.3rem; margin: 2.75rem 0 1rem; padding-top: 1rem; border-top: 1px solid #dfe3e8; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem; margin: 0; }
dl div { padding: .75rem 1rem; border: 1px solid #dfe3e8; border-radius: .5rem; }
dt { color: #5f6670; font-size: .9rem; }
dd { margin: 0; font-size: 1.4rem; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.3; }
figure { margin: 0 0 2.5rem; break-inside: avoid; }
figcaption { color: #5f6670; font-size: .95rem; max-width: 48rem; margin-top: .5rem; }
img { display: block; max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem 1.25rem .35rem 0; border-bottom: 1px solid #dfe3e8; }
thead th { border-bottom: 2px solid #c9ced6; }
tbody th { font-weight: 500; }
th { overflow-wrap: normal; }
td { min-width: 5.5rem; }
.settings tbody th { white-space: nowrap; font: .9rem/1.6 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { margin: 0; padding: 1rem; background: #f5f6f8; border-radius: .5rem; white-space: pre-wrap; tab-size: 4;
  font: .9rem/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
dd, td, th, li, pre, figcaption { unicode-bidi: isolate; }
.notes { padding: .9rem 1.25rem .9rem 2.25rem; margin: 1.5rem 0 0; background: #fdf1e7; border-left: 4px solid #d95f02; }
@media screen and (max-width: 44rem) { .wide img { max-width: none; width: max(100%, 40rem); }
  body { padding-top: 1.25rem; } h1 { font-size: 1.5rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } pre { border: 1px solid #dfe3e8; }
  tr, dl div { break-inside: avoid; } h2, h3 { break-after: avoid; } .wide { overflow: visible; } }
"""


class Picture(NamedTuple):
    """A figure, the file name that it gets (without .png), a sentence beneath it, and what it says in words for those who
    cannot see it.
    """

    name: str
    figure: "Figure"
    caption: str
    alt: str


class Table(NamedTuple):
    """A title, the names of the columns, and rows of as many values."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]


class Report(NamedTuple):
    """Everything that a report says, in the order of the page but for the settings, which come last.

    summary: headline numbers as (what, value), such as ("test accuracy", "99.3 %"). settings: nested; one line a value.
    """

    title: str
    summary: Sequence[tuple[str, str]] = ()
    settings: Mapping[str, Any] = {}
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    samples: Sequence[Sample] = ()
    notes: Sequence[str] = ()


def page(contents: Report, drawn: Mapping[str, bytes]) -> str:
    """Return the page. drawn: the PNG of each picture by its name."""
    body = "\n".join(part for part in _sections(contents, drawn) if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(contents.title)}</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def flatten(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Return each value of nested settings with its dotted name: {"train": {"rate": 0.1}} is ("train.rate", "0.1")."""
    for name, value in settings.items():
        full = f"{above}{name}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{full}.")
        else:
            yield full, _say(value)


def _say(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(_say(item) for item in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_say(item)}" for name, item in value.items()) or "none"
    return str(value)


def _sections(contents: Report, drawn: Mapping[str, bytes]) -> Iterator[str]:
    yield f"<h1>{escape(contents.title)}</h1>"
    if contents.summary:
        cards = (f"<div><dt>{escape(what)}</dt><dd>{escape(value)}</dd></div>" for what, value in contents.summary)
        yield "<dl>\n" + "\n".join(cards) + "\n</dl>"
    if contents.notes:
        notes = "\n".join(f"<li>{escape(note[:LONGEST_CELL])}</li>" for note in contents.notes)
        yield f'<h2>Notes</h2>\n<ul class="notes">\n{notes}\n</ul>'
    if contents.pictures:
        yield "<h2>Pictures</h2>"
        yield from (_figure(picture, drawn[picture.name]) for picture in contents.pictures)
    if contents.samples:
        yield f"<h2>Samples</h2>\n{samples(contents.samples)}"
    if contents.tables:
        yield "<h2>Tables</h2>"
        yield from (_table(table) for table in contents.tables)
    if contents.settings:
        yield f"<h2>Settings</h2>\n{_grid(('setting', 'value'), list(flatten(contents.settings)), 'settings')}"


def _figure(picture: Picture, png: bytes) -> str:
    width, height = (round(96 * inches) for inches in picture.figure.get_size_inches())
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    image = f'<img src="{source}" width="{width}" height="{height}" alt="{escape(picture.alt)}">'
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>"
    # On a phone the picture keeps its size and is moved sideways: its text would be too small to read.
    return f'<figure>\n<div class="wide" tabindex="0">{image}</div>\n{caption}\n</figure>'


def _table(table: Table) -> str:
    left_out = len(table.rows) - ROWS_AT_MOST
    more = f"\n<p>{left_out:,} more rows are not shown.</p>" if left_out > 0 else ""
    return f"<h3>{escape(table.title)}</h3>\n{_grid(table.header, table.rows[:ROWS_AT_MOST], 'table')}{more}"


def _grid(header: Sequence[str], rows: Sequence[Sequence[object]], kind: str) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "\n".join(f'<tr><th scope="row">{_cell(row[0])}</th>{_cells(row[1:])}</tr>' for row in rows)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="wide {kind}" tabindex="0">\n{table}\n</div>'


def _cells(values: Sequence[object]) -> str:
    return "".join(f"<td>{_cell(value)}</td>" for value in values)


def _cell(value: object) -> str:
    text = str(value)
    return escape(text if len(text) <= LONGEST_CELL else text[:LONGEST_CELL] + "…")
