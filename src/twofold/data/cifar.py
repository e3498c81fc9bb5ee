"""CIFAR-10 and CIFAR-100 in their binary version: records of one length, pictures of 3x32x32.

    CIFAR-10     class | 1024 red, 1024 green, 1024 blue                       3,073 bytes, class 0..9
    CIFAR-100    coarse class | fine class | red, green, blue                  3,074 bytes, coarse 0..19, fine 0..99

Which of the two it is follows from the length of the file and from the classes. The file may be packed with gzip or xz.
The Python version of these sets is made of pickles, which run code, and is not read.
A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009, and its page, "Binary version"
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from twofold.data.packed import read_up_to, unpacked

PIXELS = 3 * 32 * 32
LARGEST = 1 << 28  # bytes in one file; CIFAR-100's training records are 154 million


class Kind(NamedTuple):
    """One of the two sets: its name, and how many classes each byte before the pixels may name."""

    name: str
    classes: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.classes) + PIXELS


KINDS = (Kind("CIFAR-10", (10,)), Kind("CIFAR-100", (20, 100)))


def read_cifar(path: str | Path, coarse: bool = False) -> tuple[Tensor, Tensor]:
    """(x_BCHW uint8, y_B int64) of the records of one file. coarse: the 20 coarse classes of CIFAR-100 instead of its 100.

    Raises ValueError: missing, not whole records, more than LARGEST bytes, classes that neither set has, coarse of CIFAR-10.
    """
    with unpacked("cifar", Path(path)) as file:
        content = read_up_to(file, LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"cifar: {path} holds more than {LARGEST:,} bytes, the limit for one file.")
    whole = [kind for kind in KINDS if content and len(content) % kind.length == 0]
    if not whole:
        lengths = " or ".join(f"{kind.length:,} bytes ({kind.name})" for kind in KINDS)
        raise ValueError(
            f"cifar: {path}: expected whole records of {lengths}, got {len(content):,} bytes. Cut short, or not the binary version?"
        )
    data = torch.frombuffer(content, dtype=torch.uint8)
    fitting = [kind for kind in whole if _classes_exist(data.reshape(-1, kind.length), kind)]
    if not fitting:
        kind = whole[0]
        limits = ", ".join(f"0 to {count - 1}" for count in kind.classes)
        largest = ", ".join(str(int(column.max())) for column in data.reshape(-1, kind.length).T[: len(kind.classes)])
        raise ValueError(
            f"cifar: {path}: expected classes of {kind.name} ({limits}), got up to {largest}. Not the binary version of CIFAR?"
        )
    kind = fitting[0]
    if coarse and len(kind.classes) == 1:
        raise ValueError(f"cifar: {path} holds {kind.name}, which has no coarse classes; only CIFAR-100 has. Leave coarse out.")
    records = data.reshape(-1, kind.length)
    labels = records[:, 0 if coarse else len(kind.classes) - 1]
    return records[:, len(kind.classes) :].reshape(-1, 3, 32, 32).contiguous(), labels.long()


def _classes_exist(records: Tensor, kind: Kind) -> bool:
    return all(bool((records[:, place] < count).all()) for place, count in enumerate(kind.classes))
