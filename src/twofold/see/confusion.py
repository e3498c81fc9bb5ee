"""Confusion matrix: true classes in rows, predicted classes in columns.

    share[i,j] = n[i,j] / sum_j n[i,j]          recall[i] = share[i,i]

The colour says the share of the row, so a rare class shows as clearly as a frequent one, on a scale of square roots, so a rare
confusion shows as well. Up to 20 classes the counts are written.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from twofold.see import style
from twofold.see.arrays import Values, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COUNTS_UP_TO: Final = 20  # classes
NAMES_UP_TO: Final = 40
SCALE: Final = (0.0, 0.01, 0.1, 0.5, 1.0)
NAME_WIDTH: Final = 96.0  # points


def confusion(matrix_NN: Values, classes: Sequence[str]) -> "Figure":
    """Draw the counts of a classifier.

    matrix_NN: whole numbers, row = truth, column = prediction. classes: the N names in that order; long ones are
    shortened. A class that never occurs has recall "-". Raises ValueError if the matrix is not square, not counts, or
    N differs.
    """
    from matplotlib.colors import PowerNorm

    counts_NN = _checked(matrix_NN, classes)
    N = len(classes)
    rows_N = counts_NN.sum(axis=1)
    shares_NN = counts_NN / np.maximum(rows_N, 1)[:, None]
    result = style.figure(*(2 * [7.5 if N <= 5 else style.WIDTH]))
    axes = result.subplots()
    image = axes.imshow(shares_NN, cmap=style.sequential(), norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    style.name_axes(axes, "predicted class", "true class")
    right, total = int(np.trace(counts_NN)), int(counts_NN.sum())
    share = f", {100 * right / total:.1f} %" if total else ""
    style.headline(axes, "Confusion matrix", f"{right:,} of {total:,} predicted right{share}")
    _name_classes(axes, classes)
    _edges(axes, N)
    if N <= COUNTS_UP_TO:
        _write_counts(axes, counts_NN, shares_NN)
    else:
        bar = result.colorbar(image, ax=axes, location="bottom", fraction=0.03, pad=0.02, aspect=30, shrink=0.6, ticks=SCALE)
        bar.ax.set_xticklabels([f"{100 * share:.0f} %" for share in SCALE])
        bar.ax.tick_params(labelsize=style.SMALL)
        bar.set_label("share of the true class (row)", size=style.LABEL)
        bar.outline.set_visible(False)
    _write_recall(axes, counts_NN, rows_N)
    return result


def _checked(matrix_NN: Values, classes: Sequence[str]) -> NDArray[np.int64]:
    counts_NN = whole_numbers(matrix_NN, "confusion matrix")
    if counts_NN.ndim != 2 or counts_NN.shape[0] != counts_NN.shape[1] or counts_NN.size == 0:
        raise ValueError(f"confusion matrix: expected (N, N) counts, got shape {counts_NN.shape}: it is not square")
    if len(classes) != len(counts_NN):
        raise ValueError(f"confusion classes: expected N={len(counts_NN)} names for the {counts_NN.shape} matrix, got {len(classes)}")
    if counts_NN.min() < 0:
        raise ValueError(f"confusion matrix: expected counts of 0 or more, got {counts_NN.min()}")
    return counts_NN


def _shown(N: int) -> range:
    """The rows that get a name: all, or every k-th where the names would touch."""
    return range(0, N, -(-N // NAMES_UP_TO))


def _name_classes(axes: "Axes", classes: Sequence[str]) -> None:
    N = len(classes)
    size = style.LABEL if N <= 12 else style.SMALL
    names = [style.fit(classes[i], NAME_WIDTH, size) for i in _shown(N)]
    cell = 400 / N  # points, about
    upright = max(style.text_width(name, size) for name in names) > 0.9 * cell
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(list(_shown(N)), names, size=size, parse_math=False, fontfamily=list(style.families()))
    if upright:
        axes.tick_params(axis="x", labelrotation=90)
    axes.tick_params(length=0)


def _edges(axes: "Axes", N: int) -> None:
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(style.PALETTE["faint"])
    if N <= NAMES_UP_TO:
        axes.set_xticks(np.arange(N + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(N + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=style.PALETTE["faint"], linewidth=0.5)
        axes.tick_params(which="minor", length=0)


def _write_counts(axes: "Axes", counts_NN: NDArray[np.int64], shares_NN: NDArray[np.float64]) -> None:
    N = len(counts_NN)
    for (i, j), count in np.ndenumerate(counts_NN):
        share = shares_NN[i, j]
        color = style.PALETTE["paper"] if share > 0.3 else style.PALETTE["ink"] if count else style.PALETTE["faint"]
        size = 20 if N <= 3 else 14 if N <= 10 else style.SMALL
        axes.text(j, i, _short(int(count), 9 if N <= 10 else 3), ha="center", va="center", color=color, size=size)


def _short(count: int, digits: int) -> str:
    """A count in at most about `digits` digits: 1234 is 1.2k."""
    if len(str(count)) <= digits:
        return f"{count:,}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}" if count < 9.95 * size else f"{count / size:.0f}{letter}"
    return str(count)


def _write_recall(axes: "Axes", counts_NN: NDArray[np.int64], rows_N: NDArray[np.int64]) -> None:
    N = len(rows_N)
    size = style.LABEL if N <= 12 else style.SMALL
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "annotation_clip": False}
    for i in _shown(N):
        recall = f"{100 * counts_NN[i, i] / rows_N[i]:.1f} %" if rows_N[i] else "-"
        axes.annotate(recall, (1, i), (54, 0), ha="right", va="center", size=size, color=style.PALETTE["ink"], **place)
    axes.annotate(
        "recall", (1, 1), (54, 9), xycoords="axes fraction", textcoords="offset points", ha="right", size=size,
        weight="bold", color=style.PALETTE["ink"],
    )  # fmt: skip
