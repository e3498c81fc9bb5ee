"""Mean and standard deviation of bytes, exact, from sums that add up over parts.     n values v in 0..255

    S = sum v,  Q = sum v^2        mean = S / (255 n)        std = sqrt(n Q - S^2) / (255 n)        both in 0..1

S and Q are whole numbers, so it does not matter in which parts, or in which order, the values were seen: not by one bit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 24  # values counted at a time: numpy widens them to 8 bytes
VALUES = np.arange(256, dtype=np.int64)


class Moments(NamedTuple):
    """n, and S and Q of each channel."""

    number: int
    sums: tuple[int, ...]
    squares: tuple[int, ...]

    def mean(self) -> tuple[float, ...]:
        return tuple(total / (255 * self.number) for total in self.sums)

    def std(self) -> tuple[float, ...]:
        """Those of the channels; 1 for a constant one, by which nothing can be divided otherwise."""
        spread = [self.number * square - total * total for total, square in zip(self.sums, self.squares, strict=True)]
        return tuple(math.sqrt(each) / (255 * self.number) if each else 1.0 for each in spread)


def sums(x_BCHW: NDArray[np.uint8]) -> NDArray[np.int64]:
    """S and Q of each channel: (C, 2). Any number of pictures, up to 2^46 values."""
    B, C = x_BCHW.shape[:2]
    counts = np.zeros((C, 256), dtype=np.int64)
    step = max(1, CHUNK // max(1, x_BCHW[:1, 0].size))
    for channel in range(C):
        for first in range(0, B, step):
            counts[channel] += np.bincount(x_BCHW[first : first + step, channel].reshape(-1), minlength=256)
    return np.stack([counts @ VALUES, counts @ VALUES**2], axis=1)


def moments(number: int, sums_C2: NDArray[np.int64]) -> Moments:
    """The moments of `number` values in each channel that have those S and Q."""
    total, square = sums_C2.T.tolist()
    return Moments(number, tuple(total), tuple(square))
