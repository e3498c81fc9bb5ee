"""Records: many pictures of one size in a few files, as CIFAR and the MNIST family are published; plain, or packed with gzip or xz.

    CIFAR    data_batch*.bin  train.bin             to learn from        test_batch*.bin  test.bin            for the end
             batches.meta.txt  fine_label_names.txt      the classes, one a line
    IDX      train-images-idx3-ubyte                to learn from        t10k-images-...  test-images-...     for the end
             the labels of each beside it, -labels-idx1-ubyte; classes: classes.txt, else those of the set whose name the folder has,
             else numbers

A folder is opened by the names of its files; one file by itself is parted. What is left to part is parted as everywhere: a tenth of each
class to validate, and where there is no test 15 % for each of both.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from twofold.data.arrays import CLASSES, in_parts
from twofold.data.cifar import read_cifar
from twofold.data.folder import printable
from twofold.data.idx import read_idx
from twofold.data.plain_text import read_text
from twofold.data.values import ImageSource

CIFAR, IDX = "files of CIFAR records", "IDX files"
NAMES = ("classes.txt", "batches.meta.txt", "fine_label_names.txt")
MOST_CLASSES = 1000
_CIFAR = re.compile(r"(?P<part>data_batch|train|test)(?:_batch|_\w+)?\.bin(?:\.gz|\.xz)?", re.IGNORECASE)
_IDX = re.compile(r"(?P<who>.*?)[-._]?images[-.]idx[34](?:-ubyte)?(?:\.gz|\.xz)?", re.IGNORECASE)
_PYTHON = re.compile(r"data_batch_\d+|test_batch")  # of the version that is made of pickles


class Records(NamedTuple):
    """The files of each part, in the order of their names."""

    kind: str
    train: tuple[Path, ...]
    test: tuple[Path, ...]


def find_records(path: Path) -> Records | None:
    """What lies at a path, a folder or one file; None where these are no records. Raises ValueError for CIFAR's Python version."""
    if path.is_file():
        kind = CIFAR if _CIFAR.fullmatch(path.name) else IDX if _IDX.fullmatch(path.name) else ""
        return Records(kind, (path,), ()) if kind else None
    inside = path.iterdir() if path.is_dir() and os.access(path, os.R_OK | os.X_OK) else ()
    files = sorted(each for each in inside if not each.name.startswith(".") and each.is_file())
    for kind, pattern in ((CIFAR, _CIFAR), (IDX, _IDX)):
        ours = [each for each in files if pattern.fullmatch(each.name)]
        if ours:
            test = tuple(each for each in ours if _for_the_end(kind, each.name))
            train = tuple(each for each in ours if each not in test)
            return Records(kind, train, test) if train else Records(kind, test, ())
    pickled = [each.name for each in files if _PYTHON.fullmatch(each.name)]
    if pickled:
        raise ValueError(
            f"{path} holds the Python version of CIFAR ({pickled[0]}): pickles, which can run code and are not read. Take the binary "
            "version, or twofold data get cifar10"
        )
    return None


def open_records(path: Path, found: Records) -> ImageSource:
    """The source that the files make. Raises ValueError: damaged or foreign files, labels that no class has, pictures of several sizes."""
    train = _read(found, found.train)
    test = _read(found, found.test) if found.test else None
    if test is not None and test[0].shape[1:] != train[0].shape[1:]:
        shapes = ("x".join(map(str, part[0].shape[1:])) for part in (train, test))
        raise ValueError("{}: expected pictures of one size (CxHxW), got {} to learn from and {} to test.".format(path, *shapes))
    folder = path if path.is_dir() else path.parent
    classes = _classes(path, folder, 1 + max(int(part[1].max()) for part in (train, test) if part is not None))
    name = printable((path if path.is_dir() else Path(path.name.partition(".")[0])).resolve().name)
    return in_parts(name, classes, train, test)


def _for_the_end(kind: str, name: str) -> bool:
    start = name.lower()
    if kind == CIFAR:
        return start.startswith("test")
    found = _IDX.fullmatch(name)
    return found is not None and any(word in found["who"].lower() for word in ("t10k", "test"))


def _read(found: Records, files: tuple[Path, ...]) -> tuple[Tensor, Tensor]:
    """All pictures (B, C, H, W) and labels of some files."""
    parts = [read_cifar(file) if found.kind == CIFAR else _read_pair(file) for file in files]
    shapes = {tuple(x_BCHW.shape[1:]) for x_BCHW, _ in parts}
    if len(shapes) > 1:
        raise ValueError(f"{files[0].parent}: expected pictures of one size (CxHxW), got {', '.join(map(str, sorted(shapes)))}.")
    return torch.cat([x_BCHW for x_BCHW, _ in parts]), torch.cat([y_B for _, y_B in parts])


def _read_pair(file: Path) -> tuple[Tensor, Tensor]:
    """Pictures of an IDX file, and their labels from the file beside it."""
    beside = re.compile(re.escape(_IDX.sub(lambda found: found["who"], file.name)) + r"[-._]?labels[-.]idx1(?:-ubyte)?(?:\.gz|\.xz)?", re.I)
    labels = sorted(each for each in file.parent.iterdir() if beside.fullmatch(each.name))
    if not labels:
        raise ValueError(f"{file}: expected its labels beside it, {file.name.replace('images', 'labels').replace('idx3', 'idx1')}.")
    x_BHW, y_B = read_idx(file), read_idx(labels[0])
    if x_BHW.dim() not in (3, 4) or y_B.dim() != 1 or len(x_BHW) != len(y_B):
        raise ValueError(
            f"{file}: expected pictures (N, H, W) or (N, C, H, W) and as many labels (N), got {tuple(x_BHW.shape)} and {tuple(y_B.shape)} "
            f"in {labels[0].name}."
        )
    x_BCHW = x_BHW if x_BHW.dim() == 4 else x_BHW[:, None]
    if x_BCHW.shape[1] not in (1, 3):
        raise ValueError(f"{file}: expected pictures of 1 or 3 channels, got {x_BCHW.shape[1]}.")
    return x_BCHW, y_B.long()


def _classes(path: Path, folder: Path, count: int) -> tuple[str, ...]:
    """Names for so many labels: from a file beside, of the set whose name the folder has, or numbers."""
    for name in NAMES:
        if (folder / name).is_file():
            classes = tuple(printable(line.strip()) for line in read_text(folder / name).splitlines() if line.strip())
            if not count <= len(classes) <= MOST_CLASSES or len(set(classes)) < len(classes):
                raise ValueError(
                    f"{path}: its labels go up to {count - 1}: expected as many different names in {name}, got {len(classes)}."
                )
            return classes
    known = CLASSES.get(folder.resolve().name.lower(), ())
    return known if count <= len(known) else tuple(str(label) for label in range(max(2, count)))
