"""Mixup and cutmix: two pictures and their two truths in one.     B pictures, N classes, j[b]: the partner of picture b

    goal      g[b,n] = (1 - s) [n = y[b]] + s / N                      s: label smoothing
    mixup     x' = l x + (1 - l) x[j]                g' = l g + (1 - l) g[j]
    cutmix    x' = x, but x[j] within a rectangle    g' likewise, l = 1 - area of the rectangle / (H W)
    loss      L = - mean_b sum_n g'[b,n] log softmax(z)[b,n]           dL/dz = (softmax(z) sum_n g'[b,n] - g') / B

l is drawn from Beta(a, a), one for a batch; cutmix's rectangle has sides H sqrt(1 - l), W sqrt(1 - l) about a random pixel and is cut at
the edge. With both, each batch takes one of them, evenly. Everything is drawn from (seed, epoch, batch), not one after the other
(augment_draws), and `plan` says it before any picture is there: processes that each hold a part of the batch agree on it.

Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, section 2; Yun et al., "CutMix", ICCV 2019, section 3.1;
Jöhnk, "Erzeugung von betaverteilten und gammaverteilten Zufallszahlen", Metrika 8, 1964; smoothing: Szegedy et al., CVPR 2016, section 7
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.data.augment_draws import Draws

LARGEST = 4.0  # of a: from there on nearly every trial of Jöhnk's method fails
TRIALS = 64


class Box(NamedTuple):
    """Rows and columns, from the first up to but without the last."""

    top: int
    bottom: int
    left: int
    right: int


class Plan(NamedTuple):
    """What happens to a batch: which picture is whose partner, the share that stays its own, and the rectangle (None: mixup)."""

    partner_B: Tensor
    share: float
    box: Box | None

    def blend(self, x_BCHW: Tensor, other_BCHW: Tensor) -> Tensor:
        """Pictures mixed with their partners' (floating point, normalised or in 0..1). A new tensor."""
        if not x_BCHW.is_floating_point():
            raise ValueError(
                f"mixing pictures: expected floating point, got {str(x_BCHW.dtype).removeprefix('torch.')}. Normalise them first."
            )
        if self.box is None:
            return torch.lerp(other_BCHW, x_BCHW, self.share)
        mixed = x_BCHW.clone()
        rows, columns = slice(self.box.top, self.box.bottom), slice(self.box.left, self.box.right)
        mixed[:, :, rows, columns] = other_BCHW[:, :, rows, columns]
        return mixed

    def blend_goals(self, goal_BN: Tensor, other_BN: Tensor) -> Tensor:
        """Goals mixed by the same share."""
        return self.share * goal_BN + (1 - self.share) * other_BN


class Mixed(NamedTuple):
    """Mixed pictures and the part of each class in them; every row of goal_BN sums to 1."""

    x_BCHW: Tensor
    goal_BN: Tensor


@dataclass(frozen=True)
class Mixing:
    """mixup, cutmix: the a of Beta(a, a), 0 for without; small: mostly nearly pure, 1: every share equally likely. smoothing: s."""

    classes: int
    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 <= value <= LARGEST):
                raise ValueError(f"{name}: expected a number from 0 (without) to {LARGEST:g}, the a of Beta(a, a), got {value!r}.")
        if not (isinstance(self.smoothing, int | float) and 0 <= self.smoothing < 1):
            raise ValueError(f"label_smoothing: expected a share from 0, below 1, got {self.smoothing!r}.")

    def mix(self, x_BCHW: Tensor, y_B: Tensor, epoch: int, batch: int) -> Mixed:
        """The batch number `batch` of the epoch, mixed within itself. Without mixup and cutmix the pictures are as they were."""
        goal_BN = goals(y_B, self.classes, self.smoothing).to(x_BCHW)
        if not (self.mixup or self.cutmix):
            return Mixed(x_BCHW, goal_BN)
        plan = self.plan(len(y_B), (x_BCHW.shape[2], x_BCHW.shape[3]), epoch, batch)
        partner_B = plan.partner_B.to(x_BCHW.device)
        return Mixed(plan.blend(x_BCHW, x_BCHW[partner_B]), plan.blend_goals(goal_BN, goal_BN[partner_B]))

    def plan(self, count: int, size: tuple[int, int], epoch: int, batch: int) -> Plan:
        """What happens to a whole batch of `count` pictures of that (height, width), whoever holds which of them."""
        draws = Draws(self.seed, epoch, np.array([batch]))
        which, down, across = draws.uniform("mix", 3)[0]
        partner_B = torch.from_numpy(np.argsort(draws.bits("partner", count)[0], kind="stable"))
        if not self.cutmix or (self.mixup and which < 0.5):
            return Plan(partner_B, beta(self.mixup, draws), None)
        height, width = size
        side = math.sqrt(1 - beta(self.cutmix, draws))
        middle, half = (int(down * height), int(across * width)), (int(height * side) // 2, int(width * side) // 2)
        box = Box(
            max(middle[0] - half[0], 0), min(middle[0] + half[0], height), max(middle[1] - half[1], 0), min(middle[1] + half[1], width)
        )
        return Plan(partner_B, 1 - (box.bottom - box.top) * (box.right - box.left) / (height * width), box)


def goals(y_B: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """g: (B, N) float32. The one place where class numbers become shares. Raises ValueError for a number outside 0..N-1."""
    if y_B.dim() != 1 or y_B.is_floating_point():
        raise ValueError(f"goals: expected class numbers (B,), got {str(y_B.dtype).removeprefix('torch.')} {tuple(y_B.shape)}.")
    wrong = y_B[(y_B < 0) | (y_B >= classes)]
    if len(wrong):
        raise ValueError(
            f"goals: expected class numbers 0 to {classes - 1}, got {int(wrong[0])}. Has the data more classes than the model?"
        )
    even = torch.full((len(y_B), classes), smoothing / classes, device=y_B.device)
    return even.scatter_add_(1, y_B.long()[:, None], even.new_full((len(y_B), 1), 1 - smoothing))


def soft_cross_entropy(logits_BN: Tensor, goal_BN: Tensor) -> Tensor:
    """L, in nats: the mean over the batch. Raises ValueError unless both have one shape."""
    if logits_BN.shape != goal_BN.shape or not goal_BN.is_floating_point():
        raise ValueError(
            f"soft_cross_entropy goal: expected floating point {tuple(logits_BN.shape)}, as the logits, got "
            f"{str(goal_BN.dtype).removeprefix('torch.')} {tuple(goal_BN.shape)}. Class numbers? goals(y, classes) makes shares of them."
        )
    return F.cross_entropy(logits_BN, goal_BN)


def beta(a: float, draws: Draws) -> float:
    """A number of Beta(a, a) for the first sample of the draws, by Jöhnk: x = u^(1/a), y = v^(1/a); x / (x + y) of the first x + y <= 1."""
    trials = TRIALS
    while True:
        u, v = 1 - draws.uniform("beta", 2 * trials)[0].reshape(trials, 2).T  # above 0
        log_x, log_y = np.log(u) / a, np.log(v) / a
        right = np.flatnonzero(np.logaddexp(log_x, log_y) <= 0)
        if len(right):
            return float(1 / (1 + np.exp(np.minimum(log_y - log_x, 700.0)[right[0]])))
        trials *= 2
