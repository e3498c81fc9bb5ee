"""What the model says about pictures: a contact sheet of its predictions, and one of its worst mistakes.

A right prediction has a tick and a thin grey frame, a wrong one a cross, a thick orange frame and a second line with
the truth: told apart by sign, weight and words, not by colour alone.
"""

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twofold.see import style
from twofold.see.arrays import Values, array, whole_numbers
from twofold.see.sheet import LINE, Form, Head, frame, put, sheet, tile_width, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_AT_MOST: Final = 64  # pictures
COLUMNS_AT_MOST: Final = 12
LARGEST: Final = 2.2  # inches, the longer side of a picture
RIGHT, WRONG = "✓", "✗"


class Tile(NamedTuple):
    """One picture (H, W, C) and what was said about it. The truth's share and the name are written only where they are known."""

    picture: NDArray[np.uint8]
    truth: str
    predicted: str
    confidence: float
    truth_confidence: float | None
    right: bool
    name: str = ""


def predictions(
    pictures_BCHW: Values,
    truth: Values,
    predicted: Values,
    confidence: Values,
    classes: Sequence[str],
    columns: int = 8,
) -> "Figure":
    """Draw the pictures, each with the predicted class and the confidence in it, and with the truth where that differs.

    pictures_BCHW: uint8, C is 1 (grey) or 3 (RGB). truth, predicted: B class indices. confidence: B probabilities of
    the predicted class, 0..1. At most 64 pictures are drawn. Raises ValueError if a shape, a type or an index does
    not fit.
    """
    tiles = _tiles("predictions", pictures_BCHW, truth, predicted, confidence, None, classes)
    if not tiles:
        raise ValueError("predictions pictures: expected at least one picture, got none")
    shown = tiles[:SHOWN_AT_MOST]
    wrong = sum(not tile.right for tile in shown)
    less = f" (the first {len(shown)} of {len(tiles):,})" if len(shown) < len(tiles) else ""
    below = f"{len(shown) - wrong} right {RIGHT}, {wrong} wrong {WRONG}; with the confidence of the model{less}"
    return _draw(shown, columns, Head("Predictions", below))


def mistakes(
    pictures_BCHW: Values,
    truth: Values,
    predicted: Values,
    confidence: Values,
    truth_confidence: Values,
    classes: Sequence[str],
    columns: int = 6,
    most: int = 18,
    among: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
    by: Literal["confidence", "loss"] = "confidence",
) -> "Figure":
    """Draw the worst mistakes: the wrong predictions in which the model was most confident, worst first.

    by: "loss" for those whose truth it held least likely. names: B names of files, of which the last part stands beneath each.
    truth_confidence: B probabilities that the model gave to the true class. most: how many to draw, 1..64. among: how many are
    wrong and how many there are, where only the worst are given (default: these are all). The other
    arguments are those of `predictions`. Without a mistake, the figure says so. Raises ValueError as `predictions`
    does.
    """
    if not 1 <= most <= SHOWN_AT_MOST:
        raise ValueError(f"mistakes most: expected 1..{SHOWN_AT_MOST} pictures, got {most}")
    tiles = _tiles("mistakes", pictures_BCHW, truth, predicted, confidence, truth_confidence, classes)
    if names is not None:
        if len(names) != len(tiles):
            raise ValueError(f"mistakes names: expected B={len(tiles)}, one a picture, got {len(names)}.")
        tiles = [tile._replace(name=PurePath(name).name) for tile, name in zip(tiles, names, strict=True)]
    worst = (lambda tile: -tile.confidence) if by == "confidence" else (lambda tile: tile.truth_confidence)
    wrong = sorted((tile for tile in tiles if not tile.right), key=worst)
    mistaken, all_of_them = among if among is not None else (len(wrong), len(tiles))
    if not wrong:
        return style.card("No mistakes", f"All {all_of_them:,} predictions are right." if all_of_them else "No prediction is wrong.")
    shown = wrong[:most]
    order = "the most confident first" if by == "confidence" else "the highest loss first"
    below = f"{len(shown)} of the {mistaken:,} that are wrong among {all_of_them:,} predictions, {order}"
    return _draw(shown, columns, Head("Worst mistakes", below))


def _tiles(
    who: str,
    pictures_BCHW: Values,
    truth: Values,
    predicted: Values,
    confidence: Values,
    truth_confidence: Values | None,
    classes: Sequence[str],
) -> list[Tile]:
    pictures = _checked_pictures(who, array(pictures_BCHW))
    B, N = len(pictures), len(classes)
    lists: dict[str, NDArray[Any]] = {
        "truth": whole_numbers(truth, f"{who} truth"),
        "predicted": whole_numbers(predicted, f"{who} predicted"),
        "confidence": array(confidence),
    }
    if truth_confidence is not None:
        lists["truth_confidence"] = array(truth_confidence)
    for name, values in lists.items():
        if values.shape != (B,):
            raise ValueError(f"{who} {name}: expected (B={B},), one value a picture, got {values.shape}")
        low, high = (0, N - 1) if name in ("truth", "predicted") else (0, 1 + 1e-6)
        wrong = values[~((values >= low) & (values <= high))]
        if wrong.size:
            what = f"class indices 0..{N - 1}" if name in ("truth", "predicted") else "probabilities 0..1"
            raise ValueError(f"{who} {name}: expected {what}, got {wrong[0]}")
    return [
        Tile(
            np.moveaxis(pictures[b], 0, -1),
            str(classes[lists["truth"][b]]),
            str(classes[lists["predicted"][b]]),
            float(lists["confidence"][b]),
            None if truth_confidence is None else float(lists["truth_confidence"][b]),
            bool(lists["truth"][b] == lists["predicted"][b]),
        )
        for b in range(B)
    ]


def _checked_pictures(who: str, pictures: NDArray[Any]) -> NDArray[np.uint8]:
    if pictures.size == 0 and len(pictures) == 0:
        return np.zeros((0, 1, 1, 1), np.uint8)
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or 0 in pictures.shape[2:]:
        raise ValueError(
            f"{who} pictures: expected (B, C, H, W) with C 1 (grey) or 3 (RGB), got {pictures.shape}. "
            "Channels last? Move them to the second place."
        )
    if pictures.dtype != np.uint8:
        raise ValueError(
            f"{who} pictures: expected uint8, 0..255, got {pictures.dtype}. Give the pictures as they were before normalisation."
        )
    return pictures


def _draw(tiles: Sequence[Tile], columns: int, head: Head) -> "Figure":
    if not 1 <= columns <= COLUMNS_AT_MOST:
        raise ValueError(f"predictions columns: expected 1..{COLUMNS_AT_MOST}, got {columns}")
    H, W, _ = tiles[0].picture.shape
    # A narrower or wider box would leave no room for the text, or for other tiles.
    form = Form(min(max(W / H, 0.5), 2.0), LARGEST, 0.16)
    room = 72 * tile_width(min(columns, len(tiles)), form)
    lines = [_lines(tile) for tile in tiles]
    if any(style.text_width(f"{line.name} {line.share}", style.SMALL) > room for several in lines for line in several if line.share):
        lines = [[part for line in several for part in _stack(line)] for several in lines]
    form = form._replace(lines=max(len(several) for several in lines))
    layout = sheet(len(tiles), columns, form, head)
    for tile, box, several in zip(tiles, layout.boxes, lines, strict=True):
        grey = tile.picture.shape[-1] == 1
        colors: dict[str, object] = {"cmap": "gray", "vmin": 0, "vmax": 255} if grey else {}
        put(layout.axes, box, tile.picture[..., 0] if grey else tile.picture, **colors)
        frame(layout.axes, box, *((style.PALETTE["faint"], 1.0) if tile.right else (style.PALETTE["orange"], 3.0)))
        for number, line in enumerate(several):
            middle = box.top + box.height + 0.14 + number * LINE
            write(layout.axes, box.left, middle, style.fit(line.name, room, style.SMALL), line.color)
            write(layout.axes, box.left + box.width, middle, line.share, style.PALETTE["grey"], "right")
    return layout.figure


class Line(NamedTuple):
    """A line under a tile: a class at its left end, its probability at its right end."""

    name: str
    share: str
    color: str


def _lines(tile: Tile) -> list[Line]:
    share = _percent(tile.confidence)
    if tile.right:
        return [Line(f"{RIGHT} {tile.predicted}", share, style.PALETTE["ink"])]
    truth = "" if tile.truth_confidence is None else _percent(tile.truth_confidence)
    wrong = Line(f"{WRONG} {tile.predicted}", share, style.PALETTE["orange"])
    named = [Line(tile.name, "", style.PALETTE["grey"])] if tile.name else []
    return [wrong, Line(f"true {tile.truth}", truth, style.PALETTE["ink"]), *named]


def _stack(line: Line) -> list[Line]:
    """Long names take the whole width, with the probability on a line of its own."""
    name = line._replace(share="")
    return [name, Line("", line.share, style.PALETTE["grey"])] if line.share else [name]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
