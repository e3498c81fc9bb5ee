"""Where the pictures of a folder are while they are used: held in memory, or in their files. No number tells which.

    memory   files -> one uint8 tensor for each split
    files    a survey: every file is read once, and what training must know beforehand is kept of it:
                 whether it can be read           the others are left out, and said
                 S and Q of its values            mean and standard deviation of any selection of pictures, exact (moments.py)
                 its digest                       fingerprint, equal pictures, and whether it changes later (streamed.py)
    auto     memory, where the pictures take at most 1 / SHARE_OF_FREE of what is free: while they are read they take PEAK times their own
             bytes (measured: what is copied into the tensors is not given back at once), and model, batches and system need the rest

The survey costs as much reading as an epoch. In return statistics and fingerprint are those of the pictures held, bit for bit: a run may go
on on a machine with less memory, or more; and no file that was broken from the start ends a training in its middle.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from twofold.data.folder import printable
from twofold.data.free_memory import free_memory
from twofold.data.layout import Found
from twofold.data.moments import moments, sums
from twofold.data.pictures import PictureError, silence
from twofold.data.preparation import Preparation
from twofold.data.streamed import Form, PictureFiles, digest
from twofold.data.values import Images, Labelled, Skipped

SHARE_OF_FREE = 4
PEAK = 2
THREADS = 8  # at most
AT_ONCE = 512  # files handed to the threads

Made = TypeVar("Made")


class Known(NamedTuple):
    """What is kept of a picture: S and Q of its channels, and its values (held) or their digest (files)."""

    sums_C2: NDArray[np.int64]
    kept: Any


class Holding:
    """The pictures below a folder that can be read, in one form. Those that cannot are skipped with the reason."""

    def __init__(self, root: Path, names: Sequence[str], form: Form, in_memory: bool, skipped: list[Skipped]) -> None:
        self.root, self.form, self.in_memory = root, form, in_memory
        self._known = dict(read_each(root, names, form, _values if in_memory else _facts, skipped))

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def preparation(self, files: Sequence[Found]) -> Preparation:
        """That which these training pictures call for. To be asked before their `part` is taken."""
        total_C2 = np.sum([self._known[found.name].sums_C2 for found in files], axis=0)
        return Preparation.by(moments(len(files) * self.form.height * self.form.width, total_C2), self.form.height, self.form.width)

    def part(self, files: Sequence[Found]) -> Labelled:
        """One split. What it is made of is given away, so that pictures are not held twice."""
        y_B = torch.tensor([found.label for found in files], dtype=torch.int64)
        names = tuple(printable(found.name) for found in files)
        if not self.in_memory:
            marks = tuple(self._known.pop(found.name).kept for found in files)
            return PictureFiles(self.root.absolute(), tuple(found.name for found in files), names, y_B, self.form, marks)
        x_BCHW = np.empty((len(files), *self.form.shape), dtype=np.uint8)
        for row, found in enumerate(files):
            x_BCHW[row] = self._known.pop(found.name).kept
        return Images(torch.from_numpy(x_BCHW), y_B, names)


def fits(path: str | Path, count: int, form: Form, hold: str, notes: list[str]) -> bool:
    """Whether so many pictures are to be held in memory; where they stay in their files unasked, that is said.

    Raises ValueError where they are to be held (`hold` is "memory") and there is not as much memory.
    """
    free, needed = free_memory(), count * prod(form.shape)
    if hold == "auto" and needed > free // SHARE_OF_FREE:
        notes.append(
            f"the pictures take {spoken(needed)}, {spoken(free)} of memory are free: they stay in their files and are read batch by batch"
        )
        return False
    if hold == "memory" and PEAK * needed > free:
        side = int((free / SHARE_OF_FREE / count / form.shape[0]) ** 0.5)
        smaller = f"make them smaller (--image-size {side} or less), or " if side else ""
        raise ValueError(
            f"{path}: {count:,} pictures of {form.height} x {form.width} {form.mode} take {spoken(needed)}, {spoken(PEAK * needed)} "
            f"while they are read, and {spoken(free)} of memory are free. To train all the same, {smaller}leave them in their files: "
            "--hold files"
        )
    return hold != "files"


def spoken(count: int) -> str:
    """A number of bytes for people.

    >>> spoken(5 << 30), spoken(123 << 10)
    ('5.0 GiB', '0.1 MiB')
    """
    return f"{count / 2**30:.1f} GiB" if count >= 1 << 30 else f"{count / 2**20:.1f} MiB"


def read_each(
    root: Path, names: Sequence[str], form: Form, make: Callable[[NDArray[np.uint8]], Made], skipped: list[Skipped]
) -> Iterator[tuple[str, Made]]:
    """What `make` makes of each picture, by name, in order. Threads help: Pillow decodes and resizes outside Python's lock."""

    def one(name: str) -> Made | PictureError:
        try:
            return make(form.read(root / name))
        except PictureError as error:
            return error

    left = iter(names)
    with silence(), ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        while part := list(islice(left, AT_ONCE)):
            for name, outcome in zip(part, pool.map(one, part), strict=True):
                if isinstance(outcome, PictureError):
                    skipped.append(Skipped(name, outcome.reason))
                else:
                    yield name, outcome


def _values(x_CHW: NDArray[np.uint8]) -> Known:
    return Known(sums(x_CHW[None]), x_CHW)


def _facts(x_CHW: NDArray[np.uint8]) -> Known:
    return Known(sums(x_CHW[None]), digest(x_CHW))
