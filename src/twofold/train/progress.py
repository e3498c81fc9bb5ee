"""How far a run has come: its place, and what led there."""

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class Progress:
    """The place of a run between two steps."""

    epoch: int = 0  # epochs that are complete
    step: int = 0  # steps done in the epoch that is not
    carried: Any = None  # the recurrent state that the next window starts from
    loss_sum: float = 0.0  # over the items of the epoch so far
    items: int = 0
    best_rank: tuple[float, ...] | None = None
    best_epoch: int = 0
    improved_epoch: int = 0  # the first of those that reached the best rank
    stopped_epoch: int = 0  # where patience ended; everything then went back to the best epoch
    history: list[dict[str, Any]] = field(default_factory=list)
    reach: list[dict[str, Any]] = field(default_factory=list)  # how far the gradient reached back, now and then in this epoch
    begun: Any = None  # torch's random state when the epoch began

    def advance(self, loss: float, items: int, carried: Any) -> None:
        """One more step is done."""
        self.step += 1
        self.loss_sum += loss * items
        self.items += items
        self.carried = carried

    def leave_out(self, carried: Any) -> None:
        """A step was left out: its place is behind us, and nothing else of it."""
        self.step += 1
        self.carried = carried

    def end_epoch(self, row: dict[str, Any], rank: tuple[float, ...]) -> bool:
        """One more epoch is done; whether it is the best so far. Of equals the later one is: it has learned longer."""
        self.epoch += 1
        self.step, self.loss_sum, self.items, self.reach = 0, 0.0, 0, []
        self.history.append(row)
        if self.best_rank is None or rank > self.best_rank:
            self.improved_epoch = self.epoch
        elif not rank >= self.best_rank:  # a rank that is no number is never better
            return False
        self.best_rank, self.best_epoch = rank, self.epoch
        return True

    def tired(self, patience: int) -> bool:
        """Whether the last `patience` epochs brought nothing better (0: never)."""
        return self.stopped_epoch > 0 or (patience > 0 and self.epoch - self.improved_epoch >= patience)

    def state_dict(self) -> dict[str, Any]:
        """All of it; what changes later is copied."""
        return {**{each.name: getattr(self, each.name) for each in fields(self)}, "history": list(self.history), "reach": list(self.reach)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for each in fields(self):
            setattr(self, each.name, state[each.name])
        self.best_rank = None if self.best_rank is None else tuple(self.best_rank)
        self.history, self.reach = list(self.history), list(self.reach)
