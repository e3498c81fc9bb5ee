"""Convolution of float32 maps, compiled (cpu/convolution.h, cpu/winograd.h): the law of space/convolution.py.

Two ways to fill the lanes: along the width, for few filters, and over the filters, for many. Both write the padding out, so that no
tap asks whether it is inside, and leave out rows of taps that see padding alone. With 3x3 taps, stride 1 and many channels Winograd's
algorithm saves more than half of the multiplications; for many weights all threads work at the same block. The gradient of the input
is the same computation with the kernel turned, for stride 1. PyTorch's own operator computes it with a stride, and without Winograd's
algorithm the gradient of weights that are too many to be held per thread.

With `reduced`, Winograd's products are of numbers rounded to bfloat16 (8 bits), summed in float32: twice as many at a time. x, weights
and results stay float32, and so do the transforms. A number of the result is wrong by 2^-7 of what the sum of the transforms' absolute
values would be, at most. The direct algorithm stays with float32.
"""

import torch
from torch import Tensor

from twofold import kernels
from twofold.kernels.fit import Window, geometry, obstacle

CHOOSE, DIRECT, WINOGRAD = 0, 1, 2
HELD = 1 << 15  # C F, above which the direct sums of a weight gradient leave the second cache
MANY = 24  # channels and filters from which on Winograd's algorithm is chosen


def summed_here(x_BCHW: Tensor, weight_FCij: Tensor, window: Window, groups: int, algorithm: int = CHOOSE) -> bool:
    """Whether the gradient of the weights is computed here: few weights, or Winograd's algorithm, whose threads share their sums."""
    filters, channels = weight_FCij.shape[0], weight_FCij.shape[1]
    tiled = window.kernel == (3, 3) and window.stride == (1, 1) and window.dilation == (1, 1)
    enough = min(channels, filters // groups) >= MANY and min(window.output_size(tuple(x_BCHW.shape[2:]))) > 1
    chosen = algorithm == WINOGRAD or (algorithm == CHOOSE and enough)
    return filters * channels <= HELD or (tiled and chosen)


def unfit(x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> str:
    """Why the compiled form cannot serve, or ''."""
    if x_BCHW.dim() != 4:
        return "needs maps of two axes"
    top, bottom, left, right = window.padding
    if (top != bottom or left != right) and (window.stride != (1, 1) or not summed_here(x_BCHW, weight_FCij, window, groups)):
        return "needs equal padding on both sides where a stride is not 1 or the channels are many"
    return obstacle(x_BCHW, weight_FCij, bias_F)


def reduced_unfit() -> str:
    """Why products of bfloat16 cannot be had, or ''."""
    if not kernels.available():
        return kernels.reason()
    known = torch.ops.twofold.convolution_reduces()
    return "" if known else "needs a processor with AVX512_BF16 (and kernels built by a compiler that knows it)"


def forward(
    x_BCHW: Tensor,
    weight_FCij: Tensor,
    bias_F: Tensor | None,
    window: Window,
    groups: int = 1,
    *,
    relu: bool = False,
    algorithm: int = CHOOSE,
    reduced: bool = False,
) -> Tensor:
    """y_BFPQ, through ReLU where asked for. reduced: the products may be of bfloat16."""
    numbers = geometry(window, x_BCHW.shape[2], x_BCHW.shape[3])
    y: Tensor = torch.ops.twofold.convolution.default(x_BCHW, weight_FCij, bias_F, numbers, groups, relu, algorithm, reduced)
    return y


def pooled(
    x_BCHW: Tensor,
    weight_FCij: Tensor,
    bias_F: Tensor | None,
    window: Window,
    pool: Window,
    relu: bool,
    with_winners: bool,
    *,
    reduced: bool = False,
) -> tuple[Tensor, Tensor]:
    """(y_BFPQ, winner_BFPQ) of convolution, perhaps ReLU, and max pooling; the map between them is never written out."""
    numbers = geometry(window, x_BCHW.shape[2], x_BCHW.shape[3])
    y, winner = torch.ops.twofold.convolution_max_pool.default(
        x_BCHW, weight_FCij, bias_F, numbers, relu, geometry(pool, numbers[0], numbers[1]), with_winners, CHOOSE, reduced
    )
    return y, winner


def backward(
    dy_BFPQ: Tensor,
    x_BCHW: Tensor,
    weight_FCij: Tensor,
    has_bias: bool,
    window: Window,
    groups: int = 1,
    *,
    with_dx: bool = True,
    algorithm: int = CHOOSE,
    reduced: bool = False,
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """(dx_BCHW, dweight_FCij, dbias_F); dx is None where it is not wanted."""
    dy, height, width = dy_BFPQ.contiguous(), x_BCHW.shape[2], x_BCHW.shape[3]
    numbers = geometry(window, height, width)
    dx_here, dweight_here = window.stride == (1, 1), summed_here(x_BCHW, weight_FCij, window, groups, algorithm)
    theirs = (with_dx and not dx_here, not dweight_here, not dweight_here and has_bias)
    dx = dweight = dbias = None
    if any(theirs):
        filters, sides = [weight_FCij.shape[0]] if has_bias else None, window.padding[::2]
        dx, dweight, dbias = torch.ops.aten.convolution_backward.default(
            dy, x_BCHW, weight_FCij, filters, window.stride, sides, window.dilation, False, (0, 0), groups, theirs
        )
    if with_dx and dx_here:
        dx = torch.ops.twofold.convolution_dx.default(dy, weight_FCij, numbers, groups, height, width, algorithm, reduced)
    if dweight_here:
        dweight, dbias = torch.ops.twofold.convolution_dweight.default(x_BCHW, dy, numbers, groups, has_bias, algorithm, reduced)
    assert dweight is not None
    return dx, dweight, dbias if has_bias else None
