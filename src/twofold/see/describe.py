"""The arithmetic of a layer, or of a model layer by layer, that explains itself.

    sizes             each axis of the output as the law of its kind says it, in numbers
    parameters        ((kh kw C) + 1) F and its like
    multiply-adds     as many as a forward pass of this batch takes
    memory            bytes of the output, and of what autograd keeps for backward beside the weights
    receptive field   the pixels that one output sees, the pixels from one field to the next, where the first begins and has its centre

What a law says is compared with a run (trial.py) before it is told. Where no law is known, the run and the layer's own tensors are told,
and the words "measured" and "as they are" say so.

Sources: those of sliding.py, dense.py and receptive.py
"""

from collections.abc import Sequence
from copy import deepcopy
from numbers import Integral
from typing import Any, Final

import torch
from torch import nn

from twofold.see.arithmetic import law_of
from twofold.see.dense import count
from twofold.see.description import Description
from twofold.see.law import ALL, ALONE, Counted, Law, times
from twofold.see.receptive import field
from twofold.see.sliding import axes_of
from twofold.see.summary import summarise
from twofold.see.trial import Trial, attempt, inputs_of, on_meta
from twofold.time.minimal import Minimal
from twofold.time.unrolled import Recurrent

SEQUENCES: Final = (nn.RNNBase, Minimal, Recurrent)  # one sample is (T, D), and the rows come second unless batch_first
OVER_GROUPS: Final = ("GroupConv2d", "GroupPool2d")  # their maps have an axis for the group beside the channels
MEASURED: Final = "measured, the products in matrix multiplications and convolutions"
LETTERS: Final = {1: "(D)", 2: "(C, T)", 3: "(C, H, W)", 4: "(C, D, H, W)"}


def describe(layer: nn.Module, input_shape: Sequence[int], *, batched: bool | None = None) -> Description:
    """Sizes, parameters, multiply-adds, memory and receptive field of a layer or model, each with its derivation.

    input_shape: of one sample, (3, 224, 224), or of a batch, (B, 3, 224, 224). Which of the two is told by the number of axes that the
    layer, or a model's first, is made for; where it takes any number, 1 and 3 axes are one sample if they can be. `batched` settles it.
    The layer is not touched. Raises ValueError for a shape that it refuses, in its own words.

    >>> print(describe(nn.Conv2d(3, 64, 7, stride=2, padding=3), (3, 224, 224)).parameters)
    ((7*7*3)+1)*64 = 9,472
    """
    if not isinstance(layer, nn.Module):
        raise ValueError(
            f"describe: expected a layer or a model, got {type(layer).__name__}. For example: describe(nn.Conv2d(3, 8, 3), (3, 32, 32))"
        )
    (shape, batch), *others = readings(layer, input_shape, batched)
    try:
        trial = attempt(layer, shape)
    except ValueError:
        if not others:
            raise
        shape, batch = others[0]
        trial = attempt(layer, shape)
    if list(layer.children()):
        return _model(layer, shape, batch, trial)
    law = law_of(layer, shape)
    if law is not None and law.output != tuple(trial.output.shape):
        law = None
    law = law or _measured(layer, trial)
    paths = tuple((sight,) for sight in law.sees) if not isinstance(law.sees, str) else ()
    words = {ALONE: "its own place", ALL: "all of the input"}.get(str(law.sees), law.reach)
    return Description(
        str(layer),
        batch,
        shape,
        law.output,
        law.sizes,
        law.parameters,
        law.multiply_adds,
        Counted(trial.output.numel() * trial.output.element_size(), f"({times(*law.output)})*{trial.output.element_size()}"),
        _kept(trial),
        field=field(paths, law.output[-len(paths) :]) if paths else None,
        sees=words,
    )


def _measured(layer: nn.Module, trial: Trial) -> Law:
    """What can be said where no law is known."""
    products = Counted(trial.products, MEASURED)
    return Law(tuple(trial.output.shape), (("shape", "measured on a run"),), count(layer), products, "")


def _model(model: nn.Module, shape: tuple[int, ...], batch: str, trial: Trial) -> Description:
    try:
        lines = summarise(on_meta(model), *inputs_of(model, shape, "meta"))
    except RuntimeError:  # a layer that asks for numbers
        lines = summarise(deepcopy(model), *inputs_of(model, shape, trial.on))
    apart = sum(line.weights for line in lines if line.apart)
    told = sum(line.multiply_adds or 0 for line in lines)
    complete = all(line.multiply_adds is not None or line.apart for line in lines) and told >= trial.products
    return Description(
        type(model).__name__,
        batch,
        shape,
        tuple(trial.output.shape),
        (),
        Counted(sum(line.weights for line in lines), f"{apart:,} of them outside the layers that were called" if apart else ""),
        Counted(told, "") if complete else Counted(max(told, trial.products), MEASURED),
        Counted(sum(line.bytes for line in lines), "of all layers in the table"),
        _kept(trial),
        layers=tuple(lines),
    )


def _kept(trial: Trial) -> Counted:
    """The bytes that backward keeps."""
    only = len(trial.kept) == 1
    named = [f"the {kept.what}" + f" {kept.bytes:,}" * (not only) for kept in trial.kept if kept.what]
    others = [kept for kept in trial.kept if not kept.what]
    if len(others) == 1:
        named.append(f"{others[0].shape} of {others[0].dtype}" + f" {others[0].bytes:,}" * (not only))
    elif others:
        named.append(f"{len(others)} others {sum(kept.bytes for kept in others):,}")
    whose = " (PyTorch's own operators)" if trial.on == "meta" else ""
    return Counted(sum(kept.bytes for kept in trial.kept), f"{' + '.join(named) or 'nothing'}{whose}")


def readings(layer: nn.Module, input_shape: Any, batched: bool | None = None) -> list[tuple[tuple[int, ...], str]]:
    """(the shape with its batch, how it was read): once, or twice where either may be meant, the likelier first.

    >>> readings(nn.Conv2d(3, 8, 3), (3, 32, 32)), readings(nn.LSTM(4, 5), (10, 4))
    ([((1, 3, 32, 32), 'given without a batch: B = 1')], [((10, 1, 4), 'given without a batch: B = 1')])
    """
    right = isinstance(input_shape, (tuple, list, torch.Size)) and len(input_shape) > 0
    if not right or not all(isinstance(n, Integral) and not isinstance(n, bool) and int(n) >= 1 for n in input_shape):
        raise ValueError(f"describe: expected input_shape as whole numbers of at least 1, such as (3, 224, 224), got {input_shape!r}.")
    shape = tuple(int(n) for n in input_shape)
    first = next((module for module in layer.modules() if isinstance(module, SEQUENCES) or not list(module.children())), layer)
    if isinstance(first, (nn.Embedding, nn.EmbeddingBag)):
        return [(shape, "every axis as given")]
    sample = _sample_axes(first, shape)
    if batched is None and sample and len(shape) - sample not in (0, 1):
        raise ValueError(
            f"describe: expected {sample} numbers {LETTERS[sample]} for one sample of {type(first).__name__}, or {sample + 1} "
            f"with a batch, got {shape}."
        )
    place = 1 if isinstance(first, SEQUENCES) and not first.batch_first else 0
    with_batch = (shape, "given with its batch")
    without = ((*shape[:place], 1, *shape[place:]), "given without a batch: B = 1")
    if batched is None and not sample:
        return [without, with_batch] if len(shape) in (1, 3) else [with_batch]
    return [with_batch if batched or (batched is None and len(shape) == sample + 1) else without]


def _sample_axes(layer: nn.Module, shape: tuple[int, ...]) -> int:
    """The axes of one sample, 0 where the layer takes any number."""
    axes = axes_of(layer)
    if type(layer).__name__ in OVER_GROUPS:
        return 4
    if isinstance(layer, (nn.BatchNorm1d, nn.InstanceNorm1d)):  # features, or signals
        return 1 if len(shape) == 1 or (len(shape) == 2 and shape[1] == layer.num_features) else 2
    if axes is not None:
        return axes + 1
    if isinstance(layer, SEQUENCES):
        return 2
    if isinstance(layer, nn.GroupNorm):
        return len(shape) - 1 if len(shape) > 1 and shape[1] == layer.num_channels else len(shape)
    return 1 if isinstance(layer, nn.RNNCellBase) or (isinstance(layer, nn.Linear) and len(shape) < 3) else 0
