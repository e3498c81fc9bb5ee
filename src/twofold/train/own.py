"""One's own parts: any iterable of batches, any data set of PyTorch's form, any loss.

batches     a list, a DataLoader, any object whose __iter__ begins anew: taken as they come, the same number in every epoch
a data set  has a length and items [i]: it is cut into batches of nearly equal size (no tiny last one for batch norm) in an order drawn
            from (seed, epoch)
a batch     a pair (x, y); of another form where a Task takes it apart
loss        loss(model(x), y) -> the mean over the batch; or a Task, which may do anything (tasks/task.py). What auxiliary heads of
            the model lose is added (layers/heads.py)

A data set is shared over several processes, row by row of every batch; batches that one brings cannot be.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from twofold.layers.heads import loss_of
from twofold.tasks.task import Evaluation, Step, judging
from twofold.train.leaves import item_axis, tensors
from twofold.train.shards import WHOLE, Shard

Loss = Callable[[Any, Any], Tensor]


class OwnBatches:
    """Any batches, as the loop asks for them: see above. batch_size: of what a data set is cut into.

    Raises ValueError for what cannot be gone through again, for an empty one, and for what several processes cannot share.
    """

    def __init__(self, given: Any, batch_size: int, seed: int, shard: Shard = WHOLE) -> None:
        self.given, self.batch_size, self.seed, self.shard = given, batch_size, seed, shard
        if isinstance(given, Iterator):
            raise ValueError(
                f"fit: expected batches that can be gone through once for each epoch, got {type(given).__name__}, which ends after one. "
                "Give a list, a DataLoader, a data set, or an object whose __iter__ begins anew."
            )
        if hasattr(given, "ndim"):
            raise ValueError(
                f"fit: expected batches or a data set, got {type(given).__name__} of shape {tuple(given.shape)}. Tensors x and y? Give "
                "torch.utils.data.TensorDataset(x, y) for training and another for validation."
            )
        if not self.is_set and not isinstance(given, Iterable):
            raise ValueError(f"fit: expected a source, a data set or an iterable of batches, got {type(given).__name__}.")
        if not (_length(given) if _length(given) is not None else any(True for _ in given)):
            raise ValueError("fit: expected batches to learn from, got none: the data set is empty.")
        if shard.processes > 1 and not self.is_set:
            raise ValueError(
                f"fit: batches of one's own cannot be shared over {shard.processes} processes. Give a data set (torch.utils.data.Dataset), "
                "which is cut for each of them."
            )
        if self.is_set:
            what = f"a data set of {len(given)} items in batches of at most {batch_size}, the smallest batch"
            shard.refuse_fewer(what, len(given) // self._steps, "Take fewer processes, or a larger batch_size.")

    @property
    def is_set(self) -> bool:
        """Whether it has items rather than batches."""
        given = self.given
        if isinstance(given, Dataset):
            return not isinstance(given, IterableDataset)
        return hasattr(given, "__getitem__") and hasattr(given, "__len__") and not isinstance(given, Iterable)

    def steps(self) -> int:
        return self._steps

    def share(self, step: int) -> float:
        if not self.is_set or self.shard.processes == 1:
            return 1.0
        smallest, larger = divmod(len(self.given), self._steps)
        return self.shard.share(smallest + (step < larger))

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch, from batch `start` on; of a set, as the order of that epoch has them.

        Raises ValueError where they are more or fewer than in the first epoch: schedules and resume count in steps.
        """
        if self.is_set:
            yield from self._cut(number, start)
            return
        steps, count = self._steps, 0
        for place, batch in enumerate(self.given):
            count = place + 1
            if count > steps:
                break
            if place >= start:
                yield batch
        if count != steps:
            told = "had at first" if _length(self.given) is None else "says"
            raise ValueError(
                f"fit: expected {steps} batches in every epoch, as {type(self.given).__name__} {told}, got "
                f"{'more' if count > steps else f'only {count}'} in epoch {number + 1}. Schedules and resume need as many in each."
            )

    def names(self, epoch: int, step: int) -> list[int] | None:
        """The places of a batch's items in the set, of a shard those of its own; None for batches."""
        if not self.is_set:
            return None
        batch = self._orders(epoch)[step]
        return batch[self.shard.part(len(batch))]

    def in_order(self) -> Iterator[Any]:
        """All batches once, for evaluation: those of a set in its own order."""
        return iter(DataLoader(self.given, self.batch_size, generator=torch.Generator())) if self.is_set else iter(self.given)

    def _cut(self, number: int, start: int) -> Iterator[Any]:
        own = [batch[self.shard.part(len(batch))] for batch in self._orders(number)[start:]]
        return iter(DataLoader(self.given, batch_sampler=own, generator=torch.Generator()))

    def _orders(self, number: int) -> list[list[int]]:
        """The items of every batch of an epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        return [batch.tolist() for batch in torch.randperm(len(self.given), generator=generator).tensor_split(self._steps)]

    @cached_property
    def _steps(self) -> int:
        length = _length(self.given)
        if self.is_set:
            return math.ceil(len(self.given) / self.batch_size)
        return sum(1 for _ in self.given) if length is None else length


class OwnTask:
    """Learning by a loss of one's own. Scores: the loss, and the accuracy where targets are classes."""

    name = "own"

    def __init__(self, loss: Loss) -> None:
        self.of = loss

    def loss(self, model: nn.Module, batch: Any, carried: Any = None) -> Step:
        """Raises ValueError for a batch that is no pair, and for a loss that is no single number."""
        x, y = _pair(batch)
        value = loss_of(model(x), lambda output: self.of(output, y))
        if not isinstance(value, Tensor) or value.dim():
            got = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"fit: expected the loss to return one number, the mean over the batch, got {got}. Reduce it by its mean.")
        return Step(value, _items(x), None)

    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> Evaluation:
        """Means over all items."""
        total, right, items, classes = 0.0, 0, 0, True
        with judging(model):
            for batch in batches:
                x, y = _pair(batch)
                output = model(x)
                count = _items(x)
                total, items = total + self.of(output, y).item() * count, items + count
                classes = classes and _are_classes(output, y)
                right += int((output.argmax(1) == y).sum()) if classes else 0
        if not items:
            raise ValueError("fit: there is no batch to evaluate: the validation data are empty.")
        return Evaluation({"loss": total / items, **({"accuracy": right / items} if classes else {})}, {"items": items})

    def rank(self, scores: dict[str, float]) -> tuple[float, ...]:
        """The smaller loss."""
        return (-scores["loss"],)

    def example(self, batch: Any) -> tuple[Any]:
        """The first item of the input."""
        return (_first(_pair(batch)[0]),)

    def explain(self, scores: dict[str, float]) -> tuple[str, str]:
        if "accuracy" in scores:
            return "accuracy", f"{100 * scores['accuracy']:.2f} %"
        return "loss", f"{scores['loss']:.4g}"


def _length(given: Any) -> int | None:
    """How many batches or items there are, where that is known without looking: an iterable data set has a length, or raises."""
    try:
        return len(given)
    except (TypeError, NotImplementedError):
        return None


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        got = f"{len(batch)} values" if isinstance(batch, tuple | list | dict) else type(batch).__name__
        raise ValueError(f"fit: expected batches of two, (input, target), got {got}. Give a task that takes them apart: see tasks/task.py.")
    return batch[0], batch[1]


def _items(x: Any) -> int:
    """How many items the input of a batch has; 1 where its tensors disagree, or where there is none."""
    counts = {part.shape[axis] for name, part in tensors(x).items() if (axis := item_axis(name, part)) is not None}
    return counts.pop() if len(counts) == 1 else 1


def _first(x: Any) -> Any:
    """The same with the first item alone."""
    if isinstance(x, Tensor):
        return x[:1] if x.dim() else x
    if isinstance(x, dict):
        return {key: _first(part) for key, part in x.items()}
    if not isinstance(x, tuple | list):
        return x
    parts = [_first(part) for part in x]
    return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)


def _are_classes(output: Any, y: Any) -> bool:
    """Whether the output is logits (B, N) and the target class numbers (B)."""
    both = isinstance(output, Tensor) and isinstance(y, Tensor)
    return both and output.dim() == 2 and y.dim() == 1 and not y.is_floating_point() and len(y) == len(output)
