"""Classes that come in unequal numbers.     n pictures, N classes that have any, n[c] pictures of class c, s: label smoothing

Weights: how much a picture counts in the training loss.

    balanced    w[c] = n / (N n[c])                                  every class counts the same
    effective   w[c] ~ (1 - beta) / (1 - beta^n[c])                  by the effective number of pictures, scaled to sum_c n[c] w[c] = n
    goal        g[b,m] = (n_B / W) w[m] ((1 - s) [m = y[b]] + s/N)   W = sum of w[y[b]] over the n_B pictures of the whole batch

A picture counts 1 on average. beta = 0 is no weights, beta -> 1 is balanced. With this goal the mean of - sum_m g log p over the batch, or
the mean over processes or parts of it, is torch's weighted cross-entropy of the whole batch, sum_b w[y[b]] l[b] / W. Mixed pictures have
no class of their own: their goal is w[m] times the mixed one, divided by n_B, as torch does it with class probabilities.

Sampler: which pictures an epoch has. The balanced one takes n, of every class floor or ceil of n/N:

    before epoch e class number c had   Q = floor((e n + c) / N)     of its endless sequence of permutations; sum_c Q = e n (Hermite)

So every picture of a class comes once before any comes again, from epoch to epoch, and an epoch follows from (seed, epoch) alone. The k-th
time that picture i comes in an epoch it has the number i + k n, by which augmentation varies it anew.

Validation and test stay as they are, their losses unweighted.

King and Zeng, "Logistic regression in rare events data", Political Analysis 9, 2001, section 4.2; Cui et al., "Class-balanced loss based on
effective number of samples", CVPR 2019, eq. 2 and section 4.1; Graham, Knuth and Patashnik, "Concrete mathematics", 1994, eq. 3.26
"""

from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from twofold.data.augment_draws import Draws
from twofold.data.mixing import goals
from twofold.train.part import Part

BETA = 0.999


class Balance(Part):
    """Classes that come in unequal numbers, and the score that decides."""

    class_weights: Literal["none", "balanced", "effective"] = "none"
    """Pictures only: how much a picture counts in the training loss: 1; n/(N n_c), so all classes alike; by the effective number."""
    effective_beta: Annotated[float, Field(ge=0, lt=1)] = BETA
    """effective: 0 is no weights, near 1 is balanced. Usual: 0.9 to 0.9999."""
    sampler: Literal["shuffled", "balanced"] = "shuffled"
    """Pictures only: every picture once an epoch; or every class equally often, pictures of rare ones several times."""
    choose_by: Literal["accuracy", "balanced_accuracy", "loss"] = "accuracy"
    """Pictures only: the score of the validation split that decides which epoch is the best. balanced_accuracy: the mean recall."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.class_weights != "none" and self.sampler == "balanced":
            raise ValueError(
                f"class_weights={self.class_weights} and sampler=balanced both make up for rare classes, which would then count too much. "
                "Take one of them."
            )
        if self.effective_beta != BETA and self.class_weights != "effective":
            raise ValueError(
                f"effective_beta={self.effective_beta:g} is read by nothing: class_weights={self.class_weights}. Leave it out, or take "
                "class_weights=effective."
            )
        return self

    def weights(self, y_B: Tensor, classes: int) -> tuple[float, ...] | None:
        """w of each class, by the labels of the training pictures; None: all alike."""
        return None if self.class_weights == "none" else class_weights(y_B, classes, self.class_weights, self.effective_beta)


def class_weights(y_B: Tensor, classes: int, how: str, beta: float = BETA) -> tuple[float, ...]:
    """w of each class; 0 for one without pictures.

    >>> class_weights(torch.tensor([0, 0, 0, 1]), 2, "balanced")
    (0.6666666666666666, 2.0)
    """
    count_N = np.bincount(y_B.numpy(), minlength=classes).astype(np.float64)
    present_N = np.maximum(count_N, 1)
    if how == "balanced":
        effective_N = present_N
    elif beta:  # beta^n by its logarithm: near 1 the difference from 1 would lose its digits
        effective_N = -np.expm1(present_N * np.log(beta)) / (1 - beta)
    else:
        effective_N = np.ones(classes)
    raw_N = np.where(count_N > 0, 1 / effective_N, 0.0)
    return tuple((raw_N * count_N.sum() / (raw_N * count_N).sum()).tolist())


def weighted_goals(y_B: Tensor, weights: tuple[float, ...], smoothing: float, whole_B: Tensor | None = None) -> Tensor:
    """g: (B, N) float32. whole_B: the classes of the whole batch, of which these are a part (default: they are the whole)."""
    w_N = torch.tensor(weights, dtype=torch.float64)
    whole_B = y_B if whole_B is None else whole_B
    scaled_N = w_N * (len(whole_B) / w_N[whole_B].sum())
    return goals(y_B, len(weights), smoothing) * scaled_N.float()


def balanced_order(y_B: Tensor, seed: int, epoch: int) -> Tensor:
    """The numbers (B) of the pictures of an epoch, not yet shuffled: i + k n for the k-th time that picture i comes.

    >>> y_B = torch.tensor([0, 0, 0, 0, 1, 1])
    >>> balanced_order(y_B, seed=0, epoch=0).sort().values[-1].item()  # picture 4 or 5 for the second time (6 more)
    10
    """
    n = len(y_B)
    sorted_B, places_B = y_B.sort(stable=True)
    rows = [part for part in places_B.tensor_split(torch.nonzero(sorted_B.diff())[:, 0] + 1) if len(part)]
    chosen: list[Tensor] = []
    for c, rows_M in enumerate(rows):
        first, end = ((at * n + c) // len(rows) for at in (epoch, epoch + 1))
        chosen.append(rows_M[_walk(seed, c, len(rows_M), first, end)])
    return _numbered(torch.cat(chosen), n)


def _walk(seed: int, c: int, count: int, first: int, end: int) -> Tensor:
    """Places `first` up to `end` of the endless sequence of permutations of `count` pictures of class number c."""
    cycles = np.arange(first // count, -(-end // count))
    sequence = np.argsort(Draws(seed, c, cycles).bits("order", count), axis=1, kind="stable").reshape(-1)
    begin = first % count
    return torch.from_numpy(sequence[begin : begin + end - first])


def _numbered(rows_B: Tensor, n: int) -> Tensor:
    """i + k n, where the row i comes for the k-th time before."""
    sorted_B, places_B = rows_B.sort(stable=True)
    times_B = torch.arange(len(rows_B)) - torch.searchsorted(sorted_B, sorted_B)
    return rows_B + n * torch.empty_like(times_B).scatter_(0, places_B, times_B)
