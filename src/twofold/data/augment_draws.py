"""Random numbers that are looked up, not drawn one after the other.     B samples, k: the k-th number of one use

    key[b]    = mix(mix(mix(seed) + epoch) + number[b])             number: which sample of the data set it is
    u[b,k]    = mix(key[b] + g (use + 2^16 k + 1)) / 2^64           in [0, 1)
    mix(z)    z ^= z >> 30; z *= 0xbf58476d1ce4e5b9; z ^= z >> 27; z *= 0x94d049bb133111eb; z ^= z >> 31      (mod 2^64)

A number depends on (seed, epoch, sample, use, k) alone: not on the batch that the sample stands in, on how many processes or workers
there are, on what was drawn before, or on which other uses there are. Training that goes on after a stop draws what it would have drawn.

Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64; g is 2^64 over the golden ratio);
Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (numbers by counter)
"""

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
WORD = (1 << 64) - 1

# What numbers are drawn for. The place in the list is the number of the use: append, never reorder, or every run changes.
USES = (
    "flip", "upend", "rotate", "scale", "shear", "shift", "crop", "resized-crop", "elastic", "brightness", "contrast", "saturation", "hue",
    "erase", "noise", "cutout", "mix", "partner", "beta", "order",
)  # fmt: skip
_PLACES = {use: place for place, use in enumerate(USES)}


class Draws:
    """The numbers of some samples in one epoch. seed and epoch: any whole numbers; numbers_B: which samples of the data set."""

    def __init__(self, seed: int, epoch: int, numbers_B: NDArray[np.int64]) -> None:
        start = _mixed(_mixed(seed) + epoch)
        self.seed, self.epoch, self.numbers_B = seed, epoch, numbers_B
        self.keys_B = _mix(numbers_B.astype(np.uint64) + np.uint64(start))

    def of(self, sample: int) -> "Draws":
        """The numbers of one sample of these alone."""
        return Draws(self.seed, self.epoch, self.numbers_B[sample : sample + 1])

    def at(self, epoch: int) -> "Draws":
        """The numbers of the same samples in another epoch."""
        return Draws(self.seed, epoch, self.numbers_B)

    def uniform(self, use: str, count: int) -> NDArray[np.float64]:
        """(B, count) numbers in [0, 1), every one a multiple of 2^-53."""
        return (self.bits(use, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def between(self, use: str, low: float, high: float, count: int = 1) -> NDArray[np.float64]:
        """(B, count) numbers in [low, high)."""
        return low + (high - low) * self.uniform(use, count)

    def whole(self, use: str, low: int, high: int, count: int = 1) -> NDArray[np.int64]:
        """(B, count) whole numbers from low to high, both included, all equally likely."""
        return low + np.floor((high - low + 1) * self.uniform(use, count)).astype(np.int64)

    def chance(self, use: str, probability: float) -> NDArray[np.bool_]:
        """(B,) true with that probability."""
        if not probability:
            return np.zeros(len(self.keys_B), dtype=np.bool_)
        return self.uniform(use, 1)[:, 0] < probability

    def bits(self, use: str, count: int) -> NDArray[np.uint64]:
        """(B, count) words of 64 even bits."""
        return _mix(self.keys_B[:, None] + _steps(use, count))


def _steps(use: str, count: int) -> NDArray[np.uint64]:
    """g (use + 2^16 k + 1) for k = 0 .. count - 1."""
    return (np.arange(count, dtype=np.uint64) * np.uint64(1 << 16) + np.uint64(_PLACES[use] + 1)) * np.uint64(GOLDEN)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(SECOND)
    return z ^ (z >> np.uint64(31))


def _mixed(z: int) -> int:
    """mix of one number; z may be negative or large."""
    z &= WORD
    z = ((z ^ (z >> 30)) * FIRST) & WORD
    z = ((z ^ (z >> 27)) * SECOND) & WORD
    return z ^ (z >> 31)
