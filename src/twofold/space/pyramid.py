"""Spatial pyramid pooling: the same number of values whatever the size of the map.     B images, C channels, l a level

    y[b] = for every level l: for every channel c: pool of x[b,c] over l x l windows, row by row        C (l1^2 + l2^2 + ...) values

Level 1 sees the whole map, level 2 its quarters, and so on; the windows are those of adaptive.py. A Linear layer may follow, and the
net still takes pictures of every size.

He, Zhang, Ren and Sun, "Spatial pyramid pooling in deep convolutional networks", ECCV 2014, section 2.2
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from twofold.layers.expect import expect_floating
from twofold.layers.routes import Routed
from twofold.space.adaptive import adaptive_average_pool, adaptive_max_pool, expect_pixels
from twofold.space.max_pooling import expect_ordered
from twofold.space.pooling import expect_countable, expect_images
from twofold.space.windows import whole_numbers

KINDS: dict[str, Any] = {"max": (adaptive_max_pool, expect_ordered), "average": (adaptive_average_pool, expect_floating)}


class SpatialPyramidPool2d(Routed):
    """Maps (B, C, H, W) of any size become (B, C * features), where features = the sum of the squares of the levels.

    levels: the numbers of windows along each axis. kind: "max" or "average". One image (C, H, W) becomes (C * features,).
    Raises ValueError for levels below 1, another kind, and input that is no map, empty, or (averages) not floating point.

    >>> layer = SpatialPyramidPool2d(levels=(1, 2))
    >>> layer(torch.arange(9.0).reshape(1, 1, 3, 3)).tolist(), layer(torch.zeros(2, 3, 7, 5)).shape
    ([[8.0, 4.0, 5.0, 7.0, 8.0]], torch.Size([2, 15]))
    """

    def __init__(self, levels: Sequence[int] = (1, 2, 4), kind: str = "max") -> None:
        super().__init__()
        if not isinstance(levels, (tuple, list)) or not levels:
            raise ValueError(f"SpatialPyramidPool2d: expected levels to be whole numbers like (1, 2, 4), got {levels!r}.")
        if kind not in KINDS:
            raise ValueError(f'SpatialPyramidPool2d: expected kind to be "max" or "average", got {kind!r}.')
        self.levels = whole_numbers("SpatialPyramidPool2d", "levels", levels, len(levels), 1)
        self.kind = kind

    @property
    def features(self) -> int:
        """How many values come of every channel."""
        return sum(level * level for level in self.levels)

    def forward(self, input: Tensor) -> Tensor:
        operation, expect_numbers = KINDS[self.kind]
        expect_images("SpatialPyramidPool2d input", input, 2)
        expect_numbers("SpatialPyramidPool2d input", input)
        expect_pixels("SpatialPyramidPool2d input", input, 2)
        expect_countable("SpatialPyramidPool2d input", "outputs", (*input.shape[:-2], self.features), "Use fewer levels.")
        x_BCHW = input if input.dim() == 4 else input.unsqueeze(0)
        y = torch.cat([self.run(operation, x_BCHW, (level, level)).flatten(1) for level in self.levels], 1)
        return y if input.dim() == 4 else y.squeeze(0)

    def extra_repr(self) -> str:
        return f'levels={self.levels}, kind="{self.kind}"'
