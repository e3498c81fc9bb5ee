"""Global pooling: one number for every channel, whatever the size of the map.     B images, C channels, H all axes of the map

    average    y[b,c] = sum_h x[b,c,h] / |H|         dx[b,c,h] = dy[b,c] / |H|
    maximum    y[b,c] = max_h x[b,c,h]               dx[b,c,h] = dy[b,c] where h is the first that has the maximum, else 0

It is adaptive pooling (see adaptive.py) of the flattened map to a single window. In a net that ends so, every channel of the last
convolution becomes the evidence for one class, and there is no layer whose weights fix the size of the picture.

Lin, Chen and Yan, "Network in network", ICLR 2014, section 3.2
"""

from typing import Any

from torch import Tensor

from twofold.layers.expect import expect_floating, expect_tensor, sentence
from twofold.layers.routes import Routed
from twofold.space.adaptive import adaptive_average_pool, adaptive_max_pool, expect_pixels
from twofold.space.max_pooling import expect_ordered


class Global(Routed):
    """Maps (B, C, ...) with one axis or more become (B, C, 1, ...), or (B, C) with flatten=True.

    Raises ValueError for input that has no map, an empty one, or (averages) whole numbers.
    """

    def __init__(self, *, flatten: bool = False) -> None:
        super().__init__()
        self.flatten = flatten

    def pool(self, operation: Any, input: Tensor) -> Tensor:
        """Apply the operation to the flattened maps."""
        y_BC1 = self.run(operation, input.flatten(2), (1,))
        pooled: Tensor = y_BC1.squeeze(2) if self.flatten else y_BC1.reshape(*input.shape[:2], *[1] * (input.dim() - 2))
        return pooled

    def extra_repr(self) -> str:
        return "flatten=True" if self.flatten else ""


class GlobalAvgPool(Global):
    """The mean of every channel: (B, C, ...) becomes (B, C, 1, ...), or (B, C) with flatten=True.

    >>> import torch
    >>> GlobalAvgPool(flatten=True)(torch.arange(12.0).reshape(1, 2, 2, 3)).tolist()
    [[2.5, 8.5]]
    """

    def forward(self, input: Tensor) -> Tensor:
        expect_whole_maps("GlobalAvgPool input", input)
        expect_floating("GlobalAvgPool input", input)
        return self.pool(adaptive_average_pool, input)


class GlobalMaxPool(Global):
    """The largest value of every channel: (B, C, ...) becomes (B, C, 1, ...), or (B, C) with flatten=True.

    >>> import torch
    >>> GlobalMaxPool()(torch.arange(12.0).reshape(1, 2, 2, 3)).tolist()
    [[[[5.0]], [[11.0]]]]
    """

    def forward(self, input: Tensor) -> Tensor:
        expect_whole_maps("GlobalMaxPool input", input)
        expect_ordered("GlobalMaxPool input", input)
        return self.pool(adaptive_max_pool, input)


def expect_whole_maps(who: str, x: Any) -> None:
    """Raise ValueError unless x has a batch, a channel and maps that are not empty."""
    expect_tensor(who, x)
    if x.dim() < 3:
        cause = "Is it pooled already?" if x.dim() == 2 else ""
        raise ValueError(sentence(who, "(B, C, ...) with one axis of the map or more", str(tuple(x.shape)), f"{x.dim()} axes", cause))
    expect_pixels(who, x, x.dim() - 2)
