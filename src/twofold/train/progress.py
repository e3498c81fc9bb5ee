"""How far a run has come: everything that the next step depends on, so that an interrupted run goes on bit for bit.

Written to state/run.pt by torch.save, which holds tensors and plain values only; read with weights_only.
"""

import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from twofold.data import files


@dataclass
class Progress:
    """The place of a run between two steps."""

    epoch: int = 0  # epochs that are complete
    step: int = 0  # steps done in the epoch that is not
    carried: Any = None  # the recurrent state that the next window starts from
    loss_sum: float = 0.0  # over the items of the epoch so far
    items: int = 0
    seconds: float = 0.0  # of training, validation included
    best_rank: tuple[float, ...] | None = None
    best_epoch: int = 0
    improved_epoch: int = 0  # the first of those that reached the best rank
    history: list[dict[str, Any]] = field(default_factory=list)

    def advance(self, loss: float, items: int, carried: Any) -> None:
        """One more step is done."""
        self.step += 1
        self.loss_sum += loss * items
        self.items += items
        self.carried = carried

    def end_epoch(self, row: dict[str, Any], rank: tuple[float, ...]) -> bool:
        """One more epoch is done; whether it is the best so far. Of equals the later one is: it has learned longer."""
        self.epoch += 1
        self.step, self.loss_sum, self.items = 0, 0.0, 0
        self.history.append(row)
        if self.best_rank is None or rank > self.best_rank:
            self.improved_epoch = self.epoch
        elif not rank >= self.best_rank:  # a rank that is no number is never better
            return False
        self.best_rank, self.best_epoch = rank, self.epoch
        return True

    def tired(self, patience: int) -> bool:
        """Whether the last `patience` epochs brought nothing better (0: never)."""
        return patience > 0 and self.epoch - self.improved_epoch >= patience


def save_progress(path: Path, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the state whole or not at all."""
    buffer = io.BytesIO()
    state = {
        "progress": asdict(progress),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
    torch.save(state, buffer)
    files.write(path, buffer.getvalue())


def load_progress(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Put model, optimiser and random generator back to where they were. Raises ValueError for a file that does not fit them."""
    try:
        state = torch.load(path, weights_only=True)
        progress = Progress(**state["progress"])
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
    except FileNotFoundError:
        raise ValueError(f"resume: {path.parent.parent} holds no state/run.pt: it ended before its first epoch was saved.") from None
    except Exception as error:  # whatever a damaged archive makes torch raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"resume: {path} is damaged or belongs to another model: {first}") from error
    return progress
