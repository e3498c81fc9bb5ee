"""What a source hands out: plain named tuples of tensors.     B pictures, C channels, H W their size, T codes in a stream

Pictures stay uint8 (0..255) and text stays integer codes until a batch is made: a quarter of the memory, and one
place (`Preparation.normalise`) where numbers become what the model sees.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from torch import Tensor

from twofold.data.preparation import Preparation
from twofold.data.vocabulary import Vocabulary


class Skipped(NamedTuple):
    """A file that was left out, and why, in a sentence."""

    path: str
    reason: str


class Images(NamedTuple):
    """One split of labelled pictures: x_BCHW uint8, y_B int64 class numbers, and a name for each picture."""

    x_BCHW: Tensor
    y_B: Tensor
    names: tuple[str, ...]


class ImageSource(NamedTuple):
    """Pictures with one class each. `sizes` and `modes` are those of the files, before preparation."""

    name: str
    classes: tuple[str, ...]
    preparation: Preparation
    train: Images
    validation: Images
    test: Images | None
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()  # (height, width)
    modes: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        return "classify"


class Text(NamedTuple):
    """One split of text as one stream of int32 codes; `characters` is the length of the text that they stand for.

    bits per character = bits per code * len(codes_T) / characters
    """

    codes_T: Tensor
    characters: int
    names: tuple[str, ...]


class TextSource(NamedTuple):
    """Text to learn a language model from; the vocabulary is of the training text alone."""

    name: str
    vocabulary: Vocabulary
    train: Text
    validation: Text
    test: Text | None
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        return "language"


class Whole(NamedTuple):
    """All of a source in one part, read in the way of a model that is to be judged by it."""

    name: str
    part: Images | Text
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


Source: TypeAlias = ImageSource | TextSource
