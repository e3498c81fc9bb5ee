"""What every architecture's configuration has in common: checked fields, and sentences for those that are wrong."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Self

LARGEST = 1 << 24  # of any whole number: products of several stay whole numbers that a tensor's size can be


@dataclass(frozen=True)
class Config:
    """The numbers that make one network of an architecture. Frozen; stored in model.json; unknown names are errors."""

    @classmethod
    def of(cls, who: str, values: Mapping[str, Any]) -> Self:
        """A configuration from names and values. Raises ValueError for a name or a type that the architecture does not have."""
        known = {field.name: field.type for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f' Did you mean "{near[0]}"?' if near else ""
                raise ValueError(f"{who}: no option {name!r}; it has {', '.join(known)}.{hint}")
            kind = known[name]
            if not _fits(value, kind):
                raise ValueError(f"{who}: expected {name} to be {_spoken(kind)}, got {value!r}.")
            if isinstance(value, int):
                at_most(who, LARGEST, **{name: value})
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """The values by name, as model.json has them."""
        return asdict(self)


def at_least(who: str, smallest: int, **values: int) -> None:
    """Raise ValueError for a value below the smallest."""
    for name, value in values.items():
        if value < smallest:
            raise ValueError(f"{who}: expected {name} to be at least {smallest}, got {value}.")


def at_most(who: str, largest: int, **values: int) -> None:
    """Raise ValueError for a value above the largest."""
    for name, value in values.items():
        if value > largest:
            raise ValueError(f"{who}: expected {name} to be at most {largest:,}, got {value:,}.")


def big_enough(who: str, smallest: int, height: int, width: int) -> None:
    """Raise ValueError for pictures with a side below the smallest that the net takes."""
    if min(height, width) < smallest:
        raise ValueError(
            f"{who}: expected pictures of at least {smallest}x{smallest}, got {height}x{width}: its maps would shrink to nothing. Take a "
            "larger --image-size, or a net for small pictures (twofold models)."
        )


def fraction(who: str, **values: float) -> None:
    """Raise ValueError for a value outside 0 <= value < 1."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{who}: expected {name} from 0 up to, not including, 1, got {value}.")


def _fits(value: Any, kind: Any) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind)


def _spoken(kind: Any) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, str(kind))
