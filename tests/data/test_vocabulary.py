"""Encoding and decoding are inverse; what is unknown is said; nonsense is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold.data.vocabulary import UNKNOWN, Vocabulary

PROSE = "It was the best of times,  it was the worst of times...\n\tÉté, naïve; 3.14 \U0001f600 日本語!\n"


@pytest.mark.parametrize("unit", ["character", "word"])
def test_decode_inverts_encode(unit: str) -> None:
    V = Vocabulary.of(PROSE, unit)
    codes = V.encode(PROSE)
    assert codes.dtype == torch.int32
    assert V.decode(codes) == PROSE
    assert V.decode(codes.tolist()) == PROSE
    assert V.unknown(PROSE) == ()


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_words_lose_nothing(text: str) -> None:
    V = Vocabulary.of(text, "word")
    assert V.decode(V.encode(text)) == text


def test_characters_come_by_code_point() -> None:
    assert Vocabulary.of("banana").tokens == (UNKNOWN, "a", "b", "n")
    assert Vocabulary.of("banana").encode("nab").tolist() == [3, 1, 2]


def test_rare_characters_of_a_long_text_are_unknown() -> None:
    assert Vocabulary.of("a" * 9_995 + "bbbb" + "c").tokens == (UNKNOWN, "a")
    assert Vocabulary.of("a" * 9_995 + "bbbbb").tokens == (UNKNOWN, "a", "b")
    assert Vocabulary.of("a" * 9_994 + "bbbb" + "c").tokens == (UNKNOWN, "a", "b", "c")


def test_words_come_by_frequency_then_alphabet() -> None:
    V = Vocabulary.of("the cat the dog the end", "word", limit=3)
    assert V.tokens == (UNKNOWN, " the", " cat", " dog")
    assert len(V) == 4


def test_the_unknown_sign_itself_is_no_second_token() -> None:
    for unit in ("character", "word"):
        V = Vocabulary.of(f"a {UNKNOWN}", unit)
        assert V.tokens.count(UNKNOWN) == 1
        assert int(Vocabulary.of(UNKNOWN, unit).encode(UNKNOWN)[0]) == 0


def test_unknown_pieces_are_found_where_they_are() -> None:
    V = Vocabulary.of("abc")
    assert V.encode("aZc").tolist() == [1, 0, 3]
    assert V.decode(V.encode("aZc")) == f"a{UNKNOWN}c"
    assert V.unknown("aZc\U0001f600") == (("Z", 1), ("\U0001f600", 3))
    W = Vocabulary.of("one two", "word")
    assert W.unknown("one six two") == ((" six", 3),)


def test_a_lone_surrogate_is_unknown() -> None:
    assert Vocabulary.of("abc").encode("a\udcff").tolist() == [1, 0]


def test_pieces_of_a_long_text_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twofold.data.vocabulary._CHUNK", 7)
    V = Vocabulary.of(PROSE)
    table = {token: code for code, token in enumerate(V.tokens)}
    np.testing.assert_array_equal(V.encode(PROSE).numpy(), [table[character] for character in PROSE])


def test_empty_text() -> None:
    for unit in ("character", "word"):
        codes = Vocabulary.of("abc", unit).encode("")
        assert (codes.shape, codes.dtype) == ((0,), torch.int32)
    assert Vocabulary.of("abc").decode([]) == ""


@pytest.mark.parametrize("codes", [[1, 9, 2], torch.tensor([1, 9])])
def test_a_code_outside_is_named(codes: object) -> None:
    with pytest.raises(ValueError, match=r"expected codes from 0 to 3, got 9 at position 1\. Was the text"):
        Vocabulary.of("abc").decode(codes)


def test_a_negative_code_is_refused() -> None:
    with pytest.raises(ValueError, match="got -1 at position 0"):
        Vocabulary.of("abc").decode([-1])


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a text \(str\), got bytes"):
        Vocabulary.of("abc").encode(b"abc")


def test_dictionary_and_back() -> None:
    V = Vocabulary.of("one two", "word")
    assert V.as_dict() == {"unit": "word", "tokens": [UNKNOWN, " two", "one"]}
    assert Vocabulary.from_dict(V.as_dict()) == V


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"unit": "letter", "tokens": [UNKNOWN]}, "expected one of character, word, got 'letter'"),
        ({"unit": "word", "tokens": ["a"]}, "at index 0, got 'a'"),
        ({"unit": "word", "tokens": []}, "got an empty vocabulary"),
        ({"unit": "word", "tokens": [UNKNOWN, 3]}, "expected a non-empty string at index 1, got 3"),
        ({"unit": "word", "tokens": [UNKNOWN, ["a"]]}, "expected a non-empty string at index 1"),
        ({"unit": "word", "tokens": [UNKNOWN, ""]}, "expected a non-empty string at index 1"),
        ({"unit": "character", "tokens": [UNKNOWN, "ab"]}, "expected single characters, got 'ab' at index 1"),
        ({"unit": "word", "tokens": [UNKNOWN, "a", "b", "a"]}, "expected each once, got 1 more than once: 'a'"),
        ({"unit": "word", "tokens": "abc"}, "expected an object with keys unit and tokens"),
        ({"tokens": [UNKNOWN]}, "expected an object with keys unit and tokens"),
        (None, "expected an object with keys unit and tokens"),
    ],
)
def test_nonsense_is_refused(values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_dict(values)
