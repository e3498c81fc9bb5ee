"""What augmentation makes of pictures: the originals on top, under each what it becomes, with its mask, boxes and keypoints.

mask    its labels as colours, half transparent, 0 left clear        box     a frame, dashed where too little of it is left
point   a dot, a ring where it is hidden
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from twofold.data.augment_samples import Samples
from twofold.see import style
from twofold.see.arrays import array
from twofold.see.sheet import LINE, Box, Form, Head, frame, put, sheet, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS_AT_MOST: Final = 12
ROWS_AT_MOST: Final = 12
LARGEST: Final = 1.7  # inches, the longer side of a picture
MASK: Final = 0.45  # opacity
LABELS: Final = ("#2166ac", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d")


def augmented(original: Samples, versions: Sequence[Samples], head: Head) -> "Figure":
    """Draw the first 12 pictures and up to 12 versions of each. Pictures are uint8, or floats in 0..1.

    Raises ValueError without a picture or a version, and for a version of another number of pictures.
    """
    count = len(original.x_BCHW)
    if not count or not versions:
        raise ValueError(f"augmented: expected at least one picture and one version of it, got {count} and {len(versions)}.")
    for version in versions:
        if len(version.x_BCHW) != count:
            raise ValueError(f"augmented: expected versions of the {count} pictures, got one of {len(version.x_BCHW)}.")
    columns = min(count, COLUMNS_AT_MOST)
    rows = [original, *versions[:ROWS_AT_MOST]]
    H, W = original.x_BCHW.shape[2:]
    layout = sheet(columns * len(rows), columns, Form(W / H, LARGEST, 0.1, LINE), head)
    for row, samples in enumerate(rows):
        pictures = _pictures(samples, columns)
        for column in range(columns):
            box = layout.boxes[row * columns + column]
            put(layout.axes, box, pictures[column], **({"cmap": "gray", "vmin": 0, "vmax": 255} if pictures.ndim == 3 else {}))
            _mark(layout.axes, box, samples, column)
            frame(layout.axes, box, style.PALETTE["ink" if row == 0 else "faint"], 0.8)
    last = layout.boxes[-1]
    write(layout.axes, layout.boxes[0].left, last.top + last.height + LINE, "top row: the originals", style.PALETTE["grey"])
    return layout.figure


def _pictures(samples: Samples, count: int) -> NDArray[np.uint8]:
    """(B, H, W) grey or (B, H, W, 3), with the masks laid over."""
    x = array(samples.x_BCHW[:count])
    pictures = np.moveaxis(np.rint(x * 255).astype(np.uint8) if x.dtype.kind == "f" else x, 1, -1)
    if samples.masks_BHW is None:
        return pictures[..., 0] if pictures.shape[-1] == 1 else pictures
    from matplotlib.colors import to_rgb

    labels = array(samples.masks_BHW[:count]).astype(np.int64)
    colours = np.array([to_rgb(colour) for colour in LABELS])[(labels - 1) % len(LABELS)] * 255
    cover = np.where(labels[..., None] != 0, MASK, 0.0)
    return np.rint((1 - cover) * pictures + cover * colours).astype(np.uint8)


def _mark(axes: "Axes", box: Box, samples: Samples, sample: int) -> None:
    """Boxes and points, on the tile."""
    from matplotlib.patches import Circle, Rectangle

    H, W = samples.x_BCHW.shape[2:]
    scale = min(box.width / W, box.height / H)
    left, top = box.left + (box.width - W * scale) / 2, box.top + (box.height - H * scale) / 2
    boxes = samples.boxes[sample].tolist() if samples.boxes else []
    kept = samples.kept[sample].tolist() if samples.kept else [True] * len(boxes)
    for (x1, y1, x2, y2), whole in zip(boxes, kept, strict=True):
        place, line = (left + x1 * scale, top + y1 * scale), "solid" if whole else "dashed"
        colour = style.PALETTE["orange"]
        axes.add_patch(Rectangle(place, (x2 - x1) * scale, (y2 - y1) * scale, fill=False, edgecolor=colour, linewidth=1.6, linestyle=line))
    points = samples.points[sample].tolist() if samples.points else []
    visible = samples.visible[sample].tolist() if samples.visible else [True] * len(points)
    for (x, y), seen in zip(points, visible, strict=True):
        if 0 <= x <= W and 0 <= y <= H:
            axes.add_patch(Circle((left + x * scale, top + y * scale), 0.035, fill=seen, color=style.PALETTE["blue"], linewidth=1.4))
