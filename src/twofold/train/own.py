"""One's own parts: any iterable of batches, any data set of PyTorch's form, any loss.

batches     a list, a DataLoader, a generator function's result that can be begun again; or a data set with len and [i], which is cut
            into batches in an order drawn from (seed, epoch)
a batch     a pair (x, y), or whatever the loss takes apart by itself
loss        loss(model(x), y) -> the mean over the batch; or a Task, which may do anything (tasks/task.py)
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from twofold.tasks.task import Evaluation, Step, judging
from twofold.train.leaves import tensors
from twofold.train.memory import item_count
from twofold.train.shards import WHOLE, Shard

Loss = Callable[[Any, Any], Tensor]


class OwnBatches:
    """Any batches, as the loop asks for them: see above. batch_size: of what a data set is cut into.

    Raises ValueError for what cannot be gone through again, and for an empty one.
    """

    def __init__(self, given: Any, batch_size: int, seed: int, shard: Shard = WHOLE) -> None:
        self.given, self.batch_size, self.seed, self.shard = given, batch_size, seed, shard
        if isinstance(given, Iterator):
            raise ValueError(
                f"fit: expected batches that can be gone through once for each epoch, got {type(given).__name__}, which ends after one. "
                "Give a list, a DataLoader, a data set, or an object whose __iter__ begins anew."
            )
        if not self._is_set() and not isinstance(given, Iterable):
            raise ValueError(f"fit: expected a source, a data set or an iterable of batches, got {type(given).__name__}.")
        self._steps = self._count()
        if not self._steps:
            raise ValueError("fit: expected batches to learn from, got none: the data set is empty.")

    def steps(self) -> int:
        return self._steps

    def share(self, step: int) -> float:
        return 1.0

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch, from batch `start` on; of a set, as the order of that epoch has them."""
        for place, batch in enumerate(self._batches(number)):
            if place >= start:
                yield batch

    def in_order(self) -> Iterator[Any]:
        """All batches once, for evaluation: those of a set in its own order."""
        return iter(DataLoader(self.given, self.batch_size)) if self._is_set() else iter(self.given)

    def _batches(self, number: int) -> Iterable[Any]:
        if not self._is_set():
            return self.given
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order: list[int] = torch.randperm(len(self.given), generator=generator).tolist()
        own = [order[place : place + self.batch_size] for place in range(0, len(order), self.batch_size)]
        return DataLoader(self.given, batch_sampler=[batch[self.shard.part(len(batch))] for batch in own])

    def _is_set(self) -> bool:
        """Whether it has items rather than batches."""
        return isinstance(self.given, Dataset) and not isinstance(self.given, IterableDataset)

    def _count(self) -> int:
        if self._is_set():
            return math.ceil(len(self.given) / self.batch_size)
        try:
            return len(self.given)
        except TypeError:
            return sum(1 for _ in self.given)


class OwnTask:
    """Learning by a loss of one's own. Scores: the loss, and the accuracy where targets are classes."""

    name = "own"

    def __init__(self, loss: Loss) -> None:
        self.of = loss

    def loss(self, model: nn.Module, batch: Any, carried: Any = None) -> Step:
        """Raises ValueError for a batch that is no pair, and for a loss that is no single number."""
        x, y = _pair(batch)
        value = self.of(model(x), y)
        if not isinstance(value, Tensor) or value.dim():
            got = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"fit: expected the loss to return one number, the mean over the batch, got {got}. Reduce it by its mean.")
        return Step(value, _items(batch), None)

    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> Evaluation:
        """Means over all items."""
        total, right, items, classes = 0.0, 0, 0, True
        with judging(model):
            for batch in batches:
                x, y = _pair(batch)
                output = model(x)
                count = _items(batch)
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
        return (_pair(batch)[0][:1],)

    def explain(self, scores: dict[str, float]) -> tuple[str, str]:
        if "accuracy" in scores:
            return "accuracy", f"{100 * scores['accuracy']:.2f} %"
        return "loss", f"{scores['loss']:.4g}"


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        got = f"{len(batch)} values" if isinstance(batch, tuple | list | dict) else type(batch).__name__
        raise ValueError(f"fit: expected batches of two, (input, target), got {got}. Give a task that takes them apart: see tasks/task.py.")
    return batch[0], batch[1]


def _items(batch: Any) -> int:
    return item_count(batch) if tensors(batch) else 1


def _are_classes(output: Any, y: Any) -> bool:
    """Whether the output is logits (B, N) and the target class numbers (B)."""
    both = isinstance(output, Tensor) and isinstance(y, Tensor)
    return both and output.dim() == 2 and y.dim() == 1 and not y.is_floating_point() and len(y) == len(output)
