"""Batches: pictures in a new order every epoch, text in contiguous streams.

    pictures   a permutation drawn from (seed, epoch), cut into parts of nearly equal size (no tiny last batch for batch norm)
    text       B streams of n = (len - 1) // B tokens each, side by side; windows of T steps, one after the other:

                   stream 1   x[0]     x[1]     x[2]   ...        target: the token that follows
                   stream 2   x[n]     x[n+1]   x[n+2] ...
                              |-- window --|-- window --|         the state is carried from window to window

Both begin in the middle when asked to (`start`), so that an interrupted run goes on where it stopped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from twofold.data.preparation import Preparation
from twofold.data.values import Images, Text
from twofold.tasks.classify import Pictures
from twofold.tasks.language import Window

AHEAD = 1 << 20  # values: small batches are prepared several at a time, for each operation costs more than its few bytes
EVALUATION_BATCH = 256  # pictures
EVALUATION_STREAMS, EVALUATION_WINDOW = 32, 256  # text


class Batches(Protocol):
    """The training data, epoch by epoch."""

    def steps(self) -> int:
        """How many batches an epoch has."""
        ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch, from batch `start` on."""
        ...


@dataclass(frozen=True)
class PictureBatches:
    """Labelled pictures, held as bytes and normalised batch by batch."""

    images: Images
    preparation: Preparation
    batch_size: int
    seed: int

    def steps(self) -> int:
        return -(-len(self.images.y_B) // self.batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[Pictures]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order = torch.randperm(len(self.images.y_B), generator=generator)
        batches = order.tensor_split(self.steps())
        ahead = max(1, AHEAD // (len(batches[0]) * self.images.x_BCHW[0].numel()))
        for first in range(start, len(batches), ahead):
            several = batches[first : first + ahead]
            sizes, chosen = [len(batch) for batch in several], torch.cat(several)
            x_BCHW, y_B = (part.index_select(0, chosen) for part in self.images[:2])
            yield from map(Pictures, self.preparation.normalise(x_BCHW).split(sizes), y_B.split(sizes))


def pictures_in_order(images: Images, preparation: Preparation) -> Iterator[Pictures]:
    """All pictures once, in their own order, for evaluation."""
    for x_BCHW, y_B in zip(images.x_BCHW.split(EVALUATION_BATCH), images.y_B.split(EVALUATION_BATCH), strict=True):
        yield Pictures(preparation.normalise(x_BCHW), y_B)


@dataclass(frozen=True)
class TextBatches:
    """Contiguous streams of a text. `items_per_epoch` cuts a pass over the text into several epochs."""

    text: Text
    streams: int
    window: int
    items_per_epoch: int | None = None

    def __post_init__(self) -> None:
        if len(self.text.codes_T) <= self.streams:
            raise ValueError(
                f"text of {len(self.text.codes_T)} tokens: expected more than {self.streams}, one for each stream of the batch. "
                "Take a smaller --batch-size or a longer text."
            )

    def steps(self) -> int:
        whole = self._windows()
        if self.items_per_epoch is None:
            return whole
        return max(1, min(whole, self.items_per_epoch // (self.streams * self.window)))

    def epoch(self, number: int, start: int = 0) -> Iterator[Window]:
        whole, steps = self._windows(), self.steps()
        x_TB, y_TB = side_by_side(self.text.codes_T, self.streams)
        for index in range(number * steps + start, (number + 1) * steps):
            place = index % whole
            rows = slice(place * self.window, (place + 1) * self.window)
            yield Window(x_TB[rows].long(), y_TB[rows].long(), fresh=place == 0)

    def _windows(self) -> int:
        return -(-((len(self.text.codes_T) - 1) // self.streams) // self.window)


def text_in_order(text: Text) -> Iterator[Window]:
    """The whole text once, as streams with carried state, for evaluation; short texts as one stream."""
    if len(text.codes_T) < 2:
        raise ValueError(
            f"evaluate: expected a text of at least 2 tokens, one to read and one to foretell, got {len(text.codes_T)}. Give more text."
        )
    streams = max(1, min(EVALUATION_STREAMS, len(text.codes_T) // (4 * EVALUATION_WINDOW)))
    return TextBatches(text, streams, EVALUATION_WINDOW).epoch(0)


def side_by_side(codes_T: Tensor, streams: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (n, B): column b is the b-th part of the text, the targets one token on."""
    length = (len(codes_T) - 1) // streams
    x_TB = codes_T[: length * streams].view(streams, length).t().contiguous()
    y_TB = codes_T[1 : length * streams + 1].view(streams, length).t().contiguous()
    return x_TB, y_TB
