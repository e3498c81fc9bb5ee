"""Maxout over features.     x: C = J K features along one axis, J groups of K pieces that lie side by side; y: J features

    forward    y[j] = max_k x[j K + k]                     winner[j] = the k that won
    backward   dx[j K + k] = dy[j] where k won, else 0

Of equal pieces the first wins. A NaN wins over every number, so that it is seen; of several the first.

Goodfellow, Warde-Farley, Mirza, Courville and Bengio, "Maxout networks", ICML 2013, section 2
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating, expect_positive, expect_tensor, sentence
from twofold.layers.routes import Routed


class Saved(NamedTuple):
    """What backward needs; the groups' axis stands where the features' did, without its pieces."""

    winner: Tensor
    pieces: int
    axis: int


def forward(x: Tensor, pieces: int, axis: int) -> tuple[Tensor, Saved]:
    """y; axis counts from the front"""
    candidates = x.unflatten(axis, (x.shape[axis] // pieces, pieces)).unbind(axis + 1)
    y = candidates[0]
    winner = torch.zeros_like(y, dtype=torch.uint8 if pieces <= 256 else torch.int32)
    for k, candidate in enumerate(candidates[1:], 1):
        wins = (candidate > y) | (candidate.isnan() & ~y.isnan())
        y, winner = torch.where(wins, candidate, y), torch.where(wins, k, winner)
    return y.contiguous(), Saved(winner, pieces, axis)


def backward(dy: Tensor, saved: Saved) -> Tensor:
    """dx"""
    winner, pieces, axis = saved
    shares = [torch.where(winner == k, dy, 0) for k in range(pieces)]
    return torch.stack(shares, axis + 1).flatten(axis, axis + 1)


def vendor(x: Tensor, pieces: int, axis: int) -> Tensor:
    """PyTorch's own maximum along an axis."""
    return x.unflatten(axis, (x.shape[axis] // pieces, pieces)).max(axis + 1).values


maxout = differentiable(forward, backward, vendor=vendor)


class Maxout(Routed, nn.Module):
    """The largest of every `pieces` features that follow each other along the axis `dim`, which becomes so much shorter.

    Behind Linear(D, J K) or Conv2d(C, J K, ...) it learns the shape of its own activation: K lines each.
    Raises ValueError for settings that cannot be, for an axis that the input lacks or that the pieces do not divide, and for input
    that is not floating point.

    >>> Maxout(2)(torch.tensor([[1.0, 5.0, -3.0, -2.0]])).tolist()
    [[5.0, -2.0]]
    """

    def __init__(self, pieces: int, dim: int = 1) -> None:
        expect_positive("Maxout", pieces=pieces)
        if isinstance(dim, bool) or not isinstance(dim, int):
            raise ValueError(f"Maxout: expected dim, the axis of the features, to be a whole number, got {dim!r}.")
        super().__init__()
        self.pieces = pieces
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        expect_tensor("Maxout input", input)
        expect_floating("Maxout input", input)
        axes = input.dim()
        if not -axes <= self.dim < axes:
            came = str(tuple(input.shape))
            raise ValueError(sentence("Maxout input", f"an axis dim={self.dim}", came, f"it has {axes} axes", "Features last? dim=-1."))
        axis = self.dim % axes
        if input.shape[axis] % self.pieces:
            wanted = f"a multiple of pieces={self.pieces} along axis {self.dim}"
            cause = "The layer before must make so many features for each that is wanted."
            raise ValueError(sentence("Maxout input", wanted, str(tuple(input.shape)), f"{input.shape[axis]} features", cause))
        y: Tensor = self.run(maxout, input, self.pieces, axis)
        return y

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}, dim={self.dim}"
