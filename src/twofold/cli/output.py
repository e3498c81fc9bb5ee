"""What a command prints on stdout: lines and tables for people, JSON for programs. Logs go to stderr.

Names come from outside: for people their control characters are written out, so that none of them moves the cursor or forges a line.
"""

import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

CONTROL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # Unicode's categories: control, format, surrogate, line, paragraph


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError  # main knows what to do; rich would exit with 1


def visible(text: str) -> str:
    """The text with control characters written out: a line break as \\n."""
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in CONTROL else c for c in text)


def print_line(text: str) -> None:
    """One line for people."""
    print(visible(text))


def print_json(value: Any) -> None:
    """One JSON document; NaN and infinities, which JSON lacks, as null."""
    everything = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    print(json.dumps(plain(value), ensure_ascii=not everything, indent=2, allow_nan=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """A table in the width of the terminal; numbers to the right. Names from outside are never read as markup."""
    table = Table(title=visible(title) or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    numeric = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]
    for name, right in zip(header, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    console = _Console(highlight=False)
    if not console.is_terminal:
        console = _Console(highlight=False, width=160)
    console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else visible(str(value))


def plain(value: Any) -> Any:
    """The value as JSON can have it: NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
