"""Cross-entropy of logits.     B examples (and any further axes), N classes, z: logits, t: the right class, s: smoothing

    p[b,n] = e^z[b,n] / sum_m e^z[b,m]                           softmax
    g[b,n] = w[t[b]] (1 - s) [n = t[b]] + w[n] s / N             the goal; all 0 where t[b] is ignored

    forward    l[b] = - sum_n g[b,n] log p[b,n]                  loss = sum_b l[b] / sum_b w[t[b]]   (mean)
    backward   dz[b,n] = dl[b] (p[b,n] sum_m g[b,m] - g[b,n])    dl[b] = dloss / sum_b w[t[b]]       (mean)

Without weights and smoothing that is dz = (p - onehot(t)) / B: what was said less what is so. One pair for both, because apart
log p would lose its digits where p is small.

Bishop, "Pattern Recognition and Machine Learning", 2006, eq. 4.108 and 4.109;
smoothing: Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016, section 7
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.layers.activation import log_softmax_forward
from twofold.layers.differentiable import differentiable
from twofold.layers.expect import expect_floating, expect_tensor, first_outside, sentence
from twofold.layers.routes import Routed, traced

REDUCTIONS = ("none", "mean", "sum")


class Saved(NamedTuple):
    """What backward needs: p, g, where t counts, and what the sum is divided by."""

    p_BN: Tensor
    goal_BN: Tensor
    kept_B: Tensor
    divisor: Tensor
    reduction: str
    axis: int


def forward(
    logits_BN: Tensor,
    target_B: Tensor,
    weight_N: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    smoothing: float = 0.0,
) -> tuple[Tensor, Saved]:
    """The loss: one number, or one an example for the reduction "none". The classes stand on axis 1, or alone on axis 0."""
    axis = min(1, logits_BN.dim() - 1)
    kept_B = target_B != ignore_index
    target_B = torch.where(kept_B, target_B, 0)
    weights_N = logits_BN.new_ones(logits_BN.shape[axis]) if weight_N is None else weight_N
    share_B = torch.where(kept_B, weights_N[target_B], 0)
    log_p_BN, _ = log_softmax_forward(logits_BN, axis)

    loss_B = -(1 - smoothing) * share_B * log_p_BN.gather(axis, target_B.unsqueeze(axis)).squeeze(axis)
    goal_BN = torch.zeros_like(log_p_BN).scatter(axis, target_B.unsqueeze(axis), (1 - smoothing) * share_B.unsqueeze(axis))
    if smoothing:
        even_BN = kept_B.unsqueeze(axis) * along(weights_N, axis, logits_BN.dim()) * (smoothing / len(weights_N))
        loss_B = loss_B - (even_BN * log_p_BN).sum(axis)
        goal_BN = goal_BN + even_BN
    loss_B = torch.where(kept_B, loss_B, 0)

    divisor = share_B.sum() if reduction == "mean" else share_B.new_ones(())
    loss = loss_B if reduction == "none" else loss_B.sum() / divisor
    return loss, Saved(torch.exp(log_p_BN), goal_BN, kept_B, divisor, reduction, axis)


def backward(dloss: Tensor, saved: Saved) -> Tensor:
    """dlogits_BN"""
    p_BN, goal_BN, kept_B, divisor, reduction, axis = saved
    dloss_BN = dloss.unsqueeze(axis) if reduction == "none" else dloss / divisor
    dlogits_BN = dloss_BN * (p_BN * goal_BN.sum(axis, keepdim=True) - goal_BN)
    return torch.where(kept_B.unsqueeze(axis), dlogits_BN, 0)


def along(values_N: Tensor, axis: int, axes: int) -> Tensor:
    """The values on that axis of so many."""
    return values_N.reshape([-1 if a == axis else 1 for a in range(axes)])


def vendor(
    logits_BN: Tensor,
    target_B: Tensor,
    weight_N: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    smoothing: float = 0.0,
) -> Tensor:
    """PyTorch's own, which also takes class probabilities for targets."""
    return F.cross_entropy(logits_BN, target_B, weight_N, ignore_index=ignore_index, reduction=reduction, label_smoothing=smoothing)


cross_entropy = differentiable(forward, backward, vendor=vendor)


class CrossEntropyLoss(Routed, nn.CrossEntropyLoss):
    """The cross-entropy, in nats, of logits (B, N, ...) with class numbers (B, ...), or (N,) with one; torch.nn.CrossEntropyLoss with
    routes and clear errors. The class numbers may be of any whole-number type.

    weight: one weight a class; a mean is then divided by the sum of the weights that counted. ignore_index: targets that count
    for nothing; where all are ignored, or the batch is empty, the mean is NaN as in torch, and the gradient 0.
    label_smoothing: the share of every target that is spread evenly over all classes.
    A floating-point target of the shape of the logits holds class probabilities: only PyTorch's operator takes those, so the
    route is then `vendor` whatever route is asked for.
    Raises ValueError for other shapes, for a class number outside 0..N-1 (not looked at while a compiler or an exporter
    watches), and for settings that cannot be.

    >>> CrossEntropyLoss()(torch.zeros(1, 4), torch.tensor([2])).exp().item()
    4.0
    """

    def __init__(  # type: ignore[no-untyped-def]
        self,
        weight: Tensor | None = None,
        size_average=None,
        ignore_index: int = -100,
        reduce=None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        if reduction not in REDUCTIONS:
            raise ValueError(f"CrossEntropyLoss: expected reduction to be one of {', '.join(REDUCTIONS)}, got {reduction!r}.")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"CrossEntropyLoss: expected label_smoothing, a share, from 0 to 1, got {label_smoothing!r}.")
        if weight is not None:
            expect_tensor("CrossEntropyLoss weight", weight)
            if weight.dim() != 1:
                raise ValueError(sentence("CrossEntropyLoss weight", "(N,), one a class", str(tuple(weight.shape)), "", ""))
        super().__init__(weight, size_average, ignore_index, reduce, reduction, label_smoothing)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        self._expect_logits(input)
        expect_tensor("CrossEntropyLoss target", target)
        if target.is_floating_point() and target.shape == input.shape:
            self.took("vendor")
            return super().forward(input, target)
        self._expect_classes(input, target)
        return self.run(cross_entropy, input, target.long(), self.weight, self.ignore_index, self.reduction, self.label_smoothing)

    def _expect_logits(self, logits: Any) -> None:
        expect_tensor("CrossEntropyLoss input", logits)
        expect_floating("CrossEntropyLoss input", logits, self.weight)
        if logits.dim() == 0 or not classes_of(logits):
            raise ValueError(sentence("CrossEntropyLoss input", "logits (B, N, ...) of N > 0 classes", str(tuple(logits.shape)), "", ""))
        if self.weight is not None and len(self.weight) != classes_of(logits):
            wanted = f"N={len(self.weight)} classes on axis 1, as many as there are weights"
            differs = f"N is {classes_of(logits)}, not {len(self.weight)}"
            raise ValueError(sentence("CrossEntropyLoss input", wanted, str(tuple(logits.shape)), differs, ""))

    def _expect_classes(self, logits: Tensor, target: Tensor) -> None:
        N = classes_of(logits)
        wanted_shape = logits.shape[:1] + logits.shape[2:] if logits.dim() > 1 else logits.shape[:0]
        if target.shape != wanted_shape:
            wanted = f"{tuple(wanted_shape)}, one class number for each N={N} logits of {tuple(logits.shape)}"
            cause = self._cause(logits, target)
            raise ValueError(sentence("CrossEntropyLoss target", wanted, str(tuple(target.shape)), "", cause))
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            got = str(target.dtype).removeprefix("torch.")
            cause = f"Class numbers: target.long(). Class probabilities: one an N, so of shape {tuple(logits.shape)}."
            raise ValueError(sentence("CrossEntropyLoss target", f"class numbers 0..{N - 1} of type int64", got, "", cause))
        outside = None if traced() else first_outside(target, N, self.ignore_index)
        if outside is not None:
            number, where = outside
            cause = f"More classes than the model has? Build it with {number + 1}. Do the numbers start at 1? Subtract 1."
            if number < 0:
                cause = f"Is it a mark for what does not count? Set ignore_index={number}."
            raise ValueError(sentence("CrossEntropyLoss target", f"class numbers 0..{N - 1}", f"{number}{where}", "", cause))

    def _cause(self, logits: Tensor, target: Tensor) -> str:
        if target.shape == logits.shape:
            return "One-hot rows? Class numbers: target.argmax(1). Class probabilities: target.float()."
        if target.shape == logits.shape[:-1]:
            return "Do the classes stand on the last axis? They belong on axis 1: logits.movedim(-1, 1)."
        if target.dim() == 2 and target.shape[1] == 1:
            return "One column? target.squeeze(1)."
        return ""


def classes_of(logits: Tensor) -> int:
    """N: the size of axis 1, or of the only axis."""
    return logits.shape[min(1, logits.dim() - 1)]
