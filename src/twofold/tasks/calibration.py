"""Calibration: whether of all that is said with 80 % confidence 80 % is right.     n pictures, z logits, p probabilities, y the truth

    confidence   c[b] = max_n p[b,n]                      bin m of M = 15: all b with (m - 1)/M < c[b] <= m/M
    ECE          sum_m n[m]/n |right[m] - said[m]|        right[m]: the part of bin m that is right; said[m]: its mean confidence
    MCE          max_m |right[m] - said[m]|               over the bins that are not empty
    Brier        mean_b sum_n (p[b,n] - [n = y[b]])^2     0 to 2
    loss         mean_b - log p[b,y[b]]                   in nats: the negative log-likelihood

    temperature  p = softmax(z / T), with T where the loss of held-out pictures is smallest
                 in a = 1/T:  f(a) = mean_b log sum_n e^(a z[b,n]) - a z[b,y[b]]     f' = mean_b E_p[z] - z[b,y[b]]    f'' = mean_b Var_p[z]

f is convex, so Newton's steps, halved intervals where they leave the bracket, find its one minimum. No T changes which class is the most
probable. Everything is computed in float64.

Guo et al., "On calibration of modern neural networks", ICML 2017, sections 2 and 4.2; Brier, "Verification of forecasts expressed in terms
of probability", Monthly Weather Review 78, 1950
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15
ROWS = 4096  # that are in float64 at a time
LOWEST, HIGHEST = 0.01, 100.0  # of T
STEPS = 200
EXACT = 1e-12  # relative, of a


class Calibration(NamedTuple):
    """How well confidence and truth agree. The bins (M): how many pictures, the part of them that is right, their mean confidence."""

    ece: float
    mce: float
    brier: float
    loss: float
    count_M: tuple[int, ...]
    right_M: tuple[float, ...]
    said_M: tuple[float, ...]


def measure(logits_BN: Tensor, truth_B: Tensor, temperature: float = 1.0, bins: int = BINS) -> Calibration:
    """The figures above. An empty bin is 0 in all three rows.

    >>> sure = torch.tensor([[9.0, 0.0]] * 10)
    >>> round(measure(sure, torch.tensor([0] * 8 + [1] * 2)).ece, 3)
    0.2
    """
    parts = [_rows(z_BN.double() / temperature, y_B) for z_BN, y_B in zip(logits_BN.split(ROWS), truth_B.split(ROWS), strict=True)]
    confidence_B, brier_B, loss_B = (torch.cat(each) for each in zip(*parts, strict=True))
    right_B = (logits_BN.argmax(1) == truth_B).double()
    bin_B = torch.bucketize(confidence_B, torch.arange(1, bins, dtype=torch.float64, device=confidence_B.device) / bins)
    count_M = torch.bincount(bin_B, minlength=bins)
    right_M, said_M = (torch.bincount(bin_B, each_B, minlength=bins) / count_M.clamp_min(1) for each_B in (right_B, confidence_B))
    gap_M = (right_M - said_M).abs()
    return Calibration(
        float((gap_M * count_M).sum() / count_M.sum()),
        float(gap_M.max()),
        float(brier_B.mean()),
        float(loss_B.mean()),
        tuple(count_M.tolist()),
        tuple(right_M.tolist()),
        tuple(said_M.tolist()),
    )


def _rows(z_BN: Tensor, truth_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Confidence, Brier score and loss of each picture."""
    log_p_BN = F.log_softmax(z_BN, 1)
    p_BN, log_own_B = log_p_BN.exp(), log_p_BN.gather(1, truth_B[:, None])[:, 0]
    return p_BN.amax(1), p_BN.square().sum(1) - 2 * log_own_B.exp() + 1, -log_own_B


def fit_temperature(logits_BN: Tensor, truth_B: Tensor) -> float:
    """The T with the smallest loss, from 0.01 to 100. Raises ValueError where there is none.

    >>> z = torch.tensor([[3.0, 0.0]] * 4)  # as confident as 95 %, and right in 3 of 4
    >>> round(fit_temperature(z, torch.tensor([0, 0, 0, 1])), 4)  # 3 / log 3
    2.7307
    """
    z_BN = logits_BN.double()
    count, said_B = len(z_BN), z_BN.gather(1, truth_B[:, None])[:, 0]
    if not torch.isfinite(z_BN).all():
        raise ValueError("calibrate: the model's outputs hold a number that is none (NaN or infinite). Train it anew.")
    if bool((z_BN.amax(1) == said_B).all()):
        raise ValueError(
            f"calibrate: the model is right about all {count:,} pictures, so the more confident, the better, without end: no temperature "
            "can be fitted. Give other pictures, that it has not seen: twofold calibrate RUN SOURCE"
        )
    if float((z_BN.mean(1) - said_B).mean()) >= 0:
        raise ValueError(
            f"calibrate: on these {count:,} pictures the model's outputs say no more of the truth than chance, so no temperature mends "
            "them. Are the classes those that it was trained with?"
        )
    low, high = 1 / HIGHEST, 1 / LOWEST
    inverse = 1.0
    for _ in range(STEPS):
        slope, curve = _slopes(z_BN, said_B, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curve if curve > 0 else low
        before, inverse = inverse, step if low < step < high else (low + high) / 2
        if abs(inverse - before) <= EXACT * inverse:
            break
    return 1 / inverse


def _slopes(z_BN: Tensor, said_B: Tensor, inverse: float) -> tuple[float, float]:
    """f' and f'' at a."""
    p_BN = F.softmax(inverse * z_BN, 1)
    mean_B = (p_BN * z_BN).sum(1)
    variance_B = (p_BN * (z_BN - mean_B[:, None]).square()).sum(1)
    return float((mean_B - said_B).mean()), float(variance_B.mean())
