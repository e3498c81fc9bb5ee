"""Class names that should be those of another folder and are not: which differ, and which are likely meant.

    near       "T-Shirt" and "tshirt", "cats" and "cat": equal in letters and digits alone, else much alike
    numbers    0, 1, 2 on one side and names on the other: where they are as many, in order the same classes

Nothing is renamed: what is likely is said, and whoever knows the pictures decides.

>>> advice(("cat", "tshirt"), ("T-Shirt", "cat"))
'Likely the same: T-Shirt = tshirt.'
>>> advice(("cat", "dog"), ("1", "2"))
'It has numbers where names were expected. If they count the classes in order: 1 = cat, 2 = dog.'
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from twofold.data.folder import printable

LISTED = 10
CLOSE = 0.75  # of difflib's ratio


def some(names: Iterable[str]) -> str:
    """At most ten names, and how many more there are."""
    listed = [printable(name) for name in names]
    more = f" and {len(listed) - LISTED:,} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more


def advice(expected: Sequence[str], found: Sequence[str]) -> str:
    """A sentence on which of the names that were found are likely which of those that were expected; "" where none is."""
    numbers, names = _numbers(found), _numbers(expected)
    if numbers is not None and names is None:
        return _by_order(numbers, sorted(expected), "numbers where names were expected")
    if numbers is None and names is not None:
        return _by_order(sorted(found), names, "names where numbers were expected")
    pairs = near(expected, found)
    return f"Likely the same: {some(f'{name} = {meant}' for name, meant in pairs.items())}." if pairs else ""


def unknown_classes(who: str, known: Sequence[str], found: Sequence[str]) -> str:
    """What a source is answered that has classes which a model does not know."""
    strange = [name for name in found if name not in known]
    likely = advice(known, found)
    return f"{who}: holds classes that the model does not know: {some(strange)}. It knows {some(known)}{f'. {likely}' if likely else ''}"


def near(expected: Sequence[str], found: Sequence[str]) -> dict[str, str]:
    """Of the names that only the one side has: what was found -> what is likely meant, each at most once."""
    left = {_bare(name): name for name in expected if name not in found}
    pairs: dict[str, str] = {}
    strange = [name for name in found if name not in expected]
    for cutoff in (1.0, CLOSE):  # the same letters first
        for name in strange:
            close = get_close_matches(_bare(name), left, 1, cutoff) if name not in pairs else []
            if close:
                pairs[name] = left.pop(close[0])
    return {name: pairs[name] for name in strange if name in pairs}


def _by_order(found: Sequence[str], expected: Sequence[str], said: str) -> str:
    if len(found) != len(expected):
        return f"It has {said}, {len(found):,} for {len(expected):,}."
    pairs = some(f"{one} = {other}" for one, other in zip(found, expected, strict=True))
    return f"It has {said}. If they count the classes in order: {pairs}."


def _numbers(names: Sequence[str]) -> list[str] | None:
    """The names in the order of their numbers; None where one is no whole number, or where two are the same."""
    if not names or not all(name.isascii() and name.isdecimal() for name in names) or len({int(name) for name in names}) < len(names):
        return None
    return sorted(names, key=int)


def _bare(name: str) -> str:
    """Letters and digits alone, in one case; the name itself where it has none."""
    return "".join(sign for sign in name.casefold() if sign.isalnum()) or name
