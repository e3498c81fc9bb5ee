"""Two baselines beside a classifier's accuracy: the majority class, and a linear classifier on the pixels.

    majority     the class that is the most frequent in training; its share of the judged pictures is what always naming it gives
    linear       W, b = argmin |X W + b - T|^2 + a |W|^2         X: normalised pixels, T: +1 for a picture's class, -1 for the others
                 with X centred, X^T X = V S^2 V^T:    W = V (S^2 + a)^-1 V^T X^T T,    b = mean(T) - mean(X) W
    a            1, 10, ... 10^7: the least mean square of the residuals that each picture has where it is left out,
                 r[i] = (T - X W - b)[i] / (1 - h[i]),    h[i] = 1/n + sum_j (X V)[i,j]^2 / (S[j]^2 + a)

Of fewer pictures than pixels V comes from X X^T = U S^2 U^T as X^T U / S: the smaller of both matrices is taken apart, in float64.
The cost is bounded: pictures are averaged down until at most 3,072 numbers are left of each (32x32 in colour), and at most 20,000 are
learnt from, drawn evenly. What was done is in the result.

Ridge regression: Hoerl and Kennard, Technometrics 12, 1970; leaving one out in closed form: Allen, "The relationship between variable
selection and data augmentation and a method for prediction", Technometrics 16, 1974
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.data.preparation import Preparation
from twofold.data.values import ImageSource, Labelled

NUMBERS = 3072  # of a picture
PICTURES = 20_000  # to learn from
PENALTIES = tuple(10.0**power for power in range(8))
BLOCK = 1024  # rows that are in float64 at a time
BATCH = 256  # pictures that are read at a time
RANK = 1e-12  # of the largest squared singular value: what is below is rounding

Read = Callable[[Labelled, Tensor], Iterable[Tensor]]  # rows of a split -> their pictures, uint8 BCHW, some at a time


@dataclass(frozen=True)
class Linear:
    """A linear classifier on pixels: its accuracy on the judged pictures, and how it was made.

    penalty: a; height, width: of the pictures as it saw them; pictures: how many it learnt from, of `there`.
    """

    accuracy: float
    penalty: float
    height: int
    width: int
    pictures: int
    there: int

    def told(self) -> str:
        """A line for people."""
        some = f"{self.pictures:,}" if self.pictures == self.there else f"{self.pictures:,} of {self.there:,}"
        return f"linear, pixels {100 * self.accuracy:.2f} % (ridge regression on {self.height}x{self.width} pixels of {some} pictures)"


@dataclass(frozen=True)
class Baselines:
    """What a classifier is to be compared with. majority: the share of majority_class, the most frequent in training, of the judged."""

    majority_class: str
    majority: float
    linear: Linear | None = None

    def told(self) -> tuple[str, ...]:
        """Lines for people."""
        majority = f"majority class {100 * self.majority:.2f} % ({self.majority_class}, the most frequent in training)"
        return (majority,) if self.linear is None else (self.linear.told(), majority)


def majority_class(y_B: Tensor, classes: Sequence[str]) -> str:
    """The most frequent class, of equals the first."""
    return classes[int(y_B.bincount(minlength=len(classes)).argmax())]


def share(truth_B: Tensor, classes: Sequence[str], name: str) -> float:
    """The part of the pictures that are of this class: the accuracy of always naming it."""
    return (truth_B == classes.index(name)).double().mean().item()


def majority_in(source: ImageSource) -> dict[str, str | float]:
    """{"class": the majority class, "validation": its share of that split, "test": of the test, where there is one}."""
    name = majority_class(source.train.y_B, source.classes)
    parts = {split: part for split, part in (("validation", source.validation), ("test", source.test)) if part is not None}
    return {"class": name, **{split: share(part.y_B, source.classes, name) for split, part in parts.items()}}


def read_rows(part: Labelled, rows_B: Tensor) -> Iterable[Tensor]:
    """The pictures of these rows, one batch after another."""
    return map(part.pictures, rows_B.split(BATCH))


def linear(
    parts: Sequence[Labelled], judged: Labelled, preparation: Preparation, classes: int, read: Read = read_rows,
    most: int = PICTURES, numbers: int = NUMBERS,
) -> Linear:  # fmt: skip
    """Learn from these splits, all in the form of `preparation` and with the same class numbers, and judge by another.

    Raises ValueError for fewer than two pictures to learn from, and what reading a picture raises.
    """
    there = sum(len(part.y_B) for part in parts)
    if there < 2 or not len(judged.y_B):
        raise ValueError(
            f"baselines: expected at least two pictures to learn from and one to judge by, got {there} and {len(judged.y_B)}. "
            "Give the source more pictures."
        )
    chosen = _evenly([len(part.y_B) for part in parts], most)

    def pixels(part: Labelled, rows_B: Tensor) -> Tensor:
        return torch.cat([_averaged(preparation.normalise(x_BCHW), numbers) for x_BCHW in read(part, rows_B)])

    drawn = [(part, rows_B) for part, rows_B in zip(parts, chosen, strict=True) if len(rows_B)]
    x_BCHW = torch.cat([pixels(part, rows_B) for part, rows_B in drawn])
    y_B = torch.cat([part.y_B[rows_B] for part, rows_B in drawn])
    weight_FN, bias_N, penalty = ridge(x_BCHW.flatten(1), y_B, classes)
    right = 0
    for rows_B in torch.arange(len(judged.y_B)).split(BLOCK):
        said_B = (pixels(judged, rows_B).flatten(1).double() @ weight_FN + bias_N).argmax(1)
        right += int((said_B == judged.y_B[rows_B]).sum())
    height, width = x_BCHW.shape[2:]
    return Linear(right / len(judged.y_B), penalty, height, width, len(y_B), there)


def ridge(x_BF: Tensor, y_B: Tensor, classes: int, penalties: Sequence[float] = PENALTIES) -> tuple[Tensor, Tensor, float]:
    """The weights (F, N) and biases (N) of ridge regression on class codes, float64, and the penalty that leaving one out chooses."""
    goal_BN = 2 * F.one_hot(y_B, classes).double() - 1
    mean_F, level_N = x_BF.mean(0, dtype=torch.float64), goal_BN.mean(0)
    blocks = list(zip(x_BF.split(BLOCK), (goal_BN - level_N).split(BLOCK), strict=True))
    square_R, basis_FR = _principal(x_BF, mean_F)
    crossed_FN = torch.zeros(x_BF.shape[1], classes, dtype=torch.float64)
    for x_bF, t_bN in blocks:
        crossed_FN.addmm_((x_bF.double() - mean_F).T, t_bN)
    seen_RN = basis_FR.T @ crossed_FN
    shrunk_AR = 1 / (square_R + torch.tensor(penalties, dtype=torch.float64)[:, None])
    cost_A = torch.zeros(len(penalties), dtype=torch.float64)
    for x_bF, t_bN in blocks:
        z_bR = (x_bF.double() - mean_F) @ basis_FR
        rest_Ab = 1 - 1 / len(x_BF) - shrunk_AR @ z_bR.square().T
        for number, shrunk_R in enumerate(shrunk_AR):
            residual_bN = t_bN - z_bR @ (shrunk_R[:, None] * seen_RN)
            cost_A[number] += (residual_bN / rest_Ab[number, :, None]).square().sum()
    best = int(cost_A.argmin())
    weight_FN = basis_FR @ (shrunk_AR[best][:, None] * seen_RN)
    return weight_FN, level_N - mean_F @ weight_FN, penalties[best]


def _principal(x_BF: Tensor, mean_F: Tensor) -> tuple[Tensor, Tensor]:
    """S^2 (R) and V (F, R) of the centred pixels, without what has no extent."""
    count, features = x_BF.shape
    if features <= count:
        square_FF = torch.zeros(features, features, dtype=torch.float64)
        for x_bF in x_BF.split(BLOCK):
            centred_bF = x_bF.double() - mean_F
            square_FF.addmm_(centred_bF.T, centred_bF)
        square_R, basis_FR = torch.linalg.eigh(square_FF)
        kept_R = square_R > RANK * square_R[-1]
        return square_R[kept_R], basis_FR[:, kept_R]
    centred_BF = x_BF.double() - mean_F
    square_R, left_BR = torch.linalg.eigh(centred_BF @ centred_BF.T)
    kept_R = square_R > RANK * square_R[-1]
    return square_R[kept_R], centred_BF.T @ (left_BR[:, kept_R] / square_R[kept_R].sqrt())


def _averaged(x_BCHW: Tensor, numbers: int) -> Tensor:
    """The pictures with at most so many numbers each, every one the mean of an area; the sides keep their proportion."""
    C, H, W = x_BCHW.shape[1:]
    if x_BCHW[0].numel() <= numbers:
        return x_BCHW
    height = max(1, min(isqrt(numbers * H // (C * W)), numbers // C))
    width = max(1, min(isqrt(numbers * W // (C * H)), numbers // (C * height)))
    return F.adaptive_avg_pool2d(x_BCHW, (min(height, H), min(width, W)))


def _evenly(counts: Sequence[int], most: int) -> list[Tensor]:
    """Of splits of so many rows, the numbers of at most `most` of them all, drawn with a fixed seed, in their order."""
    there = sum(counts)
    taken = torch.ones(there, dtype=torch.bool)
    if there > most:
        taken[torch.randperm(there, generator=torch.Generator().manual_seed(0))[most:]] = False
    return [part.nonzero()[:, 0] for part in taken.split(list(counts))]
