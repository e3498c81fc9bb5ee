"""The range test of the learning rate: the loss over the rate, and the rate that it suggests.

The rate is drawn on a logarithmic scale. Losses far above those before the lowest, where the training has diverged, lie beyond the edge.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from twofold.see import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADROOM = 0.35  # over the highest loss before the lowest, as a part of the distance between the two


def rates(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggested: float | None = None,
    steepest: float | None = None,
    tenth: float | None = None,
) -> "Figure":
    """Draw the loss as it came and smoothed, with the suggested rate and the two rules that it comes from, where there are any.

    Raises ValueError without a rate, for rates that do not rise from above 0, and for as many losses as not.
    """
    across, raw, smooth = (np.asarray(values, dtype=np.float64) for values in (rates, losses, smoothed))
    if not len(across) or across[0] <= 0 or (np.diff(across) <= 0).any():
        raise ValueError(f"rates: expected rates that rise from above 0, got {_shown(rates)}. In the order of the test?")
    if not len(across) == len(raw) == len(smooth):
        raise ValueError(f"rates: expected a loss and a smoothed loss for each of {len(across)} rates, got {len(raw)} and {len(smooth)}.")
    result = style.figure()
    axes = result.subplots()
    axes.plot(across, raw, color=style.PALETTE["faint"], linewidth=1.2, label="loss")
    axes.plot(across, smooth, color=style.PALETTE["blue"], linewidth=2.5, label="smoothed")
    axes.set_xscale("log")
    axes.set_xlim(across[0] / 1.2, across[-1] * 1.2)
    lowest = int(np.argmin(smooth))
    bottom, top = min(raw.min(), smooth.min()), max(raw[: lowest + 1].max(), smooth[: lowest + 1].max())
    room = (top - bottom) or abs(top) or 1.0
    axes.set_ylim(bottom - 0.08 * room, top + HEADROOM * room)
    style.name_axes(axes, "learning rate (logarithmic)", "loss")
    axes.grid(axis="y", color=style.PALETTE["faint"], linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)
    below = "the loss falls nowhere: nothing to suggest"
    if suggested is not None:
        below = f"suggested: {suggested:.1e}"
        axes.axvline(suggested, color=style.PALETTE["orange"], linewidth=2, label="suggested")
    for name, rate, inside in (("steepest", steepest, style.PALETTE["orange"]), ("a tenth of the lowest", tenth, style.PALETTE["paper"])):
        if rate is not None:
            height = float(np.interp(np.log(rate), np.log(across), smooth))
            look = {"color": style.PALETTE["orange"], "markerfacecolor": inside, "markersize": 9, "markeredgewidth": 2}
            axes.plot(rate, height, "o", label=name, **look)  # type: ignore[arg-type]
    style.headline(axes, "Learning rate", below, style.PALETTE["orange"] if suggested is not None else style.PALETTE["grey"])
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=style.SMALL, frameon=False, ncols=5, borderaxespad=0.2)
    return result


def _shown(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates[:6]) or "none"
