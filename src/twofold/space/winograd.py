"""Correlation with 3x3 taps by 16 multiplications where there were 36: Winograd's F(2x2, 3x3).

B images, C channels, F filters, G groups, H W map, P Q windows, g the 3x3 taps; N tiles of 2x2 windows, which see 4x4 numbers d

    forward    U = G g G'     V = B' d B     M[b,f] = sum_c U[f,c] V[b,c], number by number     y = A' M A
    backward   dM = A dy A'   dU[f,c] = sum_b,n dM[b,f,n] V[b,c,n]     dg = G' dU G
               dV[b,c] = sum_f U[f,c] dM[b,f]     dd = B dV B', tiles that overlap added up (fold)

         1  0 -1  0          1   0   0           1  1  1  0
    B' = 0  1  1  0     G = 1/2 1/2 1/2     A' = 0  1 -1 -1
         0 -1  1  0         1/2 -1/2 1/2
         0  1  0 -1          0   0   1

Stride and dilation 1. Along one axis: two outputs of three taps by 4 multiplications instead of 6; in two axes the ratio is squared.

Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4.1; Winograd, "Arithmetic complexity of
computations", SIAM 1980
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.layers.differentiable import differentiable
from twofold.space.correlation import bias_gradient
from twofold.space.windows import Window, fold

B = ((1, 0, 0, 0), (0, 1, -1, 1), (-1, 1, 1, 0), (0, 0, 0, -1))
G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
A = ((1, 0), (1, 1), (1, -1), (0, -1))
TILE = Window((4, 4), (2, 2))


class Saved(NamedTuple):
    """What backward needs: V and U are computed anew where a second derivative is asked for."""

    seen_BGCNxy: Tensor
    taps_GFCxy: Tensor
    size: tuple[int, ...]
    has_bias: bool
    window: Window


def forward(x_BCHW: Tensor, weight_FCij: Tensor, bias_F: Tensor | None, window: Window, groups: int = 1) -> tuple[Tensor, Saved]:
    """y_BFPQ; ValueError where the window is not 3x3 with stride and dilation 1."""
    expect_three(window)
    P, Q = window.output_size(x_BCHW.shape[2:])
    taps_GFCxy = around(weight_FCij, G).unflatten(0, (groups, -1))
    tiles = F.pad(x_BCHW, frame(window, P, Q)).unfold(2, 4, 2).unfold(3, 4, 2)
    seen_BGCNxy = around(tiles, transposed(B)).unflatten(1, (groups, -1)).flatten(3, 4)
    products = torch.einsum("gfcxy,bgcnxy->bgfnxy", taps_GFCxy, seen_BGCNxy)
    y_tiles = around(products, transposed(A)).flatten(1, 2).unflatten(2, (-(-P // 2), -(-Q // 2)))
    y_BFPQ = y_tiles.transpose(3, 4).flatten(4, 5).flatten(2, 3)[:, :, :P, :Q]
    if bias_F is not None:
        y_BFPQ = y_BFPQ + bias_F[:, None, None]
    return y_BFPQ.contiguous(), Saved(seen_BGCNxy, taps_GFCxy, tuple(x_BCHW.shape[2:]), bias_F is not None, window)


def backward(dy_BFPQ: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dx_BCHW, dweight_FCij, dbias_F)"""
    seen_BGCNxy, taps_GFCxy, size, has_bias, window = saved
    P, Q = dy_BFPQ.shape[2:]
    rows, columns, groups = -(-P // 2), -(-Q // 2), taps_GFCxy.shape[0]
    even = F.pad(dy_BFPQ, (0, Q % 2, 0, P % 2)).unflatten(3, (columns, 2)).unflatten(2, (rows, 2)).transpose(3, 4)
    dproducts = around(even, A).unflatten(1, (groups, -1)).flatten(3, 4)
    dtaps = torch.einsum("bgfnxy,bgcnxy->gfcxy", dproducts, seen_BGCNxy)
    dseen = torch.einsum("gfcxy,bgfnxy->bgcnxy", taps_GFCxy, dproducts)
    dtiles = around(dseen, B).flatten(1, 2).flatten(-2).unflatten(2, (rows, columns)).permute(0, 1, 4, 2, 3)
    framed = fold(dtiles, TILE, (2 * rows + 2, 2 * columns + 2))
    dx_BCHW = F.pad(framed, [-n for n in frame(window, P, Q)])
    assert dx_BCHW.shape[2:] == size
    return dx_BCHW, around(dtaps, transposed(G)).flatten(0, 1), bias_gradient(dy_BFPQ) if has_bias else None


def around(x: Tensor, by: tuple[tuple[float, ...], ...]) -> Tensor:
    """M x M' for the two last axes"""
    M = torch.tensor(by, dtype=x.dtype, device=x.device)
    return M @ x @ M.T


def transposed(by: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """M'"""
    return tuple(zip(*by, strict=True))


def frame(window: Window, P: int, Q: int) -> tuple[int, int, int, int]:
    """The padding in the order of F.pad, with what makes the number of windows even."""
    top, bottom, left, right = window.padding
    return left, right + Q % 2, top, bottom + P % 2


def expect_three(window: Window) -> None:
    """Raise ValueError unless the algorithm can serve this window."""
    if window.kernel != (3, 3) or window.stride != (1, 1) or window.dilation != (1, 1):
        raise ValueError(
            f"algorithm winograd: expected a 3x3 kernel with stride 1 and dilation 1, got {window}. Use columns, taps or fourier."
        )


correlate_by_winograd = differentiable(forward, backward)
