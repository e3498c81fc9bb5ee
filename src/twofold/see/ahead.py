"""A model looked at before it is computed: the table of its layers, and what training it costs.

    without content    shapes, weights, multiply-adds and fields, on torch's meta device, in a second whatever the size
    computed           routes and times too: where one item takes little work, or where times are asked for and the memory will do

    little work        at most WORK multiply-adds and BYTES of outputs: any net of the literature at its own size

Both give the same table, but for the routes, which only a computation takes. A language model is always computed: its steps are many and
small.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from twofold.see.cost import SECOND, Cost, Trial, cost, spoken
from twofold.see.summary import Line, summarise

WORK: Final = 1 << 35  # multiply-adds: seconds on one core
BYTES: Final = 1 << 31


class Look(NamedTuple):
    """What was seen. missing: why there are no routes and no times, "" where there are."""

    lines: list[Line]
    spent: Cost
    missing: str


def look(
    bare: nn.Module | None, make: Callable[[], nn.Module], zeros: Tensor, trial: Trial, batch: int = 32, long: bool = False
) -> Look:  # fmt: skip
    """Look at a model. bare: the model without content, None for one that is computed in any case; make: the model itself; zeros: one item,
    on the meta device; batch, long: as for `cost`.
    """
    lines = None if bare is None else _without_content(bare, zeros)
    if bare is not None and lines is not None and (weight := _heavy(lines)):
        spent = cost(bare, trial, lines, batch)
        fits = spent.largest is not None and spent.largest >= SECOND
        if not (long and fits):
            cure = "--time measures them." if fits else f"They would be measured on a batch of {SECOND}, which does not fit."
            return Look(lines, spent, f"Not computed: one item takes {weight}. Routes and times are not known. {cure}")
    model = make()
    lines = summarise(model, torch.zeros_like(zeros, device="cpu"))
    return Look(lines, cost(model, trial, lines, batch, long), "")


def _without_content(bare: nn.Module, zeros: Tensor) -> list[Line] | None:
    """The table without routes; None for a model that asks for numbers."""
    try:
        return [line._replace(route="") for line in summarise(bare, zeros)]
    except RuntimeError:  # NotImplementedError, of what the meta device lacks, is one
        return None


def _heavy(lines: list[Line]) -> str:
    """The work of one item in words, "" where it is little."""
    work, size = sum(line.multiply_adds or 0 for line in lines), sum(line.bytes for line in lines)
    return f"{work:,} multiply-adds and {spoken(size)} of outputs" if work > WORK or size > BYTES else ""
