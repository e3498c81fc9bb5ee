"""What the learning loop asks of a task. The loop knows no picture and no text: it sees batches, losses and scores."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Step(NamedTuple):
    """The outcome of one batch: the mean loss to descend, how many items it averages over, and what the next batch carries on."""

    loss: Tensor
    items: int
    carried: Any


class Evaluation(NamedTuple):
    """How good a model is on one split. `scores` are the numbers for logs; `details` what pictures and reports are made of."""

    scores: dict[str, float]
    details: dict[str, Any]


class Task(Protocol):
    """A kind of problem."""

    name: str

    def loss(self, model: nn.Module, batch: Any, carried: Any) -> Step:
        """The training loss of one batch, given what the batch before it carried on (None at the start)."""
        ...

    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> Evaluation:
        """Scores over all batches, in evaluation mode and without gradients."""
        ...

    def rank(self, scores: dict[str, float]) -> tuple[float, ...]:
        """A key by which the best epoch is chosen: larger is better, and of equals the later epoch, which has learned longer."""
        ...

    def example(self, batch: Any) -> tuple[Any, ...]:
        """What the model is called with, small: a single item of the batch."""
        ...

    def explain(self, scores: dict[str, float]) -> tuple[str, str]:
        """The headline as a person reads it: ("accuracy", "99.33 %")."""
        ...


@contextmanager
def judging(model: nn.Module) -> Iterator[None]:
    """A block in evaluation mode and without gradients; whatever happens in it, the model then has its mode again."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
