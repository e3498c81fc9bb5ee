"""The gates of a recurrent cell over the characters of a text: one heat map a gate, one row a unit, one column a step.

    activity[u] = sum over the gates g of std over t of g[t,u]

The units are sorted by activity, the liveliest on top, in the same order in every map, so a unit can be followed from
gate to gate. A gate with values below zero (the tanh candidate, the state) is coloured about zero, the others from 0
to 1.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from twofold.see import style
from twofold.see.arrays import Values, array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNITS_AT_MOST: Final = 32
STEPS_AT_MOST: Final = 80


def gates(saved_gates: Mapping[str, Values], text: str) -> "Figure":
    """Draw the gates.

    saved_gates: name -> (T, U) values, the same T and U for all. text: the T characters that the cell read. At most
    32 units and the first 80 steps are drawn; the title says so. Raises ValueError if a shape does not fit the text
    or another gate.
    """
    values = _checked(saved_gates, text)
    T, U = next(iter(values.values())).shape
    order = np.argsort(-activity(values), kind="stable")[:UNITS_AT_MOST]
    steps = min(T, STEPS_AT_MOST)
    result = style.figure(style.WIDTH, max(style.WIDTH * 9 / 16, 1.3 + 1.15 * len(values)))
    panels = result.subplots(len(values), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, gate) in zip(panels, values.items(), strict=True):
        _panel(axes, name, gate[:steps, order].T, 8 if len(values) > 2 else 20)
    units = f"the {len(order)} liveliest of {U} units" if len(order) < U else f"all {U} units"
    part = f"the first {steps} of {T} characters" if steps < T else f"{T} characters"
    style.headline(panels[0], "Gates over time", f"{units}, the liveliest on top; {part}; the colour is the value")
    _write_text(panels[-1], text[:steps])
    return result


def activity(values: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return how much each of the U units moves over time: the sum over the gates of its standard deviation over the steps."""
    moves = [np.where(np.isfinite(gate), gate, 0.0).std(axis=0) for gate in values.values()]
    return np.asarray(np.sum(moves, axis=0), dtype=np.float64)


def _checked(saved_gates: Mapping[str, Values], text: str) -> dict[str, NDArray[np.float64]]:
    values = {name: array(gate).astype(np.float64) for name, gate in saved_gates.items()}
    if not values:
        raise ValueError("gates saved_gates: expected at least one gate, got none")
    first = next(iter(values.values())).shape
    for name, gate in values.items():
        if gate.ndim != 2 or gate.size == 0:
            raise ValueError(f"gates {name}: expected (T, U), none of them 0, got {gate.shape}. Give one row of the batch.")
        if gate.shape != first:
            raise ValueError(f"gates {name}: expected (T, U) = {first} as the first gate has, got {gate.shape}")
    if len(text) != first[0]:
        raise ValueError(f"gates text: expected T={first[0]} characters, one a step, got {len(text)}")
    return values


def _panel(axes: "Axes", name: str, gate_UT: NDArray[np.float64], slender: int) -> None:
    finite = gate_UT[np.isfinite(gate_UT)]
    top = max(float(np.abs(finite).max(initial=0.0)), 1.0)
    signed = bool((finite < 0).any())
    limits: dict[str, Any] = {
        "cmap": style.diverging() if signed else style.sequential(),
        "vmin": -top * signed,
        "vmax": top,
    }
    image = axes.imshow(gate_UT, aspect="auto", interpolation="nearest", **limits)
    axes.set_ylabel(style.fit(name, 110, style.LABEL), rotation=0, ha="right", va="center", size=style.LABEL, parse_math=False,
                    fontfamily=list(style.families()))  # fmt: skip
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, labelbottom=False)
    axes.spines[:].set_color(style.PALETTE["faint"])
    ticks = [-top, 0, top] if signed else [0, top]
    bar = axes.figure.colorbar(image, ax=axes, ticks=ticks, fraction=0.05, pad=0.01, aspect=slender)
    bar.ax.set_yticklabels([f"{tick:.3g}".replace("-", "−") for tick in ticks])
    bar.ax.tick_params(labelsize=style.SMALL, length=2, color=style.PALETTE["grey"])
    bar.outline.set_edgecolor(style.PALETTE["faint"])


def _write_text(axes: "Axes", text: str) -> None:
    shown = ["␣" if character == " " else style.legible(character) for character in text]
    fonts = ["DejaVu Sans Mono", *style.families()]
    axes.set_xticks(range(len(shown)), shown, size=style.LABEL if len(shown) <= 50 else style.SMALL, fontfamily=fonts,
                    parse_math=False)  # fmt: skip
    axes.tick_params(axis="x", labelbottom=True)
    axes.set_xlabel("character read", size=style.LABEL, color=style.PALETTE["ink"])
