"""The size of signals and gradients through a model before training, for each scheme of first weights.

    signal      std[y_l]             y_l: the output of layer l, over all its numbers
    gradient    std[dL/dy_l]         L = <y, noise>: every number of the model's output asks for a change of size 1

The input is noise of variance 1, or random token numbers. What is shown is the slope: where either line falls or rises by the same
factor with every layer, a deeper model has nothing left to learn from, or too much. A square layer of n inputs behind a relu multiplies
the signal by sqrt(n Var[W] / 2) (He et al., ICCV 2015, eq. 9), without one by sqrt(n Var[W]).

Layers are those that hold weights, normalisation left out, at their first call. Normalisation acts by the batch; nothing is dropped.

Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010, figures 6 and 7
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from twofold.layers.initialize import weights_of
from twofold.layers.rehearsal import rehearsing
from twofold.layers.schemes import apply_scheme
from twofold.layers.unit_variance import candidates
from twofold.see import style
from twofold.see.curves import Series as Values
from twofold.see.trial import first_tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BUILT: Final = "built"  # the weights that the model comes with
NAMED_AT_MOST: Final = 16  # layers whose names fit under the axis
# Okabe and Ito's colours, which stay apart for every common kind of colour blindness; each with a mark of its own.
COLOURS: Final = ("#1b1f24", "#d55e00", "#56b4e9", "#009e73", "#0072b2", "#cc79a7", "#e69f00", "#8a5a00")
LINES: Final = tuple(zip(COLOURS, "ovsD^PX*", strict=True))


class Size(NamedTuple):
    """One layer, in the order of the first calls."""

    layer: str
    kind: str
    signal: float
    gradient: float


def schemes_of(model: nn.Module) -> list[str]:
    """The schemes that are worth a look for this model."""
    recurrent = any(name.startswith("weight_hh") for part in model.modules() for name in weights_of(part))
    scaled = bool(candidates(model))
    return [BUILT, "uniform", "lecun", "glorot", "he", "orthogonal", *["identity"] * recurrent, *["data"] * scaled]


def sizes(model: nn.Module, x: Tensor, scheme: str = BUILT, seed: int = 0) -> list[Size]:
    """The size of signal and gradient at every layer, after the scheme has filled a copy of the model.

    Raises ValueError for a scheme that is none or that the model has no use for, and for a model without weights.
    """
    model = deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if scheme != BUILT:
            apply_scheme(model, scheme, lambda: model(x))
        model.requires_grad_()  # of what is frozen the gradients are asked for, too
        with rehearsing(model):
            return _measure(model, x)


def _measure(model: nn.Module, x: Tensor) -> list[Size]:
    signals: dict[str, float] = {}
    gradients: dict[str, float] = {}
    names = {part: name or type(part).__name__ for name, part in model.named_modules() if weights_of(part)}

    def look(part: nn.Module, _: Any, output: Any) -> None:
        name, y = names[part], first_tensor(output)
        if name not in signals:
            signals[name] = _std(y)
            if y.requires_grad:
                y.register_hook(lambda dy: gradients.update({name: _std(dy)}))

    hooks = [part.register_forward_hook(look) for part in names]
    try:
        with torch.enable_grad():
            y = first_tensor(model(x))
            if not signals:
                raise ValueError(f"see init: {type(model).__name__} calls no layer with weights, so there is nothing to start.")
            y.backward(torch.randn_like(y))
    finally:
        for hook in hooks:
            hook.remove()
    kinds = {name: type(part).__name__ for part, name in names.items()}
    return [Size(name, kinds[name], signal, gradients.get(name, 0.0)) for name, signal in signals.items()]


def _std(values: Tensor) -> float:
    return values.detach().double().std(correction=0).item()


def initial(found: Mapping[str, Sequence[Size]], title: str) -> "Figure":
    """Draw the sizes: one line a scheme, the layers from left to right, signals in one panel and gradients in the other.

    Each line has its name where it has come to: signals at the output, gradients at the input. Zeros and what is not finite have no place
    on a logarithmic axis: the line has a gap there, and its name says so.
    Raises ValueError without a scheme, with more than can be told apart, and for schemes of different layers.
    """
    layers = _checked(found)
    result = style.figure(style.WIDTH, 5.6)
    panels = (("signal", title, "signal: std of each layer's output"), ("gradient", "", "gradient: std of dL / d(that output)"))
    for axes, (field, above, below) in zip(result.subplots(1, 2), panels, strict=True):
        lines = {name: np.array([getattr(size, field) for size in rows]) for name, rows in found.items()}
        _panel(axes, _short(layers), lines, backward=field == "gradient")
        style.headline(axes, above, below)
    return result


def _checked(found: Mapping[str, Sequence[Size]]) -> list[str]:
    """The names of the layers."""
    if not 1 <= len(found) <= len(LINES):
        raise ValueError(f"see init: expected 1 to {len(LINES)} schemes in one picture, got {len(found)}.")
    layers = [[size.layer for size in rows] for rows in found.values()]
    if not layers[0] or any(names != layers[0] for names in layers):
        raise ValueError("see init: expected the same layers for every scheme, at least one.")
    return layers[0]


def _short(layers: list[str]) -> list[str]:
    """The last part of each name where that is enough to tell them apart."""
    last = [name.rpartition(".")[2] for name in layers]
    return last if len(set(last)) == len(last) else layers


def _panel(axes: "Axes", layers: list[str], lines: dict[str, Values], backward: bool) -> None:
    from matplotlib.ticker import MaxNLocator, NullFormatter

    across = np.arange(1, len(layers) + 1)
    axes.set_yscale("log")
    axes.axhline(1, color=style.PALETTE["faint"], linewidth=1.5, zorder=0)
    for (name, values), (color, mark) in zip(lines.items(), LINES, strict=False):
        axes.plot(across, _shown(values), color=color, marker=mark, markersize=5, linewidth=1.8, label=name)
    style.name_axes(axes, "layer, from input to output", "")
    everything = _shown(np.array([1.0, *np.concatenate(list(lines.values()))]))
    low, high = np.floor(np.log10(np.nanmin(everything)) + 0.1), np.ceil(np.log10(np.nanmax(everything)) - 0.1)
    axes.set_ylim(10 ** (low - 0.15), 10 ** (max(high, low + 1) + 0.15))
    axes.yaxis.set_minor_formatter(NullFormatter())
    if len(layers) <= NAMED_AT_MOST:
        names = [style.fit(name, 90, style.SMALL) for name in layers]
        axes.set_xticks(across, names, rotation=45, ha="right", rotation_mode="anchor", size=style.SMALL, parse_math=False)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    axes.margins(x=0.04)
    axes.grid(axis="y", color=style.PALETTE["faint"], linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)
    if backward:
        axes.yaxis.tick_right()
        axes.spines["left"].set_visible(False)
        axes.spines["right"].set(visible=True, color=style.PALETTE["faint"])
    _name_lines(axes, lines, backward)


def _shown(values: Values) -> Values:
    """What has a place on a logarithmic axis."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _name_lines(axes: "Axes", lines: dict[str, Values], backward: bool) -> None:
    low, high = (np.log10(limit) for limit in axes.get_ylim())
    ends = {}
    for name, values in lines.items():
        drawn = _shown(values)[np.isfinite(_shown(values))]
        ends[name] = (np.log10(drawn[0 if backward else -1]) - low) / (high - low) if drawn.size else 0.0
    heights = apart(ends, 0.06)
    for (name, values), (color, _) in zip(lines.items(), LINES, strict=False):
        lost = "" if np.isfinite(_shown(values)).all() else ", 0" if np.isfinite(values).all() else ", not finite"
        axes.annotate(
            style.fit(name, 90, style.LABEL) + lost,
            (0 if backward else 1, heights[name]),
            (-6 if backward else 6, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=color,
            size=style.LABEL,
            ha="right" if backward else "left",
            va="center",
            annotation_clip=False,
            parse_math=False,
        )


def apart(places: Mapping[str, float], gap: float) -> dict[str, float]:
    """The places in their order, moved so that neighbours are at least `gap` apart and all are in 0..1; who is close shares a middle."""
    groups: list[list[str]] = []

    def start(group: list[str]) -> float:
        length = gap * (len(group) - 1)
        return min(max(sum(places[name] for name in group) / len(group) - length / 2, 0.0), 1.0 - length)

    for name in sorted(places, key=lambda name: places[name]):
        groups.append([name])
        while len(groups) > 1 and start(groups[-1]) < start(groups[-2]) + gap * len(groups[-2]):
            last = groups.pop()
            groups[-1] += last
    return {name: start(group) + gap * place for group in groups for place, name in enumerate(group)}
