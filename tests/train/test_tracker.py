"""Pictures of every kind become red, green and blue bytes."""

import numpy as np
import pytest
from PIL import Image

from twofold.see.style import figure
from twofold.train.tracker import pixels


@pytest.mark.parametrize(
    ("picture", "first"),
    [
        (np.array([[0.0, 0.5], [2.0, np.nan]]), [0, 0, 0]),
        (np.full((2, 2, 3), 7, np.uint8), [7, 7, 7]),
        (np.full((1, 1, 3), 1.0, np.float32), [255, 255, 255]),
    ],
)
def test_arrays(picture, first):
    shown = pixels(picture)
    assert shown.dtype == np.uint8 and shown.shape == (*picture.shape[:2], 3) and shown[0, 0].tolist() == first


def test_shares_beyond_0_and_1_and_no_numbers_are_cut():
    assert pixels(np.array([[-1.0, 0.5, 2.0, np.nan]]))[0, :, 0].tolist() == [0, 128, 255, 0]


def test_a_png_file_and_a_figure(tmp_path):
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").tolist() == [[[1, 2, 3]] * 3] * 2
    drawn = pixels(figure(1, 0.5))
    assert drawn.shape == (72, 144, 3) and (drawn == 255).all()


@pytest.mark.parametrize("picture", [np.zeros((2, 2), int), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2)), np.zeros(3)])
def test_other_arrays_are_refused(picture):
    with pytest.raises(ValueError, match=r"picture: expected \(H, W\) or \(H, W, C=3\), uint8 or shares 0..1, got"):
        pixels(picture)
