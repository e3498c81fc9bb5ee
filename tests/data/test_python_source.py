"""The standard library is split by file, in an order that no machine changes."""

import sysconfig
from pathlib import Path

import pytest

from twofold.data import python_source as module
from twofold.data.python_source import python_source, source_files
from twofold.data.split import by_file, uniform
from twofold.data.values import TextSource


@pytest.fixture(scope="module")
def source() -> TextSource:
    return python_source(limit=100_000)


def test_the_limit_is_kept(source: TextSource) -> None:
    assert source.train.characters == len(source.train.codes_T) == 100_000
    for part in (source.validation, source.test):
        assert len(part.names) == 1 or part.characters <= 10_000


def test_no_file_is_in_two_parts_and_each_is_where_its_hash_says(source: TextSource) -> None:
    assert all(uniform(name) < 0.9 for name in source.train.names)
    assert all(0.9 <= uniform(name) < 0.95 for name in source.validation.names)
    assert all(uniform(name) >= 0.95 for name in source.test.names)


def test_the_text_is_the_files(source: TextSource) -> None:
    root = Path(sysconfig.get_path("stdlib"))
    first = (root / source.validation.names[0]).read_text(encoding="utf-8")
    assert "\ufffd" not in first
    said = source.vocabulary.decode(source.validation.codes_T)
    assert len(said) == source.validation.characters
    assert all(a in (b, "\ufffd") for a, b in zip(said, first, strict=False))


def test_files_of_tests_packages_and_machines_are_left_out(tmp_path: Path) -> None:
    good = ["os.py", "json/decoder.py"]
    bad = [
        "test/a.py",
        "json/tests/a.py",
        "site-packages/b.py",
        "config-3.11-x/c.py",
        "_sysconfigdata_x.py",
        "json/x.txt",
        "idlelib/idle_test/a.py",
    ]
    for name in [*good, *bad]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "empty.py").touch()
    assert source_files(tmp_path) == sorted(good)


def test_files_that_are_not_utf8_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"m{i}.py" for i in range(30)]
    for name in names:
        (tmp_path / name).write_text("value = 1\n" * 20)
    spoilt = by_file(names).train[0]
    (tmp_path / spoilt).write_bytes("# café\n".encode("latin-1"))
    monkeypatch.setattr(module.sysconfig, "get_path", lambda _: str(tmp_path))
    source = python_source()
    assert [file.path for file in source.skipped] == [spoilt]
    assert spoilt not in source.train.names


def test_an_interpreter_without_source_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sysconfig, "get_path", lambda _: str(tmp_path / "python311.zip"))
    with pytest.raises(ValueError, match=r"python311.zip, found 0. .* zipped, frozen or stripped .* Use an ordinary Python"):
        python_source()
