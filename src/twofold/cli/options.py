"""Kinds of options that commands share.

A whole number is written as one. The parser by itself would round 1.5 up or down and go on with a number that nobody gave.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import CoercionError, Parameter, Token


def read_whole(_: Any, tokens: Sequence[Token]) -> int:
    """The number. Raises CoercionError for anything but digits with or without a sign."""
    (token,) = tokens
    if not re.fullmatch(r"[+-]?\d{1,18}", token.value, re.ASCII):
        raise CoercionError(token=token, target_type=int)
    return int(token.value)


Flag = Annotated[bool, Parameter(negative=())]
Whole = Annotated[int, Parameter(converter=read_whole)]
MaybeWhole = Annotated[int | None, Parameter(converter=read_whole)]
