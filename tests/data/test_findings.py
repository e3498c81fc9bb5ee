"""Findings count what is there and say what is odd."""

import json

import torch

from twofold.data.findings import Findings, inspect
from twofold.data.preparation import Preparation
from twofold.data.values import Images, ImageSource, Skipped, Text, TextSource
from twofold.data.vocabulary import Vocabulary


def pictures(values: list[int], labels: list[int], name: str) -> Images:
    x = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    return Images(x, torch.tensor(labels), tuple(f"{name}{i}" for i in range(len(values))))


def source(train: Images, validation: Images, test: Images | None = None) -> ImageSource:
    return ImageSource("toys", ("a", "b"), Preparation("L", 2, 2, (0.5,), (0.5,)), train, validation, test)


def notes(train: Images, validation: Images, test: Images | None = None) -> tuple[str, ...]:
    return inspect(source(train, validation, test), "x").notes


def test_counts_sizes_and_modes() -> None:
    toys = source(pictures([1, 2, 3], [0, 0, 1], "t"), pictures([4], [1], "v"), pictures([5, 6], [0, 1], "x"))
    toys = toys._replace(sizes=((9, 1), (2, 2), (3, 4)), modes=("RGB", "L", "RGB"), skipped=(Skipped("c.png", "empty"),), notes=("odd",))
    found = inspect(toys, "folder of class folders")
    assert found.counts == {"train": {"a": 2, "b": 1}, "validation": {"a": 0, "b": 1}, "test": {"a": 1, "b": 1}}
    assert found.sizes == {"min": (2, 2), "median": (9, 1), "max": (3, 4)}
    assert found.modes == {"L": 1, "RGB": 2}
    assert found.notes == ("odd",)
    assert (found.source, found.task, found.kind) == ("toys", "classify", "folder of class folders")
    assert found.lines() == [
        "toys: folder of class folders; task: classify",
        "train: 3 pictures (a 2, b 1)",
        "validation: 1 picture (a 0, b 1)",
        "test: 2 pictures (a 1, b 1)",
        "height x width in the files: min 2 x 2, median 9 x 1, max 3 x 4",
        "modes in the files: L 1, RGB 2",
        "prepared as 2 x 2 L, 2 classes",
        "odd",
        "skipped c.png: empty",
    ]


def test_dictionary_is_plain_json() -> None:
    toys = source(pictures([1, 2], [0, 1], "t"), pictures([4], [1], "v"))
    toys = toys._replace(sizes=((9, 1),), skipped=(Skipped("c.png", "empty"),))
    values = json.loads(json.dumps(inspect(toys, "x").as_dict()))
    assert set(values) == set(Findings._fields)
    assert values["sizes"]["max"] == [9, 1]
    assert values["skipped"] == [{"path": "c.png", "reason": "empty"}]


def test_imbalance() -> None:
    held = pictures([200], [1], "v")
    assert notes(pictures([*range(11)], [0] * 10 + [1], "t"), held) == ()
    assert notes(pictures([*range(12)], [0] * 11 + [1], "t"), held) == (
        "imbalance: a has 11 training pictures, b has 1: accuracy will say little of the rare classes",
    )


def test_repeated_pictures() -> None:
    train = pictures([1, 2, 1], [0, 1, 0], "t")
    assert notes(train, pictures([7], [1], "v")) == ("1 picture repeats another one of the same split (t2 = t0)",)
    assert notes(pictures([1, 2], [0, 1], "t"), pictures([7], [1], "v"), pictures([2, 7, 9], [1, 1, 1], "x")) == (
        "1 picture of test also lies in train: its figure will be too good (x0 = t1)",
        "1 picture of test also lies in validation: its figure will be too good (x1 = v0)",
    )


def test_equal_pictures_of_different_classes() -> None:
    said = notes(pictures([1, 1], [0, 1], "t"), pictures([7], [1], "v"))
    assert said[-1] == "1 pair of equal pictures carries different classes (t1 = t0)"


def test_text_is_counted_and_the_unknown_said() -> None:
    V = Vocabulary.of("abab")
    parts = [Text(V.encode(text), len(text), ("x",)) for text in ("abab", "ab", "az")]
    found = inspect(TextSource("book", V, *parts), "text file")
    assert found.counts["train"] == {"characters": 4, "codes": 4, "files": 1}
    assert found.notes == ("50.0% of test is unknown to the vocabulary of the training text",)
    assert "prepared as a stream of character codes, vocabulary of 3" in found.lines()
    json.dumps(found.as_dict())


def test_words_are_counted_as_words() -> None:
    V = Vocabulary.of("one two", "word")
    part = Text(V.encode("one two"), 7, ("x",))
    assert inspect(TextSource("book", V, part, part, None), "x").counts == {
        "train": {"characters": 7, "words": 2, "files": 1},
        "validation": {"characters": 7, "words": 2, "files": 1},
    }


def test_long_lists_are_cut_in_lines() -> None:
    toys = source(pictures([1, 2], [0, 1], "t"), pictures([4], [1], "v"))
    toys = toys._replace(skipped=tuple(Skipped(f"{i}.png", "empty") for i in range(30)))
    assert inspect(toys, "x").lines()[-1] == "and 10 files more were skipped"
