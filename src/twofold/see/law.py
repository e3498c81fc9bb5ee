"""What a kind of layer says about itself before it runs: sizes, weights, work and reach, each with its derivation.

parameters       numbers that are learned
multiply-adds    products of a weight with an input, each added to a sum; comparisons, powers and the like are not among them
"""

from collections.abc import Iterable
from typing import NamedTuple

from twofold.see.receptive import Sight

ALONE = "alone"  # every output sees its own place only
ALL = "all"  # every output sees all of the map


class Counted(NamedTuple):
    """A number and where it comes from: an expression, or words."""

    number: int
    derivation: str

    def __str__(self) -> str:
        return (
            f"{self.derivation} = {self.number:,}" if self.is_expression else f"{self.number:,}{self.derivation and ': '}{self.derivation}"
        )

    @property
    def is_expression(self) -> bool:
        """Whether the derivation can be worked out."""
        return bool(self.derivation) and not any(character.isalpha() for character in self.derivation)


class Law(NamedTuple):
    """Of a layer and the shape of its input, batch and all: the output's shape, (axis, derivation) for its sizes, the counts, and what an
    output sees: a Sight for each axis of the map, ALONE, ALL, or "" where that has no simple answer. reach: the same, worked out.
    """

    output: tuple[int, ...]
    sizes: tuple[tuple[str, str], ...]
    parameters: Counted
    multiply_adds: Counted
    sees: tuple[Sight, ...] | str
    reach: str = ""


def times(*factors: int) -> str:
    """A product as it is written out.

    >>> times(7, 7, 3)
    '7*7*3'
    """
    return "*".join(map(str, factors))


def plus(terms: Iterable[int | str]) -> str:
    """A sum as it is written out.

    >>> plus([3, "2*2"])
    '3 + 2*2'
    """
    return " + ".join(map(str, terms))
