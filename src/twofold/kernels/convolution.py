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


def unfit(x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> str:
    """Why the compiled form cannot serve, or ''."""
    if x_BCHW.dim() != 4:
        return "needs maps of two axes"
    return obstacle(x_BCHW, weight_FCij, bias_F)


def reduced_unfit() -> str:
    """Why products of bfloat16 cannot be had, or ''."""
    if not kernels.available():
        return kernels.reason()
    lacks = not torch.ops.twofold.convolution_reduces()
    return "needs a processor with AVX512_BF16, and kernels built by a compiler that knows it" if lacks else ""


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
    numbers = geometry(window, x_BCHW.shape[2], x_BCHW.shape[3])
    dx, dweight, dbias = torch.ops.twofold.convolution_backward.default(
        dy_BFPQ.contiguous(), x_BCHW, weight_FCij, numbers, groups, has_bias, with_dx, True, algorithm, reduced
    )
    return dx, dweight, dbias
