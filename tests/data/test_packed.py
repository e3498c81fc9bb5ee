"""Packed bytes: the same content from each packing, no more of it than is asked for, and sentences for broken files."""

import gzip
import lzma
import os
import tracemalloc

import pytest

from twofold.data.packed import read_up_to, unpacked

CONTENT = bytes(range(256)) * 9000
PACKINGS = {"plain": bytes, "gzip": gzip.compress, "xz": lzma.compress}


def read(path, count=1 << 40):
    with unpacked("packed", path) as file:
        return read_up_to(file, count)


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_first_bytes_tell_the_packing_and_the_name_does_not(tmp_path, packing):
    path = tmp_path / "data.png"
    path.write_bytes(PACKINGS[packing](CONTENT))
    assert read(path) == CONTENT
    assert read(path, 300) == CONTENT[:300] and read(path, 0) == b""


@pytest.mark.parametrize("packing", ["gzip", "xz"])
def test_a_bomb_takes_no_more_memory_than_is_asked_for(tmp_path, packing):
    path = tmp_path / "bomb"
    path.write_bytes(PACKINGS[packing](bytes(1 << 26)))
    assert path.stat().st_size < 1 << 18
    tracemalloc.start()
    try:
        assert len(read(path, 1000)) == 1000
        assert tracemalloc.get_traced_memory()[1] < 1 << 24  # a dictionary of 8 MiB for xz
    finally:
        tracemalloc.stop()


def spoilt(packing, place):
    packed = bytearray(PACKINGS[packing](CONTENT))
    packed[place] ^= 0xFF
    return bytes(packed)


BROKEN = {
    "gzip cut": (gzip.compress(CONTENT)[:-20], "is cut short: its packed content has no end. Download it again."),
    "xz cut": (lzma.compress(CONTENT)[:-20], "is cut short"),
    "gzip flipped": (spoilt("gzip", 2000), "is broken: its packed content cannot be read ("),
    "xz flipped": (spoilt("xz", 200), "is broken"),
    "gzip checksum": (spoilt("gzip", -6), "is broken"),
    "xz head": (spoilt("xz", 7), "is broken"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path, name):
    content, words = BROKEN[name]
    path = tmp_path / "data"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read(path)
    assert str(error.value).startswith(f"packed: {path} {words}")


def test_what_is_no_file(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name, words in {"": "is a folder, not a file", "none": "is missing", "link": "is missing", "pipe": "is not a regular file"}.items():
        with pytest.raises(ValueError, match=f"^packed: {tmp_path / name} {words}.$"):
            read(tmp_path / name)
