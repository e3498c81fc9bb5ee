"""Contact sheet: equal tiles in rows, with room for lines of text under each. All places are in inches from the top left."""

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twofold.see import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

EDGE, HEAD, LINE = 0.35, 0.95, 0.19  # inches: around the sheet, for the title, for a line of text
SMALLEST_SHEET: Final = 6.0  # inches wide, so that the title fits


class Box(NamedTuple):
    """Where a tile lies, in inches."""

    left: float
    top: float
    width: float
    height: float


class Sheet(NamedTuple):
    """An empty sheet: its figure, axes that count inches downwards, and the place of each tile."""

    figure: "Figure"
    axes: "Axes"
    boxes: list[Box]


class Head(NamedTuple):
    """The title of a sheet and the smaller line beneath it."""

    title: str
    below: str


class Form(NamedTuple):
    """The shape of a sheet: width over height of a tile, and in inches the longer side of a tile at most, the gap between
    tiles and the room kept free at the bottom; and how many lines of text stand under each tile.
    """

    aspect: float
    largest: float
    gap: float
    foot: float = 0.0
    lines: int = 0


def sheet(count: int, columns: int, form: Form, head: Head) -> Sheet:
    """Lay out `count` tiles in rows of `columns`, as wide as a page unless that makes a tile larger than `form` allows."""
    columns = min(columns, count)
    rows = -(-count // columns)
    width = tile_width(columns, form)
    height = width / form.aspect
    step = (width + form.gap, height + form.lines * LINE + form.gap)
    full = (max(columns * step[0] - form.gap + 2 * EDGE, SMALLEST_SHEET), HEAD + rows * step[1] - form.gap + EDGE + form.foot)
    figure = style.figure(*full)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[])
    axes.set_xlim(0, full[0])
    axes.set_ylim(full[1], 0)
    room = 72 * (full[0] - 2 * EDGE)
    title = style.fit(head.title, room / 1.12, style.TITLE)  # bold letters are wider
    axes.set_title(title, x=EDGE / full[0], y=1 - 0.42 / full[1], pad=0, loc="left", size=style.TITLE, weight="bold",
                   color=style.PALETTE["ink"], parse_math=False, fontfamily=list(style.families()))  # fmt: skip
    write(axes, EDGE, 0.68, style.fit(head.below, room, style.SMALL), style.PALETTE["grey"])
    places = [divmod(index, columns) for index in range(count)]
    boxes = [Box(EDGE + column * step[0], HEAD + row * step[1], width, height) for row, column in places]
    return Sheet(figure, axes, boxes)


def tile_width(columns: int, form: Form) -> float:
    """Return the width in inches of a tile where so many stand in a row."""
    return min((style.WIDTH - 2 * EDGE - (columns - 1) * form.gap) / columns, form.largest * min(1.0, form.aspect))


def write(axes: "Axes", left: float, middle: float, text: str, color: str, align: str = "left") -> None:
    """Write one line at a place on the sheet, just as it stands. left: its left end, or its right end if align is "right"."""
    axes.text(left, middle, text, size=style.SMALL, color=color, ha=align, va="center", parse_math=False,
              fontfamily=list(style.families()))  # fmt: skip


def put(axes: "Axes", box: Box, picture: NDArray[np.generic], **colors: object) -> "AxesImage":
    """Draw a picture (H, W) or (H, W, 3) as large as the box allows, unstretched, every value as a sharp rectangle."""
    H, W = picture.shape[:2]
    width, height = min(box.width, box.height * W / H), min(box.height, box.width * H / W)
    left, top = box.left + (box.width - width) / 2, box.top + (box.height - height) / 2
    limits = axes.get_xlim(), axes.get_ylim()
    place = (left, left + width, top + height, top)
    image = axes.imshow(picture, extent=place, interpolation="nearest", aspect="auto", **colors)  # type: ignore[arg-type]
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    return image


def frame(axes: "Axes", box: Box, color: str, width: float) -> None:
    """Draw a line around a box; `width` in points, outside the picture."""
    from matplotlib.patches import Rectangle

    out = width / 144
    place = (box.left - out, box.top - out)
    axes.add_patch(Rectangle(place, box.width + 2 * out, box.height + 2 * out, fill=False, edgecolor=color, linewidth=width))
