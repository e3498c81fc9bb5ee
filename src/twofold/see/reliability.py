"""The reliability diagram: of what a classifier says with so much confidence, how much is right.

A bar for each bin of confidence, as high as the part that is right; an orange line at the mean confidence there, and the gap between both
shaded. Where the bars end on the dashed diagonal, confidence can be taken at its word; bars below it are overconfident. Beneath, how many
pictures each bin has: a bar that stands on few says little.

DeGroot and Fienberg, "The comparison and evaluation of forecasters", The Statistician 32, 1983; Guo et al., "On calibration of modern
neural networks", ICML 2017, figure 1
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from twofold.see import style
from twofold.tasks.calibration import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS: Final = 3
PALE: Final = "#f6cfb2"
MARGIN: Final = 0.12  # of a bin, left free at both of its sides


def reliability(panels: Sequence[tuple[str, Calibration]]) -> "Figure":
    """Draw a diagram for each title: before and after a temperature, for example.

    Raises ValueError without a panel, for more than three, and for bins of different number.
    """
    if not 1 <= len(panels) <= PANELS:
        raise ValueError(f"reliability: expected 1 to {PANELS} diagrams, got {len(panels)}.")
    counts = [len(found.count_M) for _, found in panels]
    if len(set(counts)) > 1:
        raise ValueError(f"reliability: expected as many bins in every diagram, got {', '.join(map(str, counts))}.")
    result = style.figure(max(7.0, 5.0 * len(panels)), 6.4)
    rows = result.subplots(2, len(panels), squeeze=False, height_ratios=(4, 1), sharex=True)
    for column, (title, found) in enumerate(panels):
        _bars(rows[0, column], title, found)
        _counts(rows[1, column], found)
    handles, names = rows[0, 0].get_legend_handles_labels()
    rows[0, 0].legend(handles, names, loc="upper left", frameon=False, fontsize=style.SMALL)
    return result


def told(found: Calibration) -> str:
    """The figures as a person reads them."""
    return f"ECE {100 * found.ece:.1f} %, largest gap {100 * found.mce:.1f} %, loss {found.loss:.3f}"


def _bars(axes: "Axes", title: str, found: Calibration) -> None:
    M = len(found.count_M)
    width = (1 - 2 * MARGIN) / M
    kept = np.flatnonzero(np.array(found.count_M))
    middles = (kept + 0.5) / M
    right, said = np.array(found.right_M)[kept], np.array(found.said_M)[kept]
    axes.plot((0, 1), (0, 1), color=style.PALETTE["grey"], linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.bar(middles, right, width, color=style.PALETTE["blue"], label="right", zorder=2)
    axes.bar(middles, np.abs(right - said), width, bottom=np.minimum(right, said), color=PALE, label="gap", zorder=3)
    ends = (middles - width / 2, middles + width / 2)
    axes.hlines(right, *ends, color=style.PALETTE["blue"], linewidth=2.5, zorder=4)
    axes.hlines(said, *ends, color=style.PALETTE["orange"], linewidth=2.5, label="confidence", zorder=5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    style.name_axes(axes, "", "part that is right")
    style.headline(axes, title, told(found))


def _counts(axes: "Axes", found: Calibration) -> None:
    M, total = len(found.count_M), max(1, sum(found.count_M))
    middles = (np.arange(M) + 0.5) / M
    axes.bar(middles, 100 * np.array(found.count_M) / total, (1 - 2 * MARGIN) / M, color=style.PALETTE["faint"])
    axes.set_ylim(bottom=0)
    style.name_axes(axes, "confidence", "pictures (%)")
