"""Folders and files of CIFAR and IDX records are sources by their path."""

import gzip
import lzma
import struct
from pathlib import Path

import pytest
import torch

from twofold.data.preparation import Preparation
from twofold.data.sources import check, open_source, task_of
from twofold.data.whole import read_pictures_whole

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
NAMES = ("airplane", "cat", "dog")


def cifar(count, classes=3, first=0, coarse=b""):
    """Records whose red is their number."""
    return b"".join(coarse + bytes([(first + i) % classes]) + bytes([first + i]) * 1024 + bytes(2048) for i in range(count))


def idx(shape, values):
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(values)


def message(path):
    with pytest.raises(ValueError) as caught:
        open_source(path)
    return str(caught.value).replace(str(path), "PATH")


def test_a_folder_of_cifar_records(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(cifar(30))
    (tmp_path / "data_batch_subset5000.bin.xz").write_bytes(lzma.compress(cifar(30, first=30)))
    (tmp_path / "test_batch.bin.gz").write_bytes(gzip.compress(cifar(9, first=100)))
    (tmp_path / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    (tmp_path / "README.txt").write_text("words\n" * 1000)
    source = open_source(tmp_path)
    assert (source.classes, task_of(tmp_path), source.name) == (NAMES, "classify", tmp_path.name)
    assert [len(part.y_B) for part in (source.train, source.validation, source.test)] == [54, 6, 9]
    assert source.test.x_BCHW[:, 0, 0, 0].tolist() == list(range(100, 109)) and source.test.y_B.tolist() == [i % 3 for i in range(100, 109)]
    seen = torch.cat([source.train.x_BCHW, source.validation.x_BCHW])[:, 0, 0, 0]
    assert sorted(seen.tolist()) == list(range(60))
    assert source.preparation == Preparation.of(source.train.x_BCHW)
    found = check(tmp_path)
    assert found.kind == "files of CIFAR records" and found.counts["test"] == {"airplane": 3, "cat": 3, "dog": 3}
    whole = read_pictures_whole(tmp_path, NAMES, source.preparation)
    assert len(whole.part.y_B) == 69
    with pytest.raises(ValueError, match="holds classes that the model does not know: dog"):
        read_pictures_whole(tmp_path, NAMES[:2], source.preparation)


def test_cifar_100_and_numbers_for_classes(tmp_path):
    (tmp_path / "train.bin").write_bytes(cifar(20, 4, coarse=b"\1"))
    (tmp_path / "test.bin").write_bytes(cifar(4, 4, coarse=b"\1"))
    assert open_source(tmp_path).classes == ("0", "1", "2", "3")
    (tmp_path / "fine_label_names.txt").write_text("a\nb\nc\nd\ne\n")
    assert "class e has 0 of 20 pictures to learn from" in message(tmp_path)


def test_a_single_file_is_parted(tmp_path):
    path = tmp_path / "test_batch.bin"
    path.write_bytes(cifar(60))
    source = open_source(path)
    assert [len(part.y_B) for part in (source.train, source.validation, source.test)] == [42, 9, 9]
    assert source.notes == ("there is no test file: 9 pictures are kept from training for the test",) and source.name == "test_batch"
    assert not set(source.test.names) & set(source.train.names)


def test_a_folder_of_idx_files(tmp_path):
    for part, count in (("train", 30), ("t10k", 6)):
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx((count, 2, 3), range(count * 6))))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx((count,), [i % 3 for i in range(count)]))
    source = open_source(tmp_path)
    assert source.classes == ("0", "1", "2") and [len(p.y_B) for p in (source.train, source.validation, source.test)] == [27, 3, 6]
    assert source.test.x_BCHW.shape == (6, 1, 2, 3) and source.test.x_BCHW[1].flatten().tolist() == [6, 7, 8, 9, 10, 11]
    (tmp_path / "classes.txt").write_text("shoe\nbag\ncoat\n")
    assert open_source(tmp_path).classes == ("shoe", "bag", "coat") and check(tmp_path).kind == "IDX files"
    assert [len(p.y_B) for p in open_source(tmp_path / "train-images-idx3-ubyte.gz")[3:6]] == [18, 6, 6]


def test_a_folder_called_as_a_known_set_has_its_classes(tmp_path):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte").write_bytes(idx((40, 2, 2), [7] * 160))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx((40,), [i % 10 for i in range(40)]))
    assert open_source(folder).classes[:2] == ("T-shirt/top", "Trouser")


def test_mistakes(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x03")
    assert "holds the Python version of CIFAR (data_batch_1): pickles, which can run code and are not read" in message(tmp_path)
    (tmp_path / "data_batch_1.bin").write_bytes(cifar(20))
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\n")
    assert "its labels go up to 2: expected as many different names in batches.meta.txt, got 2" in message(tmp_path)
    (tmp_path / "data_batch_1.bin").write_bytes(cifar(20)[:-1])
    assert "expected whole records of 3,073 bytes (CIFAR-10) or 3,074" in message(tmp_path)
    (tmp_path / "i").mkdir()
    images = tmp_path / "i" / "train-images-idx3-ubyte"
    images.write_bytes(idx((4, 2, 2), range(16)))
    assert "expected its labels beside it, train-labels-idx1-ubyte." in message(tmp_path / "i")
    labels = tmp_path / "i" / "train-labels-idx1-ubyte"
    labels.write_bytes(idx((3,), range(3)))
    assert "as many labels (N), got (4, 2, 2) and (3,) in train-labels-idx1-ubyte." in message(tmp_path / "i")
    images.write_bytes(idx((3, 2, 2, 1), range(12)))
    assert "expected pictures of 1 or 3 channels, got 2." in message(tmp_path / "i")
    images.write_bytes(idx((3, 2, 2), range(12)))
    (tmp_path / "i" / "t10k-images-idx3-ubyte").write_bytes(idx((3, 2, 1), range(6)))
    (tmp_path / "i" / "t10k-labels-idx1-ubyte").write_bytes(idx((3,), range(3)))
    assert "expected pictures of one size (CxHxW), got 1x2x2 to learn from and 1x2x1 to test." in message(tmp_path / "i")
    (tmp_path / "i" / "u-train-images-idx3-ubyte").write_bytes(idx((3, 3, 1), range(9)))
    (tmp_path / "i" / "u-train-labels-idx1-ubyte").write_bytes(idx((3,), range(3)))
    assert "expected pictures of one size (CxHxW), got (1, 2, 2), (1, 3, 1)." in message(tmp_path / "i")


@pytest.mark.parametrize(("name", "counts"), [("cifar10", [4500, 500, 10_000]), ("fashion-mnist", [54_000, 6_000, 10_000])])
def test_the_shared_sets_open_by_their_path(name, counts):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not on this machine")
    source = open_source(SHARED / name)
    assert [len(part.y_B) for part in (source.train, source.validation, source.test)] == counts and len(source.classes) == 10
