"""twofold data and twofold data get NAME: the sources that have a name, and those of them that are downloaded."""

import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from twofold.cli.output import print_json, print_line, print_table, visible
from twofold.data.amount import amount
from twofold.data.downloads import Listener
from twofold.data.obtaining import obtain
from twofold.data.published import bytes_in_words, find_published
from twofold.data.sources import published_lines, source_lines

UNTRIED = (
    "its checksums are as published; nobody has tried them here on the files themselves. "
    "Should a file be refused that you know to be right, they are wrong: tell us"
)


def list_sources(json: bool) -> None:
    """Every source with a name: what it is, its licence, what a download takes, and whether it is here."""
    lines = (*source_lines(), *published_lines())
    if json:
        print_json([line._asdict() for line in lines])
        return
    rows = [(*line[:4], bytes_in_words(line.bytes) if line.bytes else "none", line.present) for line in lines]
    print_table(("source", "task", "what it is", "licence", "download", "here"), rows)
    print("\nYour own: a folder of class folders with pictures, of CIFAR or IDX files, or a text file.")
    print("twofold data check PATH says what lies there.")
    print("Not here: twofold data get NAME downloads it; training never does.")


def get(name: str, origin: Path | None, json: bool) -> None:
    """Download a published set, or take it from the user's own files."""
    published = find_published(name)
    try:
        with Told() as told:
            if not published.tried:
                told.say(f"{name}: {UNTRIED}")
            found = obtain(published, origin, listener=told)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; what came of {name} is kept, and the same command goes on from there") from None
    if json:
        print_json({"source": name, **found._asdict(), "folder": str(found.folder), "licence": published.licence})
        return
    what = f"{amount(found.files, 'file', 'files')}, {bytes_in_words(found.bytes)}, sha256 as published, licence: {published.licence}"
    print_line(f"{name}: {what}")
    print_line(f"{'here now' if found.new else 'was here already'}: {found.folder}")
    print_line(f"use it: twofold train {name}")


class Told(Listener):
    """A bar for each file on a terminal, a line for each without one; both on stderr."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def begin(self, name: str, size: int) -> None:
        if self.bar.disable:
            print(f"{visible(name)}: {bytes_in_words(size)}", file=sys.stderr, flush=True)
        else:
            self.bar.reset(self.task, description=visible(name), total=size, visible=True)

    def at(self, count: int) -> None:
        self.bar.update(self.task, completed=count)

    def say(self, sentence: str) -> None:
        if self.bar.disable:
            print(visible(sentence), file=sys.stderr, flush=True)
        else:
            self.bar.console.print(visible(sentence), markup=False)
