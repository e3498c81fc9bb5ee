"""Fixed kernels on a picture: each kernel as a matrix, and beside it what it answers.     H W picture, rows x columns kernel

    sum K = 1    a picture again, drawn in its own colours, cut to black and white where it leaves 0..1
    sum K = 0    answers of both signs to the brightness 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), blue below zero, white at zero,
                 orange above; full colour is the size that one answer in a hundred exceeds

The picture is first reduced to the pixels of its tile, so that an edge one pixel wide is seen; edges continue their last pixel.
"""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from math import pi
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from twofold.see import style
from twofold.see.arrays import Values, array
from twofold.see.sheet import EDGE, LINE, Box, frame, put, write
from twofold.space import filters

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Entry(NamedTuple):
    """A kernel of the page: what is written over it."""

    name: str
    says: str
    make: Callable[[], Tensor]


def _turned(degrees: int) -> Entry:
    # The odd phase adds up to 0 exactly, so that a bright sky stays white.
    return Entry(f"gabor {degrees}°", "stripes 6 pixels apart", lambda: filters.gabor(21, 6.0, degrees * pi / 180, phase=-pi / 2))


# In the order of the page, two in a row; the names are those of filters.FILTERS.
SHOWN: Final[Mapping[str, tuple[Entry, ...]]] = MappingProxyType(
    {
        "identity": (Entry("identity", "the picture itself", filters.identity),),
        "sharpen": (Entry("sharpen", "itself less its Laplacian", filters.sharpen),),
        "box": (Entry("box", "the mean of 5×5 pixels", lambda: filters.box(5)),),
        "gaussian": (Entry("gaussian", "blur, sigma 2 pixels", lambda: filters.gaussian(13, 2.0)),),
        "emboss": (Entry("emboss", "a relief lit from the top left", filters.emboss),),
        "laplacian_of_gaussian": (Entry("laplacian of gaussian", "blobs", lambda: filters.laplacian_of_gaussian(13, 2.0)),),
        "sobel": (
            Entry("sobel vertical", "8 × the slope to the right", lambda: filters.sobel("vertical")),
            Entry("sobel horizontal", "8 × the slope downwards", lambda: filters.sobel("horizontal")),
        ),
        "prewitt": (
            Entry("prewitt vertical", "6 × the slope to the right", lambda: filters.prewitt("vertical")),
            Entry("prewitt horizontal", "6 × the slope downwards", lambda: filters.prewitt("horizontal")),
        ),
        "scharr": (
            Entry("scharr vertical", "32 × the slope to the right", lambda: filters.scharr("vertical")),
            Entry("scharr horizontal", "32 × the slope downwards", lambda: filters.scharr("horizontal")),
        ),
        "line": (
            Entry("line horizontal", "lines one pixel wide", lambda: filters.line("horizontal")),
            Entry("line vertical", "lines one pixel wide", lambda: filters.line("vertical")),
            Entry("line diagonal", "lines one pixel wide", lambda: filters.line("diagonal")),
            Entry("line antidiagonal", "lines one pixel wide", lambda: filters.line("antidiagonal")),
        ),
        "laplacian": (
            Entry("laplacian 4", "the neighbours less the middle", lambda: filters.laplacian(4)),
            Entry("laplacian 8", "the neighbours less the middle", lambda: filters.laplacian(8)),
        ),
        "gabor": tuple(_turned(degrees) for degrees in (0, 45, 90, 135)),
    }
)

GAP, KERNEL, BETWEEN = 0.45, 1.45, 0.15  # inches: between the columns, the side of a kernel, from a kernel to its answer
COLUMN: Final = (style.WIDTH - 2 * EDGE - GAP) / 2
ANSWER: Final = COLUMN - KERNEL - BETWEEN
TOP, OVER, UNDER = 0.95, 0.32, 0.38  # inches: the title of the page, of a kernel, and the line beneath with its gap
NARROWEST: Final = 1.0  # width over height of a tile: pictures that are taller get a narrower one
LARGER: Final = 1.25  # times as large as an answer
GREY: Final = (0.299, 0.587, 0.114)


def kernels(picture: Values, title: str, only: Sequence[str] = ()) -> "Figure":
    """Draw the picture, each kernel with its numbers where they fit, and its answer. `only`: names of SHOWN; all if empty.

    picture: (H, W) or (H, W, 3), bytes or 0..1. Raises ValueError for another shape, numbers that are not finite, unknown names.
    """
    shown = entries(only)
    picture_HWC = _picture(picture)
    H, W = picture_HWC.shape[:2]
    tile = _inside(ANSWER, W / H)
    reduced = _reduced(picture_HWC, tile)
    large = Box(EDGE, TOP, LARGER * tile.width, LARGER * tile.height)
    first = TOP + max(large.height, LEGEND_HEIGHT) + 0.35
    step = OVER + max(tile.height, KERNEL) + UNDER
    figure, axes = _page(first + -(-len(shown) // 2) * step + 0.1)
    below = f"{H}×{W} pixels"
    below += f", reduced to {reduced.shape[0]}×{reduced.shape[1]} for the answers" if reduced.shape != picture_HWC.shape else ""
    _title(axes, title, below)
    _put_picture(axes, large, _reduced(picture_HWC, large))
    _legend(axes, EDGE + LARGER * ANSWER + 0.4, TOP)
    for place, entry in enumerate(shown):
        row, column = divmod(place, 2)
        _card(axes, tile._replace(left=EDGE + column * (COLUMN + GAP), top=first + row * step), entry, reduced)
    return figure


def entries(only: Sequence[str] = ()) -> list[Entry]:
    """What to draw. Raises ValueError for a name that is none."""
    for name in only:
        if name not in SHOWN:
            near = get_close_matches(name, SHOWN, 1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise ValueError(f"kernels: expected names out of {', '.join(SHOWN)}, got {name!r}.{hint}")
    return [entry for name in (only or SHOWN) for entry in SHOWN[name]]


def answer(picture_HWC: NDArray[np.float64], kernel: Tensor) -> NDArray[np.float64]:
    """(H, W, C) for a kernel of sum 1; (H, W), signed, of the brightness for one of sum 0."""
    x_CHW = torch.from_numpy(np.ascontiguousarray(picture_HWC)).permute(2, 0, 1)
    if _signed(kernel) and len(x_CHW) == 3:
        x_CHW = torch.einsum("chw,c->hw", x_CHW, torch.tensor(GREY, dtype=torch.float64)).unsqueeze(0)
    y_CHW = filters.apply(x_CHW.unsqueeze(0), kernel, "replicate")[0]
    found: NDArray[np.float64] = (y_CHW[0] if _signed(kernel) else y_CHW.permute(1, 2, 0)).numpy()
    return found


def _signed(kernel: Tensor) -> bool:
    return abs(kernel.sum().item()) < 0.05 * kernel.abs().sum().item()


def _picture(picture: Values) -> NDArray[np.float64]:
    """(H, W, C) in 0..1, C = 1 or 3."""
    given = array(picture)
    if given.ndim not in (2, 3) or given.size == 0 or (given.ndim == 3 and given.shape[2] not in (1, 3)):
        raise ValueError(f"kernels picture: expected (H, W) or (H, W, 3), none of them 0, got {given.shape}. Channels first? Permute them.")
    values = given.astype(np.float64) / (255 if given.dtype == np.uint8 else 1)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise ValueError(f"kernels picture: expected bytes, or numbers from 0 to 1, got {values.min():g} to {values.max():g}. Scale them.")
    return values if values.ndim == 3 else values[:, :, None]


def _inside(width: float, aspect: float) -> Box:
    """The tile of a picture, at most so wide."""
    height = min(width / aspect, width / NARROWEST)
    return Box(0, 0, height * aspect, height)


def _reduced(picture_HWC: NDArray[np.float64], tile: Box) -> NDArray[np.float64]:
    """The picture with no more pixels than the tile has."""
    H, W = picture_HWC.shape[:2]
    factor = tile.width * style.DPI / W
    if factor >= 1:
        return picture_HWC
    size = (max(round(H * factor), 1), max(round(W * factor), 1))
    x_BCHW = torch.from_numpy(picture_HWC).permute(2, 0, 1).unsqueeze(0)
    smaller = F.interpolate(x_BCHW, size, mode="bilinear", antialias=True, align_corners=False)[0].permute(1, 2, 0)
    return np.asarray(smaller.numpy())


def _page(height: float) -> tuple["Figure", "Axes"]:
    """A page, and axes over all of it that count inches from the top left."""
    figure = style.figure(style.WIDTH, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[])
    axes.set_xlim(0, style.WIDTH)
    axes.set_ylim(height, 0)
    return figure, axes


def _title(axes: "Axes", title: str, below: str) -> None:
    room = 72 * (style.WIDTH - 2 * EDGE)
    fitted = style.fit(title, room / 1.12, style.TITLE)  # bold letters are wider
    _text(axes, EDGE, 0.38, fitted, size=style.TITLE, weight="bold", color=style.PALETTE["ink"])
    write(axes, EDGE, 0.68, below, style.PALETTE["grey"])


def _text(axes: "Axes", left: float, middle: float, text: str, **look: Any) -> None:
    axes.text(left, middle, text, va="center", parse_math=False, fontfamily=list(style.families()), **look)


LEGEND_HEIGHT: Final = 1.9  # inches
LEGEND: Final = (
    "Each kernel K slides over the picture x; its answer is",
    "y[h, w]  =  sum over i, j of  K[i, j] · x[h + i, w + j]",
    "with i and j counted from the middle of K.",
    "Kernels that add up to 1 give a picture again.",
    "Kernels that add up to 0 are silent where nothing changes:",
)


def _legend(axes: "Axes", left: float, top: float) -> None:
    """How to read the page."""
    for number, text in enumerate(LEGEND):
        _text(axes, left, top + 0.1 + number * 0.26, text, size=style.LABEL - 0.5, color=style.PALETTE["ink"])
    bar = Box(left, top + 0.1 + len(LEGEND) * 0.26, 2.56, 0.17)
    put(axes, bar, np.linspace(-1, 1, 256)[None, :].repeat(17, 0), cmap=style.diverging(), vmin=-1, vmax=1)
    frame(axes, bar, style.PALETTE["faint"], 0.8)
    below = bar.top + bar.height + 0.15
    for place, align, text in ((0.0, "left", "negative"), (0.5, "center", "0"), (1.0, "right", "positive")):
        _text(axes, bar.left + place * bar.width, below, text, size=style.SMALL, color=style.PALETTE["grey"], ha=align)


def _card(axes: "Axes", tile: Box, entry: Entry, picture_HWC: NDArray[np.float64]) -> None:
    """One kernel: its name, its matrix, and its answer; `tile`: the size of the answer, at the corner of the card."""
    left, top, body = tile.left, tile.top + 0.12, tile.top + OVER
    kernel = entry.make()
    rows, columns = kernel.shape
    _text(axes, left, top, entry.name, size=style.LABEL, weight="bold", color=style.PALETTE["ink"])
    write(axes, left + COLUMN, top, entry.says, style.PALETTE["grey"], "right")
    _matrix(axes, Box(left, body, KERNEL, KERNEL), kernel)
    total = f"each 1/{kernel.numel()}" if _alike(kernel) else f"sum {1 - _signed(kernel):d}"
    write(axes, left, body + KERNEL + LINE * 0.8, f"{rows}×{columns}, {total}", style.PALETTE["grey"])
    found, box = answer(picture_HWC, kernel), Box(left + KERNEL + BETWEEN, body, tile.width, tile.height)
    if not _signed(kernel):
        _put_picture(axes, box, found)
        return
    scale = float(np.quantile(np.abs(found), 0.99)) or float(np.abs(found).max()) or 1.0
    put(axes, box, found, cmap=style.diverging(), vmin=-scale, vmax=scale)
    frame(axes, box, style.PALETTE["faint"], 0.8)
    write(axes, box.left, body + tile.height + LINE * 0.8, f"full colour ±{scale:.2g}", style.PALETTE["grey"])


def _put_picture(axes: "Axes", box: Box, picture_HWC: NDArray[np.float64]) -> None:
    """A picture in its own colours or greys, cut where it leaves 0..1."""
    cut = np.clip(picture_HWC, 0, 1)
    if cut.shape[2] == 1:
        put(axes, box, cut[:, :, 0], cmap="gray", vmin=0, vmax=1)
    else:
        put(axes, box, cut)


def _alike(kernel: Tensor) -> bool:
    return kernel.min().item() == kernel.max().item()


def _matrix(axes: "Axes", box: Box, kernel: Tensor) -> None:
    """The kernel as coloured cells, with its numbers where the widest of them fits into a cell."""
    scale = kernel.abs().max().item() or 1.0
    put(axes, box, kernel.numpy(), cmap=style.diverging(), vmin=-1.35 * scale, vmax=1.35 * scale)
    frame(axes, box, style.PALETTE["faint"], 0.8)
    rows, columns = kernel.shape
    words = [["1" if _alike(kernel) else number(value) for value in row] for row in kernel.tolist()]
    cell = box.width / columns
    widest = max((word for row in words for word in row), key=len)
    sizes = [size for size in (style.TITLE, style.LABEL, style.SMALL) if style.text_width(widest, size) <= 72 * cell * 0.8]
    if not sizes:
        return
    for row, column in np.ndindex(rows, columns):
        strong = abs(kernel[row, column].item()) > 0.6 * scale
        color = style.PALETTE["paper" if strong else "ink"]
        place = (box.left + (column + 0.5) * cell, box.top + (row + 0.5) * cell)
        _text(axes, *place, words[row][column], size=sizes[0], color=color, ha="center")


def number(value: float) -> str:
    """A number of a matrix in as few characters as can be read.

    >>> [number(v) for v in (-2.0, 0.04, -0.125, 0.001, 10.0)]
    ['−2', '.04', '−.12', '0', '10']
    """
    text = f"{value:.0f}" if value == round(value) else f"{value:.2f}".replace("0.", ".", 1)
    text = "0" if text in (".00", "-.00", "-0") else text
    return text.replace("-", "−")
