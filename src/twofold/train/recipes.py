"""Recipes: the settings that suit a source, laid under what the user sets. A recipe names only what differs from the defaults.

What they reach is measured by bench/digits.py, bench/python_source.py and bench/tiny_shakespeare.py, and told in docs/recipes.md.
"""

from typing import Any

from twofold.data.sources import Source, TextSource

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

RECIPES: dict[str, dict[str, Any]] = {
    "digits": {"model": "vgg-mini", "epochs": 20},
    "fashion-mnist": CLOTHES,
    "mnist": {**CLOTHES, "augment": "digits"},
    "tiny-shakespeare": SHAKESPEARE,
    "python-source": {**LANGUAGE, "epochs": 10, "items_per_epoch": 300_000, "patience": 0},
}


def recipe(source: Source) -> dict[str, Any]:
    """The recipe of a source: its own by name, else that of its task, with a model that suits its size."""
    if isinstance(source, TextSource):
        own = RECIPES.get(source.name, LANGUAGE)
        return {**own, "model": "word-lstm"} if source.vocabulary.unit == "word" else own
    if source.name in RECIPES:
        return RECIPES[source.name]
    small = min(source.preparation.height, source.preparation.width) < 32
    return {"model": "vgg-mini" if small else "vgg-small"}
