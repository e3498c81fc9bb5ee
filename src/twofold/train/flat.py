"""Settings by their flat names: {"source": "digits", "learning": {"epochs": 5}, "config": {"units": 8}} -> source, epochs, config.units.

The names of all parts are unique, so the name of a part adds nothing. Those of a model's configuration may repeat a setting's name
(dropout), so they keep theirs.
"""

from collections.abc import Mapping
from typing import Any

Plain = bool | int | float | str


def flat(settings: Mapping[str, Any]) -> dict[str, Plain]:
    """Every setting by its flat name, as a number or as words: lists with spaces between, nothing as "none"."""
    values: dict[str, Plain] = {}
    for name, value in settings.items():
        if not isinstance(value, Mapping):
            values[name] = _plain(value)
        elif name == "config":
            values |= {f"config.{inner}": _plain(one) for inner, one in value.items()}
        else:
            values |= flat(value)
    return values


def _plain(value: Any) -> Plain:
    if value is None:
        return "none"
    if isinstance(value, bool | int | float | str):
        return value
    return " ".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value)
