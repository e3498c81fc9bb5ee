"""A sweep in one picture: the score of each trial in the order in which they ran, and against each setting that was searched.

Blue: complete. Hollow: ended early, at its best epoch. A cross at the foot: failed. The orange line is the best so far, the orange ring the
best of all.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twofold.see import style
from twofold.see.runs import metric_of, said

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS: Final = 4
SETTINGS_AT_MOST: Final = 12
SIGNS: Final = {"complete": "blue", "pruned": "hollow", "failed": "cross"}
NAME_WIDTH: Final = 62.0  # points, of a word beneath an axis


class Dot(NamedTuple):
    """One trial: its number, its values by name, its state (complete, pruned, failed), and its score; None where it has none."""

    number: int
    values: Mapping[str, Any]
    state: str
    score: float | None


def sweep_picture(dots: Sequence[Dot], key: str, title: str, logarithmic: Collection[str] = ()) -> "Figure":
    """Draw the trials of a sweep.

    key: the name of the score in the log; logarithmic: the settings whose axis is. At most 12 settings are drawn.
    """
    scored = [dot for dot in dots if dot.score is not None and math.isfinite(dot.score)]
    if not scored:
        return style.card(title, f"None of {len(dots)} trials has a score.")
    metric = metric_of(key)
    factor = 100.0 if metric.percent else 1.0
    shown = [dot._replace(score=None if dot.score is None else dot.score * factor) for dot in dots]
    names = list(dict.fromkeys(name for dot in dots for name in dot.values))[:SETTINGS_AT_MOST]
    columns = max(1, min(COLUMNS, len(names)))
    rows = -(-len(names) // columns)
    result = style.figure(style.WIDTH, 4.2 + 2.9 * rows)
    grid = result.add_gridspec(1 + rows, columns, height_ratios=[1.35] + [1.0] * rows)
    across = result.add_subplot(grid[0, :])
    best = _best(shown, metric.higher_is_better)
    _order(across, shown, best, metric.higher_is_better)
    style.name_axes(across, "trial", metric.axis)
    counts = ", ".join(f"{sum(dot.state == state for dot in dots)} {state} ({sign})" for state, sign in SIGNS.items())
    chosen = "" if best is None else f"; best {said(key, (best.score or 0.0) / factor)}, trial {best.number}"
    style.headline(across, title, counts + chosen)
    for place, name in enumerate(names):
        axes = result.add_subplot(grid[1 + place // columns, place % columns], sharey=across)
        _setting(axes, name, shown, best, name in logarithmic)
        style.name_axes(axes, style.fit(name.removeprefix("config."), 150, style.LABEL), metric.axis if place % columns == 0 else "")
        if place % columns:
            axes.tick_params(labelleft=False)
    return result


def _best(dots: Sequence[Dot], higher: bool) -> Dot | None:
    """The best complete trial; of equals the first."""
    complete = [dot for dot in dots if dot.state == "complete" and dot.score is not None]
    return min(complete, key=lambda dot: -(dot.score or 0.0) if higher else (dot.score or 0.0), default=None)


def _order(axes: "Axes", dots: Sequence[Dot], best: Dot | None, higher: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    steps: list[tuple[int, float]] = []
    for dot in dots:
        if dot.state == "complete" and dot.score is not None:
            before = steps[-1][1] if steps else dot.score
            steps.append((dot.number, max(before, dot.score) if higher else min(before, dot.score)))
    if steps:
        numbers, scores = zip(*[*steps, (dots[-1].number, steps[-1][1])], strict=True)
        axes.plot(numbers, scores, color=style.PALETTE["orange"], linewidth=1.5, drawstyle="steps-post", label="best so far")
    _dots(axes, dots, [dot.number for dot in dots], best)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _setting(axes: "Axes", name: str, dots: Sequence[Dot], best: Dot | None, logarithmic: bool) -> None:
    from matplotlib.ticker import NullFormatter

    having = [dot for dot in dots if name in dot.values]
    values = [dot.values[name] for dot in having]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        if logarithmic:
            axes.set_xscale("log")
            if max(values) >= 10 * min(values):  # then powers of ten are enough
                axes.xaxis.set_minor_formatter(NullFormatter())
        _dots(axes, having, values, best)
        return
    words = sorted({str(value) for value in values})
    _dots(axes, having, [words.index(str(value)) for value in values], best)
    axes.set_xticks(range(len(words)), [style.fit(word, NAME_WIDTH, style.SMALL) for word in words])
    axes.set_xlim(-0.5, len(words) - 0.5)


def _dots(axes: "Axes", dots: Sequence[Dot], across: Sequence[float], best: Dot | None) -> None:
    looks: dict[str, dict[str, Any]] = {
        "complete": {"marker": "o", "color": style.PALETTE["blue"], "alpha": 0.85},
        "pruned": {"marker": "o", "markerfacecolor": "none", "color": style.PALETTE["grey"]},
    }
    for state, look in looks.items():
        some = [(x, dot.score) for x, dot in zip(across, dots, strict=True) if dot.state == state and dot.score is not None]
        if some:
            axes.plot(*zip(*some, strict=True), linestyle="none", markersize=5, label=state, **look)
    failed = [x for x, dot in zip(across, dots, strict=True) if dot.state == "failed"]
    if failed:
        foot = axes.get_xaxis_transform()
        look = {"marker": "x", "color": style.PALETTE["grey"], "markersize": 5, "linestyle": "none", "clip_on": False}
        axes.plot(failed, [0.0] * len(failed), transform=foot, label="failed", **look)
    if best is not None:
        x = next((x for x, dot in zip(across, dots, strict=True) if dot.number == best.number), None)
        if x is not None and best.score is not None:
            ring = {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 2, "color": style.PALETTE["orange"]}
            axes.plot([x], [best.score], "o", label="best", **ring)  # type: ignore[arg-type]
    axes.grid(axis="y", color=style.PALETTE["faint"], linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)
