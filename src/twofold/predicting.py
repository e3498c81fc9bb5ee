"""Predicting many pictures: files, folders and patterns, a batch at a time. What cannot be read is said, and the rest is done.

folder    the pictures below it, sorted; no hidden ones, none of a run of ours
pattern   "photos/*.jpg", "photos/**/*.png": where no file has that very name
"""

from collections.abc import Iterable, Iterator, Sequence
from glob import glob, has_magic
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from twofold.data.folder import walk
from twofold.data.layout import pictures_among
from twofold.data.values import Skipped
from twofold.run import Prediction, Run
from twofold.tasks.classify import Pictures, predict
from twofold.tasks.views import read_views
from twofold.train.batches import EVALUATION_BATCH


def find_pictures(wanted: Sequence[str | Path]) -> Iterator[Path | Skipped]:
    """The files that are meant, in order; and what is none, with the reason."""
    for name in wanted:
        path = Path(name)
        if path.is_dir():
            yield from _below(path)
        elif path.exists() or not has_magic(str(name)):
            yield path  # one that is missing is said when it is read
        else:
            matched = sorted(glob(str(name), recursive=True))
            if not matched:
                yield Skipped(str(name), "matches no file")
            for each in map(Path, matched):
                if not each.is_dir():
                    yield each


def _below(folder: Path) -> Iterator[Path | Skipped]:
    names, skipped = walk(folder)
    pictures = pictures_among(folder, names, skipped)
    if not pictures and not skipped:
        yield Skipped(str(folder), "holds no picture")
    yield from (Skipped(str(folder / each.path), each.reason) for each in skipped)
    yield from (folder / name for name in pictures)


def predict_each(run: Run, pictures: Iterable[Path | Skipped], *, resize: bool = False, tta: str = "") -> Iterator[Prediction | Skipped]:
    """Of each file, in order, what the model says, or why it cannot be read. No more than one batch is held.

    Raises ValueError for a model that does not look at pictures, and for views that mean nothing.
    """
    kind = run.for_pictures("predict")
    views = read_views(tta) if tta else None
    left = iter(pictures)
    while some := list(islice(left, EVALUATION_BATCH)):
        read = [picture if isinstance(picture, Skipped) else _read(run, picture, resize) for picture in some]
        tensors = [outcome for outcome in read if isinstance(outcome, Tensor)]
        rows: Iterator[Tensor] = iter(())
        if tensors:
            batch = Pictures(kind.normalise(torch.stack(tensors)), torch.zeros(len(tensors)))
            rows = iter(predict(run.model, [batch], views)[0])
        for picture, outcome in zip(some, read, strict=True):
            yield outcome if isinstance(outcome, Skipped) else run.named(str(picture), next(rows))


def _read(run: Run, path: Path, resize: bool) -> Tensor | Skipped:
    try:
        return run.read_picture(path, resize)
    except ValueError as error:
        return Skipped(str(path), getattr(error, "reason", str(error)))
    except OSError as error:
        return Skipped(str(path), f"cannot be read ({error.strerror or error})")
