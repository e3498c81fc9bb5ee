"""IDX: values and shape of files written here, refusals of what is no such file, and the published set where it lies."""

import gzip
import struct
import tracemalloc
from pathlib import Path

import pytest
import torch

from twofold.data.idx import LARGEST, read_idx

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "fashion-mnist"


def idx(shape, values, kind=8):
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(values)


def written(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 3, 4), (300, 1, 1), (2, 3, 2, 2)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_values_stand_in_the_order_of_the_last_axis_first(tmp_path, shape, pack):
    count = torch.Size(shape).numel()
    values = [(7 * place + 250) % 256 for place in range(count)]
    found = read_idx(written(tmp_path, pack(idx(shape, values))))
    assert found.dtype == torch.uint8 and found.shape == shape and found.flatten().tolist() == values


SMALL = idx((2, 3), range(6))
BAD = {
    "empty": (b"", "is not an IDX file: expected it to begin with 0 0, a kind and a rank, got nothing."),
    "web page": (b"<!DOCTYPE html>", "got 3c 21 44 4f. Something else under this name, such as a web page?"),
    "kind": (idx((2,), [1, 2], kind=7), "is not an IDX file"),
    "int32": (idx((1,), [0, 0, 0, 1], kind=12), "holds int32 values (kind 12); expected uint8 (kind 8)"),
    "rank 0": (idx((), []), "expected 1 to 4 axes, its header says 0."),
    "rank 200": (bytes([0, 0, 8, 200]) + bytes(800), "expected 1 to 4 axes, its header says 200."),
    "header cut": (SMALL[:9], "is cut short: its header of 12 bytes ends after 9. Download it again."),
    "no values": (idx((0, 28, 28), []), "its header says 0x28x28 = 0 values; expected 1 to 536,870,912 in a file."),
    "bomb": (idx((2**32 - 1,) * 4, range(9)), "its header says 4294967295x4294967295x4294967295x4294967295 = 340,282,366,"),
    "cut": (SMALL[:-1], "its header says 2x3 = 6 values, it holds 5: cut short. Download it again."),
    "gzip cut": (gzip.compress(SMALL)[:-9], "is cut short: its packed content has no end."),
    "longer": (SMALL + b"x", "its header says 2x3 = 6 values, more follow: not a file of this format."),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_such_file(tmp_path, name):
    content, words = BAD[name]
    with pytest.raises(ValueError) as error:
        read_idx(written(tmp_path, content))
    assert str(error.value).startswith(f"idx: {tmp_path}") and words in str(error.value)


@pytest.mark.parametrize("content", [idx((LARGEST // 2, 2), range(6)), gzip.compress(idx((6,), bytes(1 << 26)))])
def test_neither_a_promise_nor_a_bomb_takes_memory(tmp_path, content):
    path = written(tmp_path, content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="its header says"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not SHARED.exists(), reason="needs the published files of Fashion-MNIST beside the repository")
@pytest.mark.parametrize(("part", "count", "mean"), [("t10k", 10_000, 0.2868), ("train", 60_000, 0.2860)])
def test_fashion_mnist(part, count, mean):
    x, y = read_idx(SHARED / f"{part}-images-idx3-ubyte.gz"), read_idx(SHARED / f"{part}-labels-idx1-ubyte.gz")
    assert x.shape == (count, 28, 28) and y.bincount().tolist() == [count // 10] * 10
    assert x.float().mean().item() / 255 == pytest.approx(mean, abs=1e-4)
