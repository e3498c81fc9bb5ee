"""Going on from what another training learnt: which weights begin as they were left, which stay, and how fast the others move.

    stages      s_0 (the head), s_1, .. s_n (the input)        the network's parts, layers/parts.py
    freeze      its weights keep their values; batch norm in it keeps its mean and variance, and normalises by them
    thaw        after every `unfreeze_every` epochs the next frozen stage learns too, from the head down
    rate        of stage s_d: learning_rate * depth_decay^d        the schedule bends all of them alike

What is frozen in an epoch follows from its number, so a run that is taken up again needs nothing else to be exact.

Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014; Howard and Ruder, "Universal language model
fine-tuning", ACL 2018, sections 3.2 (discriminative rates) and 3.3 (gradual unfreezing)
"""

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated, Self

from pydantic import Field, model_validator
from torch import nn

from twofold.layers.parts import Stage, stages
from twofold.train.part import Part

BODY = "body"


class Transfer(Part):
    """Going on from weights that another training learnt."""

    weights: str = ""
    """A file of weights (.safetensors, .pth), or a run folder, to begin with; the head is new where the classes are others."""
    new_head: bool = False
    """With weights: make the head new even where it would fit, for as many classes that are others."""
    freeze: str = ""
    """What does not learn: body (all but the head), or names of layers or weights, with * for any part: "conv1,layer1.*"."""
    unfreeze_every: Annotated[int, Field(ge=0)] = 0
    """After every so many epochs let one more frozen stage learn, from the head down; 0: never."""
    depth_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each stage learns by the rate of the one above it times this; the head by the full rate. Usual: 0.8."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.new_head and not self.weights:
            raise ValueError(
                "new_head=true leaves the head out of what is taken from a file of weights, and none is given: the head is new anyway. Add "
                "weights (--weights FILE), or leave new_head out"
            )
        if self.unfreeze_every and not self.freeze:
            raise ValueError(f"unfreeze_every={self.unfreeze_every} thaws what is frozen, and nothing is. Add freeze=body, or leave it out")
        return self


class Thaw:
    """What of a model is frozen in which epoch. Weights that need no gradient when it is made never learn.

    Raises ValueError for a pattern that fits nothing.
    """

    def __init__(self, model: nn.Module, settings: Transfer) -> None:
        self.every = settings.unfreeze_every
        self.stages = stages(model)
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.frozen = [name for name in chosen(model, self.stages, settings.freeze) if name in self.weights]
        self.order = [own for stage in reversed(self.stages) if (own := [name for name in stage.weights if name in self.frozen])]
        depths = {name: depth for depth, stage in enumerate(reversed(self.stages)) for name in stage.weights}
        self.factors = {id(weight): settings.depth_decay ** depths[name] for name, weight in self.weights.items()}
        self._norms = [layer for layer in model.modules() if _normalises(layer) and next(layer.parameters(), None) is not None]
        self._still: list[nn.Module] = []
        if not self.every:
            self.at(0)  # for good: the optimiser need not know of them

    def at(self, epoch: int) -> bool:
        """Freeze and thaw as it is in that epoch, 0 the first; whether that changed anything."""
        thawed = epoch // self.every if self.every else 0
        frozen = {name for own in self.order[thawed:] for name in own}
        changed = False
        for name, weight in self.weights.items():
            if weight.requires_grad == (name in frozen):
                weight.requires_grad_(name not in frozen)
                weight.grad = None
                changed = True
        self._still = [layer for layer in self._norms if not any(weight.requires_grad for weight in layer.parameters())]
        return changed

    def hold(self) -> None:
        """Before a step: batch norm that is frozen normalises by the mean and variance that it has, and keeps them."""
        if self.frozen:
            for layer in self._still:
                layer.training = False


def refuse_frozen_chance(settings: Transfer, architecture: str) -> None:
    """Raise ValueError where a model that was built a moment ago, with weights drawn at random, would keep some of them."""
    if settings.freeze and not settings.weights:
        raise ValueError(
            f"freeze={settings.freeze}: {architecture} is built anew, so its weights are random, and what is frozen would stay so. Give "
            "weights that were learnt (--weights FILE or RUN), or leave freeze and unfreeze_every out. A model that has learnt already is "
            "given from Python: fit(source, model=module)."
        )


def frozen_of(model: nn.Module, settings: Transfer) -> str:
    """What the settings freeze of a model, for people; "" for nothing. Raises ValueError for what cannot be frozen."""
    parts = stages(model)
    every = {name: weight.numel() for name, weight in model.named_parameters()}
    frozen = chosen(model, parts, settings.freeze)
    if not frozen:
        return ""
    if len(frozen) == len(every) and not settings.unfreeze_every:
        raise ValueError(f"freeze={settings.freeze}: every weight of the model is frozen, so there is nothing to learn. Leave some out.")
    norms = "; batch norm there keeps its mean and variance" if any(map(_normalises, model.modules())) else ""
    count = sum(any(name in frozen for name in part.weights) for part in parts)
    epochs = "every epoch" if settings.unfreeze_every == 1 else f"every {settings.unfreeze_every} epochs"
    thaws = f" After {epochs} one of {count} stages thaws, from the head down." if settings.unfreeze_every else ""
    return f"Frozen: {sum(every[name] for name in frozen):,} of {sum(every.values()):,} weights{norms}.{thaws}"


def _normalises(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.batchnorm._BatchNorm)


def chosen(model: nn.Module, parts: Sequence[Stage], freeze: str) -> list[str]:
    """The names of the weights that a text chooses. Raises ValueError for a pattern that fits nothing."""
    named = [name for name, _ in model.named_parameters()]
    patterns = [word.strip() for word in freeze.split(",") if word.strip()]
    found: set[str] = set()
    for pattern in patterns:
        if pattern == BODY:
            fitting = {name for stage in parts[:-1] for name in stage.weights}
        else:
            layers = tuple(f"{name}." for name, _ in model.named_modules() if name and fnmatchcase(name, pattern))
            fitting = {name for name in named if name.startswith(layers) or fnmatchcase(name, pattern)}
            fitting |= {name for stage in parts if stage.name == pattern for name in stage.weights}
        if not fitting:
            known = [stage.name for stage in parts]
            others = dict.fromkeys([*known, *(name for name, _ in model.named_modules() if name), *named])
            near = get_close_matches(pattern, others, 3, 0.5)
            hint = f" Near: {', '.join(near)}." if near else ""
            raise ValueError(
                f"freeze: expected body, or names of layers or weights, got {pattern!r}, which fits none.{hint} The stages are "
                f"{', '.join(known)}."
            )
        found |= fitting
    return [name for name in named if name in found]
