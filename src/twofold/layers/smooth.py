"""Activations that bend smoothly.     x: any shape, each number alone; S(x) = 1 / (1 + e^-x)

    elu         y = x where x > 0, else alpha (e^x - 1)          dx = dy where x > 0, else dy alpha e^x
    gelu        y = x P(x)                                       dx = dy (P(x) + x p(x))
                P(x) = erfc(-x / sqrt 2) / 2                     p(x) = e^(-x^2 / 2) / sqrt(2 pi)
    gelu tanh   y = x (1 + t) / 2                                dx = dy ((1 + t) / 2 + x (1 - t^2) / 2 k (1 + 3 c x^2))
                t = tanh(k (x + c x^3))                          k = sqrt(2 / pi), c = 0.044715
    silu        y = x S(x)                                       dx = dy S(x) (1 + x (1 - S(x)))
    softplus    y = log(1 + e^(beta x)) / beta                   dx = dy S(beta x)
                y = x where beta x > threshold                   dx = dy

P is written with erfc and the logarithm with log1p, so that small values keep their digits; e^x is only taken where it stays finite.
At x = 0 elu has the slope of its left, alpha.

elu: Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by exponential linear units", ICLR 2016, eq. 15
gelu, silu: Hendrycks and Gimpel, "Gaussian error linear units", arXiv:1606.08415, section 2
softplus: Dugas et al., "Incorporating second-order functional knowledge for better option pricing", NIPS 2000
"""

from functools import partial
from math import pi, sqrt
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating, expect_tensor
from twofold.layers.numbers import expect_number
from twofold.layers.routes import Routed

K, CUBE = sqrt(2 / pi), 0.044715


class EluSaved(NamedTuple):
    """What backward needs."""

    x: Tensor
    alpha: float


def elu_forward(x: Tensor, alpha: float) -> tuple[Tensor, EluSaved]:
    """y"""
    return torch.where(x <= 0, alpha * torch.expm1(x.clamp(max=0)), x), EluSaved(x, alpha)


def elu_backward(dy: Tensor, saved: EluSaved) -> Tensor:
    """dx"""
    x, alpha = saved
    return torch.where(x <= 0, dy * (alpha * torch.exp(x.clamp(max=0))), dy)


def gelu_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    """(y, x)"""
    return x * (torch.erfc(x * -sqrt(0.5)) / 2), x


def gelu_backward(dy: Tensor, x: Tensor) -> Tensor:
    """dx"""
    return dy * (torch.erfc(x * -sqrt(0.5)) / 2 + x * torch.exp(-x * x / 2) / sqrt(2 * pi))


def gelu_tanh_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    """(y, x)"""
    return x * ((1 + torch.tanh(K * (x + CUBE * x**3))) / 2), x


def gelu_tanh_backward(dy: Tensor, x: Tensor) -> Tensor:
    """dx; beyond 10 t is 1 or -1 to the last digit in any precision, and x^2 must not overflow there."""
    near = x.clamp(-10, 10)
    t = torch.tanh(K * (near + CUBE * near**3))
    return dy * ((1 + t) / 2 + near * (1 - t * t) / 2 * K * (1 + 3 * CUBE * near * near))


def silu_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    """(y, x)"""
    return x * torch.sigmoid(x), x


def silu_backward(dy: Tensor, x: Tensor) -> Tensor:
    """dx"""
    share = torch.sigmoid(x)
    return dy * (share * (1 + x * (1 - share)))


class SoftplusSaved(NamedTuple):
    """What backward needs."""

    x: Tensor
    beta: float
    threshold: float


def softplus_forward(x: Tensor, beta: float, threshold: float) -> tuple[Tensor, SoftplusSaved]:
    """y"""
    bent = beta * x
    y = torch.where(bent > threshold, x, (bent.clamp(min=0) + torch.log1p(torch.exp(-bent.abs()))) / beta)
    return y, SoftplusSaved(x, beta, threshold)


def softplus_backward(dy: Tensor, saved: SoftplusSaved) -> Tensor:
    """dx"""
    x, beta, threshold = saved
    return torch.where(beta * x > threshold, dy, dy * torch.sigmoid(beta * x))


elu = differentiable(elu_forward, elu_backward, vendor=F.elu)
elu_in_place = differentiable(elu_forward, elu_backward, vendor=partial(F.elu, inplace=True))
gelu = differentiable(gelu_forward, gelu_backward, vendor=F.gelu)
gelu_tanh = differentiable(gelu_tanh_forward, gelu_tanh_backward, vendor=partial(F.gelu, approximate="tanh"))
silu = differentiable(silu_forward, silu_backward, vendor=F.silu)
silu_in_place = differentiable(silu_forward, silu_backward, vendor=partial(F.silu, inplace=True))
softplus = differentiable(softplus_forward, softplus_backward, vendor=F.softplus)


class ELU(Routed, nn.ELU):
    """x above 0, alpha (e^x - 1) below, for x of any shape; torch.nn.ELU with routes.

    inplace: PyTorch's operator may overwrite x; the plain form never does, and none does with alpha below 0, for which y tells too
    little about x. Raises ValueError for an alpha that is no finite number and for input that is not floating point.

    >>> ELU(2.0)(torch.tensor([-1e4, 0.0, 3.0])).tolist()
    [-2.0, 0.0, 3.0]
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        expect_number("ELU", "alpha", alpha)
        super().__init__(alpha, inplace)

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("ELU input", input)
        expect_floating("ELU input", input)
        return self.run(elu_in_place if self.inplace and self.alpha >= 0 else elu, input, self.alpha)


class GELU(Routed, nn.GELU):
    """x times the share of a standard normal distribution that lies below x; torch.nn.GELU with routes.

    approximate: "none" is exact, "tanh" the older form that some published weights were trained with.
    Raises ValueError for another name and for input that is not floating point.

    >>> GELU()(torch.tensor([-1e4, 0.0, 1e4])).tolist()
    [-0.0, 0.0, 10000.0]
    """

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f'GELU: expected approximate to be "none" (exact) or "tanh", got {approximate!r}.')
        super().__init__(approximate)

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("GELU input", input)
        expect_floating("GELU input", input)
        return self.run(gelu if self.approximate == "none" else gelu_tanh, input)


class SiLU(Routed, nn.SiLU):
    """x / (1 + e^-x), also called swish; torch.nn.SiLU with routes.

    inplace: PyTorch's operator may overwrite x; the plain form never does. Raises ValueError for input that is not floating point.

    >>> SiLU()(torch.tensor([-1e4, 0.0, 1e4])).tolist()
    [-0.0, 0.0, 10000.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("SiLU input", input)
        expect_floating("SiLU input", input)
        return self.run(silu_in_place if self.inplace else silu, input)


class Softplus(Routed, nn.Softplus):
    """log(1 + e^(beta x)) / beta, and x itself where beta x is above threshold; torch.nn.Softplus with routes.

    Raises ValueError unless beta is a number above 0 and threshold a number, and for input that is not floating point.

    >>> Softplus()(torch.tensor([-1e4, 1e4])).tolist()
    [0.0, 10000.0]
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        expect_number("Softplus", "beta", beta, above=0, cause="The law divides by it.")
        expect_number("Softplus", "threshold", threshold)
        super().__init__(beta, threshold)

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("Softplus input", input)
        expect_floating("Softplus input", input)
        return self.run(softplus, input, self.beta, self.threshold)
