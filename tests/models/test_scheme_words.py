"""The words: what is so where nothing is written, how numbers are written, and that the page names every word."""

from pathlib import Path

import pytest

from twofold.models.scheme_words import ALIASES, FORMS, settle, word_of, written

PAGE = Path(__file__).parents[2] / "docs" / "schemes.md"


@pytest.mark.parametrize(
    ("word", "number", "letters", "wanted"),
    [
        ("conv", (64,), {}, {"": (64,), "k": (3, 3), "s": (1, 1), "p": (1, 1), "d": (1, 1), "g": (1,), "b": None}),
        ("conv", None, {"k": (5, 1)}, {"": None, "k": (5, 1), "p": (2, 0)}),
        ("conv", None, {"d": (2, 3)}, {"p": (2, 3)}),
        ("conv", None, {"k": (4, 4)}, {"p": (1, 1)}),
        ("dw", None, {"p": (0, 0)}, {"k": (3, 3), "p": (0, 0), "m": (1,)}),
        ("pool", None, {}, {"": (2, 2), "s": (2, 2), "p": (0, 0)}),
        ("avgpool", (3, 2), {}, {"s": (3, 2)}),
        ("lppool", (3, 3), {"s": (2, 2)}, {"s": (2, 2), "n": (2,)}),
        ("dropout", None, {}, {"": 0.5}),
    ],
)
def test_what_is_so_by_default(word, number, letters, wanted):
    settled = settle(word, number, letters)
    assert {name: settled[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [((3, 3), "size", "3"), ((3, 5), "size", "3x5"), ((1, 2), "levels", "1_2"), ((7,), "whole", "7"), (0.5, "decimal", ".5"),
     (0.0, "decimal", "0"), (10.0, "decimal", "10"), (1.25, "decimal", "1.25"), (1e-6, "decimal", ".000001")],
)  # fmt: skip
def test_numbers_as_they_are_written(value, kind, text):
    assert written(value, kind) == text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("conv64k5", "conv"),
        ("convk5", "conv"),
        ("convk", None),
        ("relu6", "relu6"),
        ("relu66", "relu"),
        ("maxpools2", "maxpool"),
        ("x", None),
    ],
)
def test_the_word_at_the_beginning(text, word):
    assert word_of(text) == word


def test_the_page_names_every_word():
    page = PAGE.read_text(encoding="utf-8")
    assert [word for word in (*FORMS, *ALIASES) if f"`{word}`" not in page] == []
