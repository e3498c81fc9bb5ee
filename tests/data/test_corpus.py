"""Passages are gathered up to a limit, joined, and encoded under the training vocabulary."""

from pathlib import Path

import pytest

from twofold.data.corpus import SEPARATOR, Passage, Passages, assemble, encoded, gather, join
from twofold.data.values import Skipped
from twofold.data.vocabulary import Vocabulary


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {"a": "a" * 10, "b": "b" * 20, "c": "c" * 30}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "bad").write_bytes(b"\xff\xff")
    return tmp_path


def test_everything_without_a_limit(root: Path) -> None:
    skipped: list[Skipped] = []
    passage = join(gather(root, ["b", "bad", "a"], skipped, None))
    assert passage == Passage("b" * 20 + SEPARATOR + "a" * 10, ("b", "a"), (0, 23))
    assert [file.path for file in skipped] == ["bad"]
    assert "not UTF-8" in skipped[0].reason


def test_the_limit_cuts(root: Path) -> None:
    assert join(gather(root, ["a", "b", "c"], [], 20)) == Passage("a" * 10 + SEPARATOR + "b" * 7, ("a", "b"), (0, 13))
    assert join(gather(root, ["a", "b", "c"], [], 10)) == Passage("a" * 10, ("a",))
    assert join(gather(root, ["a", "b", "c"], [], 12)) == Passage("a" * 10, ("a",))


def test_whole_files_stop_before_the_limit(root: Path) -> None:
    assert join(gather(root, ["a", "b", "c"], [], 40, whole=True)).names == ("a", "b")
    assert join(gather(root, ["a", "b", "c"], [], 32, whole=True)).names == ("a",)
    assert join(gather(root, ["c", "a"], [], 5, whole=True)) == Passage("c" * 30, ("c",))


def test_the_vocabulary_is_of_training_alone() -> None:
    source = assemble("x", "character", Passages(Passage("abba", ("1",)), Passage("abc", ("2",)), Passage("b", ("3",))))
    assert source.vocabulary.tokens == ("\ufffd", "a", "b")
    assert source.train.codes_T.tolist() == [1, 2, 2, 1]
    assert source.validation.codes_T.tolist() == [1, 2, 0]
    assert (source.test.characters, source.test.names, source.task) == (1, ("3",), "language")


def test_an_empty_part_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"x: no text is left for test. Give more text. 1 file was skipped: a: broken"):
        assemble("x", "character", Passages(Passage("a", ()), Passage("a", ()), Passage("", ())), [Skipped("a", "broken")])


def test_a_vocabulary_that_is_given_encodes_every_part() -> None:
    own = Vocabulary(("\ufffd", "b", " a"), "word")
    source = assemble("x", "character", Passages(Passage("b a", ()), Passage("a", ()), Passage("b", ())), vocabulary=own)
    assert source.vocabulary is own
    assert [part.codes_T.tolist() for part in (source.train, source.validation, source.test)] == [[1, 2], [0], [1]]


@pytest.mark.parametrize("unit", ["character", "word"])
def test_documents_begin_where_their_first_code_is(unit):
    parts = [Passage("one two.\n", ("1",)), Passage("", ("2",)), Passage("two three", ("3",)), Passage("one", ("4",))]
    passage = join(parts)
    text = encoded(passage, Vocabulary.of(passage.text * 5, unit))
    firsts = [encoded(part, Vocabulary.of(passage.text * 5, unit)).codes_T[0] for part in parts if part.text]
    assert text.starts_D.tolist()[0] == 0 and len(text.starts_D) == 3
    assert [text.codes_T[place] for place in text.starts_D.tolist()] == firsts
