"""The first weights of a run: by the scheme of the settings, and refused where nothing could be learnt from them.

    init          a scheme (layers/schemes.py); "": the weights as the model is built
    init_bias     every bias beside a weight; None: 0 with a scheme, else as the model is built
    forget_bias   of every LSTM's forget gate, over init_bias

A model with a method `start_from(x)`, such as airbench's whitening, is given pictures of the first batches, after the scheme. Whatever the
scheme, and for a model of one's own too, the weights are looked at before the first step (layers/symmetry.py).
"""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Annotated, Any

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from twofold.layers.initialize import initialize
from twofold.layers.schemes import apply_scheme, read_scheme
from twofold.layers.symmetry import refuse_symmetric
from twofold.train.part import Part

EXAMPLES = 5000  # pictures from which a model may start
Number = Annotated[float, Field(allow_inf_nan=False)]


class Initialisation(Part):
    """Where the weights begin."""

    init: str = ""
    """The scheme of the first weights: uniform, lecun, glorot, he, orthogonal, identity, data, ... Default: as the model is built."""
    init_bias: Number | None = None
    """The first value of every bias, such as 0.01. Default: 0 with a scheme, else as the model is built."""
    forget_bias: Number | None = None
    """The first value of the bias of every LSTM's forget gate, such as 1. Default: as the model is built."""

    @field_validator("init")
    @classmethod
    def _known(cls, text: str) -> str:
        if text:
            read_scheme(text)
        return text


def initialise(model: nn.Module, settings: Initialisation, batches: Iterable[Any], loss: Callable[[nn.Module, Any], Tensor]) -> None:
    """Give the model its first weights from torch's random generator, and refuse those from which no unit could become itself.

    batches: the first is asked for where the scheme or the check needs one; loss(model, batch): its loss, as in training.
    Raises ValueError for a scheme or a forget_bias that the model has no use for, and for symmetric weights, with the reason.
    """

    coming, seen = iter(batches), list[Any]()

    def first() -> Any:
        if not seen:
            seen.append(next(coming))
        return seen[0]

    def run() -> Tensor:
        return loss(model, first())

    if settings.init:
        bias = 0.0 if settings.init_bias is None else settings.init_bias
        apply_scheme(model, settings.init, run, bias, settings.forget_bias)
    elif settings.init_bias is not None or settings.forget_bias is not None:
        initialize(model, None, settings.init_bias, forget_bias=settings.forget_bias)
    start = getattr(model, "start_from", None)
    if callable(start):
        with torch.random.fork_rng(devices=[]):
            start(_inputs(chain([first()], coming), model))
    with torch.random.fork_rng(devices=[]):
        refuse_symmetric(model, run)


def _inputs(batches: Iterable[Any], model: nn.Module) -> Tensor:
    """The inputs of the first batches, up to some thousand, where the model is."""
    place = next(model.parameters()).device
    gathered: list[Tensor] = []
    for batch in batches:
        gathered.append(batch[0].to(place))
        if sum(map(len, gathered)) >= EXAMPLES:
            break
    return torch.cat(gathered)[:EXAMPLES]
