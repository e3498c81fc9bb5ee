"""The architectures by name: a plain dict, and `build`.

>>> sorted(MODELS)
['char-lstm', 'lenet5', 'vgg-mini', 'vgg-small', 'word-lstm']
>>> model = build("lenet5", classes=4)
>>> model.config.classes
4
"""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NamedTuple

from torch import nn

from twofold.models import airbench, language, lenet, vgg_small
from twofold.models.config import Config
from twofold.models.memory import refuse_beyond_memory


class Model(NamedTuple):
    """One named preset of an architecture."""

    task: str  # "classify" or "language"
    preset: Config
    build: Callable[[Any], nn.Module]
    line: str  # one sentence for the list


def _of(module: Any, task: str = "classify", **lines: str) -> dict[str, Model]:
    """The presets of a file: their names, with _ for -, and a sentence for each."""
    names = {name.replace("_", "-"): line for name, line in lines.items()}
    assert names.keys() == module.PRESETS.keys(), f"{module.__name__}: {names.keys() ^ module.PRESETS.keys()}"
    return {name: Model(task, module.PRESETS[name], module.build, line) for name, line in names.items()}


MODELS: dict[str, Model] = {
    **_of(lenet, lenet5="LeNet-5 (1998) in its modern form, for pictures from 12x12"),
    **_of(
        vgg_small,
        vgg_mini="four 3x3 convolutions with batch norm, for 8x8 to 32x32",
        vgg_small="seven 3x3 convolutions with batch norm, for 32x32 to 96x96",
    ),
    **_of(airbench, airbench="the net of the CIFAR-10 speed runs (2024): whitening, three blocks, for 9x9 to 64x64"),
    **_of(
        language,
        "language",
        char_lstm="one LSTM layer over characters, tied output",
        word_lstm="two LSTM layers over words, tied output",
    ),
}


def find(name: str) -> Model:
    """The preset of that name. Raises ValueError with the nearest names."""
    if name in MODELS:
        return MODELS[name]
    near = get_close_matches(name.lower(), MODELS, 1, cutoff=0.4)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    raise ValueError(f"no model {name!r}: {hint}There are {', '.join(MODELS)} (twofold models).")


def configure(name: str, **changes: Any) -> Config:
    """The preset's configuration with some values changed. Raises ValueError for names and values that it cannot have."""
    preset = find(name).preset
    return type(preset).of(name, {**preset.as_dict(), **changes})


def build(name: str, **changes: Any) -> nn.Module:
    """A new network: the preset `name` with the changed values; torch's random generator decides the initial weights.

    Raises ValueError for what the configuration cannot have, and for more weights than this machine can hold.
    """
    found, config = find(name), configure(name, **changes)
    refuse_beyond_memory(name, lambda: found.build(config))
    return found.build(config)
