"""What a setting that is a real number may be, and the sentence that says so."""

from math import isfinite
from numbers import Real
from typing import Any


def expect_number(who: str, name: str, value: Any, *, least: float | None = None, above: float | None = None, cause: str = "") -> None:
    """Raise ValueError unless value is a finite real number, not below `least`, and above `above`.

    >>> expect_number("Softplus", "beta", 0, above=0, cause="The law divides by it.")
    Traceback (most recent call last):
    ValueError: Softplus: expected beta to be a finite number above 0, got 0. The law divides by it.
    """
    right = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    if right and (least is None or value >= least) and (above is None or value > above):
        return
    bound = f" of at least {least}" if least is not None else f" above {above}" if above is not None else ""
    raise ValueError(f"{who}: expected {name} to be a finite number{bound}, got {value!r}. {cause}".rstrip())
