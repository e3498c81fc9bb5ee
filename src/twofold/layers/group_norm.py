"""Group normalisation.     B rows, C channels in G groups that lie side by side, H the map (of 0 or more axes)

    forward    n = the values of every row and group, C/G channels together, with mean 0 and variance 1 (see layer_norm.py)
               y = n scale[c] + shift[c]
    backward   dshift[c] = sum over b, h of dy        dscale[c] = sum over b, h of dy n        dn = dy scale
               dx = r (dn - mean dn - n mean(dn n)), means over row and group

G = 1 normalises every row as a whole; G = C every channel of every row alone, which is called instance normalisation.

Wu and He, "Group normalization", ECCV 2018, eq. 1, 2, 6 and 7
"""

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_positive, expect_tensor, sentence
from twofold.layers.layer_norm import standardize, standardize_backward
from twofold.layers.normalization import Gradients, expect_dtype, expect_eps, on_maps, others
from twofold.layers.routes import Routed


class Saved(NamedTuple):
    """What backward needs: n, r (of every row and group), and scale where there is one."""

    normal_BCH: Tensor
    rate_BG1: Tensor
    scale_C: Tensor | None
    has_shift: bool


def forward(x_BCH: Tensor, scale_C: Tensor | None, shift_C: Tensor | None, groups: int, eps: float) -> tuple[Tensor, Saved]:
    """y_BCH, in the precision of x"""
    normal_BGH, rate_BG1 = standardize(by_group(x_BCH, groups), range(2, x_BCH.dim() + 1), eps)
    normal_BCH = normal_BGH.flatten(1, 2)
    y_BCH = normal_BCH if scale_C is None else normal_BCH * on_maps(scale_C, x_BCH)
    if shift_C is not None:
        y_BCH = y_BCH + on_maps(shift_C, x_BCH)
    return y_BCH.to(x_BCH.dtype), Saved(normal_BCH, rate_BG1, scale_C, shift_C is not None)


def backward(dy_BCH: Tensor, saved: Saved) -> Gradients:
    """(dx_BCH, dscale_C, dshift_C)"""
    normal_BCH, rate_BG1, scale_C, has_shift = saved
    dnormal_BCH = dy_BCH if scale_C is None else dy_BCH * on_maps(scale_C, dy_BCH)
    groups, axes = rate_BG1.shape[1], range(2, dy_BCH.dim() + 1)
    dx_BGH = standardize_backward(by_group(dnormal_BCH, groups), by_group(normal_BCH, groups), rate_BG1, axes)
    dscale_C = None if scale_C is None else (dy_BCH * normal_BCH).sum(others(dy_BCH))
    return dx_BGH.flatten(1, 2), dscale_C, dy_BCH.sum(others(dy_BCH)) if has_shift else None


def by_group(x_BCH: Tensor, groups: int) -> Tensor:
    """(B, G, C/G, H)"""
    return x_BCH.unflatten(1, (groups, x_BCH.shape[1] // groups))


def vendor(x_BCH: Tensor, scale_C: Tensor | None, shift_C: Tensor | None, groups: int, eps: float) -> Tensor:
    """PyTorch's own, except where its backward pass fails: with a shift alone, and on empty maps, where its dscale is NaN."""
    if scale_C is None and shift_C is not None:
        return vendor(x_BCH, None, None, groups, eps) + on_maps(shift_C, x_BCH)
    return F.group_norm(x_BCH, groups, scale_C, shift_C, eps) if x_BCH.numel() else forward(x_BCH, scale_C, shift_C, groups, eps)[0]


group_norm = differentiable(forward, backward, vendor=vendor)


class GroupNorm(Routed, nn.GroupNorm):
    """Every group of channels of every row (B, C, ...) with mean 0 and variance 1, then scaled and shifted; torch.nn.GroupNorm with routes.

    affine: with scale and shift of every channel (`weight`, `bias`); bias=False: with scale alone. The same in training and in use.
    Raises ValueError for settings that cannot be, for input of another channel number, dtype or device, and for one value a group:
    its variance is 0.

    >>> import torch
    >>> GroupNorm(2, 4, eps=1e-12)(torch.tensor([[1.0, 5.0, 7.0, 6.0]])).tolist()
    [[-1.0, 1.0, 1.0, -1.0]]
    """

    def __init__(  # type: ignore[no-untyped-def]
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device=None, dtype=None, *, bias: bool = True
    ) -> None:
        expect_positive("GroupNorm", num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            fitting = ", ".join(str(n) for n in range(1, num_channels + 1) if num_channels % n == 0)
            raise ValueError(
                f"GroupNorm: expected num_groups to divide num_channels={num_channels}, got {num_groups}. These divide: {fitting}."
            )
        expect_eps("GroupNorm", eps)
        unshifted: dict[str, Any] = {} if bias else {"bias": False}  # the oldest torch that is supported lacks the option
        super().__init__(num_groups, num_channels, eps, affine, device, dtype, **unshifted)

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("GroupNorm input", input)
        channels = self.num_channels
        came = str(tuple(input.shape))
        if input.dim() < 2 or input.shape[1] != channels:
            differs = f"C is {input.shape[1]}, not {channels}" if input.dim() > 1 else f"{input.dim()} axes, not 2 or more"
            cause = "Channels last? x.movedim(-1, 1)." if input.dim() > 2 and input.shape[-1] == channels else ""
            raise ValueError(sentence("GroupNorm input", f"(B, C={channels}, ...)", came, differs, cause))
        if channels == self.num_groups and input.shape[2:].numel() == 1:
            cause = "Use fewer groups or larger maps."
            raise ValueError(
                sentence("GroupNorm input", "more than one value a group, to take the variance of", came, "one a group", cause)
            )
        expect_dtype("GroupNorm input", input, self.weight)
        y_BCH: Tensor = self.run(group_norm, input, self.weight, self.bias, self.num_groups, self.eps)
        return y_BCH
