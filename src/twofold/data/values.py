"""What a source hands out: plain named tuples of tensors.     B pictures, C channels, H W their size, T codes in a stream

Pictures stay uint8 (0..255) and text stays integer codes until a batch is made: a quarter of the memory, and one
place (`Preparation.normalise`) where numbers become what the model sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

from torch import Tensor

from twofold.data.preparation import Preparation
from twofold.data.streamed import digest
from twofold.data.vocabulary import Vocabulary


class Skipped(NamedTuple):
    """A file that was left out, and why, in a sentence."""

    path: str
    reason: str


class Labelled(Protocol):
    """One split of labelled pictures, wherever they are: in memory (Images), or in files (streamed.PictureFiles).

    y_B: int64 class numbers; names: one for each picture. Any number of threads may read.
    """

    @property
    def y_B(self) -> Tensor: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    def pictures(self, numbers_B: Tensor) -> Tensor:
        """Those rows as uint8 BCHW. Raises ValueError where one cannot be read."""
        ...

    def digests(self) -> Sequence[bytes]:
        """Of each picture, what no other one has (streamed.digest)."""
        ...


class Images(NamedTuple):
    """One split of labelled pictures, held: x_BCHW uint8, y_B int64 class numbers, and a name for each picture."""

    x_BCHW: Tensor
    y_B: Tensor
    names: tuple[str, ...]

    def pictures(self, numbers_B: Tensor) -> Tensor:
        """Those rows."""
        return self.x_BCHW.index_select(0, numbers_B)

    def digests(self) -> Sequence[bytes]:
        """That of each picture."""
        return [digest(x_CHW) for x_CHW in self.x_BCHW.numpy()]


class ImageSource(NamedTuple):
    """Pictures with one class each. `sizes` and `modes` are those of the files, before preparation."""

    name: str
    classes: tuple[str, ...]
    preparation: Preparation
    train: Labelled
    validation: Labelled
    test: Labelled | None
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()  # (height, width)
    modes: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        return "classify"


class Text(NamedTuple):
    """One split of text as one stream of int32 codes; `characters` is the length of the text that they stand for.

    starts_D: the places of the codes with which documents begin, int64, where that is known.
    bits per character = bits per code * len(codes_T) / characters
    """

    codes_T: Tensor
    characters: int
    names: tuple[str, ...]
    starts_D: Tensor | None = None


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
    part: Labelled | Text
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


Source: TypeAlias = ImageSource | TextSource
