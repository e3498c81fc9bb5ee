"""A folder of pictures becomes tensors of one form, split without overlap; the bad pictures are said, the good ones train."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.data.image_folder import image_folder
from twofold.data.options import DataOptions
from twofold.data.values import ImageSource

CLOTHING = Path(__file__).parents[2].parent / "shared" / "data" / "clothing-small"


def fill(root: Path, counts: dict[str, int], size: tuple[int, int] = (6, 4), mode: str = "RGB") -> None:
    """counts pictures in each folder; the picture says which it is: its red (or grey) value is its number."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            colour = i if mode == "L" else (i, 0, 0)
            Image.new(mode, size, colour).save(root / folder / f"{i:03}.png")


def message(root: Path, options: DataOptions | None = None) -> str:
    with pytest.raises(ValueError) as caught:
        image_folder(root, options)
    return str(caught.value)


def all_names(source: ImageSource) -> list[str]:
    return [name for part in (source.train, source.validation, source.test) if part for name in part.names]


def test_splits_are_70_15_15_of_each_class(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 20, "dog": 40})
    source = image_folder(tmp_path)
    assert torch.bincount(source.train.y_B).tolist() == [14, 28]
    assert torch.bincount(source.validation.y_B).tolist() == [3, 6]
    assert torch.bincount(source.test.y_B).tolist() == [3, 6]
    assert len(set(all_names(source))) == 60
    assert source.train.names == tuple(sorted(source.train.names))
    assert (source.name, source.classes, source.task) == (tmp_path.name, ("cat", "dog"), "classify")
    assert image_folder(tmp_path).test.names == source.test.names


def test_every_row_is_the_picture_that_its_name_says(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 9, "dog": 9})
    source = image_folder(tmp_path)
    for part in (source.train, source.validation, source.test):
        assert (part.x_BCHW.dtype, part.y_B.dtype) == (torch.uint8, torch.int64)
        assert part.x_BCHW.shape[1:] == (3, 4, 6)
        for x_CHW, y, name in zip(part.x_BCHW, part.y_B.tolist(), part.names, strict=True):
            assert source.classes[y] == name.split("/")[0]
            assert x_CHW[0].unique().tolist() == [int(name[-7:-4])]


def test_given_splits_are_kept_and_missing_ones_made(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 20, "train/b": 20, "test/a": 3, "test/b": 2})
    source = image_folder(tmp_path)
    assert [len(part.y_B) for part in (source.train, source.validation, source.test)] == [34, 6, 5]
    assert all(name.startswith("test/") for name in source.test.names)
    fill(tmp_path, {"val/a": 4, "val/b": 4})
    source = image_folder(tmp_path)
    assert [len(part.y_B) for part in (source.train, source.validation, source.test)] == [40, 8, 5]


def test_validation_without_test(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 20, "train/b": 20, "val/a": 2, "val/b": 2})
    source = image_folder(tmp_path)
    assert [len(part.y_B) for part in (source.train, source.validation, source.test)] == [34, 4, 6]
    assert all(name.startswith("train/") for name in source.test.names)


def test_small_classes_are_said(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 2, "b": 2})
    source = image_folder(tmp_path)
    assert source.test is None
    assert [len(source.train.y_B), len(source.validation.y_B)] == [2, 2]
    assert "class a has 2 pictures, too few for a test picture" in source.notes


def test_one_picture_is_too_few(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 1, "b": 5})
    assert message(tmp_path) == (
        f"{tmp_path}: class a has 1 training picture; expected at least 2, one to learn from and one to check with. "
        "Add pictures, or remove the class folder"
    )


def test_one_training_picture_is_enough_where_the_user_split(tmp_path: Path) -> None:
    fill(tmp_path, {f"{split}/{name}": 1 for split in ("train", "val", "test") for name in "ab"})
    assert len(image_folder(tmp_path).train.y_B) == 2


def test_a_small_common_size_is_kept(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3}, size=(64, 30))
    source = image_folder(tmp_path)
    assert (source.preparation.height, source.preparation.width) == (30, 64)
    assert not any("resized" in note for note in source.notes)
    assert source.sizes == ((30, 64),) * 6


def test_a_large_common_size_becomes_64(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3}, size=(65, 30))
    source = image_folder(tmp_path)
    assert source.train.x_BCHW.shape[2:] == (64, 64)
    assert "pictures are resized to 64 x 64 (--image-size); sides are stretched to fit" in source.notes


def test_different_sizes_become_64_or_what_was_asked(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3}, size=(10, 10))
    fill(tmp_path, {"b": 3}, size=(12, 12))
    assert image_folder(tmp_path).train.x_BCHW.shape[2:] == (64, 64)
    source = image_folder(tmp_path, DataOptions(image_size=5))
    assert source.train.x_BCHW.shape[2:] == (5, 5)
    assert "pictures are resized to 5 x 5 (--image-size)" in source.notes


def test_grey_pictures_stay_grey(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 5, "b": 5}, mode="L")
    source = image_folder(tmp_path)
    assert (source.preparation.mode, source.train.x_BCHW.shape[1]) == ("L", 1)
    assert set(source.modes) == {"L"}


def test_mixed_modes_become_rgb_and_are_said(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 5}, mode="L")
    fill(tmp_path, {"b": 5})
    source = image_folder(tmp_path)
    assert source.preparation.mode == "RGB"
    assert "5 of 10 pictures are grey, the others in colour: all are read as RGB" in source.notes


def test_the_preparation_is_of_training_alone_and_repeats_itself(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 4, "train/b": 4, "val/a": 2, "val/b": 2, "test/a": 200, "test/b": 200}, size=(70, 70))
    source = image_folder(tmp_path)
    assert source.preparation.mean[0] == pytest.approx(1.5 / 255)
    for row, name in enumerate(source.test.names[:300:50]):
        assert torch.equal(source.preparation.picture(tmp_path / name), source.test.x_BCHW[row * 50])


def test_broken_pictures_are_skipped_and_the_others_train(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 10, "b": 10})
    (tmp_path / "a" / "000.png").write_bytes(b"")
    (tmp_path / "a" / "001.png").write_text("no picture")
    noise = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "b" / "000.jpg")
    cut = (tmp_path / "b" / "000.jpg").read_bytes()[:1500]
    (tmp_path / "b" / "000.jpg").write_bytes(cut)
    source = image_folder(tmp_path)
    reasons = {file.path: file.reason for file in source.skipped}
    assert reasons["a/000.png"] == "the file is empty (0 bytes)"
    assert reasons["a/001.png"].startswith("its content is not a picture")
    assert reasons["b/000.jpg"] == "the file is cut short: some of its bytes are missing"
    assert len(all_names(source)) == 18
    assert not set(reasons) & set(all_names(source))


def test_a_class_of_broken_pictures_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3})
    for path in (tmp_path / "a").iterdir():
        path.write_bytes(b"")
    assert message(tmp_path) == (f"{tmp_path}: no training picture of class a can be read. a/000.png: the file is empty (0 bytes)")


def test_a_test_folder_of_broken_pictures_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 3, "train/b": 3, "test/a": 1})
    (tmp_path / "test/a/000.png").write_bytes(b"")
    assert f"{tmp_path}: no picture of the test folder can be read. test/a/000.png: the file is empty" in message(tmp_path)


def test_an_option_of_text_does_not_apply(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 5, "b": 5})
    assert "limit=5000 does not apply to pictures" in message(tmp_path, DataOptions(limit=5000))


@pytest.mark.skipif(not CLOTHING.is_dir(), reason="the clothing-small data set is not beside the repository")
def test_clothing() -> None:
    source = image_folder(CLOTHING, DataOptions(image_size=16))
    assert len(source.classes) == 10
    assert [len(part.y_B) for part in (source.train, source.validation, source.test)] == [130, 20, 372]
    assert torch.bincount(source.train.y_B).tolist() == [13] * 10
    assert source.skipped == ()
