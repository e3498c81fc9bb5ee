"""Classes and splits are told by folders; what cannot be told is answered with how to lay it out."""

from pathlib import Path

import pytest
from PIL import Image

from twofold.data.layout import Found, find_layout
from twofold.data.values import Skipped


def lay(root: Path, *names: str) -> None:
    """Small pictures (names of files) and empty folders (names that end with /)."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            Image.new("L", (2, 2)).save(path)


def message(root: Path) -> str:
    with pytest.raises(ValueError) as caught:
        find_layout(root)
    return str(caught.value)


def test_class_folders(tmp_path: Path) -> None:
    lay(tmp_path, "dog/1.png", "dog/2.png", "cat/deep/er/3.png", "cat/1.png")
    layout = find_layout(tmp_path)
    assert layout.classes == ("cat", "dog")
    assert layout.train == (Found("cat/1.png", 0), Found("cat/deep/er/3.png", 0), Found("dog/1.png", 1), Found("dog/2.png", 1))
    assert (layout.validation, layout.test, layout.skipped, layout.notes) == (None, None, (), ())


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_splits(tmp_path: Path, validation: str) -> None:
    lay(tmp_path, "train/a/1.png", "train/b/1.png", f"{validation}/b/2.png", "test/a/3.png", "test/b/3.png", f"{validation}/a/2.png")
    layout = find_layout(tmp_path)
    assert layout.classes == ("a", "b")
    assert layout.train == (Found("train/a/1.png", 0), Found("train/b/1.png", 1))
    assert layout.validation == (Found(f"{validation}/a/2.png", 0), Found(f"{validation}/b/2.png", 1))
    assert layout.test == (Found("test/a/3.png", 0), Found("test/b/3.png", 1))


def test_a_class_called_train(tmp_path: Path) -> None:
    lay(tmp_path, "train/1.png", "plane/1.png", "test/1.png")
    assert find_layout(tmp_path).classes == ("plane", "test", "train")


def test_other_files_are_passed_over_and_claimed_pictures_kept(tmp_path: Path) -> None:
    lay(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "a" / "raw.heic").write_text("x")
    (tmp_path / "b" / "1.png").rename(tmp_path / "b" / "without extension")
    names = [found.name for found in find_layout(tmp_path).train]
    assert names == ["a/1.png", "a/raw.heic", "b/without extension"]


def test_pictures_beside_the_class_folders_are_skipped(tmp_path: Path) -> None:
    lay(tmp_path, "a/1.png", "b/1.png", "stray.png")
    assert find_layout(tmp_path).skipped == (Skipped("stray.png", "lies beside the class folders: it has no class"),)


def test_empty_class_folders_are_said(tmp_path: Path) -> None:
    lay(tmp_path, "a/1.png", "b/1.png", "c/")
    layout = find_layout(tmp_path)
    assert layout.classes == ("a", "b")
    assert layout.notes == ("class folders without pictures are left out: c",)


def test_pictures_beside_the_splits_are_said(tmp_path: Path) -> None:
    lay(tmp_path, "train/a/1.png", "train/b/1.png", "more/2.png", "3.png")
    assert find_layout(tmp_path).notes == ("2 pictures beside train are not used (more)",)


def test_an_empty_folder(tmp_path: Path) -> None:
    assert message(tmp_path).startswith(f"{tmp_path}: expected pictures (png, jpeg")
    assert message(tmp_path).endswith("in one folder per class, found none among 0 files.")


def test_no_class_folders(tmp_path: Path) -> None:
    lay(tmp_path, "1.png", "2.png")
    said = message(tmp_path)
    assert "found 2 pictures but no class folders. Expected one folder per class, for example" in said
    assert str(tmp_path / "cat") in said


def test_no_class_folders_in_train(tmp_path: Path) -> None:
    lay(tmp_path, "train/a/", "test/a/1.png")
    assert f"{tmp_path / 'train'}: found 0 pictures but no class folders" in message(tmp_path)


def test_one_class(tmp_path: Path) -> None:
    lay(tmp_path, "cat/1.png", "cat/2.png")
    assert message(tmp_path) == f"{tmp_path}: expected pictures of at least 2 classes, found 1: cat. Add a second class folder"


def test_one_folder_too_high(tmp_path: Path) -> None:
    lay(tmp_path, "flowers/rose/1.png", "flowers/tulip/2.png")
    assert message(tmp_path).endswith(f"found 1: flowers. If the classes lie deeper (rose, tulip), give {tmp_path / 'flowers'}")


def test_strange_classes_in_test(tmp_path: Path) -> None:
    lay(tmp_path, "train/cat/1.png", "train/dog/1.png", "test/cats/1.png", "test/dog/1.png")
    assert message(tmp_path) == (
        f"{tmp_path / 'test'}: expected the training classes, found cats, which the training folder lacks; "
        "training classes without pictures in it: cat. Likely the same: cats = cat. Rename the folders alike, or add training pictures"
    )


def test_a_class_missing_from_test_is_said(tmp_path: Path) -> None:
    lay(tmp_path, "train/cat/1.png", "train/dog/1.png", "test/dog/1.png")
    assert find_layout(tmp_path).notes == ("test has no pictures of cat",)


def test_test_without_train(tmp_path: Path) -> None:
    lay(tmp_path, "test/cat/1.png", "test/dog/1.png")
    assert "found test/ but no train/. Put the class folders to learn from into" in message(tmp_path)


def test_two_validation_folders(tmp_path: Path) -> None:
    lay(tmp_path, "train/a/1.png", "val/a/1.png", "validation/a/1.png")
    assert "expected one validation folder, found two: val/ and validation/" in message(tmp_path)


def test_an_empty_split(tmp_path: Path) -> None:
    lay(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/")
    assert message(tmp_path) == (
        f"{tmp_path / 'val'}: expected pictures in class folders, found none. Fill it, or remove it: one is split off"
    )
