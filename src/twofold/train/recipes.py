"""Recipes: the settings that suit a source, laid under what the user sets. A recipe names only what differs from the defaults.

A source gets its own recipe by name, any other that of its task; `--recipe NAME` asks for a certain one, which may also say how the data
are read. What they reach, in which time and on which machine, is told in docs/recipes.md.
"""

from difflib import get_close_matches
from typing import Any, NamedTuple

from twofold.data.sources import Source, TextSource


class Recipe(NamedTuple):
    """A named set of settings, by flat names. needs: settings that the user has to give beside it."""

    task: str
    line: str  # one sentence for the list
    values: dict[str, Any]
    needs: tuple[str, ...] = ()


LANGUAGE: dict[str, Any] = {
    "model": "char-lstm",
    "epochs": 20,
    "learning_rate": 8e-3,
    "label_smoothing": 0.0,
    "patience": 4,
}

# Six convolutions and 273 thousand weights for 28x28 pictures; the averaged weights are judged.
CLOTHES: dict[str, Any] = {
    "model": "vgg-mini",
    "config": {"stages": "32 32 M 64 64 M 128 112"},
    "epochs": 14,
    "batch_size": 128,
    "learning_rate": 4e-3,
    "weight_decay": 0.05,
    "augment": "flip crop=2 erase=0.25",
    "ema": 0.998,
}

# Many small steps: 16 streams, 980 steps an epoch. bfloat16 where the processor has it, else float32 (and twice the time).
SHAKESPEARE: dict[str, Any] = {
    **LANGUAGE,
    "config": {"units": 384, "embedding": 64, "dropout": 0.2},
    "epochs": 7,
    "batch_size": 16,
    "learning_rate": 4e-3,
    "patience": 0,
    "precision": "bf16",
}

# ResNet-18 with a small stem, its first stage on 14x14.
RESIDUAL: dict[str, Any] = {
    "model": "resnet18-cifar",
    "config": {"stem": "3x3 pool"},
    "epochs": 12,
    "batch_size": 128,
    "learning_rate": 3e-3,
    "weight_decay": 0.05,
    "augment": "flip crop=2",
    "ema": 0.995,
    "precision": "bf16",
    "channels_last": True,
}

# For a processor: 39 million multiply-adds a picture.
CIFAR: dict[str, Any] = {
    "model": "airbench",
    "config": {"widths": "32 96 192"},
    "epochs": 20,
    "batch_size": 128,
    "learning_rate": 4e-3,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "augment": "flip=alternate crop=4",
    "ema": 0.998,
    "precision": "bf16",
}

# For a GPU, after Jordan (2024): few epochs of large batches, whitening, alternate flips, Muon, averaged weights. Judge it with --tta.
SPEED_RUN: dict[str, Any] = {
    "model": "airbench",
    "epochs": 10,
    "batch_size": 1024,
    "optimizer": "muon",
    "learning_rate": 1e-2,
    "momentum": 0.9,
    "weight_decay": 0.05,
    "schedule": "one-cycle",
    "warmup": 0.2,
    "label_smoothing": 0.2,
    "augment": "flip=alternate crop=2 edge=reflect",
    "ema": 0.95,
    "precision": "bf16",
    "channels_last": True,
}

# Few pictures: many epochs, strong variation, the averaged weights, and the loss as judge, for the validation split is small.
PHOTOGRAPHS: dict[str, Any] = {
    "model": "vgg-small",
    "epochs": 80,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "weight_decay": 0.05,
    "augment": "flip rotate=10 resized-crop=0.4 colour=0.2",
    "ema": 0.99,
    "choose_by": "loss",
}

# From weights that were learnt on ImageNet: the deeper a stage lies, the less it is changed. How pictures are normalised, weights decide.
FINE_TUNE: dict[str, Any] = {
    "model": "resnet18",
    "image_size": 160,
    "epochs": 15,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "depth_decay": 0.6,
    "augment": "flip resized-crop=0.5 colour=0.2",
    "ema": 0.98,
    "choose_by": "loss",
}

RECIPES: dict[str, Recipe] = {
    "digits": Recipe("classify", "vgg-mini on the handwriting of scikit-learn, 8x8", {"model": "vgg-mini", "epochs": 20}),
    "fashion-mnist": Recipe("classify", "a net of 273 thousand weights on clothing, 28x28", CLOTHES),
    "fashion-mnist-resnet18": Recipe("classify", "ResNet-18 on the same, for those who have the time", RESIDUAL),
    "cifar10": Recipe("classify", "the net of the speed runs, narrow, for a processor", CIFAR),
    "cifar10-fast": Recipe("classify", "the net of the speed runs with Muon, for a GPU", SPEED_RUN),
    "photographs": Recipe("classify", "a folder of a few hundred photographs, from scratch", PHOTOGRAPHS),
    "fine-tune": Recipe("classify", "a folder of photographs, from published weights", FINE_TUNE, ("weights",)),
    "mnist": Recipe("classify", "the same on handwritten digits, never mirrored", {**CLOTHES, "augment": "digits"}),
    "tiny-shakespeare": Recipe("language", "an LSTM of 384 units, three minutes on two cores", SHAKESPEARE),
    "python-source": Recipe(
        "language",
        "an LSTM of 192 units on the standard library, one minute",
        {**LANGUAGE, "epochs": 10, "items_per_epoch": 300_000, "patience": 0},
    ),
}


def recipe(source: Source, name: str = "") -> dict[str, Any]:
    """The settings of the recipe of that name, else of the source's own, else of its task, with a model that suits its size.

    Raises ValueError for a recipe of another task.
    """
    if name:
        found = named(name)
        if found.task != source.task:
            fitting = ", ".join(each for each, entry in RECIPES.items() if entry.task == source.task)
            raise ValueError(f"recipe {name!r} is for {found.task}, but {source.name} is for {source.task}. Take one of {fitting}.")
        return found.values
    if isinstance(source, TextSource):
        own = RECIPES[source.name].values if source.name in RECIPES else LANGUAGE
        return {**own, "model": "word-lstm"} if source.vocabulary.unit == "word" else own
    if source.name in RECIPES and RECIPES[source.name].task == "classify":
        return RECIPES[source.name].values
    small = min(source.preparation.height, source.preparation.width) < 32
    return {"model": "vgg-mini" if small else "vgg-small"}


def named(name: str) -> Recipe:
    """The recipe of that name. Raises ValueError with the nearest names."""
    if name in RECIPES:
        return RECIPES[name]
    near = get_close_matches(name.lower(), RECIPES, 1, cutoff=0.4)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    raise ValueError(f"no recipe {name!r}: {hint}There are {', '.join(RECIPES)} (twofold recipes).")
