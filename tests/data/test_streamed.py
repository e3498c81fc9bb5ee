"""Rows that stay in their files are the pictures, whatever thread asks; a file that is lost or changed is named."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.data.streamed import AGAIN, Form, PictureFiles, digest
from twofold.data.values import Images

FORM = Form("RGB", 3, 4)
X = np.random.default_rng(0).integers(0, 256, (5, 3, 3, 4), dtype=np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> PictureFiles:
    names = tuple(f"{number}.png" for number in range(len(X)))
    for name, x_CHW in zip(names, X, strict=True):
        Image.fromarray(x_CHW.transpose(1, 2, 0)).save(tmp_path / name)
    return PictureFiles(tmp_path, names, names, torch.arange(5), FORM, tuple(map(digest, X)))


def test_rows_are_the_pictures_in_the_order_asked_for(files: PictureFiles) -> None:
    held = Images(torch.from_numpy(X), files.y_B, files.names)
    for numbers in ([3, 0, 3], [], [4]):
        chosen = torch.tensor(numbers, dtype=torch.int64)
        assert torch.equal(files.pictures(chosen), held.pictures(chosen))
    assert files.pictures(torch.tensor([1])).dtype == torch.uint8
    assert list(files.digests()) == held.digests() == replace(files, marks=None).digests()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: path.unlink(), "there is no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "the file is cut short: some of its bytes are missing"),
        (lambda path: path.write_text("text"), "its content is not a picture; expected png, jpeg, gif, bmp, webp, tiff, ppm or pgm"),
        (lambda path: Image.new("RGB", (4, 3), "red").save(path), "its content has changed"),
    ],
)
def test_a_file_that_is_not_what_it_was_is_named(files: PictureFiles, harm, reason: str) -> None:
    harm(files.root / "2.png")
    assert files.pictures(torch.tensor([1, 3])).shape == (2, 3, 3, 4)
    with pytest.raises(ValueError) as caught:
        files.pictures(torch.tensor([1, 2, 3]))
    assert str(caught.value) == f"picture {files.root / '2.png'}: {reason}. {AGAIN}"


def test_no_warning_of_the_reader_leaks(tmp_path: Path) -> None:
    """A palette with transparency makes Pillow warn; warnings are errors here."""
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.save(tmp_path / "a.png", transparency=b"\x00\x80")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x_BCHW = PictureFiles(tmp_path, ("a.png",), ("a.png",), torch.zeros(1), FORM).pictures(torch.tensor([0]))
        with pytest.raises(UserWarning, match="ours"):
            warnings.warn("ours", UserWarning, stacklevel=1)
    assert x_BCHW[0, :, 0, 0].tolist() == [227, 177, 152]
