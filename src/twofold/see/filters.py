"""The filters of a convolution as tiles.

    C = 1    one tile a filter: blue below zero, white at zero, orange above; one scale for all tiles, symmetric about zero
    C = 3    one picture a filter: 1/2 + w / (2 max|w|), so grey is zero and all colours share one scale
    else     one row a filter, one tile a channel (the first 16 of each), coloured as for C = 1

F filters, C channels in, H W the window.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from twofold.see import style
from twofold.see.arrays import Values, array
from twofold.see.sheet import Form, Head, Sheet, frame, put, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TILES_AT_MOST: Final = 64
ROWS_AT_MOST: Final = 16
CHANNELS_AT_MOST: Final = 16
FOOT: Final = 0.75  # inches, for the colour bar


def filters(weight_FCHW: Values, title: str) -> "Figure":
    """Draw the weights of a two-dimensional convolution, such as the first layer's.

    At most 64 filters are drawn for C = 1 and 3, else 16; the line beneath the title says how many there are. Weights
    that are not finite are grey, and counted in that line. Raises ValueError if the weight is not (F, C, H, W).
    """
    weight = array(weight_FCHW).astype(np.float64)
    if weight.ndim != 4 or weight.size == 0:
        raise ValueError(f"filters weight: expected (F, C, H, W), none of them 0, got {weight.shape}. Give the weight of a Conv2d layer.")
    F, C, H, W = weight.shape
    scale = float(np.abs(weight[np.isfinite(weight)]).max(initial=0.0)) or 1.0
    broken = int((~np.isfinite(weight)).sum())
    below = f"{F} filters of {H}×{W} over {C} channel{'s' if C > 1 else ''}"
    if C in (1, 3):
        shown = weight[:TILES_AT_MOST]
        below += f", the first {len(shown)} shown" if len(shown) < F else ""
        below += f"; grey is 0, full colour {scale:.2g}" if C == 3 else ""
        columns, form = _columns(len(shown)), Form(W / H, 1.5, 0.12, FOOT * (C == 1))
        tiles = _rgb(shown, scale) if C == 3 else shown[:, 0]
    else:
        shown = weight[:ROWS_AT_MOST, :CHANNELS_AT_MOST]
        below += f", the first {shown.shape[0]} over {shown.shape[1]} shown" if shown.shape != weight.shape else ""
        columns, form = shown.shape[1], Form(W / H, 0.9, 0.1, FOOT)
        tiles = shown.reshape(-1, H, W)
    below += f"; {broken:,} not finite (grey)" if broken else ""
    layout = sheet(len(tiles), columns, form, Head(title, below))
    for tile, box in zip(tiles, layout.boxes, strict=True):
        colors: dict[str, object] = {} if C == 3 else {"cmap": style.diverging(), "vmin": -scale, "vmax": scale}
        put(layout.axes, box, tile, **colors)
        frame(layout.axes, box, style.PALETTE["faint"], 0.8)
    if C != 3:
        _bar(layout, scale, "weight" if C == 1 else "weight (rows are filters, columns channels)")
    return layout.figure


def _columns(count: int) -> int:
    """As many columns as make the sheet about as wide as a page: 6 is 6, 16 is 8 + 8, 64 is 4 rows of 16."""
    return next((columns for columns in (8, 12, 16) if count <= 3 * columns), 16)


def _rgb(weight: NDArray[np.float64], scale: float) -> NDArray[Any]:
    """Return pictures (F, H, W, 3) in 0..1; what is not finite becomes grey, as zero is."""
    return np.moveaxis(np.where(np.isfinite(weight), 0.5 + weight / (2 * scale), 0.5), 1, -1)


def _bar(layout: Sheet, scale: float, meaning: str) -> None:
    width, height = layout.figure.get_size_inches()
    axes = layout.figure.add_axes((0.35 / width, 0.5 / height, 2.0 / width, 0.16 / height))
    bar = layout.figure.colorbar(layout.axes.images[0], cax=axes, orientation="horizontal", ticks=[-scale, 0, scale])
    bar.ax.set_xticklabels([f"−{scale:.2g}", "0", f"{scale:.2g}"])
    bar.ax.tick_params(labelsize=style.SMALL, length=3, color=style.PALETTE["grey"])
    bar.outline.set_edgecolor(style.PALETTE["faint"])
    bar.ax.text(1.1, 0.5, meaning, transform=axes.transAxes, size=style.SMALL, va="center", color=style.PALETTE["grey"])
