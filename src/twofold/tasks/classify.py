"""Classification: one class for each picture.

    loss         -sum_n t[n] log softmax(logits)[n],     t = (1 - s) onehot + s/N   (s: label smoothing)
                 where classes have weights, or pictures were mixed, t comes with the batch (train/balance.py, data/mixing.py)
    decoding     the class with the largest probability
    accuracy     right / all;  top-k: the right class is among the k most probable
    precision    of those called n, the part that is n;   recall: of those that are n, the part called n
    f1           2 precision recall / (precision + recall)
    balanced accuracy   the mean recall of the classes that occur
    macro F1            the mean f1 of the classes that occur or are said
    ece, mce, brier     calibration.py

Scores, the loss among them, count every picture alike, whatever training does.

Smoothing: Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section 7; macro averages: Sokolova and Lapalme, "A
systematic analysis of performance measures for classification tasks", Information Processing and Management 45, 2009, table 3;
balanced accuracy: Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR 2010
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.data.mixing import soft_cross_entropy
from twofold.layers.heads import loss_of
from twofold.layers.losses import cross_entropy
from twofold.tasks.calibration import measure
from twofold.tasks.task import Evaluation, Step, judging
from twofold.tasks.views import Views, logits_of


class Pictures(NamedTuple):
    """A batch: normalised pictures and their classes; goal_BN: t, where pictures were mixed or classes have weights."""

    x_BCHW: Tensor
    y_B: Tensor
    goal_BN: Tensor | None = None


@dataclass(frozen=True)
class Classification:
    """The task of naming the class of a picture. choose_by: the score that decides which epoch is the best."""

    classes: tuple[str, ...]
    smoothing: float = 0.0
    choose_by: str = "accuracy"

    name = "classify"

    def loss(self, model: nn.Module, batch: Pictures, carried: None = None) -> Step:
        return Step(loss_of(model(batch.x_BCHW), lambda logits_BN: self._cost(logits_BN, batch)), len(batch.y_B), None)

    def _cost(self, logits_BN: Tensor, batch: Pictures) -> Tensor:
        if logits_BN.shape != (len(batch.y_B), len(self.classes)):
            raise ValueError(
                f"classify: expected outputs (B={len(batch.y_B)}, N={len(self.classes)}), a number for each class, got "
                f"{tuple(logits_BN.shape)}. Give the model's last layer {len(self.classes)} outputs."
            )
        if batch.goal_BN is not None:  # which has smoothing and weights in it
            return soft_cross_entropy(logits_BN, batch.goal_BN)
        return cross_entropy(logits_BN, batch.y_B, None, -100, "mean", self.smoothing)

    def evaluate(self, model: nn.Module, batches: Iterable[Pictures]) -> Evaluation:
        """Scores: loss (cross-entropy in nats, unsmoothed, unweighted), accuracy, top5 of more than 5 classes, balanced_accuracy, macro_f1,
        ece, mce, brier.

        Details: confusion matrix, per-class table, calibration, and of each picture the probabilities, loss and rank of its class.
        """
        return assess(*predict(model, batches), self.classes)

    def rank(self, scores: dict[str, float]) -> tuple[float, ...]:
        """The score that decides. On a small split many epochs tie; the loss of a smoothed model would be a poor judge between them."""
        return (-scores["loss"] if self.choose_by == "loss" else scores[self.choose_by],)

    def example(self, batch: Pictures) -> tuple[Tensor]:
        return (batch.x_BCHW[:1],)

    def explain(self, scores: dict[str, float]) -> tuple[str, str]:
        return "accuracy", f"{100 * scores['accuracy']:.2f} %"


def predict(model: nn.Module, batches: Iterable[Pictures], views: Views | None = None) -> tuple[Tensor, Tensor]:
    """Logits (B, N) and true classes (B) of all batches, in evaluation mode; of the mean probability of the views, where there are any."""
    with judging(model):
        outcome = [(logits_of(model, batch.x_BCHW, views), batch.y_B) for batch in batches]
    if not outcome:
        raise ValueError("classify: there is no picture to evaluate: this split is empty.")
    logits, truth = zip(*outcome, strict=True)
    return torch.cat(logits), torch.cat(truth)


def assess(logits_BN: Tensor, truth_B: Tensor, classes: tuple[str, ...], temperature: float = 1.0) -> Evaluation:
    """Every figure of a classifier from its logits and the truth. The loss is that of the logits: a probability may round to 0.

    The temperature changes probabilities, and nothing of who is right: classes are ranked by the logits as they are.
    """
    count = len(classes)
    logarithms_BN = F.log_softmax(logits_BN / temperature, 1)
    predicted_B, rank_B = logits_BN.argmax(1), ranks(logits_BN, truth_B)
    right_B = logarithms_BN.gather(1, truth_B[:, None])
    confusion_NN = torch.bincount(truth_B * count + predicted_B, minlength=count * count).view(count, count)
    rows = per_class(confusion_NN, classes)
    occurs, said = confusion_NN.sum(1).tolist(), confusion_NN.sum(0).tolist()
    calibration = measure(logits_BN, truth_B, temperature)
    scores = {
        "loss": -right_B.mean().item(),
        "accuracy": (predicted_B == truth_B).double().mean().item(),
        **({"top5": top(rank_B, 5)} if count > 5 else {}),  # of fewer it is always 1
        "balanced_accuracy": _mean(row["recall"] for row, there in zip(rows, occurs, strict=True) if there),
        "macro_f1": _mean(row["f1"] for row, there, called in zip(rows, occurs, said, strict=True) if there or called),
        "ece": calibration.ece,
        "mce": calibration.mce,
        "brier": calibration.brier,
    }
    details = {
        "confusion": confusion_NN.tolist(),
        "per_class": rows,
        "probabilities": logarithms_BN.exp(),
        "predicted": predicted_B,
        "truth": truth_B,
        "losses": -right_B[:, 0],
        "ranks": rank_B,
        "calibration": calibration,
    }
    if temperature != 1:
        details |= {"temperature": temperature, "uncalibrated": measure(logits_BN, truth_B)}
    return Evaluation(scores, details)


def ranks(logits_BN: Tensor, truth_B: Tensor) -> Tensor:
    """The place (B) of the true class among all, 0 the first: how many are before it. Of equals the first class is; NaN is before all."""
    own_B1 = logits_BN.gather(1, truth_B[:, None])
    earlier_BN = torch.arange(logits_BN.shape[1], device=logits_BN.device) < truth_B[:, None]
    return (~(logits_BN <= own_B1) | ((logits_BN == own_B1) & earlier_BN)).sum(1)


def top(rank_B: Tensor, k: int) -> float:
    """The part of the pictures whose class is among the k most probable."""
    return (rank_B < k).double().mean().item()


def with_top(judged: Evaluation, many: Sequence[int], classes: int) -> Evaluation:
    """The same with the scores top1, top3, ... of each of these numbers. Raises ValueError for one that no rank has."""
    for k in many:
        if not 1 <= k <= classes:
            raise ValueError(f"evaluate: expected each top to be from 1 to {classes}, the number of classes, got {k}.")
    return judged._replace(scores=judged.scores | {f"top{k}": top(judged.details["ranks"], k) for k in many})


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def per_class(confusion_NN: Tensor, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row for each class: precision, recall, their harmonic mean f1, and how many there are. 0 where the divisor is 0."""
    hits = confusion_NN.diagonal().double()
    called, present = confusion_NN.sum(0).double(), confusion_NN.sum(1).double()
    precision, recall = hits / called.clamp_min(1), hits / present.clamp_min(1)
    f1 = 2 * hits / (called + present).clamp_min(1)
    columns = (precision.tolist(), recall.tolist(), f1.tolist(), present.long().tolist())
    return [{"class": name, "precision": p, "recall": r, "f1": f, "count": n} for name, p, r, f, n in zip(classes, *columns, strict=True)]
