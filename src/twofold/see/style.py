"""The look of every picture: sizes, colours, text that is always legible, and PNG bytes that repeat.

Figures are matplotlib objects without pyplot, so nothing is global and threads do not disturb each other. Widths and
heights are in inches; a figure 10 inches wide fills a slide or a page at its natural size, and no text on it is below
10 points.
"""

import io
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from twofold.data import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

DPI: Final = 144
WIDTH: Final = 10.0
TITLE, LABEL, SMALL = 15.0, 12.0, 10.5  # points

# Blue and orange stay apart for every common kind of colour blindness (Brewer's PuOr and RdBu ends).
PALETTE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "blue": "#2166ac",
        "orange": "#d95f02",
        "grey": "#5f6670",
        "faint": "#c9ced6",
        "ink": "#1b1f24",
        "paper": "#ffffff",
    }
)
LONGEST: Final = 400  # characters: more are never measured
UNKNOWN: Final = "□"
BREAKS: Final = MappingProxyType({"\n": "↵", "\r": "␍", "\t": "⇥"})
# Asked only if installed: the font that matplotlib ships has no East Asian characters.
FALLBACKS: Final = ("Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Microsoft YaHei", "WenQuanYi Zen Hei")


def figure(width: float = WIDTH, height: float = WIDTH * 9 / 16) -> "Figure":
    """Return an empty white figure, width and height in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.14)
    empty = Figure(figsize=(width, height), dpi=DPI, facecolor=PALETTE["paper"], layout=layout)
    FigureCanvasAgg(empty)
    return empty


def png_bytes(figure: "Figure", dpi: int = DPI) -> bytes:
    """Return the figure as PNG. The same figure gives the same bytes: no date and no version is written into it."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer,
        format="png",
        dpi=dpi,
        facecolor=PALETTE["paper"],
        metadata={"Software": None},
        pil_kwargs={"optimize": True},
    )
    return buffer.getvalue()


def save_png(figure: "Figure", path: str | Path) -> Path:
    """Write the figure as a PNG file, whole or not at all; return its path."""
    path = Path(path)
    files.write(path, png_bytes(figure))
    return path


def card(title: str, text: str) -> "Figure":
    """Return a figure that says in words that there is nothing to draw."""
    result = figure(WIDTH, 2.5)
    result.set_layout_engine("none")
    result.text(0.5, 0.62, title, size=TITLE + 5, weight="bold", color=PALETTE["ink"], ha="center", va="center")
    result.text(0.5, 0.34, text, size=LABEL + 1, color=PALETTE["grey"], ha="center", va="center")
    return result


def name_axes(axes: "Axes", across: str, up: str) -> None:
    """Label the two axes and quiet everything that carries no data."""
    axes.set_xlabel(across, size=LABEL, color=PALETTE["ink"])
    axes.set_ylabel(up, size=LABEL, color=PALETTE["ink"])
    axes.tick_params(which="both", labelsize=SMALL + 0.5, colors=PALETTE["grey"], labelcolor=PALETTE["ink"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALETTE["faint"])


def headline(axes: "Axes", title: str, below: str = "", color: str = PALETTE["grey"]) -> None:
    """Write a title over the axes, flush left, with a smaller line beneath it."""
    axes.set_title(title, loc="left", size=TITLE, weight="bold", color=PALETTE["ink"], pad=26 if below else 10)
    if below:
        axes.annotate(
            below,
            (0, 1),
            (0, 9),
            xycoords="axes fraction",
            textcoords="offset points",
            size=SMALL + 0.5,
            color=color,
            parse_math=False,
        )


def diverging() -> "Colormap":
    """Return the colours for signed values: blue below zero, white at zero, orange above; grey where not a number."""
    from matplotlib.colors import LinearSegmentedColormap

    steps = ["#0b3c6f", PALETTE["blue"], "#92c5de", "#ffffff", "#fdb97d", PALETTE["orange"], "#7f3300"]
    return LinearSegmentedColormap.from_list("twofold-diverging", steps).with_extremes(bad="#808080")


def sequential() -> "Colormap":
    """Return the colours for shares from 0 (white) to 1 (dark blue); grey where not a number."""
    from matplotlib.colors import LinearSegmentedColormap

    steps = ["#ffffff", "#d6e6f4", "#92c5de", PALETTE["blue"], "#0b3c6f"]
    return LinearSegmentedColormap.from_list("twofold-sequential", steps).with_extremes(bad="#808080")


@cache
def families() -> tuple[str, ...]:
    """Return the fonts to draw text with, in the order in which a character is looked for."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ("DejaVu Sans", *(name for name in FALLBACKS if name in installed))


def legible(text: str) -> str:
    """Return the text with line breaks and tabs made visible, and every character that no font draws as an empty square."""
    return "".join(BREAKS.get(char) or (char if _drawable(char) else UNKNOWN) for char in text)


@cache
def _drawable(char: str) -> bool:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    if unicodedata.category(char).startswith("C"):
        return False
    return any(get_font(findfont(FontProperties(family=[name]))).get_char_index(ord(char)) for name in families())


def text_width(text: str, size: float) -> float:
    """Return the width in points of one line of text, made legible, in a size in points."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    renderer = RendererAgg(1, 1, 72)
    properties = FontProperties(family=list(families()), size=size)
    return float(renderer.get_text_width_height_descent(legible(text), properties, False)[0])


def fit(text: str, width: float, size: float) -> str:
    """Return the text, legible, cut with an ellipsis so that it is at most `width` points wide."""
    if len(text) <= LONGEST and text_width(text, size) <= width:
        return legible(text)
    text = legible(text[:LONGEST])
    shortest, longest = 1, len(text)
    while shortest < longest:
        middle = (shortest + longest + 1) // 2
        if text_width(text[:middle].rstrip() + "…", size) <= width:
            shortest = middle
        else:
            longest = middle - 1
    return text[:shortest].rstrip() + "…"
