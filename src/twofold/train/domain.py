"""What a sweep searches: a grammar of one line.

    space     setting=domain, setting=domain, ...          lr=1e-4..1e-1:log,dropout=0..0.5,units=64|128|256
    domain    low..high  low..high:log  low..high:step=s   numbers from low to high, both included
              a|b|c                                        one of these

A setting has its flat name (learning_rate, or learning-rate; lr for short), or is one of the model's configuration (units). A range holds
whole numbers where the setting does, or where, of a setting that may be anything, both ends are written as whole numbers.

>>> space = parse("lr=1e-4..1e-1:log, units=64|128", {"learning_rate": "real", "config.units": "whole"})
>>> space["learning_rate"], space["config.units"]
(Range(low=0.0001, high=0.1, log=True, step=None), Choice(values=(64, 128)))
>>> spoken(space)
'learning_rate=0.0001..0.1:log,config.units=64|128'
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from twofold.train.flat import Plain

Kind = Literal["whole", "real", "flag", "word", "any"]
ALIASES = {"lr": "learning_rate"}
WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
REAL = re.compile(r"[+-]?(\d{1,30}\.?\d{0,30}|\.\d{1,30})([eE][+-]?\d{1,3})?", re.ASCII)
FLAGS = {"true": True, "false": False}
EXAMPLE = "For example: lr=1e-4..1e-1:log,dropout=0..0.5,units=64|128|256"


class Range(NamedTuple):
    """Numbers from low to high, both included; whole where low is. log: evenly over the orders of magnitude; step: low + k step only."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


class Choice(NamedTuple):
    """One of some values."""

    values: tuple[Plain, ...]


Domain = Range | Choice
Space = dict[str, Domain]


def parse(text: str, kinds: Mapping[str, Kind]) -> Space:
    """The domains by name. kinds: what each setting that may be searched holds; those of the model's configuration as config.NAME.

    Raises ValueError, which shows the text with >>> before the character that is wrong.
    """
    space: Space = {}
    for place, item in _pieces(text, 0, ","):
        name, equals, domain = item.partition("=")
        if not equals or not name.strip():
            raise _wrong(text, place, f"expected setting=domain, got {item!r}. {EXAMPLE}")
        setting = _setting(text, place, name.strip(), kinds)
        if setting in space:
            raise _wrong(text, place, f"{setting} is there twice")
        space[setting] = _domain(text, place + len(name) + 1, domain, name.strip(), kinds[setting])
    return space


def spoken(space: Mapping[str, Domain]) -> str:
    """The same space in the same grammar, in full names."""
    return ",".join(f"{name}={_spoken(domain)}" for name, domain in space.items())


def ends(domain: Domain) -> tuple[Plain, ...]:
    """The values that show whether a domain fits a setting: of a range both ends, of a choice all."""
    return domain.values if isinstance(domain, Choice) else (domain.low, domain.high)


def kinds_of(settings: type[Any]) -> dict[str, Kind]:
    """What each setting of a class holds, its parts' settings by flat names. Lists and names with values are no matter for a search."""
    found: dict[str, Kind] = {}
    for name, annotation in get_type_hints(settings, include_extras=True).items():
        if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)):
            found |= kinds_of(annotation)
        elif not name.startswith("_") and name != "model_config" and (kind := _kind(annotation)):
            found[name] = kind
    return found


def _kind(annotation: Any) -> Kind | None:
    inside = set(_types(annotation)) - {NoneType}
    if inside == {bool}:
        return "flag"
    if inside == {int}:
        return "whole"
    if inside in ({float}, {int, float}):
        return "real"
    return "word" if inside == {str} else None


def _types(annotation: Any) -> Iterator[Any]:
    """The plain types that an annotation allows."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _types(get_args(annotation)[0])
    elif origin is Literal:
        yield from (type(value) for value in get_args(annotation))
    elif origin in (Union, UnionType):
        for inner in get_args(annotation):
            yield from _types(inner)
    else:
        yield annotation


def _setting(text: str, place: int, name: str, kinds: Mapping[str, Kind]) -> str:
    wanted = ALIASES.get(name, name).replace("-", "_")
    for full in (wanted, f"config.{wanted}"):
        if full in kinds:
            return full
    known = [full.removeprefix("config.") for full in kinds]
    near = get_close_matches(wanted, known, 1)
    raise _wrong(text, place, f"no setting {name!r}. " + (f'Did you mean "{near[0]}"?' if near else f"There are {', '.join(known)}"))


def _domain(text: str, place: int, domain: str, name: str, kind: Kind) -> Domain:
    if not domain.strip():
        raise _wrong(text, place, f"expected a domain for {name}: low..high, or values with | between")
    if ".." in domain:
        return _range(text, place, domain, name, kind)
    if "|" in domain:
        values = tuple(_value(text, at, piece, name, kind) for at, piece in _pieces(text, place, "|", domain))
        if len(set(values)) < len(values):
            raise _wrong(text, place, f"expected values for {name} that differ, got {domain}")
        return Choice(values)
    raise _wrong(
        text, place, f"{domain.strip()!r} leaves nothing to search: expected low..high, or values with | between. One value? Set it"
    )


def _range(text: str, place: int, domain: str, name: str, kind: Kind) -> Range:
    if kind in ("flag", "word"):
        values = "true|false" if kind == "flag" else "a|b"
        raise _wrong(text, place, f"{name} is no number: expected values with | between, such as {name}={values}")
    low_text, _, rest = domain.partition("..")
    high_text, colon, form = rest.partition(":")
    high_place = place + len(low_text) + 2
    both = (low_text.strip(), high_text.strip())
    whole = kind == "whole" or (kind == "any" and all(WHOLE.fullmatch(end) for end in both))
    low = _number(text, place, low_text, name, whole)
    high = _number(text, high_place, high_text, name, whole)
    if low >= high:
        raise _wrong(text, high_place, f"expected {name} to end above {low_text.strip()}, got {high_text.strip()}")
    form_place = high_place + len(high_text) + 1
    if not colon:
        return Range(low, high)
    if form.strip() == "log":
        if low <= 0:
            raise _wrong(text, place, f"a logarithmic range begins above 0, got {low_text.strip()}")
        return Range(low, high, log=True)
    key, equals, step_text = form.partition("=")
    if key.strip() != "step" or not equals:
        raise _wrong(text, form_place, f"expected log or step=NUMBER after the colon, got {form.strip()!r}")
    step_place = form_place + len(key) + 1
    step = _number(text, step_place, step_text, name, whole)
    if not 0 < step <= high - low:
        raise _wrong(text, step_place, f"expected a step above 0 and at most {high - low:g}, got {step_text.strip()}")
    return Range(low, high, step=step)


def _value(text: str, place: int, piece: str, name: str, kind: Kind) -> Plain:
    word = piece.strip()
    if not word:
        raise _wrong(text, place, f"expected a value for {name} before or after |")
    if kind == "flag" or (kind == "any" and word.lower() in FLAGS):
        if word.lower() not in FLAGS:
            raise _wrong(text, place, f"expected true or false for {name}, got {word!r}")
        return FLAGS[word.lower()]
    if kind == "word" or (kind == "any" and not REAL.fullmatch(word)):
        return word
    return _number(text, place, piece, name, kind == "whole" or (kind == "any" and WHOLE.fullmatch(word) is not None))


def _number(text: str, place: int, piece: str, name: str, whole: bool) -> float:
    word = piece.strip()
    if whole and not WHOLE.fullmatch(word):
        raise _wrong(text, place, f"expected a whole number for {name}, got {word!r}")
    if not REAL.fullmatch(word):
        raise _wrong(text, place, f"expected a number for {name}, got {word!r}")
    number = int(word) if whole else float(word)
    if number - number != 0:
        raise _wrong(text, place, f"{word} is too large")
    return number


def _pieces(text: str, place: int, mark: str, within: str | None = None) -> Iterator[tuple[int, str]]:
    """The parts between the marks, each with the place in the text where it begins."""
    for piece in (text if within is None else within).split(mark):
        yield place, piece
        place += len(piece) + 1


def _wrong(text: str, place: int, why: str) -> ValueError:
    """The mistake, with >>> before its first character."""
    place += len(text[place:]) - len(text[place:].lstrip())
    return ValueError(f"sweep: {why.rstrip('.')}. Character {place + 1}: {text[:place]}>>>{text[place:]}")


def _spoken(domain: Domain) -> str:
    if isinstance(domain, Choice):
        return "|".join(str(value).lower() if isinstance(value, bool) else str(value) for value in domain.values)
    form = ":log" if domain.log else "" if domain.step is None else f":step={domain.step}"
    return f"{domain.low}..{domain.high}{form}"
