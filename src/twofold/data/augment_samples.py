"""What is augmented together: pictures, and their masks, boxes and keypoints.     B pictures, C channels, H W their size

    pictures    uint8 0..255, or float32 0..1, before they are normalised; C is 1 or 3
    masks       one whole number for each pixel
    boxes       for each picture (N, 4): x1 y1 x2 y2 in pixels, x1 < x2 and y1 < y2, within 0..W and 0..H
    points      for each picture (N, 2): x y in pixels; the centre of the pixel in row 2 and column 5 is (5.5, 2.5)

A box becomes the box around its moved corners (with an elastic displacement: around 32 moved points of its edge), cut at the picture's
edge. Where too little of it is left, or less than a pixel, `kept` is false: rows are never removed, so that class numbers beside them fit.
A point that leaves the picture is no longer visible.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.augment_elastic import Field
from twofold.data.augment_geometry import Moves

STEPS = 8  # points on each side of a box where lines bend
ROUNDS = 30  # of the search for where an elastic displacement takes a point; each is nearer by the steepest slope of the field


class Samples(NamedTuple):
    """A batch. boxes, points, visible and kept have one tensor for each picture; visible and kept are (N,) bool. None: there are none."""

    x_BCHW: Tensor
    masks_BHW: Tensor | None = None
    boxes: tuple[Tensor, ...] | None = None
    points: tuple[Tensor, ...] | None = None
    visible: tuple[Tensor, ...] | None = None
    kept: tuple[Tensor, ...] | None = None


class Course(NamedTuple):
    """Where points go: the moves and the elastic displacement that were drawn."""

    moves: Moves
    field: Field | None

    def of(self, points_N2: NDArray[np.float64], owners_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """p' for points p of the samples `owners_N`: p = A p' + d(p'), so p' = A^-1 (p - d(p')), solved round by round."""
        forward_N23 = self.moves.forward()[owners_N]
        moved_N2 = _mapped(forward_N23, points_N2)
        if self.field is not None:
            for _ in range(ROUNDS):
                moved_N2 = _mapped(forward_N23, points_N2 - self.field.at(moved_N2, owners_N))
        return moved_N2


def move_boxes(boxes: tuple[Tensor, ...], course: Course, least: float) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The boxes around the moved ones, cut at the edge, and which are kept: those of which the share `least` is still inside."""
    height, width = course.moves.size
    flat_N4, owners_N = _flat(boxes, 4)
    steps = np.linspace(0, 1, STEPS + 1)[:-1] if course.field is not None else np.zeros(1)
    ring_K2 = np.concatenate(
        [np.stack(side, 1) for side in ((steps, 0 * steps), (1 + 0 * steps, steps), (1 - steps, 1 + 0 * steps), (0 * steps, 1 - steps))]
    )
    points_NK2 = flat_N4[:, None, :2] + ring_K2 * (flat_N4[:, None, 2:] - flat_N4[:, None, :2])
    moved_NK2 = course.of(points_NK2.reshape(-1, 2), owners_N.repeat(len(ring_K2))).reshape(points_NK2.shape)
    whole_N4 = np.concatenate([moved_NK2.min(1), moved_NK2.max(1)], 1)
    cut_N4 = np.clip(whole_N4, 0, [width, height, width, height])
    sides_N2 = cut_N4[:, 2:] - cut_N4[:, :2]
    share_N = sides_N2.prod(1) / (whole_N4[:, 2:] - whole_N4[:, :2]).prod(1)
    kept_N = np.asarray(np.logical_and(share_N >= least, sides_N2.min(1) >= 1))
    return _apart(cut_N4, boxes), tuple(
        torch.from_numpy(part).to(like.device) for part, like in zip(_cut(kept_N, boxes), boxes, strict=True)
    )


def move_points(
    points: tuple[Tensor, ...], visible: tuple[Tensor, ...] | None, course: Course, partners: tuple[int, ...]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The points, and which are visible: those that were and are inside. In mirrored pictures `partners` is their order."""
    height, width = course.moves.size
    flat_N2, owners_N = _flat(points, 2)
    moved_N2 = course.of(flat_N2, owners_N)
    inside_N = np.asarray(np.logical_and(moved_N2 >= 0, moved_N2 < [width, height]).all(1))
    there = [torch.from_numpy(part).to(like.device) for part, like in zip(_cut(inside_N, points), points, strict=True)]
    seen = there if visible is None else [now & before for now, before in zip(there, visible, strict=True)]
    moved = _apart(moved_N2, points)
    if not partners:
        return moved, tuple(seen)
    mirrored = course.moves.across_B ^ course.moves.down_B
    order = list(partners)
    pairs = [(p[order], s[order]) if turned else (p, s) for p, s, turned in zip(moved, seen, mirrored, strict=True)]
    return tuple(p for p, _ in pairs), tuple(s for _, s in pairs)


def check(samples: Samples, partners: tuple[int, ...] = ()) -> None:
    """Raise ValueError unless everything fits together as this file says."""
    x = samples.x_BCHW
    check_pictures(x)
    B, _, H, W = x.shape
    masks = samples.masks_BHW
    if masks is not None:
        if masks.shape != (B, H, W):
            raise ValueError(
                f"augment masks: expected {(B, H, W)}, one value for each pixel of the pictures {tuple(x.shape)}, got {tuple(masks.shape)}."
            )
        if masks.is_floating_point():
            raise ValueError(f"augment masks: expected whole numbers, got {_kind(masks)}. Class numbers? masks.long().")
    for name, rows, width in (("boxes", samples.boxes, 4), ("points", samples.points, 2)):
        if rows is None:
            continue
        if len(rows) != B:
            raise ValueError(f"augment {name}: expected one tensor for each of the {B} pictures, got {len(rows)}.")
        for b, row in enumerate(rows):
            if row.dim() != 2 or row.shape[1] != width or not row.is_floating_point():
                raise ValueError(f"augment {name}[{b}]: expected floating point (N, {width}), got {_kind(row)} {tuple(row.shape)}.")
    for b, boxes in enumerate(samples.boxes or ()):
        _check_boxes(b, boxes, H, W)
    for b, points in enumerate(samples.points or ()):
        if not points.isfinite().all():
            raise ValueError(f"augment points[{b}]: expected finite numbers, got {points[~points.isfinite().all(1)][0].tolist()}.")
        if samples.visible is not None and (len(samples.visible) != B or samples.visible[b].shape != points.shape[:1]):
            raise ValueError(f"augment visible: expected one truth value for each point of each picture, {len(points)} in picture {b}.")
        if partners and sorted(partners) != list(range(len(points))):
            raise ValueError(f"augment partners: expected an order of the {len(points)} points of picture {b}, got {list(partners)}.")


def check_pictures(x: Tensor) -> None:
    """Raise ValueError unless these are pictures that are not yet normalised."""
    if x.dim() != 4 or x.shape[1] not in (1, 3) or 0 in x.shape[2:]:
        raise ValueError(f"augment pictures: expected (B, C=1 or 3, H, W), got {tuple(x.shape)}. One picture? picture[None].")
    if x.dtype not in (torch.uint8, torch.float32):
        raise ValueError(f"augment pictures: expected uint8 (0 to 255) or float32 (0 to 1), got {_kind(x)}.")
    if x.dtype == torch.float32 and x.numel():
        low, high = (value.item() for value in torch.aminmax(x))
        if not (low >= 0 and high <= 1):
            cause = "Bytes as floats? Divide by 255." if low >= 0 and high > 2 else "Normalised already? Augment before that."
            raise ValueError(f"augment pictures: expected float32 from 0 to 1, got values from {low:.4g} to {high:.4g}. {cause}")


def _check_boxes(b: int, boxes: Tensor, H: int, W: int) -> None:
    x1, y1, x2, y2 = boxes.unbind(1)
    wrong = ~((x1 >= 0) & (x1 < x2) & (x2 <= W) & (y1 >= 0) & (y1 < y2) & (y2 <= H))
    if wrong.any():
        row = int(wrong.nonzero()[0])
        got = ", ".join(f"{value:g}" for value in boxes[row].tolist())
        raise ValueError(
            f"augment boxes[{b}], row {row}: expected x1 < x2 within 0 to {W} and y1 < y2 within 0 to {H}, got ({got}). "
            "x, y, width, height? Add the first two to the last two. Shares? Multiply by the size. Outside? Clip them."
        )


def _mapped(map_N23: NDArray[np.float64], points_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    return (map_N23[:, :, :2] * points_N2[:, None]).sum(2) + map_N23[:, :, 2]


def _flat(rows: tuple[Tensor, ...], width: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """All rows of all pictures, and whose each is."""
    values = [row.detach().cpu().double().numpy() for row in rows]
    owners = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return np.concatenate(values) if values else np.zeros((0, width)), owners


def _cut(flat: NDArray, rows: tuple[Tensor, ...]) -> list[NDArray]:
    """Rows of all pictures, picture by picture again."""
    return np.split(flat, np.cumsum([len(row) for row in rows])[:-1]) if rows else []


def _apart(flat: NDArray[np.float64], rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(part).to(row) for part, row in zip(_cut(flat, rows), rows, strict=True))


def _kind(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
