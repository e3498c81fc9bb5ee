"""Streaming: batches of pictures that stay in their files, read ahead by threads while the model learns.

    order of an epoch -> batches -> [ threads: file -> decoded, resized -> its row of its batch ] -> normalised, in order

Order, parts and shards are those of pictures in memory (batches.py), and every picture goes into the row that is its own: the batches are
the same bit for bit, whether one thread reads or many, or none. Pillow reads and decodes outside Python's lock.

Memory: the batch in hand, and beyond it those being read: at most BATCHES, AHEAD bytes, but always one.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import tee

import torch
from torch import Tensor

from twofold.data.augment import Augmenter
from twofold.data.mixing import Mixing
from twofold.data.preparation import Preparation
from twofold.data.values import Images, Labelled
from twofold.tasks.classify import Pictures
from twofold.train.batches import ALIKE, EVALUATION_BATCH, Batches, Fairness, PictureBatches, pictures_in_order
from twofold.train.shards import WHOLE, Shard

AHEAD = 64 << 20  # bytes
BATCHES = 16
ROWS = 8  # pictures that a thread reads at a time


@dataclass(frozen=True)
class StreamedBatches(PictureBatches):
    """The batches of PictureBatches, read when they come near. workers: threads; 0: whoever asks for a batch reads it."""

    workers: int = 2

    def epoch(self, number: int, start: int = 0) -> Iterator[Pictures]:
        drafts, ahead = tee(self._drafts(number, start))
        with closing(read_ahead(self.images, (draft.rows_B for draft in ahead), self.workers)) as read:
            for draft, x_BCHW in zip(drafts, read, strict=True):
                yield self._finish(draft, number, x_BCHW)


def streamed_in_order(images: Labelled, preparation: Preparation, shard: Shard = WHOLE, workers: int = 2) -> Iterator[Pictures]:
    """All pictures of the shard once, in their own order, for evaluation. A process for which none is left gets no batch."""
    own = shard.part(len(images.y_B))
    if own.start == own.stop:
        return
    batches = torch.arange(own.start, own.stop).split(EVALUATION_BATCH)
    with closing(read_ahead(images, batches, workers)) as read:
        for numbers_B, x_BCHW in zip(batches, read, strict=True):
            yield Pictures(preparation.normalise(x_BCHW), images.y_B[numbers_B])


def batches_of(
    images: Labelled, preparation: Preparation, batch_size: int, seed: int, shard: Shard = WHOLE, workers: int = 2,
    augmenter: Augmenter | None = None, mixing: Mixing | None = None, fairness: Fairness = ALIKE,
) -> Batches:  # fmt: skip
    """Training batches of pictures, wherever they are."""
    if isinstance(images, Images):
        return PictureBatches(images, preparation, batch_size, seed, shard, augmenter, mixing, fairness)
    return StreamedBatches(images, preparation, batch_size, seed, shard, augmenter, mixing, fairness, workers)


def in_order(images: Labelled, preparation: Preparation, shard: Shard = WHOLE, workers: int = 2) -> Iterator[Pictures]:
    """Evaluation batches of pictures, wherever they are."""
    if isinstance(images, Images):
        return pictures_in_order(images, preparation, shard)
    return streamed_in_order(images, preparation, shard, workers)


def read_ahead(images: Labelled, batches: Iterable[Tensor], workers: int) -> Generator[Tensor]:
    """For each batch of row numbers its pictures, uint8 BCHW. The threads end with the iterator, however it ends.

    Raises what `images.pictures` raises, for the first row that cannot be read.
    """
    left = iter(batches)
    if workers == 0:
        yield from map(images.pictures, left)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="twofold-pictures")
    under_way: deque[list[Future[Tensor]]] = deque()
    ahead = 1  # batches, until the first has told how large they are
    try:
        while True:
            while len(under_way) <= ahead and (numbers_B := next(left, None)) is not None:
                under_way.append([pool.submit(images.pictures, rows_B) for rows_B in numbers_B.split(ROWS)])
            if not under_way:
                return
            x_BCHW = torch.cat([job.result() for job in under_way.popleft()])
            ahead = max(1, min(BATCHES, AHEAD // x_BCHW.numel()))
            yield x_BCHW
    finally:
        pool.shutdown(cancel_futures=True)
