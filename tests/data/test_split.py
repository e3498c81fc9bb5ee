"""Splits are disjoint, complete, of the right size, and the same everywhere."""

from twofold.data.split import by_file, by_position, shuffled, take, uniform

NAMES = [f"folder/file{i}.txt" for i in range(2000)]


def test_the_hash_is_sha256_of_the_name() -> None:
    """sha256("abc") = ba7816bf 8f01..., FIPS 180-2, appendix B.1."""
    assert uniform("abc") == 0xBA7816BF8F01 / 2**48


def test_names_are_spread_evenly() -> None:
    values = [uniform(name) for name in NAMES]
    for tenth in range(10):
        assert 150 < sum(tenth / 10 <= v < (tenth + 1) / 10 for v in values) < 250


def test_files_are_split_once_and_completely() -> None:
    parts = by_file(NAMES)
    assert sorted(parts.train + parts.validation + parts.test) == sorted(NAMES)
    assert 60 < len(parts.validation) < 140
    assert 60 < len(parts.test) < 140
    assert parts.train + parts.validation + parts.test == shuffled(NAMES)


def test_no_file_changes_sides_when_others_go() -> None:
    whole, half = by_file(NAMES), by_file(NAMES[::2])
    for before, after in zip(whole, half, strict=True):
        assert set(after) <= set(before)


def test_no_part_is_empty() -> None:
    assert [len(part) for part in by_file(["a", "b", "c"])] == [1, 1, 1]


def test_positions_are_90_5_5() -> None:
    assert by_position(1000) == (900, 950)
    assert by_position(10) == (9, 9)


def test_a_class_is_taken_apart() -> None:
    train, validation, test = take(NAMES[:100], 0.15, 0.15)
    assert [len(train), len(validation), len(test)] == [70, 15, 15]
    assert sorted(train + validation + test) == sorted(NAMES[:100])
    for part in (train, validation, test):
        assert part == [name for name in NAMES if name in part]  # the order given


def test_training_keeps_one_and_validation_comes_next() -> None:
    assert [[len(part) for part in take(NAMES[:n], 0.15, 0.15)] for n in (1, 2, 3, 4, 10)] == [
        [1, 0, 0],
        [1, 1, 0],
        [1, 1, 1],
        [2, 1, 1],
        [6, 2, 2],
    ]
    assert take(["a"]) == [["a"]]


def test_the_order_given_does_not_matter() -> None:
    assert {frozenset(part) for part in take(NAMES[:40], 0.15)} == {frozenset(part) for part in take(NAMES[:40][::-1], 0.15)}
