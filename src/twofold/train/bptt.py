"""How far back in time the gradient goes: which steps of the streams an update reads.     n steps a stream; k1, k2 steps

    update j    reads the steps from first = max(0, j k1 - (k2 - k1)) to end = min((j + 1) k1, n), from the state that was before `first`
                its loss is that of the new steps, j k1 .. end; the gradient reaches back to `first`
                the next one sets out from the state before its own first step, which this one leaves behind
    window      k1 = k2 = window: the windows follow each other                     (the default)
    k2 > k1     they overlap: each output has at least k2 - k1 steps behind it that the gradient sees; costs k2 / k1 times the time
    full        k1 = k2 = n: the streams whole, in one update

A stretch is computed anew with the weights of its update; what is kept between them is one state. The same as TBPTT of twofold.time, but
one update at a time, each a batch of its own, so that the loop can stop and go on between any two.

Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent network trajectories", Neural Computation 2(4),
1990, section 3 (BPTT(h; h'), with h = k2 and h' = k1)
"""

import re
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from twofold.layers.expect import expect_positive
from twofold.train.part import Part

FULL, WINDOW = "full", "window"


class Streams(Part):
    """Text only: how the streams are read."""

    window: Annotated[int, Field(ge=1)] = 64
    """Text only: steps from one update to the next."""
    bptt: str = WINDOW
    """Text only: how far back the gradient goes: window, full, or a number of steps such as 256."""
    items_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """Text only: tokens in an epoch; a pass over the text then takes several. Default: the whole text."""
    documents: bool = False
    """Text only: begin with a new state where a file begins. Without it the state is carried from file to file."""
    reach: Annotated[int, Field(ge=0)] = 0
    """Text only: every so many steps, record how much of the gradient arrives how far back; 0: never."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        Truncation.of(self.bptt, self.window)
        return self


class Stretch(NamedTuple):
    """Steps of the streams: read from `first`, learnt from `begin`, to `end`; the next one sets out from the state after `carry` steps."""

    first: int
    begin: int
    end: int
    carry: int

    @property
    def fresh(self) -> bool:
        """Whether it begins where the streams do, so without a carried state."""
        return self.first == 0


@dataclass(frozen=True)
class Truncation:
    """k1: steps from one update to the next; k2: steps that the gradient goes back. None: all that a stream has.

    Raises ValueError for steps below 1 and for k2 < k1.

    >>> Truncation(2, 3).stretch(1, 5), Truncation(2, 3).updates(5)
    (Stretch(first=1, begin=2, end=4, carry=2), 3)
    """

    k1: int | None
    k2: int | None

    def __post_init__(self) -> None:
        for name, steps in (("k1", self.k1), ("k2", self.k2)):
            if steps is not None:
                expect_positive("bptt", **{name: steps})
        if self.k2 is not None and (self.k1 is None or self.k2 < self.k1):
            new, cure = (f"{self.k1} steps", f"bptt={self.k1} or more") if self.k1 else ("all steps", 'bptt="full"')
            raise ValueError(
                f"bptt: {new} from one update to the next, and only {self.k2} back: the outputs more than {self.k2} steps before an update "
                f"would have no gradient. Take {cure}."
            )

    @classmethod
    def of(cls, bptt: str, window: int) -> "Truncation":
        """From the settings: bptt is "window", "full", the steps back "256", or both "64,256", whose first are those of the window.

        Raises ValueError for anything else, for fewer steps back than the window has, and for a window of other steps.
        """
        if bptt == FULL:
            return cls(None, None)
        if bptt == WINDOW:
            return cls(window, window)
        found = re.fullmatch(r"(?:([0-9]{1,9})\s*,\s*)?([0-9]{1,9})", bptt.strip())
        if found is None:
            raise ValueError(
                f'bptt: expected "{WINDOW}", "{FULL}", steps back such as "256", or "64,256" with a window of 64, got {bptt!r}.'
            )
        k1, k2 = int(found[1] or window), int(found[2])
        if k1 != window:
            few = "more than" if k1 > window else "fewer than"
            raise ValueError(
                f"bptt={bptt}: {k1} steps from one update to the next are {few} the {window} that a window brings. Set window={k1}, "
                f"or leave them out: bptt={k2}."
            )
        return cls(k1, k2)

    def updates(self, length: int) -> int:
        """How many updates a pass over streams of that length makes."""
        return -(-length // (self.k1 or length))

    def stretch(self, number: int, length: int) -> Stretch:
        """What update `number`, from 0, reads of streams of that length."""
        k1 = self.k1 or length
        back = length if self.k2 is None else self.k2 - k1
        begin, end = number * k1, min((number + 1) * k1, length)
        first = max(0, begin - back)
        return Stretch(first, begin, end, max(0, end - back) - first)


class Documents:
    """Where documents begin in a text that is cut into streams of `length` steps, side by side."""

    def __init__(self, starts_D: Tensor, streams: int, length: int) -> None:
        """starts_D: the places of the documents' first codes in the text, in any order."""
        inside = starts_D[(starts_D >= 0) & (starts_D < streams * length)].long()
        steps, order = (inside % length).sort()
        self._steps, self._streams, self._count = steps, (inside // length)[order], streams

    def starts(self, first: int, end: int) -> Tensor | None:
        """starts_TB of the steps first to end, or None where no document begins in them."""
        low, high = torch.searchsorted(self._steps, torch.tensor([first, end])).tolist()
        if low == high:
            return None
        starts_TB = torch.zeros(end - first, self._count, dtype=torch.bool)
        starts_TB[self._steps[low:high] - first, self._streams[low:high]] = True
        return starts_TB
