"""Augmentation in words: "flip rotate=15 crop=4 colour=0.2 erase=0.25".

    none        nothing                       light      flip crop=0.0625
    standard    flip crop=0.125               digits     rotate=10 scale=0.1 shear=10 shift=0.1 elastic=0.03    (a mirrored 2 is no 2)
    strong      flip rotate=15 scale=0.1 resized-crop=0.4 colour=0.3 hue=0.05 erase=0.25 edge=reflect

A preset may stand first, and words after it change it: "standard rotate=10". The order of the others does not matter. colour=0.2 is
brightness=0.2 contrast=0.2 saturation=0.2. Amounts without a unit are shares of the picture's side; rotate and shear are degrees; crop and
cutout are pixels from 1 on.
"""

from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from twofold.data.augment import Recipe

PRESETS = {
    "none": "",
    "light": "flip crop=0.0625",
    "standard": "flip crop=0.125",
    "digits": "rotate=10 scale=0.1 shear=10 shift=0.1 elastic=0.03",
    "strong": "flip rotate=15 scale=0.1 resized-crop=0.4 colour=0.3 hue=0.05 erase=0.25 edge=reflect",
}
# Each word: the part of the recipe and the values in it that it sets. In the order in which a recipe is written.
WORDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "flip": ("geometry", ("flip",)),
    "rotate": ("geometry", ("rotate",)),
    "scale": ("geometry", ("scale",)),
    "shear": ("geometry", ("shear",)),
    "shift": ("geometry", ("shift",)),
    "crop": ("geometry", ("crop",)),
    "resized-crop": ("geometry", ("resized_crop",)),
    "elastic": ("elastic", ("amount",)),
    "colour": ("colour", ("brightness", "contrast", "saturation")),
    "brightness": ("colour", ("brightness",)),
    "contrast": ("colour", ("contrast",)),
    "saturation": ("colour", ("saturation",)),
    "hue": ("colour", ("hue",)),
    "erase": ("erasing", ("erase",)),
    "cutout": ("erasing", ("cutout",)),
    "edge": ("", ("edge",)),
}
SPELLINGS = {"color": "colour"}


def read_recipe(text: str) -> Recipe:
    """The recipe that the words stand for. Raises ValueError naming the word that is wrong."""
    words = text.split()
    recipe, said = Recipe(), set[str]()
    for place, word in enumerate(words, 1):
        where = f'augment, word {place} ("{word}")'
        if word in PRESETS:
            if place > 1:
                raise ValueError(f'{where}: expected a preset to stand first, as in "{word} {" ".join(w for w in words if w != word)}".')
            recipe = read_recipe(PRESETS[word])
            continue
        name, given, value = word.partition("=")
        name = SPELLINGS.get(name, name)
        if name not in WORDS:
            raise ValueError(f"{where}: no transform {name!r}. {_near(name)}")
        home, targets = WORDS[name]
        twice = [target for target in targets if target in said]
        if twice:
            raise ValueError(f"{where}: {twice[0]} is set twice. Say it once.")
        said.update(targets)
        try:
            recipe = _set(recipe, home, dict.fromkeys(targets, _value(name, value if given else None)))
        except ValueError as error:
            raise ValueError(f"{where}: {str(error).removeprefix('augment ')}") from None
    return recipe


def write_recipe(recipe: Recipe) -> str:
    """The words for a recipe, "none" for one that does nothing. Every recipe that has words is read back from them as it was.

    >>> write_recipe(read_recipe("crop=4 color=0.2 flip rotate=15"))
    'flip rotate=15 crop=4 colour=0.2'
    """
    said, usual = [], Recipe()
    done: set[str] = set()
    for name, (home, targets) in WORDS.items():
        part, normal = (getattr(recipe, home), getattr(usual, home)) if home else (recipe, usual)
        values = [getattr(part, target) for target in targets]
        if len(set(values)) > 1 or values[0] == getattr(normal, targets[0]) or done.intersection(targets):
            continue
        done.update(targets)
        said.append(
            name if values[0] == "horizontal" else f"{name}={values[0]}" if isinstance(values[0], str) else f"{name}={values[0]:.10g}"
        )
    return " ".join(said) or "none"


def _set(recipe: Recipe, home: str, values: dict[str, Any]) -> Recipe:
    if not home:
        return replace(recipe, **values)
    return replace(recipe, **{home: replace(getattr(recipe, home), **values)})


def _value(name: str, text: str | None) -> str | float:
    """What stands behind the sign of equality; `flip` may stand alone."""
    if name == "edge":
        return text or ""
    if name == "flip":
        return "horizontal" if text is None else text or "nothing"
    if text is None:
        raise ValueError(f"{name}: expected an amount, as in {name}=0.2.")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name}: expected a number, got {text!r}.") from None


def _near(name: str) -> str:
    near = get_close_matches(name, [*WORDS, *PRESETS], 1)
    return f'Did you mean "{near[0]}"?' if near else f"There are {', '.join(WORDS)}; and first of all {', '.join(PRESETS)}."
