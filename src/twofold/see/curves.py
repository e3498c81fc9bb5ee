"""Learning curves: the loss and one metric over the epochs, training beside validation.

A value that is missing or not finite leaves a gap in its line. The best validation value (of equals the last) is ringed. Where training and
validation part (parting.py) the losses have a line across. The loss is drawn on a logarithmic scale where its largest value is more than
50 times its smallest.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twofold.see import style
from twofold.see.parting import parting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOGARITHMIC_FROM: Final = 50.0
Series = NDArray[np.float64]


class Metric(NamedTuple):
    """How a number of the log is drawn: its name, the axis with its unit, and which direction is better."""

    title: str
    axis: str
    percent: bool
    higher_is_better: bool


LOSS: Final = Metric("Loss", "loss", False, False)
METRICS: Final[Mapping[str, Metric]] = {
    "accuracy": Metric("Accuracy", "accuracy (%)", True, True),
    "balanced_accuracy": Metric("Balanced accuracy", "balanced accuracy (%)", True, True),
    "bits_per_character": Metric("Bits per character", "bits per character", False, False),
    "perplexity": Metric("Perplexity", "perplexity", False, False),
    "macro_f1": Metric("Macro F1", "macro F1 (%)", True, True),
    "f1": Metric("F1", "F1 (%)", True, True),
    "mae": Metric("Mean absolute error", "mean absolute error", False, False),
    "rmse": Metric("Root mean squared error", "root mean squared error", False, False),
    "mse": Metric("Mean squared error", "mean squared error", False, False),
}


def curves(history: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw the rows of one run's log.

    history: rows {"epoch": 1, "train": {"loss": 2.1, "accuracy": 0.4}, "validation": {...}}, in order. The first
    metric of `METRICS` that a row has is drawn beside the loss; shares (accuracy, F1) are given as 0..1 and drawn in
    percent. Raises ValueError if there is no row, or if neither the epochs nor the steps increase.
    """
    if not history:
        raise ValueError("curves history: expected at least one row, got none. Has the run finished its first epoch?")
    unit, across = _across(history)
    key = next((name for name in METRICS if any(_has(row, name) for row in history)), None)
    result = style.figure()
    panels = [("loss", LOSS)] + ([(key, METRICS[key])] if key else [])
    for axes, (name, metric) in zip(result.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, unit, across, {part: _series(history, part, name) for part in ("train", "validation")}, metric)
    found = parting(history) if unit == "epoch" else None
    if found is not None:
        _mark_parting(result.axes[0], found.epoch)
    return result


def _mark_parting(axes: "Axes", epoch: int) -> None:
    """A line where the losses part, named at its head, on the side that has more room."""
    left, right = axes.get_xlim()
    ahead = epoch - left < right - epoch
    axes.axvline(epoch, color=style.PALETTE["grey"], linewidth=1, linestyle=(0, (4, 3)), label="parting", zorder=1)
    axes.annotate(
        f"here they part: epoch {epoch}",
        (epoch, 1),
        (5 if ahead else -5, -3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="left" if ahead else "right",
        va="top",
        size=style.SMALL,
        color=style.PALETTE["grey"],
        bbox={"facecolor": style.PALETTE["paper"], "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )


def _across(history: Sequence[Mapping[str, Any]]) -> tuple[str, Series]:
    for unit in ("epoch", "step"):
        values = np.array([row.get(unit, np.nan) for row in history], dtype=np.float64)
        if np.isfinite(values).all() and (np.diff(values) > 0).all():
            return unit, values
    shown = ", ".join(str(row.get("epoch")) for row in history[:6])
    raise ValueError(f"curves history: expected rows with increasing epoch or step, got epochs {shown}. Two runs in one log?")


def _has(row: Mapping[str, Any], name: str) -> bool:
    return any(name in (row.get(part) or {}) for part in ("train", "validation"))


def _series(history: Sequence[Mapping[str, Any]], part: str, name: str) -> Series:
    values = [(row.get(part) or {}).get(name) for row in history]
    series = np.array([np.nan if value is None else float(value) for value in values])
    return np.where(np.isfinite(series), series, np.nan)


def _panel(axes: "Axes", unit: str, across: Series, parts: dict[str, Series], metric: Metric) -> None:
    from matplotlib.ticker import MaxNLocator

    parts = {part: values * (100 if metric.percent else 1) for part, values in parts.items()}
    colors = {"train": style.PALETTE["blue"], "validation": style.PALETTE["orange"]}
    for part, values in parts.items():
        axes.plot(across, values, color=colors[part], linewidth=2, label=part)
        dots = np.isfinite(values) if len(across) <= 30 else _lonely(values)
        axes.plot(across[dots], values[dots], "o", color=colors[part], markersize=4, linestyle="none")
    style.name_axes(axes, unit, metric.axis)
    finite = np.concatenate(list(parts.values()))
    finite = finite[np.isfinite(finite)]
    if metric is LOSS and finite.size and finite.min() > 0 and finite.max() > LOGARITHMIC_FROM * finite.min():
        axes.set_yscale("log")
        axes.set_ylabel("loss (logarithmic)")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    if len(across) == 1:
        axes.set_xticks(across)
    margin = 0.5 if len(across) == 1 else 0.02 * (across[-1] - across[0])
    axes.set_xlim(across[0] - margin, across[-1] + margin)
    if metric.percent:
        axes.set_ylim(top=min(axes.get_ylim()[1], 101))
    axes.grid(axis="y", color=style.PALETTE["faint"], linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)
    style.headline(axes, metric.title, _best(axes, unit, across, parts, metric), style.PALETTE["orange"])
    if finite.size:
        _name_lines(axes, across, parts, colors)
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", size=style.LABEL)


def _lonely(values: Series) -> NDArray[np.bool_]:
    """A point between two gaps has no line to show it."""
    gap = np.concatenate([[True], ~np.isfinite(values), [True]])
    return np.asarray(~gap[1:-1] & gap[:-2] & gap[2:])


def _best(axes: "Axes", unit: str, across: Series, parts: dict[str, Series], metric: Metric) -> str:
    values = parts["validation"]
    if not np.isfinite(values).any():
        return ""
    target = np.nanmax(values) if metric.higher_is_better else np.nanmin(values)
    best = int(np.flatnonzero(values == target)[-1])  # of equals the later one, as the loop keeps it
    ring = {
        "markersize": 11,
        "markerfacecolor": "none",
        "markeredgewidth": 2,
        "markeredgecolor": style.PALETTE["orange"],
    }
    axes.plot(across[best], values[best], "o", label="best", clip_on=False, **ring)  # type: ignore[arg-type]
    value = f"{values[best]:.2f} %" if metric.percent else f"{values[best]:.4g}"
    return f"best validation: {value}, {unit} {across[best]:.0f}"


def _name_lines(axes: "Axes", across: Series, parts: dict[str, Series], colors: dict[str, str]) -> None:
    """Write each line's name at its right end, apart from each other by at least a line of text."""
    ends: dict[str, float] = {}
    for part, values in parts.items():
        if np.isfinite(values).any():
            last = float(values[np.isfinite(values)][-1])
            ends[part] = float((axes.transScale + axes.transLimits).transform((across[-1], last))[1])
    if len(ends) == 2 and abs(ends["train"] - ends["validation"]) < 0.06:
        middle = min(max(sum(ends.values()) / 2, 0.03), 0.97)
        lower, upper = sorted(ends, key=lambda part: ends[part])
        ends = {lower: middle - 0.03, upper: middle + 0.03}
    for part, height in ends.items():
        axes.annotate(
            part,
            (1, height),
            (6, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colors[part],
            size=style.LABEL,
            va="center",
            annotation_clip=False,
        )
