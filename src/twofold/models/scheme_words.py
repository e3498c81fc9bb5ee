"""The words of a scheme, and what may stand behind each: a number of some kind, and letters with numbers of their own.

    word           number                                      letters
    conv           filters                                     k kernel, s stride, p padding, d dilation, g groups, b bias
    dw                                                         k s p d b, m multiplier
    fc             outputs                                     b
    pool, ...      window                                      s p; of lppool n, the norm
    gn, lrn        groups, channels around
    others         see docs/schemes.md

>>> settle("conv", (64,), {"k": (5, 5)})["p"]  # half the kernel, so that the map keeps its size
(2, 2)
"""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

Kind = Literal["", "whole", "size", "levels", "decimal"]
Number = tuple[int, ...] | float  # (64,), a size (rows, columns), the levels, or a decimal

PLACES = 6  # decimals of a number
LETTERS: dict[str, tuple[str, Kind]] = {
    "k": ("kernel", "size"),
    "s": ("stride", "size"),
    "p": ("padding", "size"),
    "d": ("dilation", "size"),
    "g": ("groups", "whole"),
    "m": ("multiplier", "whole"),
    "n": ("norm", "whole"),
    "b": ("bias, 0 or 1", "whole"),
}
FROM_NOTHING = "pb"  # letters whose number may be 0


class Form(NamedTuple):
    """What a word may have behind it: a number of some kind and its default (None: it depends), and letters with theirs."""

    number: Kind = ""
    default: Number | None = None
    letters: Mapping[str, Number | None] = {}


_STEPS: Mapping[str, Number | None] = {"s": (1, 1), "p": None, "d": (1, 1)}
_POOL: Mapping[str, Number | None] = {"s": None, "p": (0, 0)}
NUMBERS: dict[Kind, re.Pattern[str]] = {
    "whole": re.compile(r"\d+"),
    "size": re.compile(r"\d+(x\d+)?"),
    "levels": re.compile(r"\d+(_\d+)*"),
    "decimal": re.compile(r"\d*\.\d+|\d+"),
}
FORMS: dict[str, Form] = {
    "conv": Form("whole", None, {"k": (3, 3), **_STEPS, "g": (1,), "b": None}),
    "dw": Form("", None, {"k": (3, 3), **_STEPS, "m": (1,), "b": None}),
    "fc": Form("whole", None, {"b": None}),
    "pool": Form("size", (2, 2), _POOL),
    "avgpool": Form("size", (2, 2), _POOL),
    "lppool": Form("size", (2, 2), {**_POOL, "n": (2,)}),
    "gausspool": Form("size", (2, 2), _POOL),
    "stochpool": Form("size", (2, 2), _POOL),
    "adapt": Form("size", (1, 1)),
    "spp": Form("levels", (1, 2, 4)),
    "gap": Form(),
    "gmp": Form(),
    "flatten": Form(),
    "bn": Form(),
    "gn": Form("whole"),
    "ln": Form(),
    "lrn": Form("whole", (5,)),
    "relu": Form(),
    "relu6": Form(),
    "leaky": Form("decimal", 0.01),
    "prelu": Form(),
    "elu": Form(),
    "selu": Form(),
    "celu": Form(),
    "gelu": Form(),
    "silu": Form(),
    "mish": Form(),
    "tanh": Form(),
    "sigmoid": Form(),
    "softplus": Form(),
    "hardtanh": Form(),
    "hardsigmoid": Form(),
    "hardswish": Form(),
    "maxout": Form("whole", (2,)),
    "dropout": Form("decimal", 0.5),
}
ALIASES = {
    "maxpool": "pool", "linear": "fc", "dense": "fc", "batchnorm": "bn", "groupnorm": "gn", "layernorm": "ln", "leakyrelu": "leaky",
    "lrelu": "leaky", "swish": "silu", "hswish": "hardswish", "drop": "dropout", "depthwise": "dw",
}  # fmt: skip
ELSEWHERE = {
    "softmax": "Leave it out: the loss takes the softmax of the class scores.",
    "output": "Leave it out: the last fc gives the class scores.",
    "norm": "Say which: bn, gn, ln or lrn.",
    "x": "How often is written with a star: [conv relu]*2.",
}


def settle(word: str, number: Number | None, letters: Mapping[str, Number]) -> dict[str, Number | None]:
    """Every setting of a layer: what is given, else the default, which for a convolution's padding is half its kernel."""
    form = FORMS[word]
    full: dict[str, Number | None] = {"": form.default if number is None else number, **form.letters, **letters}
    kernel, dilation = full.get("k"), full.get("d")
    if isinstance(kernel, tuple) and isinstance(dilation, tuple) and "p" not in letters:
        full["p"] = tuple(gap * (side - 1) // 2 for side, gap in zip(kernel, dilation, strict=True))
    if "s" in form.letters and "k" not in form.letters:  # a pool: as far as it is wide
        full["s"] = letters.get("s", full[""])
    return full


def written(value: Number, kind: Kind) -> str:
    """The number as a scheme has it: .5, 3x5, 1_2_4."""
    if isinstance(value, float):
        return f"{value:.{PLACES}f}".rstrip("0").rstrip(".").removeprefix("0") or "0"
    if kind == "size":
        return str(value[0]) if value[0] == value[1] else f"{value[0]}x{value[1]}"
    return "_".join(map(str, value))


def word_of(text: str) -> str | None:
    """The word that a text begins with, where behind it stands what may: "convk5" is conv, "relu6" is itself."""
    if re.match(r"relu6(?!\d)", text):
        return "relu6"
    letters = re.match(r"[a-z]*", text)
    assert letters is not None
    if known(letters[0]):
        return letters[0]
    shorter = letters[0][:-1]
    fits = shorter and known(shorter) and letters[0][-1] in FORMS[ALIASES.get(shorter, shorter)].letters and text[letters.end() :]
    return shorter if fits else None


def known(word: str) -> bool:
    """Whether the language has the word, or another name for it."""
    return word in FORMS or word in ALIASES
