"""Local response normalisation: every value is held down by its neighbours on other channels.     B rows, C channels, H the map

    near(c) = the n channels from c - floor(n/2) to c + floor((n-1)/2), as far as they exist

    forward    s[b,c,h] = k + alpha/n  sum of x[b,j,h]^2 over j in near(c)           y = x s^-beta
    backward   dx[b,c,h] = dy s^-beta - 2 beta alpha/n x[b,c,h]  sum of dy[b,j,h] y[b,j,h] / s[b,j,h] over j with c in near(j)

The paper has alpha in place of alpha/n: its alpha = 1e-4 with n = 5 is alpha=5e-4 here, and in PyTorch and ONNX.

Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012, section 3.3
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating, expect_positive, expect_tensor, sentence
from twofold.layers.numbers import expect_number
from twofold.layers.routes import Routed


class Saved(NamedTuple):
    """What backward needs; share is alpha/n."""

    x_BCH: Tensor
    y_BCH: Tensor
    held_BCH: Tensor
    size: int
    share: float
    beta: float


def forward(x_BCH: Tensor, size: int, alpha: float, beta: float, k: float) -> tuple[Tensor, Saved]:
    """y_BCH"""
    share = alpha / size
    held_BCH = k + share * near(x_BCH * x_BCH, size // 2, (size - 1) // 2)
    y_BCH = x_BCH * held_BCH**-beta
    return y_BCH, Saved(x_BCH, y_BCH, held_BCH, size, share, beta)


def backward(dy_BCH: Tensor, saved: Saved) -> Tensor:
    """dx_BCH"""
    x_BCH, y_BCH, held_BCH, size, share, beta = saved
    felt_BCH = near(dy_BCH * y_BCH / held_BCH, (size - 1) // 2, size // 2)  # whom c holds down lies mirrored
    return dy_BCH * held_BCH**-beta - 2 * beta * share * x_BCH * felt_BCH


def near(x_BCH: Tensor, before: int, after: int) -> Tensor:
    """For every channel the sum over those from `before` channels before it to `after` behind it."""
    channels = x_BCH.shape[1]
    before, after = min(before, channels), min(after, channels)  # further out there is nothing
    framed = F.pad(x_BCH, (*(0, 0) * (x_BCH.dim() - 2), before, after))
    total = framed.narrow(1, 0, channels)
    for place in range(1, before + after + 1):
        total = total + framed.narrow(1, place, channels)
    return total


def vendor(x_BCH: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """PyTorch's own; it cannot view every volume as it wants to, so it gets a contiguous one, and has no half precision for maps."""
    if x_BCH.dim() > 3 and x_BCH.dtype in (torch.float16, torch.bfloat16) and x_BCH.device.type == "cpu":
        return vendor(x_BCH.float(), size, alpha, beta, k).to(x_BCH.dtype)
    return F.local_response_norm(x_BCH.contiguous() if x_BCH.dim() > 4 else x_BCH, size, alpha, beta, k)


local_response = differentiable(forward, backward, vendor=vendor)


class LocalResponseNorm(Routed, nn.LocalResponseNorm):
    """x (k + alpha/size sum of x^2 over `size` channels around)^-beta, for (B, C, T) to (B, C, D, H, W) and beyond.

    torch.nn.LocalResponseNorm with routes. With k = 0 a place where all those channels are 0 gives NaN.
    Raises ValueError for a size below 1, for an alpha or k below 0 and a beta that is no number, and for input without channels
    or maps, or not floating point.

    >>> import torch
    >>> LocalResponseNorm(2, alpha=2.0, beta=1.0)(torch.tensor([[[1.0], [2.0]]])).flatten().tolist()
    [0.5, 0.3333333432674408]
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        expect_positive("LocalResponseNorm", size=size)
        cause = "A sum below 0 has no power."
        expect_number("LocalResponseNorm", "alpha", alpha, least=0, cause=cause)
        expect_number("LocalResponseNorm", "beta", beta)
        expect_number("LocalResponseNorm", "k", k, least=0, cause=cause)
        super().__init__(size, alpha, beta, k)

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("LocalResponseNorm input", input)
        if input.dim() < 3:
            differs = f"{input.dim()} axes, not 3 or more"
            cause = "Features (B, C) without maps? x.unsqueeze(2)." if input.dim() == 2 else ""
            raise ValueError(sentence("LocalResponseNorm input", "(B, C, H, ...)", str(tuple(input.shape)), differs, cause))
        expect_floating("LocalResponseNorm input", input)
        y_BCH: Tensor = self.run(local_response, input, self.size, self.alpha, self.beta, self.k)
        return y_BCH
