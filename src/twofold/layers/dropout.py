"""Dropout.     x: any shape, k: 1 where a value is kept and 0 where it is dropped, p: the probability of being dropped

    forward    y = x k / (1 - p)           k is drawn anew at every call in training; y = x otherwise
    backward   dx = dy k / (1 - p)

E[k] = 1 - p, so E[y] = x: what the next layer sees on average is the same in training and in use. At p = 1 all is 0.
The mask is an argument, so that the pair is a function: the same mask gives the same answer.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", Journal of Machine Learning Research 15,
2014, section 4; scaled in training ("inverted"): section 10
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating, expect_tensor
from twofold.layers.routes import Routed, wanted_route


class Saved(NamedTuple):
    """What backward needs."""

    keep: Tensor
    p: float


def forward(x: Tensor, keep: Tensor, p: float) -> tuple[Tensor, Saved]:
    """y; keep is a bool tensor of x's shape."""
    return x * keep * scale(p), Saved(keep, p)


def backward(dy: Tensor, saved: Saved) -> Tensor:
    """dx"""
    return dy * saved.keep * scale(saved.p)


def scale(p: float) -> float:
    """1 / (1 - p), and 0 for p = 1, where nothing is left to be scaled."""
    return 1 / (1 - p) if p < 1 else 0.0


def draw(x: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """keep: a bool tensor of x's shape, each value True with probability 1 - p, from the generator or from torch's own."""
    return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - p, generator=generator)


dropout = differentiable(forward, backward)


class Dropout(Routed, nn.Dropout):
    """In training each value is 0 with probability p, the others are divided by 1 - p; torch.nn.Dropout with routes.

    In evaluation, and for p = 0, the output is the input. The route `plain` draws its mask from torch's generator and applies
    the pair; otherwise PyTorch's operator draws its own, so two routes drop different values.
    inplace: PyTorch's operator may overwrite x; the plain form never does.
    Raises ValueError for p outside 0..1, and in training for input that is not floating point.

    >>> Dropout(p=0.5).eval()(torch.tensor([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
            cause = "Per cent? p=0.5 drops half of the values."
            raise ValueError(f"Dropout: expected p, the probability of being dropped, from 0 to 1, got {p!r}. {cause}")
        super().__init__(p, inplace)

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("Dropout input", input)
        dropping = self.training and self.p > 0
        if dropping:
            expect_floating("Dropout input", input)
        if torch.compiler.is_compiling() or wanted_route() != "plain":
            self.took("vendor")
            return F.dropout(input, self.p, dropping, self.inplace)
        self.took("plain")
        return dropout(input, draw(input, self.p), self.p) if dropping else input
