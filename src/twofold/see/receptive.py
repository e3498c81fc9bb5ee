"""The receptive field: the pixels of the input that an output can see. Along one axis, q an output of a layer, n and m inputs and outputs:

    convolution, pooling    q sees q s - before + i d for every tap i                       s stride, d dilation
    transposed              q sees (q + before - i d) / s for every tap i for which that is a whole number
    adaptive pooling        q sees floor(q n / m) to ceil((q + 1) n / m) - 1
    resizing                q sees the pixel that t0 + q r is rounded to, or the two around it
    a chain of layers       q sees what they see whom q sees: first(q) = min first_below(p), last(q) = max last_below(p), over these p

    field                   max over q of last(q) - first(q) + 1
    effective stride        how far the field moves from one output to the next: the product of all s, of 1/s where transposed
    centre                  (first(q) + last(q)) / 2, in pixels from the middle of the input's first one, of the first q that sees any

Padding counts as pixels beyond the map, so the field can be larger than the map and begin before it.

Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill, 2019, section 2
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.float64]  # whole numbers, NaN for no place
MOST = 1000  # outputs and taps: of more, the first outputs and the outer taps tell


class Sight(NamedTuple):
    """What the outputs of one layer see of its input along one axis: `seen` makes (K, q) places of outputs (q,)."""

    seen: Callable[[Places], Places]
    stride: Fraction


class Field(NamedTuple):
    """What one output sees of the input: pixels along each axis, the effective stride, the first field's first pixel and centre."""

    extent: tuple[int, ...]
    stride: tuple[Fraction, ...]
    first: tuple[int, ...]
    centre: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {**self._asdict(), "stride": tuple(map(float, self.stride))}


Path = tuple[Sight, ...]  # along one axis, from the input to the output


def field(paths: Sequence[Path], counts: Sequence[int]) -> Field:
    """The field of the outputs, `counts` of them along each axis, at the end of the paths."""
    extents, firsts, centres = [], [], []
    for path, count in zip(paths, counts, strict=True):
        first, last = reach(path, np.arange(min(count, MOST), dtype=np.float64))
        start = int(np.flatnonzero(~np.isnan(first))[0])
        extents.append(int(np.nanmax(last - first)) + 1)
        firsts.append(int(first[start]))
        centres.append(float(first[start] + last[start]) / 2)
    strides = tuple(prod((sight.stride for sight in path), start=Fraction(1)) for path in paths)
    return Field(tuple(extents), strides, tuple(firsts), tuple(centres))


def reach(path: Path, q: Places) -> tuple[Places, Places]:
    """The first and the last place of the input that each of these outputs sees, NaN where it sees none."""
    if not path:
        return q, q
    seen = path[-1].seen(q)
    places = np.arange(np.nanmin(seen), np.nanmax(seen) + 1)
    first, last = reach(path[:-1], places)
    at = np.where(np.isnan(seen), len(places), seen - places[0]).astype(np.int64)
    return np.fmin.reduce(np.append(first, np.nan)[at]), np.fmax.reduce(np.append(last, np.nan)[at])


def outer(taps: int) -> Places:
    """The numbers of the taps (K, 1); of very many only the outer ones."""
    numbers = np.arange(taps) if taps <= MOST else np.append(np.arange(MOST // 2), np.arange(taps - MOST // 2, taps))
    return numbers.astype(np.float64)[:, None]


def sliding(taps: int, stride: int, before: int, dilation: int) -> Sight:
    """A window.

    >>> field([(sliding(7, 2, 3, 1), sliding(3, 2, 1, 1))], [56])  # the first layers of a ResNet
    Field(extent=(11,), stride=(Fraction(4, 1),), first=(-5,), centre=(0.0,))
    """
    offsets = outer(taps) * dilation - before
    return Sight(lambda q: q * stride + offsets, Fraction(stride))


def stamping(taps: int, stride: int, before: int, dilation: int) -> Sight:
    """A transposed window: which inputs stamp onto an output depends on its place between two strides.

    >>> field([(stamping(4, 2, 1, 1),)], [8]).extent
    (2,)
    """
    offsets = before - outer(taps) * dilation

    def seen(q: Places) -> Places:
        places = q + offsets
        return np.where(places % stride == 0, places // stride, np.nan)

    return Sight(seen, Fraction(1, stride))


def stretching(size: int, count: int) -> Sight:
    """Adaptive windows: `count` of them over `size` places.

    >>> field([(stretching(16, 7),)], [7]).extent
    (4,)
    """

    def seen(q: Places) -> Places:
        first, end = q * size // count, -(-(q + 1) * size // count)
        taps = outer(int((end - first).max()))
        places = np.concatenate([first + taps, end - 1 - taps])
        return np.where((places >= first) & (places < end), places, np.nan)

    return Sight(seen, Fraction(size, count))


def looking(first: float, step: float, rounding: str | None) -> Sight:
    """Resizing: output q looks at first + q step, at the pixel that it is rounded to or, without rounding, at the two around it.

    >>> field([(looking(-0.25, 0.5, None),)], [8]).extent
    (2,)
    """
    near = 1e-9  # whole numbers and halves may come out a little beside themselves

    def seen(q: Places) -> Places:
        t = first + q * step
        if rounding is None:
            return np.stack([np.floor(t + near), np.ceil(t - near)])
        down = {"floor": np.floor(t + near), "ceil": np.ceil(t - near), "round_prefer_floor": np.ceil(t - 0.5 - near)}
        return down.get(rounding, np.floor(t + 0.5 + near))[None]

    return Sight(seen, Fraction(step).limit_denominator(1000))
