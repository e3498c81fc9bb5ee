"""Options are validated before any file is opened, and never ignored."""

import pytest

from twofold.data.options import DataOptions


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"limit": 999}, "limit: expected a whole number of characters, 1,000 or more, got 999"),
        ({"limit": True}, "limit: expected a whole number"),
        ({"limit": 2000.0}, "limit: expected a whole number"),
        ({"image_size": 0}, "image_size: expected a whole number of pixels from 1 to 4096, got 0"),
        ({"image_size": 4097}, "from 1 to 4096, got 4097"),
        ({"image_size": "64"}, "got '64'"),
        ({"hold": "disk"}, "hold: expected one of auto, memory, files, got 'disk'"),
        ({"unit": "letter"}, "unit: expected one of character, word, got 'letter'"),
    ],
)
def test_nonsense_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataOptions(**values)


def test_an_option_that_does_not_apply_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"limit=5000 does not apply to pictures \(options that do: image_size\). Leave limit out"):
        DataOptions(limit=5000, image_size=8).only("pictures", "image_size")
    with pytest.raises(ValueError, match=r"unit='word' does not apply to digits \(no option does\)"):
        DataOptions(unit="word").only("digits")


def test_options_that_apply_and_defaults_pass() -> None:
    assert DataOptions(limit=5000, unit="word").only("text", "limit", "unit") is None
    assert DataOptions().only("digits") is None
