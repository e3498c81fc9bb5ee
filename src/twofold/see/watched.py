"""Pictures of a model while it learns: its first filters, and what it takes some held-out pictures for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from twofold.data.preparation import Preparation
from twofold.data.values import Labelled
from twofold.see.filters import filters
from twofold.see.predictions import predictions
from twofold.tasks.classify import Pictures, predict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN: Final = 32


def first_filters(model: nn.Module) -> "dict[str, Figure]":
    """The filters of the first two-dimensional convolution; nothing where there is none."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return {} if first is None else {"filters": filters(first.weight.detach().cpu(), "First-layer filters")}


def samples(model: nn.Module, images: Labelled, kind: Preparation, classes: Sequence[str]) -> "dict[str, Figure]":
    """32 pictures, always the same, with what the model takes them for and the truth."""
    chosen = torch.randperm(len(images.y_B), generator=torch.Generator().manual_seed(0))[:SHOWN]
    shown, truth = images.pictures(chosen), images.y_B[chosen]
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    logits_BN, _ = predict(model, [Pictures(kind.normalise(shown).to(device), truth)])
    confidence_B, predicted_B = logits_BN.float().softmax(1).cpu().max(1)
    return {"samples": predictions(shown, truth, predicted_B, confidence_B, classes)}
