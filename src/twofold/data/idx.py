"""IDX: the format of MNIST and Fashion-MNIST.     all numbers big-endian

    0 0 kind rank | size_1 .. size_rank, 4 bytes each | size_1 * .. * size_rank values, the last axis innermost

kind 8 is unsigned bytes, the only one that pictures and labels are stored in. The file may be packed with gzip or xz.
The header is judged before a value is read: at most LARGEST values, and what is there must be what was promised.
Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits", file formats
"""

import math
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from twofold.data.packed import read_up_to, unpacked

LARGEST = 1 << 29  # values in one file; those of MNIST's training pictures are 47 million
HIGHEST = 4  # axes: pictures in colour
KINDS = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}


def read_idx(path: str | Path) -> Tensor:
    """The values of an IDX file as uint8, in the shape that its header says: (N, H, W) for pictures, (N) for labels.

    Raises ValueError: missing, another format or kind, no values, more than LARGEST, cut short, longer than its header says.
    """
    with unpacked("idx", Path(path)) as file:
        shape = _read_shape(path, file)
        promised = math.prod(shape)
        values = read_up_to(file, promised + 1)  # one more: what follows the last value, and the packed file's own checksum
    if len(values) != promised:
        what = "more follow: not a file of this format" if len(values) > promised else f"it holds {len(values):,}: cut short"
        raise ValueError(f"idx: {path}: its header says {'x'.join(map(str, shape))} = {promised:,} values, {what}. Download it again.")
    return torch.frombuffer(values, dtype=torch.uint8).reshape(shape)


def _read_shape(path: str | Path, file: BinaryIO) -> tuple[int, ...]:
    """The header, read and judged."""
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in KINDS:
        raise ValueError(
            f"idx: {path} is not an IDX file: expected it to begin with 0 0, a kind and a rank, got {start.hex(' ') or 'nothing'}. "
            "Something else under this name, such as a web page?"
        )
    kind, rank = start[2], start[3]
    if kind != 0x08:
        raise ValueError(f"idx: {path} holds {KINDS[kind]} values (kind {kind}); expected uint8 (kind 8), as pictures and labels are.")
    if not 1 <= rank <= HIGHEST:
        raise ValueError(f"idx: {path}: expected 1 to {HIGHEST} axes, its header says {rank}.")
    sizes = file.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise ValueError(f"idx: {path} is cut short: its header of {4 + 4 * rank} bytes ends after {4 + len(sizes)}. Download it again.")
    shape = tuple(int.from_bytes(sizes[place : place + 4], "big") for place in range(0, 4 * rank, 4))
    if not 1 <= math.prod(shape) <= LARGEST:
        raise ValueError(
            f"idx: {path}: its header says {'x'.join(map(str, shape))} = {math.prod(shape):,} values; expected 1 to {LARGEST:,} in a file."
        )
    return shape
