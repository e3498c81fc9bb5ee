"""Schemes of first weights by name, over a whole model.

    uniform         uniform(-0.2, 0.2), or the two numbers that are given: uniform(-0.05, 0.05)
    normal          normal(0, 0.01), or the mean and the standard deviation that are given
    lecun, glorot, he                by the number of inputs and outputs (initialize); normal, or _uniform and _normal as asked for
    orthogonal      lengths are kept; orthogonal(1.4): multiplied
    identity        from state to state every unit keeps its value; all other weights by glorot_uniform
    data            orthogonal, then scaled so that every layer's output has variance 1 on a batch (unit_variance)

Le, Jaitly and Hinton, "A simple way to initialize recurrent networks of rectified linear units", 2015; the others: initialize.py
"""

import re
from collections.abc import Callable
from difflib import get_close_matches
from inspect import signature
from math import isfinite
from typing import Any, NamedTuple

from torch import nn

from twofold.layers.initialize import INITIALIZERS, initialize, weights_of
from twofold.layers.unit_variance import scale_to_unit_variance

SHORT = {"lecun": "lecun_normal", "glorot": "glorot_normal", "he": "he_normal"}
SCHEMES = ("uniform", "normal", *SHORT, *(name for name in INITIALIZERS if "_" in name), "orthogonal", "identity", "data")
ALIKE = ("constant", "zero", "zeros", "ones")
_CALL = re.compile(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*")


class Scheme(NamedTuple):
    """A name of SCHEMES, and the options of its function in INITIALIZERS."""

    name: str
    options: dict[str, Any]


def read_scheme(text: str) -> Scheme:
    """The scheme that a text names, with numbers in brackets where it takes some.

    Raises ValueError for a name that is none, for weights that would all be alike, and for numbers that the scheme does not take.

    >>> read_scheme("uniform(-0.05, 0.05)")
    Scheme(name='uniform', options={'low': -0.05, 'high': 0.05})
    """
    found = _CALL.fullmatch(text)
    name = found[1] if found else text
    if name in ALIKE:
        raise ValueError(
            f"init: {text!r} makes all weights of a layer alike, so all its units would compute the same and stay the same for ever "
            '(symmetry). Take a random scheme, such as "he".'
        )
    if found is None or name not in SCHEMES:
        near = get_close_matches(name.lower(), SCHEMES, 1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise ValueError(f"init: expected a scheme of {', '.join(SCHEMES)}, got {text!r}.{hint}")
    options: dict[str, Any] = {}
    if found[2] is not None:
        known = list(signature(INITIALIZERS[name]).parameters)[2:] if name in INITIALIZERS else []
        try:
            numbers = [float(number) for number in found[2].split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != len(known) or not known or not all(map(isfinite, numbers)):
            takes = f"{name}({', '.join(known)}) with finite numbers" if known else f"{name} without numbers"
            raise ValueError(f"init: expected {takes}, got {text!r}.")
        options = dict(zip(known, numbers, strict=True))
    return Scheme(name, options)


def apply_scheme(model: nn.Module, text: str, run: Callable[[], Any], bias: float | None = 0.0, forget_bias: float | None = None) -> None:
    """Fill the weights of the model by the scheme, and the biases beside them with `bias`, from torch's random generator.

    run: calls the model on a batch, for "data". bias, forget_bias: as in `initialize`. What else is left alone: see there.
    Raises ValueError for a scheme that is none or that the model has no use for.
    """
    name, options = read_scheme(text)
    if name == "identity":
        if not any(weight.startswith("weight_hh") for part in model.modules() for weight in weights_of(part)):
            raise ValueError(
                f'init: "identity" fills weights from state to state, and {type(model).__name__} has no recurrent layer. Take "orthogonal".'
            )
        initialize(model, "glorot_uniform", bias, forget_bias=forget_bias, recurrent="identity")
        return
    initialize(model, "orthogonal" if name == "data" else SHORT.get(name, name), bias, forget_bias=forget_bias, **options)
    if name == "data":
        scale_to_unit_variance(model, run)
