"""Near-duplicates: pictures of two splits that show the same, not value for value: resized, recompressed, brighter, mirrored, cut a little.

    sketch      the grey picture averaged to 8 rows of 9 values
    hash        64 bits: 1 where a value of the sketch is larger than its left neighbour
    candidates  pairs whose hashes differ in at most FAR bits, and whose sketches correlate by ROUGH
    likeness    the correlation of all differences between neighbours, across and down, of both pictures at SIDE x SIDE (or their own
                size where that is smaller); ALIKE and more: the same picture

Differences and correlation do not see brightness and contrast, and a shape alone is not enough: shirts are alike, folds are not. Small
pictures have few folds: below ROOMY pixels it takes more to be alike. From there on a candidate that is not alike is laid upon the other
once more, up to CUT of each side cut off.

Not all are compared with all. The 64 bits fall into FAR + 1 bands; two hashes that differ in FAR bits are equal in one band at least. So
only pictures that share a band are compared, group by group, the small groups first, at most WORK comparisons in all.

Pictures below SMALLEST pixels, and those without contrast, are left out: drawings of 8x8 are alike by nature. Equal pictures are left to
the digest.

Difference hash: Krawetz, "Kind of like that", hackerfactor.com, 2013; bands: Manku, Jain and Sarma, "Detecting near-duplicates for web
crawling", WWW 2007, section 3
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from twofold.data.values import Labelled

ROWS, COLUMNS = 8, 9
FAR = 6  # bits of 64
ROUGH, STRICT = 0.9, 0.96  # of sketches; the latter where nothing may be cut off
ALIKE, SURELY = 0.96, 0.985  # the latter for small pictures
ALIKE_CUT = 0.9  # where the one is laid upon a part of the other, which blurs it
SIDE = 32
SMALLEST, ROOMY = 24, 48  # pixels of the shorter side
CUT, CUTS = 0.06, 3  # of a side; steps up to it
FLAT = 3.0  # of 255: the standard deviation of a sketch with nothing to see
WORK = 2_000_000_000  # comparisons of two hashes
LAID = 2_000  # pairs that are laid upon each other, at most
AT_ONCE = 1 << 22  # values of pictures, or comparisons, at a time

Numbers = NDArray[np.int64]
Floats = NDArray[np.float32]


class Near(NamedTuple):
    """Two pictures that show the same, by split and row. likeness: that of their differences; mirrored: of one's mirror image."""

    split: str
    row: int
    earlier: str
    earlier_row: int
    likeness: float
    mirrored: bool


def near(parts: Mapping[str, Labelled]) -> list[Near]:
    """The near-duplicates of each split in those before it, one for each picture: the most alike. All pictures have one size."""
    found: list[Near] = []
    sketches = {split: sketched(part) for split, part in parts.items()}
    if any(sketch is None for sketch in sketches.values()):
        return []
    marks = {split: part.digests() for split, part in parts.items()}
    names = list(parts)
    for number, split in enumerate(names):
        best: dict[int, Near] = {}
        for earlier in names[:number]:
            for one in _between(parts, sketches, split, earlier):  # type: ignore[arg-type]  # none of them is None
                equal = marks[split][one.row] == marks[earlier][one.earlier_row]
                if not equal and (one.row not in best or one.likeness > best[one.row].likeness):
                    best[one.row] = one
        found += [best[row] for row in sorted(best)]
    return found


def _between(parts: Mapping[str, Labelled], sketches: Mapping[str, Floats], split: str, earlier: str) -> Iterator[Near]:
    rough = ROUGH if _roomy(parts[split]) else STRICT
    for mirrored in (False, True):
        second_B89 = sketches[earlier]
        first_B89 = sketches[split][:, :, ::-1] if mirrored else sketches[split]
        rows, others = candidates(first_B89, second_B89, rough)
        likeness = _likeness(parts[split], rows, parts[earlier], others, mirrored)
        for at in np.flatnonzero(likeness > 0):
            yield Near(split, int(rows[at]), earlier, int(others[at]), float(likeness[at]), mirrored)


def _roomy(part: Labelled) -> bool:
    return min(part.pictures(torch.zeros(1, dtype=torch.int64)).shape[2:]) >= ROOMY


def sketched(part: Labelled) -> Floats | None:
    """The sketches (B, 8, 9) of a split; None where its pictures are too small."""
    made = []
    for _, x_BHW in _grey(part, np.arange(len(part.y_B))):
        if min(x_BHW.shape[1:]) < SMALLEST:
            return None
        made.append(averaged(x_BHW, ROWS, COLUMNS))
    return np.concatenate(made) if made else None


def hashes(sketch_B89: Floats) -> NDArray[np.uint64]:
    """64 bits for each sketch."""
    bits_B64 = (sketch_B89[:, :, 1:] > sketch_B89[:, :, :-1]).reshape(len(sketch_B89), 64)
    return np.packbits(bits_B64, axis=1).view(np.uint64)[:, 0]


def candidates(first_B89: Floats, second_B89: Floats, rough: float) -> tuple[Numbers, Numbers]:
    """Rows of pairs whose hashes are near, and whose sketches correlate, in their values and in the differences of these."""
    both = (first_B89, second_B89)
    shown = [np.flatnonzero(sketch.std((1, 2)) >= FLAT) for sketch in both]
    if not all(map(len, shown)):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    seen = [np.ascontiguousarray(sketch[rows]) for sketch, rows in zip(both, shown, strict=True)]
    values, slopes = [_unit(sketch.reshape(len(sketch), -1)) for sketch in seen], [_unit(_differences(sketch)) for sketch in seen]
    ones, others = map(hashes, seen)
    codes = [np.empty(0, np.int64)]
    for some, more in groups(ones, others):
        near_by = np.bitwise_count(ones[some, None] ^ others[None, more]) <= FAR
        near_by &= values[0][some] @ values[1][more].T >= rough
        i, j = (rows[at] for rows, at in zip((some, more), np.nonzero(near_by), strict=True))
        close = np.einsum("bi,bi->b", slopes[0][i], slopes[1][j]) >= rough
        codes.append(shown[0][i[close]] * len(second_B89) + shown[1][j[close]])
    found = np.unique(np.concatenate(codes))
    return found // len(second_B89), found % len(second_B89)


def groups(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> Iterator[tuple[Numbers, Numbers]]:
    """Rows of the first and of the second to be compared, all with all; a pair may come more than once."""
    shared: list[tuple[int, Numbers, Numbers]] = []
    for band in _bands():
        mine, theirs = (_grouped(marks & band) for marks in (first, second))
        shared += [(len(rows) * len(theirs[mark]), rows, theirs[mark]) for mark, rows in mine.items() if mark in theirs]
    everything = len(first) * len(second)
    if sum(size for size, _, _ in shared) > everything:  # the bits are too unlike chance to tell pictures apart
        shared = [(everything, np.arange(len(first)), np.arange(len(second)))]
    left = WORK
    for size, rows, others in sorted(shared, key=lambda group: group[0]):
        if size > left:
            return
        left -= size
        step = max(1, AT_ONCE // len(others))
        for start in range(0, len(rows), step):
            yield rows[start : start + step], others


def _bands() -> list[np.uint64]:
    """Masks that share the 64 bits among them in turn: bits beside each other say the same, and would make large groups."""
    return [np.uint64(sum(1 << bit for bit in range(band, 64, FAR + 1))) for band in range(FAR + 1)]


def _grouped(marks: NDArray[np.uint64]) -> dict[int, Numbers]:
    """Mark -> the rows that have it."""
    order = np.argsort(marks, kind="stable")
    values, starts = np.unique(marks[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True))


def _likeness(first: Labelled, rows: Numbers, second: Labelled, others: Numbers, mirrored: bool) -> Floats:
    """Of each pair of rows; 0 where they are not alike."""
    found = np.zeros(len(rows), np.float32)
    laid = 0
    enough = ALIKE if _roomy(first) else SURELY
    numbers, places = np.unique(others, return_inverse=True)
    step = max(1, AT_ONCE // (4 * SIDE * SIDE))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        x_BHW = _gathered(first, rows[part])
        y_BHW = _gathered(second, numbers[places[part]])
        x_BHW = x_BHW[:, :, ::-1] if mirrored else x_BHW
        high, wide = (min(SIDE, side) for side in x_BHW.shape[1:])
        small_BHW, other_BHW = averaged(x_BHW, high, wide), averaged(y_BHW, high, wide)
        alike = correlation(small_BHW, other_BHW)
        found[part] = np.where(alike >= enough, alike, 0)
        if enough == SURELY:
            continue
        for at in np.flatnonzero(alike < enough)[: LAID - laid]:
            laid += 1
            best = max(upon(x_BHW[at], other_BHW[at]), upon(y_BHW[at], small_BHW[at]))
            found[start + at] = best if best >= ALIKE_CUT else 0
    return found


def upon(whole_HW: Floats, part_HW: Floats) -> float:
    """The likeness of a small picture and of the best part of a large one, at most CUT of each side cut off: first rows, then columns."""
    high, wide = part_HW.shape
    cuts = [(CUT * low / CUTS, 1 - CUT * up / CUTS) for low in range(CUTS + 1) for up in range(CUTS + 1)]
    down = across = (0.0, 1.0)
    best = 0.0
    for _ in range(2):
        for axis in (0, 1):
            windows = [(cut, across) if axis == 0 else (down, cut) for cut in cuts]
            parts_BHW: Floats = np.stack(
                [_averaging(whole_HW.shape[0], high, *y) @ whole_HW @ _averaging(whole_HW.shape[1], wide, *x).T for y, x in windows]
            )
            alike = correlation(parts_BHW, np.broadcast_to(part_HW, parts_BHW.shape))
            at = int(alike.argmax())
            best = float(alike[at])
            down, across = windows[at]
    return best


def correlation(x_BHW: Floats, y_BHW: Floats) -> Floats:
    """Of the differences between neighbours, across and down."""
    alike_B: Floats = np.einsum("bi,bi->b", _unit(_differences(x_BHW)), _unit(_differences(y_BHW)))
    return alike_B


def averaged(x_BHW: Floats, high: int, wide: int) -> Floats:
    """Pictures at that size; every value is the mean of the area that it stands for."""
    if x_BHW.shape[1:] == (high, wide):
        return x_BHW
    means_BHW: Floats = np.matmul(_averaging(x_BHW.shape[1], high) @ x_BHW, _averaging(x_BHW.shape[2], wide).T, dtype=np.float32)
    return means_BHW


def _averaging(size: int, count: int, low: float = 0.0, high: float = 1.0) -> Floats:
    """The matrix (count, size) that averages the part of an axis from low to high, in shares of it."""
    edges = size * np.linspace(low, high, count + 1)
    cells = np.arange(size)
    shares = np.maximum(np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells), 0).astype(np.float32)
    averages: Floats = shares / shares.sum(1, keepdims=True)
    return averages


def _differences(x_BHW: Floats) -> Floats:
    across, down = x_BHW[:, :, 1:] - x_BHW[:, :, :-1], x_BHW[:, 1:] - x_BHW[:, :-1]
    return np.concatenate([across.reshape(len(x_BHW), -1), down.reshape(len(x_BHW), -1)], axis=1)


def _unit(x_BD: Floats) -> Floats:
    """Rows with mean 0 and length 1; rows without contrast become 0."""
    centred_BD = x_BD - x_BD.mean(1, keepdims=True)
    length_B1 = np.linalg.norm(centred_BD, axis=1, keepdims=True)
    return np.divide(centred_BD, length_B1, out=np.zeros_like(centred_BD), where=length_B1 > 1e-6)


def _gathered(part: Labelled, rows: Numbers) -> Floats:
    numbers, places = np.unique(rows, return_inverse=True)
    return np.concatenate([x_BHW for _, x_BHW in _grey(part, numbers)])[places]


def _grey(part: Labelled, rows: Numbers) -> Iterator[tuple[Numbers, Floats]]:
    """Rows, and their pictures in grey (B, H, W), a bounded number at a time. Weights of the colours: ITU-R BT.601."""
    step = 256
    start = 0
    while start < len(rows):
        some = rows[start : start + step]
        x_BCHW = part.pictures(torch.from_numpy(some)).numpy()
        start += len(some)
        step = max(1, min(4096, AT_ONCE // x_BCHW[0].size))
        if x_BCHW.shape[1] == 1:
            yield some, x_BCHW[:, 0].astype(np.float32)
        else:
            yield some, np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), x_BCHW, (0, 1))
