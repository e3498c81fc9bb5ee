"""Pictures that stay in their files: a split whose rows are read, and prepared, when they are asked for.

    row number i -> file -> upright, opaque, one mode, one size -> uint8 CHW        the same bytes as if all were held

Every file was read once when the folder was opened (survey.py), and its digest kept: whoever changes a file afterwards is told, so what is
learnt from is what the run's fingerprint says.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.pictures import PictureError, read_quietly
from twofold.data.preparation import CHANNELS, fit

AGAIN = (
    "It was read without a fault when the folder was opened, and pictures that are not held in memory are read again whenever they are "
    "needed. Put it back as it was, and keep the folder as it is while it is in use"
)
READER = re.compile(r"PIL\b")
_one_at_a_time = Lock()


class Form(NamedTuple):
    """What all pictures are made into."""

    mode: str
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W: as many bytes as their product."""
        return CHANNELS[self.mode], self.height, self.width

    def read(self, path: Path) -> NDArray[np.uint8]:
        """A picture file as uint8 CHW. Raises PictureError. For threads: see `hush`."""
        return fit(read_quietly(path, shrink_to=max(self.height, self.width)), *self)


@dataclass(frozen=True)
class PictureFiles:
    """One split of labelled pictures in files: an equal of values.Images. Any number of threads may read from it.

    files: relative to root, as the system has them; names: the same for people. marks: the digest of each picture in this form; without
    them nothing is compared.
    """

    root: Path
    files: tuple[str, ...]
    names: tuple[str, ...]
    y_B: Tensor
    form: Form
    marks: tuple[bytes, ...] | None = None

    def pictures(self, numbers_B: Tensor) -> Tensor:
        """Those rows, uint8 BCHW. Raises PictureError, naming the file, where one cannot be read any more, or is another one now."""
        hush()
        x_BCHW = np.empty((len(numbers_B), *self.form.shape), dtype=np.uint8)
        for row, number in enumerate(numbers_B.tolist()):
            x_BCHW[row] = self._read(number)
        return torch.from_numpy(x_BCHW)

    def digests(self) -> Sequence[bytes]:
        """That of each picture: known already, else all are read."""
        return self.marks if self.marks is not None else [digest(self._read(number)) for number in range(len(self.files))]

    def _read(self, number: int) -> NDArray[np.uint8]:
        path = self.root / self.files[number]
        try:
            x_CHW = self.form.read(path)
        except PictureError as error:
            raise PictureError(error.path, f"{error.reason}. {AGAIN}") from error
        if self.marks is not None and digest(x_CHW) != self.marks[number]:
            raise PictureError(path, f"its content has changed. {AGAIN}")
        return x_CHW


def digest(x_CHW: NDArray[np.uint8]) -> bytes:
    """16 bytes that two pictures share only where all their values are equal (blake2b)."""
    return blake2b(np.ascontiguousarray(x_CHW).data, digest_size=16).digest()


def hush() -> None:
    """From here on the warnings of Pillow are not shown. Filters belong to the whole process, so threads cannot set them for a while."""
    with _one_at_a_time:
        if not any(action == "ignore" and module == READER for action, _, _, module, _ in warnings.filters):
            warnings.filterwarnings("ignore", module=READER.pattern)
