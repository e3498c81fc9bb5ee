"""Splits: which part of the data is learnt from, which is watched while learning, which is kept for the end.

    u(name) = sha256(name) / 2^256 in [0, 1)        the same on every machine, whatever else lies beside the file

Nothing here draws random numbers: the order of u is as good as shuffled, and a split can be repeated without a seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from math import floor
from typing import NamedTuple

WATCHED = 0.05  # share of a text kept for validation, and again for test


class Parts(NamedTuple):
    """Names of files, each part in the order of u."""

    train: list[str]
    validation: list[str]
    test: list[str]


def uniform(name: str) -> float:
    """u(name): a number in [0, 1) that depends on nothing but the name."""
    return int.from_bytes(sha256(name.encode("utf-8", "surrogateescape")).digest()[:6]) / 2**48


def shuffled(names: Iterable[str]) -> list[str]:
    """The names in the order of u."""
    return sorted(names, key=lambda name: (uniform(name), name))


def by_file(names: Iterable[str]) -> Parts:
    """About 90/5/5 by u alone, so that no file changes sides when others come or go; no part is empty (3 names at least)."""
    order = shuffled(names)
    test = [name for name in order if uniform(name) >= 1 - WATCHED] or order[-1:]
    rest = order[: len(order) - len(test)]
    validation = [name for name in rest if uniform(name) >= 1 - 2 * WATCHED] or rest[-1:]
    return Parts(rest[: len(rest) - len(validation)], validation, test)


def by_position(length: int) -> tuple[int, int]:
    """Where validation and test begin in a text of that length: 90/5/5, order kept."""
    return length * 18 // 20, length * 19 // 20


def take(names: Sequence[str], *shares: float) -> list[list[str]]:
    """One class of pictures in parts: what is left for training first, then one part for each share, each in the order given.

    A part gets round(share * n), at least 1 where enough are left; training keeps at least 1, then the first share, then the next.
    """
    order = shuffled(names)
    left = len(order)
    chosen: list[set[str]] = []
    for share in shares:
        count = min(max(1, floor(share * len(order) + 0.5)), max(0, left - 1))
        chosen.append(set(order[left - count : left]))
        left -= count
    held = set().union(*chosen) if chosen else set()
    return [[n for n in names if n not in held], *([n for n in names if n in part] for part in chosen)]
