"""Nested settings by flat names, plain enough for every tracker."""

from twofold.train.flat import flat
from twofold.train.settings import Settings


def test_parts_vanish_and_the_config_keeps_its_name():
    nested = {
        "source": "digits",
        "learning": {"epochs": 5},
        "config": {"dropout": 0.5},
        "dropout": None,
        "track": ("a", "b"),
        "graph": True,
    }
    assert flat(nested) == {"source": "digits", "epochs": 5, "config.dropout": 0.5, "dropout": "none", "track": "a b", "graph": True}


def test_flat_settings_make_the_same_settings_again():
    settings = Settings.of("digits", epochs=3, learning_rate=0.5)
    apart = ("source", "milestones", "track")  # several values are one text there
    given = {name: value for name, value in flat(settings.model_dump()).items() if name not in apart and value not in ("none", "")}
    assert Settings.of("digits", **{**given, "config": {}}) == settings
