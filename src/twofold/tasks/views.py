"""Test-time augmentation: the model looks at several views of a picture.     V views, z[v]: its logits for view v

    probability   p = 1/V sum_v softmax(z[v])        as logits: log p

    flip          the picture, and its mirror image                                              2
    shift=k       the picture, and moved by k pixels up, down, left and right, mirrored edges    5
    crops=r       the middle and the four corners of r times each side, scaled to full size      5

Words together multiply: "flip crops=0.875" are ten views, the ten crops of Krizhevsky et al. A model whose answer does not change under a
view gives what it gives without.

Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012, section 4.1
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHIFT_BELOW = 10_000
EXAMPLE = 'For example: "flip", "flip shift=1", "flip crops=0.875".'


class Views(NamedTuple):
    """Which views: the mirror image, moved by so many pixels (0: not), parts of so much of each side (1: not)."""

    flip: bool = False
    shift: int = 0
    crops: float = 1.0

    @property
    def number(self) -> int:
        """V."""
        return (2 if self.flip else 1) * (5 if self.shift else 1) * (5 if self.crops < 1 else 1)

    def __str__(self) -> str:
        words = ["flip"] * self.flip + [f"shift={self.shift}"] * bool(self.shift) + [f"crops={self.crops:g}"] * (self.crops < 1)
        return " ".join(words)

    def of(self, x_BCHW: Tensor) -> Iterator[Tensor]:
        """All views of a batch, one after the other, each of its size; the first is the batch itself, or the middle of it.

        Raises ValueError where it cannot be moved so far.
        """
        height, width = x_BCHW.shape[2:]
        if self.shift >= min(height, width):
            raise ValueError(f"views: shift={self.shift} is as large as a picture of {height}x{width}. Take a smaller one.")
        for flipped_BCHW in (x_BCHW, x_BCHW.flip(3)) if self.flip else (x_BCHW,):
            for moved_BCHW in _moved(flipped_BCHW, self.shift):
                yield from _parts(moved_BCHW, self.crops)


def read_views(words: str) -> Views:
    """The views that the words say. Raises ValueError for a word that means nothing.

    >>> read_views("flip shift=1")
    Views(flip=True, shift=1, crops=1.0)
    """
    found: dict[str, str] = {}
    for word in words.split():
        name, _, value = word.partition("=")
        if name in found:
            raise ValueError(f"views: {name} is given twice. Give it once.")
        shift = name == "shift" and value.isdecimal() and 0 < int(value[:9]) < SHIFT_BELOW
        if not (word == "flip" or shift or (name == "crops" and 0 < _number(value) < 1)):
            raise ValueError(
                f"views: expected flip, shift=PIXELS (1 or more) or crops=PART (of each side, below 1), got {word!r}. {EXAMPLE}"
            )
        found[name] = value
    if not found:
        raise ValueError(f"views: expected words, got none. {EXAMPLE}")
    return Views("flip" in found, int(found.get("shift", 0)), float(found.get("crops", 1)))


def logits_of(model: nn.Module, x_BCHW: Tensor, views: Views | None) -> Tensor:
    """Logits (B, N): the model's own without views, else the logarithm of the mean probability."""
    if views is None:
        return torch.as_tensor(model(x_BCHW))
    total_BN: Tensor | None = None
    for view_BCHW in views.of(x_BCHW):
        log_p_BN = F.log_softmax(model(view_BCHW), 1)
        total_BN = log_p_BN if total_BN is None else torch.logaddexp(total_BN, log_p_BN)
    assert total_BN is not None
    return total_BN - math.log(views.number)


def _moved(x_BCHW: Tensor, pixels: int) -> Iterator[Tensor]:
    yield x_BCHW
    if not pixels:
        return
    height, width = x_BCHW.shape[2:]
    wide_BCHW = F.pad(x_BCHW, (pixels,) * 4, mode="reflect")
    for down, right in ((-pixels, 0), (pixels, 0), (0, -pixels), (0, pixels)):
        yield wide_BCHW[:, :, pixels - down : pixels - down + height, pixels - right : pixels - right + width]


def _parts(x_BCHW: Tensor, part: float) -> Iterator[Tensor]:
    if part == 1:
        yield x_BCHW
        return
    size = (x_BCHW.shape[2], x_BCHW.shape[3])
    high, wide = (max(1, round(part * side)) for side in size)
    bottom, right = size[0] - high, size[1] - wide
    for top, left in ((bottom // 2, right // 2), (0, 0), (0, right), (bottom, 0), (bottom, right)):
        cut_BCHW = x_BCHW[:, :, top : top + high, left : left + wide]
        yield F.interpolate(cut_BCHW, size, mode="bilinear", align_corners=False)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
