"""Runs side by side: the validation curves of several runs, the best ones named at their ends.

Runs are compared by one number, the first metric of `METRICS` that their log has, else the loss. Those of another metric stand in a panel
of their own. In a panel the best eight have a colour and a name, the others are grey; a dot marks the best epoch (of equals the last).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard

import numpy as np

from twofold.see import style
from twofold.see.curves import LOGARITHMIC_FROM, LOSS, METRICS, Metric, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED: Final = 8
PANELS: Final = 3
NAME_WIDTH: Final = 150.0  # points
GAP: Final = 0.052  # between two names, as a part of the height
# Dark enough for text on white, and apart in lightness as well as in hue; the best run comes first.
COLOURS: Final = ("#d95f02", "#2166ac", "#1b7f5c", "#7b3294", "#8c510a", "#0f8b9e", "#c2185b", "#5f6670")

Rows = Sequence[Mapping[str, Any]]


class Standing(NamedTuple):
    """How well a run did: its best value on the validation split, the metric's name in the log, and the epoch (of equals the last)."""

    key: str
    value: float
    epoch: int

    @property
    def metric(self) -> Metric:
        return metric_of(self.key)

    @property
    def order(self) -> float:
        """For sorting: smaller is better."""
        return -self.value if self.metric.higher_is_better else self.value

    def __str__(self) -> str:
        return said(self.key, self.value)


def metric_of(key: str) -> Metric:
    """How a number of the log is called and drawn. One that is not known is taken for an error, which should be small."""
    return METRICS.get(key) or (LOSS if key == "loss" else Metric(key, key, False, False))


def said(key: str, value: float) -> str:
    """A value as a person reads it: 99.17 %, 1.747."""
    return f"{100 * value:.2f} %" if metric_of(key).percent else f"{value:.4g}"


def headline(scores: Mapping[str, Any]) -> str | None:
    """The name of the number that runs are compared by: the first of `METRICS` that is there, else the loss."""
    return next((key for key in (*METRICS, "loss") if _number(scores.get(key))), None)


def standing(history: Rows, key: str = "") -> Standing | None:
    """The best epoch of a run by its rows, in `key` or else in its headline; None where no row has a finite value."""
    key = key or next((key for row in history if (key := headline(row.get("validation") or {}) or "")), "")
    found = None
    for row in history:
        value = (row.get("validation") or {}).get(key)
        if _number(value) and np.isfinite(value):
            this = Standing(key, float(value), int(row["epoch"]))
            found = this if found is None or this.order <= found.order else found
    return found


def compare(runs: Mapping[str, Rows], key: str = "") -> "Figure":
    """Draw the validation curves of runs, given by name with the rows of their logs.

    key: the metric; "" for the headline of each. At most three panels are drawn, those of the most runs.
    """
    panels: dict[str, dict[str, Rows]] = {}
    for name, history in runs.items():
        stands = standing(history, key)
        if stands is not None:
            panels.setdefault(stands.key, {})[name] = history
    if not panels:
        return style.card("No run to compare", "No run has finished an epoch with a validation score.")
    shown = sorted(panels.items(), key=lambda panel: -len(panel[1]))[:PANELS]
    result = style.figure(style.WIDTH * (1 + 0.35 * (len(shown) - 1)))
    for axes, (name, inside) in zip(result.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _panel(axes, name, inside)
    return result


def _panel(axes: "Axes", key: str, runs: Mapping[str, Rows]) -> None:
    from matplotlib.ticker import MaxNLocator

    metric = metric_of(key)
    stands = {name: stands for name, history in runs.items() if (stands := standing(history, key))}
    order = sorted(stands, key=lambda name: stands[name].order)
    lines = {name: _series(runs[name], key, metric) for name in order}
    for place, name in reversed(list(enumerate(order))):  # the best on top
        across, up = lines[name]
        named = place < NAMED
        colour = COLOURS[place] if named else style.PALETTE["faint"]
        axes.plot(across, up, color=colour, linewidth=2 if named else 1, marker="o" if len(across) == 1 else None, label=name)
        if named:
            best = stands[name]
            axes.plot(best.epoch, best.value * (100 if metric.percent else 1), "o", color=colour, markersize=5, clip_on=False)
    style.name_axes(axes, "epoch", f"validation {metric.axis}")
    values = np.concatenate([up[np.isfinite(up)] for _, up in lines.values()])
    if not metric.percent and values.min() > 0 and values.max() > LOGARITHMIC_FROM * values.min():
        axes.set_yscale("log")
    if metric.percent:
        axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.grid(axis="y", color=style.PALETTE["faint"], linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)
    more = f"the best {NAMED} of {len(order)} runs have a colour" if len(order) > NAMED else f"{len(order)} run{'s' * (len(order) > 1)}"
    style.headline(axes, metric.title, f"{more}; a dot marks the best epoch")
    _name(axes, {name: lines[name] for name in order[:NAMED]}, stands)


def _series(history: Rows, key: str, metric: Metric) -> tuple[Series, Series]:
    values = [(row.get("validation") or {}).get(key) for row in history]
    up = np.array([float(value) if _number(value) else np.nan for value in values]) * (100 if metric.percent else 1)
    return np.array([float(row["epoch"]) for row in history]), np.where(np.isfinite(up), up, np.nan)


def _name(axes: "Axes", lines: Mapping[str, tuple[Series, Series]], stands: Mapping[str, Standing]) -> None:
    """Write the names to the right of the panel, in the order in which the lines end, apart from each other."""
    axes.autoscale_view()  # it is lazy, and the heights below need the limits
    ends = {}
    for name, (_, up) in lines.items():
        last = float(up[np.isfinite(up)][-1])
        ends[name] = float((axes.transScale + axes.transLimits).transform((0, last))[1])
    heights = _apart([ends[name] for name in lines])
    for (name, colour), height in zip(zip(lines, COLOURS, strict=False), heights, strict=True):
        axes.annotate(
            f"{style.fit(name, NAME_WIDTH, style.SMALL)}  {stands[name]}",
            (1, height),
            (8, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colour,
            size=style.SMALL,
            va="center",
            annotation_clip=False,
            parse_math=False,
        )


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights in the same order, at least a line of text apart, as near to where they were as a pass down and a pass up leave them."""
    order = sorted(range(len(heights)), key=lambda i: -heights[i])
    placed: dict[int, float] = {}
    above = np.inf
    for i in order:
        placed[i] = above = min(heights[i], above - GAP)
    below = -np.inf
    for i in reversed(order):
        placed[i] = below = max(placed[i], below + GAP, 0.0)
    return [placed[i] for i in range(len(heights))]


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
