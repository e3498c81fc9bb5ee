"""Elastic distortion: every point is displaced, its neighbours nearly alike.     h w nodes, sigma apart, 3 of them beyond each edge

    d[b](p)  = a sqrt(3) sum_ij n[b,i,j] G(y - y_i) G(x - x_j)       n even in [-1, 1), one for x and one for y;   p = (x, y)
    G(r)     = exp(-r^2 / (2 sigma^2)), 0 beyond 3 sigma, scaled so that sum_i G(y - y_i)^2 = 1: at every point d has the deviation a

The picture at p' then comes from A p' + d(p'), A the affine map. Simard smooths one random number for each pixel; numbers on nodes that
are a sigma apart give a field of the same kind, and of any size for the same price. His best on digits of 29 pixels (sigma 4, alpha 34)
has a deviation of 1.4 pixels: amount 0.05 here.

Simard, Steinkraus and Platt, "Best practices for convolutional neural networks applied to visual document analysis", ICDAR 2003, section 2
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.data.augment_draws import Draws

BEYOND = 3  # sigmas
MOST = 0.1  # from there on pictures fold over


@dataclass(frozen=True)
class Elastic:
    """amount: the standard deviation of the displacement; smoothness: sigma. Both are shares of the picture's shorter side."""

    amount: float = 0.0
    smoothness: float = 1 / 7

    def __post_init__(self) -> None:
        if not (isinstance(self.amount, int | float) and 0 <= self.amount <= MOST):
            raise ValueError(f"augment elastic: expected a number from 0 to {MOST:g} (pixels over the shorter side), got {self.amount!r}.")
        if not (isinstance(self.smoothness, int | float) and 0.05 <= self.smoothness <= 1):
            raise ValueError(
                f"augment elastic: expected a smoothness from 0.05 to 1, a share of the shorter side, got {self.smoothness!r}."
            )

    def draw(self, draws: Draws, height: int, width: int) -> "Field | None":
        """The field of each sample; None without a displacement."""
        if not self.amount:
            return None
        short = min(height, width)
        sigma = max(self.smoothness * short, 1.0)
        nodes = [math.ceil(side / sigma) + 2 * BEYOND + 1 for side in (height, width)]
        noise = draws.between("elastic", -1, 1, 2 * nodes[0] * nodes[1]).reshape(-1, 2, *nodes)
        return Field((height, width), sigma, noise * (self.amount * short * math.sqrt(3)))


class Field(NamedTuple):
    """d for pictures of `size`: the nodes' numbers for x and y, times a sqrt(3). Everything in pixels."""

    size: tuple[int, int]
    sigma: float
    nodes_B2hw: NDArray[np.float64]

    def add_to_(self, grid_bHW2: Tensor, samples: slice, scale_2: NDArray[np.float64]) -> None:
        """Add d at the centre of every pixel, times scale (of x, of y), to the grid of these samples."""
        H, W = self.size
        scaled_b2hw = (self.nodes_B2hw[samples] * scale_2[:, None, None]).astype(np.float32)
        nodes_b2hw = torch.from_numpy(scaled_b2hw).to(grid_bHW2.device)
        across = self._weights(np.arange(W, dtype=np.float64) + 0.5, 3)
        rows_b2hW = _spread_(nodes_b2hw, across, 3, nodes_b2hw.new_zeros((*nodes_b2hw.shape[:3], W)))
        down = self._weights(np.arange(H, dtype=np.float64) + 0.5, 2)
        _spread_(rows_b2hW.permute(0, 2, 3, 1).contiguous(), down, 1, grid_bHW2)

    def at(self, points_N2: NDArray[np.float64], owners_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N, 2): d at points (x, y) of the samples `owners_N`; outside the picture as at its edge."""
        inside = np.clip(points_N2, 0, [self.size[1], self.size[0]])
        across, down = self._weights(inside[:, 0], 3), self._weights(inside[:, 1], 2)
        return (self.nodes_B2hw[owners_N] * down[:, None, :, None] * across[:, None, None, :]).sum((2, 3))

    def _weights(self, places_n: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        """(n, nodes): G from each place to each node of that axis."""
        nodes = (np.arange(self.nodes_B2hw.shape[axis]) - BEYOND) * self.sigma
        away = (places_n[:, None] - nodes) / self.sigma
        weights = np.where(np.abs(away) <= BEYOND, np.exp(-0.5 * away * away), 0.0)
        return weights / np.sqrt((weights * weights).sum(1, keepdims=True))


def _spread_(nodes: Tensor, weights_nk: NDArray[np.float64], axis: int, onto: Tensor) -> Tensor:
    """The k nodes along an axis become n places, added to `onto`.

    Sum by sum, in one order: a product of matrices may add up differently in a batch of another size.
    """
    weights_kn = torch.from_numpy(np.ascontiguousarray(weights_nk.T, dtype=np.float32)).to(onto.device)
    weights_kn = weights_kn.reshape(-1, *(onto.shape[axis] if a == axis else 1 for a in range(4)))
    near_kn = weights_nk.T > 0  # a node is near to neighbouring places
    firsts, counts = near_kn.argmax(1).tolist(), near_kn.sum(1).tolist()
    for node, (first, count) in enumerate(zip(firsts, counts, strict=True)):
        if count:
            along = weights_kn[node].narrow(axis, first, count)
            onto.narrow(axis, first, count).add_(nodes.narrow(axis, node, 1) * along)
    return onto
