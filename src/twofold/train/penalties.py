"""Penalties on the size of weights, and what else keeps a model from learning its data by heart.     w: the chosen weights, c: max_norm

    L1            R = l1 sum |w|                         g <- g + l1 sign(w)                 sign(0) = 0
    L2            R = l2 / 2 sum w^2                     g <- g + l2 w
    elastic net   R = l1 sum |w| + l2 / 2 sum w^2        g <- g + l1 sign(w) + l2 w
    max-norm      w_u <- w_u min(1, c / |w_u|)           after the step; w_u: all that leads into unit u

R is added to the loss; only its gradient is needed. It is clipped with the gradient and passes through the optimiser's moments, where
`weight_decay` is the optimiser's own. What leads into a unit is a row of a linear layer, a kernel of a convolution with all its channels,
a row of a gate's two matrices in a recurrent layer (each by itself), a vector of an embedding.

Chosen are the weights of two or more axes: not biases, not the scales of a normalisation. A pattern that fits the names of layers
("features.*", "lstm") chooses such weights of those; one that fits none of these the tensors that it fits ("*.bias").

Tibshirani, "Regression shrinkage and selection via the lasso", 1996; Hoerl and Kennard, "Ridge regression", 1970; Zou and Hastie,
"Regularization and variable selection via the elastic net", 2005, eq. 3; Hinton et al., "Improving neural networks by preventing
co-adaptation of feature detectors", 2012, and Srivastava et al., "Dropout", 2014, section 5.1 (max-norm)
"""

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from twofold.train.part import Part
from twofold.train.sharded import own, rows_of, whole

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Regularisation(Part):
    """What keeps the model from learning its data by heart."""

    l1: Annotated[float, Field(ge=0)] = 0.0
    """The weight of the sum of the weights' sizes, in the loss."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """The weight of half the sum of the weights' squares, in the loss; with l1: the elastic net."""
    max_norm: Annotated[float, Field(ge=0)] = 0.0
    """The largest norm of all the weights that lead into a unit; 0: none. Usual: 3 to 4."""
    penalise: tuple[str, ...] = ()
    """Which weights l1, l2 and max_norm are for: names of layers or tensors, * for any part. Default: all of two or more axes."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The probability in all dropout layers of the model. Default: as the model has it."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Pictures only: the part of the target that is spread over all classes."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Pictures only: alpha of mixup's Beta(alpha, alpha), by which pairs of pictures are mixed; 0: none. Usual: 0.2."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Pictures only: alpha of cutmix's Beta(alpha, alpha), the part that a pasted box leaves of a picture; 0: none. Usual: 1."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.penalise and not (self.l1 or self.l2 or self.max_norm):
            raise ValueError(
                f"penalise={', '.join(self.penalise)} chooses weights, but l1, l2 and max_norm are 0. Set one, or leave penalise out."
            )
        return self


class Penalties:
    """The penalties of the settings on the weights of one model.

    Raises ValueError for a pattern that fits no name of the model, with the nearest names.
    """

    def __init__(self, model: nn.Module, settings: Regularisation) -> None:
        self.l1, self.l2, self.max_norm = settings.l1, settings.l2, settings.max_norm
        self.chosen = choose(model, settings.penalise)
        self._units = [(w, _unit_view(layer, w)) for name, w, layer in _named(model) if name in self.chosen and w.dim() >= 2]

    @torch.no_grad()
    def add(self) -> None:
        """Add the gradient of l1 and l2 to that of the loss: after backward, before clipping. A weight without a gradient gets one."""
        if not (self.l1 or self.l2):
            return
        weights: list[Tensor] = [w for w in self.chosen.values() if w.requires_grad]
        for w in weights:
            if w.grad is None:
                w.grad = torch.zeros_like(w)
        gradients = [own(w.grad) for w in weights if w.grad is not None]
        weights = [own(w) for w in weights]
        if self.l1 and weights:
            torch._foreach_add_(gradients, torch._foreach_sign(weights), alpha=self.l1)
        if self.l2 and weights:
            torch._foreach_add_(gradients, weights, alpha=self.l2)

    @torch.no_grad()
    def constrain(self) -> None:
        """Bring the weights of every unit back to the largest norm: after the step."""
        if not self.max_norm:
            return
        for w, view in self._units:
            if not w.requires_grad:  # frozen: it keeps its values
                continue
            held = own(w) if view is None else whole(w)
            shape, axes = view or (held.shape, tuple(range(1, held.dim())))
            norm = torch.linalg.vector_norm(held.reshape(shape), dim=axes, keepdim=True)
            bounded = (held.reshape(shape) * (self.max_norm / norm).clamp(max=1)).view_as(held)
            own(w).copy_(bounded if view is None else rows_of(bounded, w))

    @torch.no_grad()
    def value(self) -> float:
        """R, the part of the loss that the penalties are: for the log."""
        weights = whole(list(self.chosen.values()))
        return sum((self.l1 * w.abs().sum() + self.l2 / 2 * w.square().sum()).item() for w in weights)


def choose(model: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    """The chosen weights by name. Raises ValueError for a pattern that fits nothing."""
    named = {name: w for name, w, _ in _named(model)}
    if not patterns:
        return {name: w for name, w in named.items() if w.dim() >= 2}
    layers = [name for name, _ in model.named_modules() if name]
    chosen: set[str] = set()
    for pattern in patterns:
        within = tuple(f"{layer}." for layer in layers if fnmatchcase(layer, pattern))
        fitting = {name for name, w in named.items() if w.dim() >= 2 and name.startswith(within)}
        fitting = fitting or {name for name in named if fnmatchcase(name, pattern)}
        if not fitting:
            others = [name for name in (*layers, *named) if name != pattern]
            near = get_close_matches(pattern, others, 3, 0.5) or others[:3]
            raise ValueError(
                f"penalise: expected names of the model's layers or weights, got {pattern!r}, which fits none that has weights. "
                f"Near: {', '.join(near)}."
            )
        chosen |= fitting
    return {name: w for name, w in named.items() if name in chosen}


def set_dropout(model: nn.Module, p: float) -> int:
    """Give every dropout layer the probability p, every stack of recurrent layers between them, every attention; how many there are.

    What a recurrent layer drops inside (recurrent_dropout, weight_dropout, zoneout) stays as it was built.
    Raises ValueError where the model has none.
    """
    count = 0
    for layer in model.modules():
        if isinstance(layer, DROPOUTS):
            layer.p = p
        elif (isinstance(layer, nn.RNNBase) and layer.num_layers > 1) or isinstance(layer, nn.MultiheadAttention):
            layer.dropout = p
        else:
            continue
        count += 1
    if not count:
        raise ValueError(
            f"dropout={p:g}: expected a model with dropout layers, got one without. Leave dropout out, or take a model that has them."
        )
    return count


def _named(model: nn.Module) -> list[tuple[str, nn.Parameter, nn.Module]]:
    """Every tensor once: its name, itself and the layer that holds it."""
    holders = dict(model.named_modules())
    return [(name, w, holders[name.rpartition(".")[0]]) for name, w in model.named_parameters()]


def _unit_view(layer: nn.Module, w: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The shape in which to look at w, and its axes that lead into one unit; None where those are all axes but the first."""
    if isinstance(layer, TRANSPOSED):  # (C, F / groups, ...): a unit is a column of its group
        return (layer.groups, len(w) // layer.groups, *w.shape[1:]), (1, *range(3, w.dim() + 1))
    return None
