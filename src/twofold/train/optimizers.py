"""Optimisers and clipping. torch's own optimisers do the arithmetic, all tensors in one call wherever torch can.

    sgd        w <- w - rate g
    momentum   v <- momentum v + g             w <- w - rate v
    nesterov   v <- momentum v + g             w <- w - rate (g + momentum v)
    rmsprop    s <- 0.99 s + 0.01 g^2          w <- w - rate g / (sqrt(s) + e)
    adam       m <- momentum m + (1 - momentum) g     s <- 0.999 s + 0.001 g^2     w <- w - rate m' / (sqrt(s') + e)     ': bias corrected
    adamw      adam, with decay beside the gradient: w <- w - rate decay w
    muon       the matrices inside the network by orthogonalised momentum (muon.py), everything else by adamw
    by norm    g <- g min(1, clip / |g|)       |g|: over all tensors together
    by value   g <- min(max(g, -clip_value), clip_value)       each number by itself, and before the norm's turn

With sgd, momentum, nesterov, rmsprop and adam the decay is a part of the gradient, g + decay w; with adamw and muon it stands beside it.

Robbins and Monro, 1951; Polyak, 1964; Nesterov, 1983, in the form of Sutskever et al., "On the importance of initialization and momentum",
ICML 2013; Tieleman and Hinton, "Lecture 6.5: RMSProp", 2012; Kingma and Ba, "Adam", ICLR 2015, algorithm 1; Loshchilov and Hutter,
"Decoupled weight decay regularization", ICLR 2019, algorithm 2; Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent
neural networks", ICML 2013, algorithm 1; Mikolov, "Statistical language models based on neural networks", 2012, section 3.3.2 (by value)
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from twofold.train.muon import Muon
from twofold.train.part import Part
from twofold.train.sharded import is_cut, own

FUSED_ON = {"cpu", "cuda", "mps", "xpu"}  # where torch's SGD, Adam and AdamW have a kernel for the whole step
MEMORYLESS = ("sgd", "rmsprop")  # those without a momentum
Group = dict[str, Any]


class Optimisation(Part):
    """How each step is made."""

    optimizer: Literal["sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw", "muon"] = "adamw"
    """Gradient descent: plain, with momentum, Nesterov's; RMSProp; Adam; AdamW; Muon for the matrices inside, AdamW for the rest."""
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 3e-3
    """The highest rate of the schedule."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of momentum, nesterov and muon; Adam's and AdamW's beta1. sgd and rmsprop have none."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decay of the weights; biases and normalisation are left alone."""
    clip: Annotated[float, Field(ge=0)] = 1.0
    """The largest norm of the gradient; 0: no clipping."""
    clip_value: Annotated[float, Field(ge=0)] = 0.0
    """The largest size of each number of the gradient; 0: no clipping."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The decay of the weights' running average, which is judged and kept in their place; 0: none. Usual: 0.999."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        usual = type(self).model_fields["momentum"].default
        if self.optimizer in MEMORYLESS and self.momentum not in (0, usual):
            raise ValueError(
                f"momentum={self.momentum:g} is read by nothing: {self.optimizer} has none. Take optimizer=momentum or nesterov, or leave "
                "momentum out."
            )
        return self


def build_optimizer(model: nn.Module, settings: Optimisation, factors: Mapping[int, float] | None = None) -> torch.optim.Optimizer:
    """The optimiser of the settings for all weights that are trained.

    Only weights of two or more axes decay: not biases, not the scales of a normalisation. Every group of the optimiser has a "factor",
    with which `give_rate` multiplies the rate. factors: those of weights, by id; 1 for all others.
    Raises ValueError for a model that has nothing to train, or, with muon, no matrix inside.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("optimizer: expected a model with weights to train, got none that requires a gradient. Is every layer frozen?")
    inside = inner_matrices(model) if settings.optimizer == "muon" else []
    rest = _without(trained, inside)
    matrices = [p for p in rest if p.dim() >= 2]
    factors = factors or {}
    groups = [*_groups(matrices, settings.weight_decay, factors), *_groups(_without(rest, matrices), 0.0, factors)]
    if settings.optimizer != "muon":
        return _ours(settings, settings.optimizer, groups, trained)
    if not inside:
        raise ValueError(
            "optimizer=muon: expected a model with a matrix between its first and its last layer, got one without. Take adamw instead."
        )
    muon = Muon(_groups(inside, settings.weight_decay, factors), settings.learning_rate, settings.momentum)
    return Together(muon, _ours(settings, "adamw", groups, rest)) if rest else muon


def inner_matrices(model: nn.Module) -> list[nn.Parameter]:
    """What Muon is for: tensors of two or more axes, but for the first and the last of the model and all tables of an embedding.

    First and last by the order in which the model names them; a tied weight has two places there. What is a single row or a single column
    is a vector.
    """
    named = [p for _, p in model.named_parameters(remove_duplicate=False) if p.dim() >= 2]
    tables = (nn.Embedding, nn.EmbeddingBag)
    outer: list[Tensor] = [*named[:1], *named[-1:], *(layer.weight for layer in model.modules() if isinstance(layer, tables))]
    return [p for p in _without(model.parameters(), outer) if p.requires_grad and p.dim() >= 2 and 1 < len(p) < p.numel()]


class Together(torch.optim.Optimizer):
    """Several optimisers as one: their groups in one list, one state, one step. What it saves has torch's own form."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._hand_out()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch overloads it
        """The step of each; `closure`, where given, is called first and once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._hand_out()

    def _hand_out(self) -> None:
        """Let every part work on the common state and on its own groups, which loading replaces."""
        first = 0
        for part in self.parts:
            last = first + len(part.param_groups)
            part.state, part.param_groups = self.state, self.param_groups[first:last]
            first = last


def describe(optimizer: torch.optim.Optimizer) -> str:
    """What makes the step, in words: "AdamW, fused", "SGD with momentum, foreach", "Muon (3 tensors) and AdamW, fused (9 tensors)"."""
    if isinstance(optimizer, Together):
        counts = (sum(len(group["params"]) for group in part.param_groups) for part in optimizer.parts)
        return " and ".join(
            f"{describe(part)} ({count} tensor{'s' * (count > 1)})" for part, count in zip(optimizer.parts, counts, strict=True)
        )
    group, name = optimizer.param_groups[0], type(optimizer).__name__
    if name == "SGD" and group["momentum"]:
        name = "SGD with Nesterov's momentum" if group["nesterov"] else "SGD with momentum"
    return ", ".join([name, *(way for way in ("fused", "foreach") if group.get(way))])


def give_rate(optimizer: torch.optim.Optimizer, rate: float, momentum: float | None = None) -> None:
    """Give every group the rate, times its own factor, and the momentum (beta1), where one is given and the group has any."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)
        if momentum is not None and "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        elif momentum is not None and group.get("momentum"):
            group["momentum"] = momentum


def clip_gradient(
    parameters: Iterable[nn.Parameter], largest: float, largest_value: float = 0.0, of_all: Callable[[float], float] = float
) -> float:
    """Clip the gradient by value, then by norm (0: not), and return the norm that it had before.

    A gradient with a number that is not finite is left as it is, and its norm tells. of_all: of weights that are cut over processes, the
    norm of the whole from that of this one's part.
    """
    gradients = [own(p.grad) for p in parameters if p.grad is not None]
    norm = before = of_all(_norm(gradients))
    if not math.isfinite(before):
        return before
    if 0 < largest_value < before:  # no number is larger than the norm
        torch._foreach_clamp_min_(gradients, -largest_value)
        torch._foreach_clamp_max_(gradients, largest_value)
        norm = of_all(_norm(gradients)) if 0 < largest < before else norm
    if 0 < largest < norm:  # the loop asks for the number anyway, so most steps need no pass over the gradient
        torch._foreach_mul_(gradients, largest / norm)
    return before


def _norm(gradients: list[Tensor]) -> float:
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))).item() if gradients else 0.0


def _ours(settings: Optimisation, kind: str, groups: list[Group], weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    """torch's optimiser of that kind: fused where torch has it for these weights, else all tensors at once operation by operation."""
    rate, momentum = settings.learning_rate, settings.momentum
    fused = all(p.device.type in FUSED_ON and p.is_floating_point() for p in weights)
    fused &= kind in ("adam", "adamw") or not any(map(is_cut, weights))  # torch's fused SGD knows no sharded weights
    way: dict[str, Any] = {"fused": True} if fused else {"foreach": True}
    if kind == "rmsprop":
        return torch.optim.RMSprop(groups, rate, foreach=True)  # torch has no fused one
    if kind in ("adam", "adamw"):
        return (torch.optim.AdamW if kind == "adamw" else torch.optim.Adam)(groups, rate, betas=(momentum, 0.999), **way)
    if kind == "sgd":
        return torch.optim.SGD(groups, rate, **way)
    return torch.optim.SGD(groups, rate, momentum, nesterov=kind == "nesterov" and momentum > 0, **way)


def _groups(weights: list[nn.Parameter], decay: float, factors: Mapping[int, float]) -> list[Group]:
    """A group for each factor, in the order of the weights; an empty one where there are none."""
    parted: dict[float, list[nn.Parameter]] = {}
    for weight in weights:
        parted.setdefault(factors.get(id(weight), 1.0), []).append(weight)
    return [{"params": own, "weight_decay": decay, "factor": factor} for factor, own in (parted or {1.0: []}).items()]


def _without(weights: Iterable[nn.Parameter], taken: Iterable[Tensor]) -> list[nn.Parameter]:
    out = {id(p) for p in taken}
    return [p for p in weights if id(p) not in out]
