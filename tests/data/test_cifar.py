"""CIFAR records: pictures and classes of files written here, refusals of what is none, and the published set where it lies."""

import gzip
from pathlib import Path

import pytest
import torch

from twofold.data import cifar
from twofold.data.cifar import read_cifar

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10"
PIXELS = 3072


def records(*classes):
    """One record for each tuple of classes; red is its number, green twice and blue three times that."""
    return b"".join(bytes(names) + b"".join(bytes([n * colour]) * 1024 for colour in (1, 2, 3)) for n, names in enumerate(classes, 1))


def written(tmp_path, content):
    path = tmp_path / "data.bin"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("classes", "coarse", "expected"),
    [
        ([(3,), (0,), (9,)], False, [3, 0, 9]),
        ([(19, 99), (0, 42)], False, [99, 42]),
        ([(19, 99), (0, 42)], True, [19, 0]),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_pictures_and_classes(tmp_path, classes, coarse, expected, pack):
    x, y = read_cifar(written(tmp_path, pack(records(*classes))), coarse)
    assert x.dtype == torch.uint8 and x.is_contiguous() and x.shape == (len(classes), 3, 32, 32)
    assert y.dtype == torch.int64 and y.tolist() == expected
    for n, picture in enumerate(x, 1):
        assert [colour.unique().tolist() for colour in picture] == [[n], [2 * n], [3 * n]]


def test_rows_and_columns_are_not_turned(tmp_path):
    pixels = bytes(place // 32 * 7 + place % 32 for place in range(1024)) * 3
    x, _ = read_cifar(written(tmp_path, bytes([1]) + pixels))
    assert x[0, 1, 2, 5] == 2 * 7 + 5 and x[0, 2, 30, 1] == (30 * 7 + 1)


def test_a_length_that_fits_both_is_told_by_the_classes(tmp_path):
    for classes, count in (([5], 3074), ([19, 99], 3073)):
        x, y = read_cifar(written(tmp_path, (bytes(classes) + bytes([200]) * PIXELS) * count))
        assert len(x) == count and y.unique().tolist() == classes[-1:] and (x == 200).all()


BAD = {
    "empty": (b"", "expected whole records of 3,073 bytes (CIFAR-10) or 3,074 bytes (CIFAR-100), got 0 bytes."),
    "cut": (records((1,), (2,))[:-1], "got 6,145 bytes. Cut short, or not the binary version?"),
    "class": (records((1,), (10,)), "expected classes of CIFAR-10 (0 to 9), got up to 10. Not the binary version of CIFAR?"),
    "coarse class": (records((20, 5)), "expected classes of CIFAR-100 (0 to 19, 0 to 99), got up to 20, 5."),
    "fine class": (records((1, 100)), "got up to 1, 100."),
    "gzip cut": (gzip.compress(records((1,)))[:-9], "is cut short: its packed content has no end."),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_such_file(tmp_path, name):
    content, words = BAD[name]
    with pytest.raises(ValueError) as error:
        read_cifar(written(tmp_path, content))
    assert str(error.value).startswith(f"cifar: {tmp_path}") and words in str(error.value)


def test_coarse_classes_of_cifar_10(tmp_path):
    with pytest.raises(ValueError, match="holds CIFAR-10, which has no coarse classes"):
        read_cifar(written(tmp_path, records((1,))), coarse=True)


def test_a_bomb_is_left_at_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "LARGEST", 10_000)
    with pytest.raises(ValueError, match="holds more than 10,000 bytes, the limit for one file"):
        read_cifar(written(tmp_path, gzip.compress(bytes(3073 * 4))))


@pytest.mark.skipif(not SHARED.exists(), reason="needs the records of CIFAR-10 beside the repository")
def test_cifar_10():
    x, y = read_cifar(SHARED / "test_batch.bin.xz")
    assert x.shape == (10_000, 3, 32, 32) and y.bincount().tolist() == [1000] * 10
    # the means that are known of the test pictures, red, green, blue
    assert (x.float().mean((0, 2, 3)) / 255).tolist() == pytest.approx([0.4942, 0.4851, 0.4504], abs=1e-4)
