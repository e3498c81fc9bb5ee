"""Where training and validation part: the model goes on to learn its data, and what it learns no longer holds for others.

    b       the epoch of the lowest validation loss, of equals the last
    they part at b where at least two epochs follow, and in the later half of these, on average
            the training loss is below that of b, and the validation loss above that of b by more than 1 % of it

Of the epochs that follow only the later half is asked, for just after b a loss goes up and down. Rows without a finite loss are left out.

Prechelt, "Early stopping - but when?", Neural Networks: Tricks of the Trade, 1998, section 2
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

RISE: Final = 0.01
FOLLOWING: Final = 2


class Parting(NamedTuple):
    """The epoch, and the losses of both: at that epoch, and on average in the later half of what follows."""

    epoch: int
    train: tuple[float, float]
    validation: tuple[float, float]

    def told(self) -> str:
        """The same in a sentence."""
        return (
            f"After epoch {self.epoch} training and validation part: the training loss falls on, from {self.train[0]:.3g} to "
            f"{self.train[1]:.3g}, and the validation loss rises, from {self.validation[0]:.3g} to {self.validation[1]:.3g}."
        )


def parting(history: Sequence[Mapping[str, Any]]) -> Parting | None:
    """Where they part in the rows of one run's log, None where they do not.

    >>> losses = [(2.0, 2.0), (1.0, 1.5), (0.5, 1.6), (0.2, 1.8)]
    >>> rows = [{"epoch": e, "train": {"loss": t}, "validation": {"loss": v}} for e, (t, v) in enumerate(losses, 1)]
    >>> parting(rows)
    Parting(epoch=2, train=(1.0, 0.2), validation=(1.5, 1.8))
    """
    rows = [(row.get("epoch"), _loss(row, "train"), _loss(row, "validation")) for row in history]
    known = [(epoch, t, v) for epoch, t, v in rows if epoch is not None and math.isfinite(t) and math.isfinite(v)]
    if not known:
        return None
    lowest = min(v for _, _, v in known)
    place = max(index for index, (_, _, v) in enumerate(known) if v == lowest)
    later = known[place + 1 :]
    if len(later) < FOLLOWING:
        return None
    half = later[len(later) // 2 :]
    epoch, train, _ = known[place]
    fell, rose = (sum(losses) / len(half) for losses in ([t for _, t, _ in half], [v for _, _, v in half]))
    if fell < train and rose > lowest + RISE * abs(lowest):
        return Parting(epoch, (train, fell), (lowest, rose))
    return None


def _loss(row: Mapping[str, Any], part: str) -> float:
    value = (row.get(part) or {}).get("loss")
    return math.nan if value is None else float(value)
