"""Erasing: a rectangle of the picture is lost, so that no single spot may decide.     H W the picture

    erase     with probability p: area S = (0.02 .. 0.33) H W, height over width r = 0.3 .. 3.3 (evenly in log r), h = sqrt(S r),
              w = sqrt(S / r), at most the picture; a random place in it; every value in it random
    cutout    always: a square of side n about a random pixel, so part of it may lie outside; every value in it the picture's mean

Masks, boxes and keypoints stay: what is hidden is still there.

Zhong et al., "Random erasing data augmentation", AAAI 2020 (2017), algorithm 1, values of section 4.2 (random values did best);
DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from twofold.data.augment_colour import channel_means
from twofold.data.augment_draws import Draws

AREA = (0.02, 0.33)
SHAPE = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class Erasing:
    """erase: the probability of a rectangle. cutout: the side of the square, in pixels, or a share of the shorter side if below 1."""

    erase: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        if not (isinstance(self.erase, int | float) and 0 <= self.erase <= 1):
            raise ValueError(f"augment erase: expected a number from 0 to 1 (the probability), got {self.erase!r}.")
        whole = isinstance(self.cutout, int | float) and (
            0 <= self.cutout < 1 or (self.cutout < math.inf and self.cutout == int(self.cutout))
        )
        if not whole or self.cutout < 0:
            raise ValueError(f"augment cutout: expected the side of a square in whole pixels, or a share if below 1, got {self.cutout!r}.")

    @property
    def still(self) -> bool:
        """Whether nothing is erased."""
        return self == Erasing()

    def side(self, height: int, width: int) -> int:
        """The side of the square in pixels, 0 without. Raises ValueError where it is larger than the picture."""
        if not self.cutout:
            return 0
        side = int(self.cutout) if self.cutout >= 1 else max(1, round(self.cutout * min(height, width)))
        if side > min(height, width):
            raise ValueError(
                f"augment cutout={self.cutout:g}: expected a square no larger than the picture of {height}x{width}, got a side of {side}."
            )
        return side

    def apply_(self, x_BCHW: Tensor, draws: Draws) -> Tensor:
        """The pictures with parts lost; uint8, or floats in 0..1. May change what it is given. Raises ValueError as `side` does."""
        if self.erase:
            self._erase_(x_BCHW, draws)
        return self._cut(x_BCHW, draws) if self.cutout else x_BCHW

    def _erase_(self, x_BCHW: Tensor, draws: Draws) -> None:
        _, C, H, W = x_BCHW.shape
        happens, area, shape, x, y = draws.uniform("erase", 5).T
        area = (AREA[0] + (AREA[1] - AREA[0]) * area) * (H * W)
        shape = np.exp(math.log(SHAPE[0]) + math.log(SHAPE[1] / SHAPE[0]) * shape)
        height = np.clip(np.rint(np.sqrt(area * shape)), 1, H).astype(np.int64)
        width = np.clip(np.rint(np.sqrt(area / shape)), 1, W).astype(np.int64)
        top, left = (y * (H - height + 1)).astype(np.int64), (x * (W - width + 1)).astype(np.int64)
        for b in np.flatnonzero(happens < self.erase).tolist():
            h, w = int(height[b]), int(width[b])
            noise = draws.of(b).bits("noise", -(-C * h * w // 8)).view(np.uint8).reshape(-1)[: C * h * w].reshape(C, h, w)
            values = torch.from_numpy(noise).to(x_BCHW.device)
            place = x_BCHW[b, :, top[b] : top[b] + h, left[b] : left[b] + w]
            place.copy_(values if x_BCHW.dtype == torch.uint8 else values / 255)

    def _cut(self, x_BCHW: Tensor, draws: Draws) -> Tensor:
        """x outside the square, the mean inside: x (1 - m) + v m, which is faster than a choice for each byte."""
        _, _, H, W = x_BCHW.shape
        side = self.side(H, W)
        first_B2 = np.floor(draws.uniform("cutout", 2) * [H, W]).astype(np.int64) - side // 2
        rows_BH, columns_BW = (
            (np.arange(size) >= first_B[:, None]) & (np.arange(size) < first_B[:, None] + side)
            for size, first_B in zip((H, W), first_B2.T, strict=True)
        )
        inside = torch.from_numpy(rows_BH[:, None, :, None] & columns_BW[:, None, None, :]).to(x_BCHW.device)
        half = 0.5 if x_BCHW.dtype == torch.uint8 else 0.0
        value = torch.from_numpy(channel_means(x_BCHW) + half).to(x_BCHW)[:, :, None, None]
        return x_BCHW.mul(~inside).add_(value.mul(inside))
