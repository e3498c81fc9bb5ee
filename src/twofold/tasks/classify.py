"""Classification: one class for each picture.

    loss         -sum_n t[n] log softmax(logits)[n],     t = (1 - s) onehot + s/N   (s: label smoothing)
    decoding     the class with the largest probability
    accuracy     right / all;  top-5: the right class is among the five most probable
    precision    of those called n, the part that is n;   recall: of those that are n, the part called n

Smoothing: Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section 7
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.data.mixing import soft_cross_entropy
from twofold.layers.losses import cross_entropy
from twofold.tasks.task import Evaluation, Step, judging


class Pictures(NamedTuple):
    """A batch: normalised pictures and their classes; goal_BN: the part of each class in every picture, where they were mixed."""

    x_BCHW: Tensor
    y_B: Tensor
    goal_BN: Tensor | None = None


@dataclass(frozen=True)
class Classification:
    """The task of naming the class of a picture."""

    classes: tuple[str, ...]
    smoothing: float = 0.0

    name = "classify"

    def loss(self, model: nn.Module, batch: Pictures, carried: None = None) -> Step:
        logits_BN = model(batch.x_BCHW)
        if logits_BN.shape != (len(batch.y_B), len(self.classes)):
            raise ValueError(
                f"classify: expected outputs (B={len(batch.y_B)}, N={len(self.classes)}), a number for each class, got "
                f"{tuple(logits_BN.shape)}. Give the model's last layer {len(self.classes)} outputs."
            )
        if batch.goal_BN is not None:  # which has the smoothing in it
            return Step(soft_cross_entropy(logits_BN, batch.goal_BN), len(batch.y_B), None)
        loss = cross_entropy(logits_BN, batch.y_B, None, -100, "mean", self.smoothing)
        return Step(loss, len(batch.y_B), None)

    def evaluate(self, model: nn.Module, batches: Iterable[Pictures]) -> Evaluation:
        """Scores: loss (cross-entropy in nats, unsmoothed), accuracy, top5; details: confusion matrix, per-class table, probabilities."""
        return assess(*predict(model, batches), self.classes)

    def rank(self, scores: dict[str, float]) -> tuple[float, ...]:
        """The accuracy. On a small split many epochs tie; the loss of a smoothed model would be a poor judge between them."""
        return (scores["accuracy"],)

    def example(self, batch: Pictures) -> tuple[Tensor]:
        return (batch.x_BCHW[:1],)

    def explain(self, scores: dict[str, float]) -> tuple[str, str]:
        return "accuracy", f"{100 * scores['accuracy']:.2f} %"


def predict(model: nn.Module, batches: Iterable[Pictures]) -> tuple[Tensor, Tensor]:
    """Logits (B, N) and true classes (B) of all batches, in evaluation mode."""
    with judging(model):
        outcome = [(model(batch.x_BCHW), batch.y_B) for batch in batches]
    if not outcome:
        raise ValueError("classify: there is no picture to evaluate: this split is empty.")
    logits, truth = zip(*outcome, strict=True)
    return torch.cat(logits), torch.cat(truth)


def assess(logits_BN: Tensor, truth_B: Tensor, classes: tuple[str, ...]) -> Evaluation:
    """Every figure of a classifier from its logits and the truth. The loss is that of the logits: a probability may round to 0."""
    count = len(classes)
    logarithms_BN = F.log_softmax(logits_BN, 1)
    predicted_B = logits_BN.argmax(1)
    best = logits_BN.topk(min(5, count), 1).indices
    right_B = logarithms_BN.gather(1, truth_B[:, None])
    confusion_NN = torch.bincount(truth_B * count + predicted_B, minlength=count * count).view(count, count)
    scores = {
        "loss": -right_B.mean().item(),
        "accuracy": (predicted_B == truth_B).double().mean().item(),
        "top5": (best == truth_B[:, None]).any(1).double().mean().item(),
    }
    details = {
        "confusion": confusion_NN.tolist(),
        "per_class": per_class(confusion_NN, classes),
        "probabilities": logarithms_BN.exp(),
        "predicted": predicted_B,
        "truth": truth_B,
    }
    return Evaluation(scores, details)


def per_class(confusion_NN: Tensor, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row for each class: precision, recall, their harmonic mean f1, and how many there are. 0 where the divisor is 0."""
    hits = confusion_NN.diagonal().double()
    called, present = confusion_NN.sum(0).double(), confusion_NN.sum(1).double()
    precision, recall = hits / called.clamp_min(1), hits / present.clamp_min(1)
    f1 = 2 * hits / (called + present).clamp_min(1)
    columns = (precision.tolist(), recall.tolist(), f1.tolist(), present.long().tolist())
    return [{"class": name, "precision": p, "recall": r, "f1": f, "count": n} for name, p, r, f, n in zip(classes, *columns, strict=True)]
