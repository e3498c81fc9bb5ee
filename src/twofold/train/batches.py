"""Batches: pictures in a new order every epoch, text in contiguous streams.

    pictures   a permutation drawn from (seed, epoch), cut into parts of nearly equal size (no tiny last batch for batch norm); with the
               balanced sampler every class equally often (balance.py)
    text       B streams of n = (len - 1) // B tokens each, side by side; windows of T steps, one after the other:

                   stream 1   x[0]     x[1]     x[2]   ...        target: the token that follows
                   stream 2   x[n]     x[n+1]   x[n+2] ...
                              |-- window --|-- window --|         the state is carried from window to window

Both begin in the middle when asked to (`start`), so that an interrupted run goes on where it stopped.

Of several processes each takes its shard of every batch: rows of the pictures, or whole streams of the text. Order, batches and streams
are those of one process alone; `share(step)` weighs the loss of a shard so that the gradients average to that of the whole batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from twofold.data.augment import Augmenter
from twofold.data.mixing import Mixing, Plan, goals
from twofold.data.preparation import CHANNELS, Preparation
from twofold.data.values import Images, Labelled, Text
from twofold.tasks.classify import Pictures
from twofold.tasks.language import Window
from twofold.train.balance import balanced_order, weighted_goals
from twofold.train.bptt import Documents, Truncation
from twofold.train.shards import WHOLE, Shard

AHEAD = 1 << 20  # values: small batches are prepared several at a time, for each operation costs more than its few bytes
EVALUATION_BATCH = 256  # pictures
EVALUATION_STREAMS, EVALUATION_WINDOW = 32, 256  # text


class Batches(Protocol):
    """The training data, epoch by epoch."""

    def steps(self) -> int:
        """How many batches an epoch has."""
        ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch, from batch `start` on; of several processes, this one's shards of them."""
        ...

    def share(self, step: int) -> float:
        """What the mean loss of batch `step` of an epoch is multiplied by: 1, but where the shards of a batch are unequal."""
        ...


class Fairness(NamedTuple):
    """How a training makes up for classes of unequal size. weights: of the classes, None: all alike; even: the balanced sampler."""

    weights: tuple[float, ...] | None = None
    smoothing: float = 0.0  # of the goals with weights
    even: bool = False


ALIKE = Fairness()


class Draft(NamedTuple):
    """What a batch will be made of: the pictures to be read, each once; mixed, the places of its own and of their partners among them.

    number_B: row i, or i + k n where that comes for the k-th time before in the epoch. whole_B: the rows of the whole batch.
    """

    number_B: Tensor
    rows_B: Tensor
    whole_B: Tensor
    plan: Plan | None = None
    own_B: Tensor | None = None
    other_B: Tensor | None = None


@dataclass(frozen=True)
class PictureBatches:
    """Labelled pictures, held as bytes, varied, normalised and mixed batch by batch. Without augmenter or mixing they are not."""

    images: Labelled
    preparation: Preparation
    batch_size: int
    seed: int
    shard: Shard = WHOLE
    augmenter: Augmenter | None = None
    mixing: Mixing | None = None
    fairness: Fairness = ALIKE

    def __post_init__(self) -> None:
        if self.augmenter is not None:
            self.augmenter.recipe.refuse_size(self.preparation.height, self.preparation.width)
        if self.shard.processes == 1:
            return
        smallest = len(self.images.y_B) // max(1, self.steps())
        what = f"{len(self.images.y_B)} pictures in batches of at most {self.batch_size}, the smallest batch"
        self.shard.refuse_fewer(what, smallest, "Take fewer processes, a larger --batch-size or more pictures.")

    def steps(self) -> int:
        return -(-len(self.images.y_B) // self.batch_size)

    def share(self, step: int) -> float:
        smallest, larger = divmod(len(self.images.y_B), self.steps())
        return self.shard.share(smallest + (step < larger))

    def epoch(self, number: int, start: int = 0) -> Iterator[Pictures]:
        if self.mixing is not None or self.fairness.weights is not None:
            for draft in self._drafts(number, start):
                yield self._finish(draft, number, self.images.pictures(draft.rows_B))
            return
        drafts = list(self._drafts(number, start))
        if not drafts:
            return
        size = CHANNELS[self.preparation.mode] * self.preparation.height * self.preparation.width
        ahead = max(1, AHEAD // (len(drafts[0].rows_B) * size))
        for first in range(0, len(drafts), ahead):
            several = drafts[first : first + ahead]
            sizes, rows_B = [len(draft.rows_B) for draft in several], torch.cat([draft.rows_B for draft in several])
            x_BCHW = self._seen(self.images.pictures(rows_B), torch.cat([draft.number_B for draft in several]), number)
            yield from map(Pictures, x_BCHW.split(sizes), self.images.y_B[rows_B].split(sizes))

    def names(self, epoch: int, step: int) -> list[str]:
        """Those of the pictures of a batch, of a shard those of its own."""
        batch = self._order(epoch)[step] % len(self.images.y_B)
        return [self.images.names[place] for place in batch[self.shard.part(len(batch))].tolist()]

    def _order(self, epoch: int) -> tuple[Tensor, ...]:
        """The numbers of the pictures of every batch: see Draft."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.images.y_B), generator=generator)
        if self.fairness.even:
            order = balanced_order(self.images.y_B, self.seed, epoch)[order]
        return order.tensor_split(self.steps())

    def _drafts(self, epoch: int, start: int) -> Iterator[Draft]:
        """What the batches of an epoch will be made of, from batch `start` on."""
        order, n = self._order(epoch), len(self.images.y_B)
        for step in range(start, len(order)):
            whole_B, rows = order[step], self.shard.part(len(order[step]))
            if self.mixing is None:
                yield Draft(whole_B[rows], whole_B[rows] % n, whole_B % n)
                continue
            plan = self.mixing.plan(len(whole_B), (self.preparation.height, self.preparation.width), epoch, step)
            number_B, places = torch.cat([whole_B[rows], whole_B[plan.partner_B[rows]]]).unique(return_inverse=True)
            yield Draft(number_B, number_B % n, whole_B % n, plan, *places.tensor_split(2))

    def _finish(self, draft: Draft, epoch: int, x_BCHW: Tensor) -> Pictures:
        """The batch from the bytes of its pictures; one that is mixed is mixed as a whole, of which a shard has its rows."""
        x_BCHW, y_B = self._seen(x_BCHW, draft.number_B, epoch), self.images.y_B[draft.rows_B]
        weights, smoothing = self.fairness.weights, self.fairness.smoothing
        if self.mixing is None or draft.plan is None or draft.own_B is None or draft.other_B is None:
            whole_B = self.images.y_B[draft.whole_B]
            return Pictures(x_BCHW, y_B, None if weights is None else weighted_goals(y_B, weights, smoothing, whole_B))
        goal_BN = goals(y_B, self.mixing.classes, self.mixing.smoothing)
        goal_BN = goal_BN if weights is None else goal_BN * goal_BN.new_tensor(weights)
        mixed_BCHW = draft.plan.blend(x_BCHW[draft.own_B], x_BCHW[draft.other_B])
        return Pictures(mixed_BCHW, y_B[draft.own_B], draft.plan.blend_goals(goal_BN[draft.own_B], goal_BN[draft.other_B]))

    def _seen(self, x_BCHW: Tensor, number_B: Tensor, epoch: int) -> Tensor:
        """The pictures as the model sees them in that epoch."""
        if self.augmenter is not None:
            x_BCHW = self.augmenter.pictures(x_BCHW, epoch, number_B)
        return self.preparation.normalise(x_BCHW)


def pictures_in_order(images: Images, preparation: Preparation, shard: Shard = WHOLE) -> Iterator[Pictures]:
    """All pictures of the shard once, in their own order, for evaluation. A process for which none is left gets no batch."""
    own = shard.part(len(images.y_B))
    if own.start == own.stop:
        return
    for x_BCHW, y_B in zip(images.x_BCHW[own].split(EVALUATION_BATCH), images.y_B[own].split(EVALUATION_BATCH), strict=True):
        yield Pictures(preparation.normalise(x_BCHW), y_B)


@dataclass(frozen=True)
class TextBatches:
    """Contiguous streams of a text. `items_per_epoch` cuts a pass over the text into several epochs.

    bptt: how far back the gradient goes (bptt.py). documents: whether a file begins with a new state.
    """

    text: Text
    streams: int
    window: int
    items_per_epoch: int | None = None
    shard: Shard = WHOLE
    bptt: str = "window"
    documents: bool = False

    def __post_init__(self) -> None:
        if len(self.text.codes_T) <= self.streams:
            raise ValueError(
                f"text of {len(self.text.codes_T)} tokens: expected more than {self.streams}, one for each stream of the batch. "
                "Take a smaller --batch-size or a longer text."
            )
        if self.shard.processes > 1:
            self.shard.refuse_fewer("streams of the text (--batch-size)", self.streams, "Take fewer processes or a larger --batch-size.")

    def steps(self) -> int:
        whole = self.truncation.updates(self.length)
        if self.items_per_epoch is None:
            return whole
        return max(1, min(whole, self.items_per_epoch // (self.streams * (self.truncation.k1 or self.length))))

    @property
    def length(self) -> int:
        """Steps of a stream."""
        return (len(self.text.codes_T) - 1) // self.streams

    @property
    def truncation(self) -> Truncation:
        """How far the gradient goes back."""
        return Truncation.of(self.bptt, self.window)

    def share(self, step: int) -> float:
        return self.shard.share(self.streams)

    def epoch(self, number: int, start: int = 0) -> Iterator[Window]:
        truncation, steps, length = self.truncation, self.steps(), self.length
        whole = truncation.updates(length)
        x_TB, y_TB = side_by_side(self.text.codes_T, self.streams, self.shard)
        starts_D = self.text.starts_D if self.documents else None
        files = None if starts_D is None else Documents(starts_D, self.streams, length)
        for index in range(number * steps + start, (number + 1) * steps):
            at = truncation.stretch(index % whole, length)
            starts_TB = None if files is None else files.starts(at.first, at.end)
            starts_TB = None if starts_TB is None else starts_TB[:, self.shard.part(self.streams)]
            yield Window(x_TB[at.first : at.end].long(), y_TB[at.begin : at.end].long(), at.fresh, at.carry, starts_TB)


def text_in_order(text: Text, shard: Shard = WHOLE) -> Iterator[Window]:
    """The whole text once, as streams with carried state, for evaluation; short texts as one stream.

    Of several processes each gets its shard of the streams; one for which none is left gets no batch.
    """
    if len(text.codes_T) < 2:
        raise ValueError(
            f"evaluate: expected a text of at least 2 tokens, one to read and one to foretell, got {len(text.codes_T)}. Give more text."
        )
    streams = max(1, min(EVALUATION_STREAMS, len(text.codes_T) // (4 * EVALUATION_WINDOW)))
    if shard.process >= streams:
        return iter(())
    return TextBatches(text, streams, EVALUATION_WINDOW, shard=Shard(shard.process, min(streams, shard.processes))).epoch(0)


def side_by_side(codes_T: Tensor, streams: int, shard: Shard = WHOLE) -> tuple[Tensor, Tensor]:
    """Inputs and targets (n, B): column b is the b-th part of the text, the targets one token on; of a shard, its columns."""
    length, own = (len(codes_T) - 1) // streams, shard.part(streams)
    x_TB = codes_T[: length * streams].view(streams, length)[own].t().contiguous()
    y_TB = codes_T[1 : length * streams + 1].view(streams, length)[own].t().contiguous()
    return x_TB, y_TB
