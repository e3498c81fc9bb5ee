"""A name or a path is opened, and the task is found from what lies there."""

from pathlib import Path

import pytest
from PIL import Image

from twofold.data.pictures import read_image
from twofold.data.sources import SOURCES, DataOptions, check, describe, open_source, source_lines, task_of

TEXT = "some words of text\n" * 100
EXPECTED = (
    "Expected a folder of class folders, a text file, or one of: digits, python-source, mnist, fashion-mnist, cifar10, cifar100, "
    "tiny-shakespeare, wikitext-2"
)


def message(source: str | Path, options: DataOptions | None = None) -> str:
    with pytest.raises(ValueError) as caught:
        open_source(source, options)
    return str(caught.value)


def pictures(root: Path, *folders: str) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(4):
            Image.new("L", (3, 3), i).save(root / folder / f"{i}.png")


def test_every_name_opens_and_has_a_line() -> None:
    assert [line.name for line in source_lines()] == list(SOURCES)
    for line in source_lines():
        options = DataOptions(limit=2000) if line.task == "language" else None
        source = open_source(line.name, options)
        assert (source.name, source.task) == (line.name, line.task)


def test_options_reach_the_source() -> None:
    source = open_source("python-source", DataOptions(limit=2000, unit="word"))
    assert (source.train.characters, source.vocabulary.unit) == (2000, "word")


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    pictures(tmp_path, "a", "b")
    (tmp_path / "README.txt").write_text(TEXT)
    assert open_source(str(tmp_path)).task == "classify"
    found = check(tmp_path)
    assert (found.kind, found.task) == ("folder of class folders", "classify")


def test_a_folder_of_text_and_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_text(TEXT)
    Image.new("L", (3, 3)).save(tmp_path / "cover.png")
    assert check(tmp_path).kind == "folder of text files"
    assert check(tmp_path / "a.txt").kind == "text file"
    (tmp_path / "poem.md").write_text(TEXT)
    assert open_source(tmp_path / "poem.md").task == "language"


def test_flat_pictures_are_told_how_to_be_laid_out(tmp_path: Path) -> None:
    pictures(tmp_path, "")
    (tmp_path / "README.txt").write_text(TEXT)
    assert "found 4 pictures but no class folders" in message(tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "found none among 0 files" in message(tmp_path)


def test_a_path_of_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path, "digits/a", "digits/b")
    monkeypatch.chdir(tmp_path)
    assert open_source("digits").classes == tuple("0123456789")
    assert open_source("./digits").classes == ("a", "b")
    assert open_source(Path("digits")).classes == ("a", "b")


def test_misspelt_names_and_paths(tmp_path: Path) -> None:
    assert message("digit") == f'no source "digit": did you mean "digits"? {EXPECTED}'
    (tmp_path / "photos").mkdir()
    assert message(str(tmp_path / "fotos")) == (f'no source "{tmp_path / "fotos"}": did you mean "{tmp_path / "photos"}"? {EXPECTED}')
    assert message("quite something else") == f'no source "quite something else". {EXPECTED}'


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(tmp_path / "gone")
    assert message(tmp_path / "data") == f"{tmp_path / 'data'} is a link that leads nowhere: {tmp_path / 'gone'} is not there. {EXPECTED}"
    (tmp_path / "1.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(ValueError, match=r"1.png: is a link that leads nowhere"):
        read_image(tmp_path / "1.png")


def test_the_task_is_known_before_anything_is_read(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", "a")
    (tmp_path / "a.txt").write_text("a")
    assert [task_of(tmp_path / name) for name in ("photos", "a.txt")] == ["classify", "language"]
    assert [task_of(name) for name in SOURCES] == ["classify", "language"]


def test_tables_and_single_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" * 500)
    assert message(tmp_path / "a.csv") == f"{tmp_path / 'a.csv'} is a .csv file, not plain text. {EXPECTED}"
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    assert message(tmp_path / "a.png") == f"{tmp_path / 'a.png'} is one picture. {EXPECTED}"


def test_options_that_do_not_apply(tmp_path: Path) -> None:
    assert "limit=2000 does not apply to digits" in message("digits", DataOptions(limit=2000))
    assert "image_size=8 does not apply to python-source" in message("python-source", DataOptions(image_size=8))
    (tmp_path / "a.txt").write_text(TEXT)
    assert "image_size=8 does not apply to text" in message(tmp_path, DataOptions(image_size=8))


def test_describe_says_what_the_source_holds() -> None:
    said = describe(open_source("digits"))
    assert said[0] == "digits: pictures; task: classify"
    assert said[1].startswith("train: 1,078 pictures (0 ")
    assert "prepared as 8 x 8 L, 10 classes" in said
