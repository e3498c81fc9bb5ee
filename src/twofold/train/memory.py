"""Memory gone: the batch is taken in parts, whose gradients add up to that of the whole.     n items in the batch, n_i in part i

    L = (1/n) sum over all items        dL = sum_i (n_i / n) dL_i        L_i: the mean over the items of part i

Where memory ends in the middle of a step, the step begins anew with twice as many parts, until it fits or the parts are single items; it is
said once for each number of parts, and remembered for the steps that follow. Accumulation that was asked for is the same, from the start.

What is exact: the gradient of every layer that treats items one by one. Batch norm in training normalises each part by its own mean and
variance, as with any accumulation, and its running statistics take n_i items at a time; dropout draws other masks.

Linux rarely says that memory has ended: it kills. What is caught here is what torch, the CUDA driver or a limit (ulimit -v) refuses.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twofold.tasks.task import Step
from twofold.train.leaves import item_axis, leaves, tensors
from twofold.train.shards import Shard

SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc", "alloc_failed")


class NoRoomError(ValueError):
    """Memory ends, and smaller parts are not wanted, or do not help. The weights are those of before the step."""


class Portion(NamedTuple):
    """A part of a batch, with the state that it goes on from. share: n_i / n, by which its mean loss counts. last: none follows."""

    batch: Any
    carried: Any
    share: float
    last: bool


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory has ended, on the CPU or on a GPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def item_count(batch: Any) -> int:
    """How many items a batch can be parted into: pictures, or streams of text. Raises ValueError where its tensors disagree."""
    counts = {name: x.shape[axis] for name, x in tensors(batch).items() if (axis := item_axis(name, x)) is not None}
    if len(set(counts.values())) != 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items()) or f"there is no tensor in {type(batch).__name__}"
        raise ValueError(
            f"split: expected tensors with the same number of items, got a batch in which {told}. "
            "Name the axes of a field by letters, B for the items (x_BCHW, y_TB), or put the items first."
        )
    return next(iter(counts.values()))


def split(batch: Any, parts: int, carried: Any = None, weigh: Callable[[Any], float] | None = None) -> list[Portion]:
    """The batch in parts of nearly equal size, at most as many as it has items; the recurrent state along with it.

    weigh: how many items the mean loss of a batch averages over, where that does not follow from its rows (masked targets).
    """
    if parts == 1:
        return [Portion(batch, carried, 1.0, True)]
    items = item_count(batch)
    parts = max(1, min(parts, items))
    edges = [-(-items * part // parts) for part in range(parts + 1)]  # the largest first: where one is too large, nothing is done in vain
    places = [slice(start, stop) for start, stop in pairwise(edges)]
    batches = [_rows(batch, "", place, items) for place in places]
    weights = [float(place.stop - place.start) for place in places] if weigh is None else [weigh(part) for part in batches]
    whole = sum(weights)
    return [
        Portion(part, _state_rows(carried, place, items), weight / whole if whole else 1 / parts, number == parts - 1)
        for number, (part, place, weight) in enumerate(zip(batches, places, weights, strict=True))
    ]


def join(states: list[Any]) -> Any:
    """The recurrent states of the parts as that of the whole batch."""
    first = states[0]
    if isinstance(first, Tensor):
        return torch.cat(states, _state_axis(first))
    if not isinstance(first, (tuple, list)):
        return first
    inside = [join(list(parts)) for parts in zip(*states, strict=True)]
    return type(first)(*inside) if hasattr(first, "_fields") else type(first)(inside)


def handed_out(states: list[Any], shard: Shard) -> Any:
    """A process's recurrent state, of those that there were: its own, or, where the processes were others, its rows of all together."""
    if len(states) == shard.processes:
        return states[shard.process]
    together = join(states)
    items = next((part.shape[_state_axis(part)] for part in tensors((together,)).values()), 0)
    return _state_rows(together, shard.part(items), items)


@dataclass
class Room:
    """In how many parts a batch is taken. `accumulate` is what was asked for, `parts` what memory turned out to allow.

    most: what every process can part its batch into, where all have to take theirs in as many.
    """

    accumulate: int = 1
    memory: str = "halve"
    parts: int = 1
    most: int | None = None

    @property
    def portions(self) -> int:
        """Into how many a batch is parted, if it has as many items."""
        wanted = max(self.accumulate, self.parts)
        return wanted if self.most is None else min(wanted, self.most)

    def step(
        self,
        batch: Any,
        carried: Any,
        learn: Callable[[Portion], Step],
        undo: Callable[[], None],
        tell: Callable[[str], None],
        weigh: Callable[[Any], float] | None = None,
    ) -> Step:
        """The gradient of a batch: mean loss, number of items, and the state that the next batch goes on from.

        learn: the loss of a portion, and backward from share times the loss, added to the gradient. undo: gradient, buffers and random
        states as before the step. tell: is given a sentence where memory has ended.
        Raises NoRoomError where it ends with single items, or where the setting says stop.
        """
        while True:
            portions = split(batch, self.portions, carried, weigh)
            try:
                return _whole(portions, [learn(portion) for portion in portions])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = (str(error).splitlines() or ["MemoryError"])[0]
            # only here, outside of the handler, have the frames that held the tensors of the failed pass gone
            undo()
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            self._halve(len(portions), _counted(batch, reason), reason, tell)

    def state_dict(self) -> dict[str, Any]:
        """What was learnt about this machine."""
        return {"parts": self.parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What an earlier session learnt."""
        self.parts = state["parts"]

    def _halve(self, parts: int, items: int, reason: str, tell: Callable[[str], None]) -> None:
        if self.memory == "stop":
            raise NoRoomError(
                f"memory ends with {-(-items // parts)} items at a time: {reason}. Take a smaller batch_size, accumulate={2 * parts}, "
                "or memory=halve."
            )
        if parts >= items:
            raise NoRoomError(f"memory ends with a single item at a time: {reason}. Take a smaller model, pictures or windows.")
        self.parts = min(2 * parts, items)
        tell(
            f"Memory ended with {-(-items // parts)} items at a time. From here on a batch of {items} is taken in {self.parts} parts, "
            "whose gradients add up to the same."
        )


def _counted(batch: Any, reason: str) -> int:
    """Its items. Raises NoRoomError for a batch that cannot be parted."""
    try:
        return item_count(batch)
    except ValueError as error:
        raise NoRoomError(f"memory ends: {reason}. The batch cannot be taken in parts: {error}") from None


def _whole(portions: list[Portion], steps: list[Step]) -> Step:
    """What the steps of all portions are together."""
    if len(steps) == 1:
        return steps[0]
    loss = torch.stack([step.loss.detach() * portion.share for portion, step in zip(portions, steps, strict=True)]).sum()
    return Step(loss, sum(step.items for step in steps), join([step.carried for step in steps]))


def _rows(value: Any, name: str, place: slice, items: int) -> Any:
    """The rows of a batch, or of a part of it."""
    if isinstance(value, Tensor):
        axis = item_axis(name, value)
        return value if axis is None else value.narrow(axis, place.start, place.stop - place.start)
    if isinstance(value, dict):
        return {key: _rows(part, str(key), place, items) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_rows(part, field, place, items) for field, part in zip(value._fields, value, strict=True)))
    if isinstance(value, (tuple, list)):
        if name and len(value) == items and not all(isinstance(part, Tensor) and part.shape[:1] == (items,) for part in value):
            return value[place]  # one entry an item: names, lists of boxes
        return type(value)(_rows(part, str(number), place, items) for number, part in enumerate(value))
    return value


def _state_rows(state: Any, place: slice, items: int) -> Any:
    """The rows of a recurrent state: (.., B, U) each."""
    for name, part in leaves(state):
        if isinstance(part, Tensor) and part.shape[_state_axis(part)] != items:
            raise ValueError(
                f"split: expected a carried state of {items} rows, (..., B={items}, U), got {tuple(part.shape)} in {name or 'it'}."
            )
    if isinstance(state, Tensor):
        axis = _state_axis(state)
        return state.narrow(axis, place.start, place.stop - place.start)
    if not isinstance(state, (tuple, list)):
        return state
    inside = [_state_rows(part, place, items) for part in state]
    return type(state)(*inside) if hasattr(state, "_fields") else type(state)(inside)


def _state_axis(x: Tensor) -> int:
    """(B, U) or (L, B, U): the last axis but one; (B,): the only one."""
    return max(x.dim() - 2, 0)
