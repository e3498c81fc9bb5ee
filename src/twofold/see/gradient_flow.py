"""How far back the gradient reaches: its norm against the time lag, a line for each step of training that was recorded.

    reach[k] / reach[1]       the share that arrives k steps before the last of what arrives one step before it; a logarithmic axis

Early steps are pale, the last one dark. A line that falls straight vanishes by the same factor at every step.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from twofold.see import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES_AT_MOST: Final = 6
LOWEST: Final = 1e-12  # below it a line ends: float32 has nothing to say there
LEFT: Final = 0.01


def gradient_flow(rows: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw rows {"step": 400, "reach": [norm for lag 1, 2, ..; None where it is no number]}, in order of the steps.

    At most 6 of them are drawn, evenly chosen.
    Raises ValueError where there is no row, and for one without a norm at lag 1.
    """
    if not rows:
        raise ValueError("gradient_flow rows: expected at least one row, got none. Was the reach of the gradient recorded?")
    chosen = [rows[place] for place in sorted({round(p) for p in np.linspace(0, len(rows) - 1, LINES_AT_MOST)})]
    lines = [(int(row["step"]), _share(row)) for row in chosen]
    result = style.figure()
    axes = result.subplots()
    colors = style.sequential()(np.linspace(1.0 if len(lines) == 1 else 0.35, 1.0, len(lines)))
    for (step, share), color in zip(lines, colors, strict=True):
        axes.plot(np.arange(1, len(share) + 1), share, color=color, linewidth=2, label=f"step {step:,}")
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(LOWEST, axes.get_ylim()[0]))
    style.name_axes(axes, "steps back in time", "gradient, as a share of that one step back")
    axes.grid(axis="y", color=style.PALETTE["faint"], linewidth=0.6, alpha=0.7)
    axes.legend(frameon=False, fontsize=style.LABEL, title="training")
    step, share = lines[-1]
    style.headline(axes, "How far back the gradient reaches", f"at step {step:,}, {_told(share)}")
    return result


def _share(row: Mapping[str, Any]) -> NDArray[np.float64]:
    norms = np.array([np.nan if norm is None else float(norm) for norm in row["reach"]], dtype=np.float64)
    if not len(norms) or not np.isfinite(norms[0]) or norms[0] <= 0:
        raise ValueError(f"gradient_flow: expected a norm above 0 at lag 1, got {row['reach'][:1]} at step {row['step']}.")
    share = norms / norms[0]
    return np.where(share >= LOWEST, share, np.nan)


def _told(share: NDArray[np.float64]) -> str:
    """In words how much of it arrives, where."""
    gone = np.flatnonzero(~(share >= LEFT))
    if len(gone):
        return f"less than {LEFT:.0%} of it arrives {gone[0] + 1} steps back".replace("%", " %")
    return f"{100 * share[-1]:.3g} % of it arrive {len(share)} steps back"
