"""The worked convolution as a picture: forward, the kernel's gradient and the input's gradient, each with one number followed through.

In every row what is slid over stands on the left, what slides beside it, and what comes out on the right. Orange is one place of the
window and what it meets there, blue the number that comes of it; its sum of products stands beneath. Pale cells are zeros that were added.
"""

import textwrap
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twofold.see import style
from twofold.see.sheet import EDGE, LINE, write
from twofold.see.worked import Numbers, Sum, Worked, dy_places, stuffing, x_places

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOP, HEAD, NAME, BAND = 1.35, 0.3, 0.42, 0.45  # inches: the page's title, a row's, a matrix's name, between rows
TURN: Final = 0.78  # inches between a matrix and the same turned
CELL: Final = 0.4  # inches, at most
GAP: Final = 0.8  # inches between matrices, for what stands between them
LETTERS: Final = 96  # of a line of a sum
LAWS: Final = 0.24  # inches, a line of a law
WARM, COOL, PALE = "#fde0c5", "#d6e6f4", "#f4f5f7"

LEGEND: Final = (
    (WARM, "one place of the window, and the numbers that meet there"),
    (COOL, "what comes of it"),
    (PALE, "a zero that was added"),
)


class Matrix(NamedTuple):
    """A matrix to draw: its name, numbers, which of them are real, which are marked, the colour of the marks; what stands before it."""

    name: str
    numbers: Numbers
    real: NDArray[np.bool_]
    marked: NDArray[np.bool_]
    color: str
    before: str = ""
    above: "Matrix | None" = None  # that it was made of, by turning it


class Band(NamedTuple):
    """A row of the page."""

    title: str
    laws: tuple[str, ...]
    matrices: tuple[Matrix, ...]
    sums: tuple[Sum, ...]


def worked_picture(worked: Worked) -> "Figure":
    """Draw the worked example."""
    from matplotlib.patches import Rectangle

    bands = _bands(worked)
    cell = min(CELL, *(_cell(band) for band in bands))
    heights = [_height(band, cell) for band in bands]
    page = TOP + sum(heights) + BAND * (len(bands) - 1) + 0.25
    figure = style.figure(style.WIDTH, page)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[])
    axes.set_xlim(0, style.WIDTH)
    axes.set_ylim(page, 0)
    e = worked.example
    _text(axes, EDGE, 0.38, "A convolution with every number", size=style.TITLE + 1, weight="bold")
    below = f"input {e.size}×{e.size}, kernel {e.kernel}×{e.kernel}, stride {e.stride}, padding {e.padding}, bias b = {worked.bias}"
    write(axes, EDGE, 0.68, below, style.PALETTE["grey"])
    left = EDGE
    for color, text in LEGEND:
        axes.add_patch(Rectangle((left, 0.86), 0.2, 0.2, facecolor=color, edgecolor=style.PALETTE["faint"], linewidth=0.8))
        write(axes, left + 0.28, 0.96, text, style.PALETTE["ink"])
        left += 0.28 + style.text_width(text, style.SMALL) / 72 + 0.3
    top = TOP
    for band, height in zip(bands, heights, strict=True):
        _draw(axes, band, top, cell)
        top += height + BAND
    return figure


def _bands(worked: Worked) -> tuple[Band, ...]:
    e, s, k = worked.example, worked.example.stride, worked.example.kernel
    column, tap, pixel = min(1, worked.y.shape[1] - 1), (k // 2, k // 2), min(1, e.size - 1)
    x_real, step = x_places(worked), "" if s == 1 else str(s)
    place = f"X[{step}p+i, {step}q+j]"
    window, taps = np.zeros_like(worked.padded, dtype=bool), np.zeros_like(worked.padded, dtype=bool)
    wide = (worked.dy.shape[0] - 1) * s + 1
    window[0:k, s * column : s * column + k] = True
    taps[tap[0] : tap[0] + wide : s, tap[1] : tap[1] + wide : s] = True
    full = np.zeros_like(worked.stuffed, dtype=bool)
    full[pixel : pixel + k, pixel : pixel + k] = True
    kernel = Matrix("W, the kernel", worked.weight, _all(worked.weight), ~_all(worked.weight), WARM)
    name = "X, x padded" if e.padding else "X = x"
    return (
        Band(
            "Forward: y is the correlation of x with the kernel",
            (f"y[p,q] = sum over i, j of {place} · W[i,j] + b",),
            (
                Matrix(name, worked.padded, x_real, window, WARM),
                Matrix("W, the kernel", worked.weight, _all(worked.weight), _all(worked.weight), WARM, "⋆"),
                Matrix("y", worked.y, _all(worked.y), _one(worked.y, 0, column), COOL, "+ b ="),
            ),
            (worked.forward_sums[column],),
        ),
        Band(
            "Backward, the kernel: dW is the correlation of x with dy",
            (f"dW[i,j] = sum over p, q of {place} · dy[p,q];  dy, the slope of the loss along y, comes from the layers behind",),
            (
                Matrix(name, worked.padded, x_real, taps, WARM),
                Matrix("dy", worked.dy, _all(worked.dy), _all(worked.dy), WARM, "⋆"),
                Matrix("dW", worked.dweight, _all(worked.dweight), _one(worked.dweight, *tap), COOL, "="),
            ),
            (worked.weight_sums[tap[0] * k + tap[1]], worked.dbias),
        ),
        Band(
            "Backward, the input: dx is the full correlation of dy with the turned kernel",
            ("dx[h,w] = sum over i, j of D[h+i, w+j] · V[i,j]", stuffing(worked)),
            (
                Matrix("D, dy with zeros", worked.stuffed, dy_places(worked), full, WARM),
                Matrix("V", worked.turned, _all(worked.turned), _all(worked.turned), WARM, "⋆", kernel),
                Matrix("dx", worked.dx, _all(worked.dx), _one(worked.dx, pixel, pixel), COOL, "="),
            ),
            (worked.input_sums[pixel * e.size + pixel],),
        ),
    )


def _all(numbers: Numbers) -> NDArray[np.bool_]:
    return np.ones(numbers.shape, dtype=bool)


def _one(numbers: Numbers, row: int, column: int) -> NDArray[np.bool_]:
    marked = np.zeros(numbers.shape, dtype=bool)
    marked[row, column] = True
    return marked


def _cell(band: Band) -> float:
    """The side of a cell with which the row is as wide as the page."""
    room = style.WIDTH - 2 * EDGE - GAP * (len(band.matrices) - 1)
    return room / sum(matrix.numbers.shape[1] for matrix in band.matrices)


def _tallest(band: Band, cell: float) -> float:
    """Inches of the row's tallest matrix, or of two where one is made of the other."""
    return max(m.numbers.shape[0] * cell * (2 if m.above else 1) + (TURN if m.above else 0) for m in band.matrices)


def _height(band: Band, cell: float) -> float:
    return HEAD + LAWS * len(band.laws) + NAME + _tallest(band, cell) + 0.18 + LINE * 1.15 * len(_lines(band))


def _lines(band: Band) -> list[str]:
    return [line for one in band.sums for line in _short(one)]


def _short(one: Sum) -> list[str]:
    """The sum in at most two lines: of a longer one the beginning and the end; the page of text has it whole."""
    lines = textwrap.wrap(_pretty(str(one)), LETTERS)
    return lines if len(lines) < 3 else [lines[0], f"… ({len(one.products)} terms in all) … {lines[-1]}"]


def _pretty(text: str) -> str:
    return text.replace("*", "·").replace("-", "−")


def _draw(axes: "Axes", band: Band, top: float, cell: float) -> None:
    _text(axes, EDGE, top + 0.12, band.title, size=style.LABEL + 0.5, weight="bold")
    for number, law in enumerate(band.laws):
        write(axes, EDGE, top + HEAD + 0.08 + number * LAWS, _pretty(law), style.PALETTE["grey"])
    start, tallest, left = top + HEAD + LAWS * len(band.laws) + NAME, _tallest(band, cell), EDGE
    middle = start + tallest / 2
    for matrix in band.matrices:
        if matrix.above is not None:  # the lower of two stands a little below the middle, and the signs stand beside it
            middle += (matrix.numbers.shape[0] * cell + TURN) / 2
    for matrix in band.matrices:
        rows, columns = matrix.numbers.shape
        above = start + (tallest - rows * cell) / 2 if matrix.above is None else middle - rows * cell / 2
        if matrix.before:
            size = 2 * style.TITLE if matrix.before == "⋆" else style.TITLE  # the font's star is small
            _text(axes, left + GAP / 2, middle, matrix.before, size=size, ha="center")
            left += GAP
        if matrix.above is not None:
            _matrix(axes, matrix.above, left, above - TURN - rows * cell, cell)
            _text(axes, left, above - TURN / 2 - 0.06, "↓ turned by 180°", size=style.SMALL)
        _matrix(axes, matrix, left, above, cell)
        left += columns * cell
    for number, line in enumerate(_lines(band)):
        write(axes, EDGE, start + tallest + 0.22 + number * LINE * 1.15, line, style.PALETTE["ink"])


def _matrix(axes: "Axes", matrix: Matrix, left: float, top: float, cell: float) -> None:
    from matplotlib.patches import Rectangle

    rows, columns = matrix.numbers.shape
    write(axes, left, top - 0.14, matrix.name, style.PALETTE["ink"])
    words = [[str(n).replace("-", "−") for n in row] for row in matrix.numbers.tolist()]
    longest = max((word for row in words for word in row), key=len)
    size = next((size for size in (style.LABEL, style.SMALL) if style.text_width(longest, size) < 72 * cell * 0.85), 10.0)
    for row, column in np.ndindex(rows, columns):
        real, marked = matrix.real[row, column], matrix.marked[row, column]
        fill = matrix.color if marked else style.PALETTE["paper"] if real else PALE
        corner = (left + column * cell, top + row * cell)
        axes.add_patch(Rectangle(corner, cell, cell, facecolor=fill, edgecolor=style.PALETTE["faint"], linewidth=0.8))
        ink = style.PALETTE["ink" if real else "grey"]
        _text(axes, corner[0] + cell / 2, corner[1] + cell / 2, words[row][column], size=size, color=ink, ha="center")
    axes.add_patch(Rectangle((left, top), columns * cell, rows * cell, fill=False, edgecolor=style.PALETTE["grey"], linewidth=1.0))
    first = np.argwhere(matrix.marked)
    if len(first) and not matrix.marked.all():
        (up, across), (down, end) = first.min(0), first.max(0) + 1
        if matrix.marked[up:down, across:end].all():
            place = (left + across * cell, top + up * cell)
            edge = style.PALETTE["orange" if matrix.color == WARM else "blue"]
            axes.add_patch(Rectangle(place, (end - across) * cell, (down - up) * cell, fill=False, edgecolor=edge, linewidth=2.2))


def _text(axes: "Axes", left: float, middle: float, text: str, **look: Any) -> None:
    given = {"color": style.PALETTE["ink"], **look}
    axes.text(left, middle, text, va="center", parse_math=False, fontfamily=list(style.families()), **given)
