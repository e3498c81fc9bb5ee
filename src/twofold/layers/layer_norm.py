"""Layer normalisation.     B rows (any leading axes), D features (the last axes, one or several), means over d

    forward    m[b] = mean x        v[b] = mean (x - m)^2        r = 1 / sqrt(v + eps)
               n = (x - m) r        y = n scale[d] + shift[d]
    backward   dshift[d] = sum_b dy          dscale[d] = sum_b dy n          dn = dy scale
               dx = r (dn - mean dn - n mean(dn n))

Every row alone, so it is the same in training and in use. dx is orthogonal to 1 and to n in every row.

Ba, Kiros and Hinton, "Layer normalization", arXiv:1607.06450, 2016, eq. 3 and 4
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_positive, expect_tensor, sentence
from twofold.layers.normalization import Gradients, expect_dtype, expect_eps
from twofold.layers.routes import Routed


class Saved(NamedTuple):
    """What backward needs: n, r, scale where there is one, and the number of the axes D."""

    normal_BD: Tensor
    rate_B1: Tensor
    scale_D: Tensor | None
    has_shift: bool
    axes: int


def forward(x_BD: Tensor, scale_D: Tensor | None, shift_D: Tensor | None, axes: int, eps: float) -> tuple[Tensor, Saved]:
    """y_BD, in the precision of x"""
    normal_BD, rate_B1 = standardize(x_BD, range(-axes, 0), eps)
    y_BD = normal_BD if scale_D is None else normal_BD * scale_D
    if shift_D is not None:
        y_BD = y_BD + shift_D
    return y_BD.to(x_BD.dtype), Saved(normal_BD, rate_B1, scale_D, shift_D is not None, axes)


def backward(dy_BD: Tensor, saved: Saved) -> Gradients:
    """(dx_BD, dscale_D, dshift_D)"""
    normal_BD, rate_B1, scale_D, has_shift, axes = saved
    dnormal_BD = dy_BD if scale_D is None else dy_BD * scale_D
    dx_BD = standardize_backward(dnormal_BD, normal_BD, rate_B1, range(-axes, 0))
    dscale_D = None if scale_D is None else over_rows(dy_BD * normal_BD, axes)
    return dx_BD, dscale_D, over_rows(dy_BD, axes) if has_shift else None


def standardize(x: Tensor, axes: Sequence[int], eps: float) -> tuple[Tensor, Tensor]:
    """(n, r): x with mean 0 and variance 1 along the axes together, and the rate that it was multiplied by."""
    axes = tuple(axes)
    apart = x - x.mean(axes, keepdim=True)
    rate = torch.rsqrt((apart * apart).mean(axes, keepdim=True) + eps)
    return apart * rate, rate


def standardize_backward(dnormal: Tensor, normal: Tensor, rate: Tensor, axes: Sequence[int]) -> Tensor:
    """dx"""
    axes = tuple(axes)
    along_normal = (dnormal * normal).mean(axes, keepdim=True)
    return rate * (dnormal - dnormal.mean(axes, keepdim=True) - normal * along_normal)


def over_rows(x_BD: Tensor, axes: int) -> Tensor:
    """The sum over the rows; a single row without leading axes is its own."""
    leading = tuple(range(x_BD.dim() - axes))
    return x_BD.sum(leading) if leading else x_BD


def vendor(x_BD: Tensor, scale_D: Tensor | None, shift_D: Tensor | None, axes: int, eps: float) -> Tensor:
    """PyTorch's own."""
    return F.layer_norm(x_BD, x_BD.shape[x_BD.dim() - axes :], scale_D, shift_D, eps)


layer_norm = differentiable(forward, backward, vendor=vendor)


class LayerNorm(Routed, nn.LayerNorm):
    """Every row with mean 0 and variance 1 over its last axes, then scaled and shifted; torch.nn.LayerNorm with routes.

    normalized_shape: the sizes of those axes, one number or several. elementwise_affine: with scale and shift (`weight`, `bias`);
    bias=False: with scale alone. Raises ValueError for settings that cannot be, among them a shape of one value, whose variance is 0,
    and for input of other last axes, dtype or device.

    >>> LayerNorm(2, eps=1e-12)(torch.tensor([[1.0, 5.0], [7.0, 6.0]])).tolist()
    [[-1.0, 1.0], [1.0, -1.0]]
    """

    def __init__(  # type: ignore[no-untyped-def]
        self,
        normalized_shape: int | list[int] | torch.Size,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device=None,
        dtype=None,
    ) -> None:
        sizes = list(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else [normalized_shape]
        for size in sizes:
            expect_positive("LayerNorm", normalized_shape=size)
        if prod(sizes) < 2:
            raise ValueError(
                f"LayerNorm: expected normalized_shape of at least two values, got {normalized_shape!r}: "
                "the variance of one value is 0, and nothing of it would be left."
            )
        expect_eps("LayerNorm", eps)
        super().__init__(sizes, eps, elementwise_affine, bias, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("LayerNorm input", input)
        shape = self.normalized_shape
        if tuple(input.shape[-len(shape) :]) != shape:
            wanted = f"(..., {', '.join(map(str, shape))})"
            cause = "LayerNorm counts from the last axis. Channels first? Move them: x.movedim(1, -1)."
            raise ValueError(sentence("LayerNorm input", wanted, str(tuple(input.shape)), "the last axes differ", cause))
        expect_dtype("LayerNorm input", input, self.weight)
        y_BD: Tensor = self.run(layer_norm, input, self.weight, self.bias, len(shape), self.eps)
        return y_BD
