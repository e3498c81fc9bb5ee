"""Settings: flat names, recipes beneath what the user set, and sentences for mistakes."""

import re

import pytest

from twofold.data.options import DataOptions
from twofold.train.recipes import LANGUAGE
from twofold.train.settings import OWN, Settings


def test_flat_names_find_their_part():
    settings = Settings.of("digits", epochs=3, learning_rate=0.1, limit=2000, model="lenet5", config={"classes": 3})
    assert (settings.learning.epochs, settings.optimisation.learning_rate, settings.data.limit) == (3, 0.1, 2000)
    assert (settings.model, settings.config) == ("lenet5", {"classes": 3})


def test_a_recipe_never_replaces_what_the_user_set():
    user = Settings.of("digits", epochs=30, learning_rate=3e-3, image_size=16)  # equal to the defaults, but set
    resolved = user.with_recipe({"epochs": 5, "learning_rate": 1.0, "batch_size": 8, "model": "lenet5"})
    assert (resolved.learning.epochs, resolved.optimisation.learning_rate, resolved.data.image_size) == (30, 3e-3, 16)
    assert (resolved.learning.batch_size, resolved.model) == (8, "lenet5")


def test_settings_of_another_task_are_refused_where_they_say_something_unusual():
    usual = Settings.of("x").with_recipe(LANGUAGE)
    for task, values, words in (
        ("classify", {"window": 32}, "settings: window=32 is for text only, but x is for classify. Leave window out."),
        ("classify", {"items_per_epoch": 9}, "items_per_epoch=9 is for text only"),
        ("language", {"label_smoothing": 0.1}, "label_smoothing=0.1 is for pictures only, but x is for language"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            Settings.of("x", **values).refuse_foreign(usual, task)
    Settings.of("x", window=64).refuse_foreign(usual, "classify")
    Settings.of("x", label_smoothing=0.0, window=9).refuse_foreign(usual, "language")


def test_what_ones_own_data_have_no_use_for_is_refused():
    for name, value in (("window", 9), ("mixup", 0.2), ("augment", "flip"), ("limit", 5000), ("image_size", 9)):
        with pytest.raises(ValueError, match=rf"settings: {name}=.* is for sources with a name or a path: your own data are taken as they"):
            Settings.of(OWN, **{name: value}).refuse_foreign(Settings.of(OWN), OWN)
    own = Settings.of(OWN, accumulate=5, momentum=0.0, optimizer="sgd")  # batches of one's own are of whatever size
    own.refuse_foreign(Settings.of(OWN), OWN)


def test_settings_survive_being_written():
    settings = Settings.of("digits", epochs=3, limit=2000)
    values = settings.model_dump()
    assert Settings.checked(values) == settings
    assert isinstance(Settings.checked({**values, "data": {"limit": 5000}}).data, DataOptions)


BAD = {
    "unknown": (lambda: Settings.of("digits", epoch=3), "settings: no setting 'epoch'. Did you mean \"epochs\"?"),
    "strange": (lambda: Settings.of("digits", zzz=3), "There are limit, image_size, unit"),
    "zero": (lambda: Settings.of("digits", epochs=0), "settings: learning.epochs: expected 1 or more, got 0."),
    "kind": (lambda: Settings.of("digits", learning_rate="fast"), "settings: optimisation.learning_rate: expected a number, got 'fast'."),
    "choice": (lambda: Settings.of("digits", optimizer="adm"), "'rmsprop', 'adam', 'adamw' or 'muon', got 'adm'."),
    "nan": (
        lambda: Settings.of("digits", learning_rate=float("nan")),
        "settings: optimisation.learning_rate: expected 100.0 or less, got nan.",
    ),
    "fraction": (lambda: Settings.of("digits", epochs=1.5), "learning.epochs: expected a whole number, got 1.5."),
    "half open": (lambda: Settings.of("digits", momentum=1), "optimisation.momentum: expected less than 1.0, got 1."),
    "rate": (lambda: Settings.of("digits", learning_rate=0), "optimisation.learning_rate: expected more than 0.0, got 0."),
    "most": (lambda: Settings.of("digits", epochs=10**6), "learning.epochs: expected 100000 or less, got 1000000."),
    "shape": (lambda: Settings.checked({"source": "digits", "data": 3}), "settings: data: expected names and values, got 3."),
    "name": (lambda: Settings.of("digits", model=3), "settings: model: expected text, got 3."),
    "data": (lambda: Settings.of("digits", limit=3), "limit: expected a whole number of characters, 1,000 or more, got 3"),
    "extra": (
        lambda: Settings.checked({"source": "digits", "learning": {"epoch": 3}}),
        "settings: no setting 'learning.epoch'. Did you mean \"epochs\"?",
    ),
    "elsewhere": (
        lambda: Settings.checked({"source": "digits", "learning": {"window": 3}}),
        "settings: no setting 'learning.window'. It belongs to streams.",
    ),
    "part": (lambda: Settings.checked({"source": "digits", "learnin": {}}), "settings: no setting 'learnin'. Did you mean \"learning\"?"),
    "parts": (lambda: Settings.of("digits", batch_size=32, accumulate=5), "batch_size=32 cannot be taken in accumulate=5 equal parts"),
    "patience": (
        lambda: Settings.of("digits", schedule="plateau", patience=3),
        "rate_patience=3 never comes to an end, for patience=3 ends the run first. Take a smaller rate_patience",
    ),
    "momentum": (
        lambda: Settings.of("digits", optimizer="sgd", momentum=0.8),
        "momentum=0.8 is read by nothing: sgd has none. Take optimizer=momentum or nesterov, or leave momentum out.",
    ),
    "low momentum": (
        lambda: Settings.of("digits", optimizer="rmsprop", schedule="one-cycle", low_momentum=0.8),
        "low_momentum=0.8 is read by nothing: rmsprop has no momentum.",
    ),
    "truncation": (lambda: Settings.of("x", bptt="8", window=16), "16 steps from one update to the next, and only 8 back"),
    "nothing penalised": (lambda: Settings.of("x", penalise=["a"]), "penalise=a chooses weights, but l1, l2 and max_norm are 0"),
    "missing": (lambda: Settings.checked({}), "settings: source is missing."),
    "two": (lambda: Settings.of("digits", epochs=0, batch_size=0), "batch_size: expected 1 or more"),
    "nothing": (lambda: Settings.checked(None), "settings:"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Settings.of("digits").learning.epochs = 3
