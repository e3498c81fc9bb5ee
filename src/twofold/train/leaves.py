"""What a batch is made of: the tensors within named tuples, tuples, lists and dictionaries, and the axis of each that counts items.

Pictures(x_BCHW, y_B)     ->  "x_BCHW", "y_B"             the letter B of a name tells the axis: 0, 0
Window(x_TB, y_TB, ...)   ->  "x_TB", "y_TB"              1, 1: the items that can be parted are the streams
(x, y), {"x": x}          ->  "0", "1"; "x"               no letters: axis 0
"""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from twofold.train.sharded import own

LETTERS = re.compile(r"_([A-Z]+)$")


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no container, with its path: field names, keys and numbers, joined by dots.

    >>> [path for path, _ in leaves({"x": (1, 2), "y": 3})]
    ['x.0', 'x.1', 'y']
    """
    if isinstance(value, dict):
        inside = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        inside = list(zip(value._fields, value, strict=True))
    elif isinstance(value, (tuple, list)):
        inside = [(str(place), part) for place, part in enumerate(value)]
    else:
        yield name, value
        return
    for key, part in inside:
        yield from leaves(part, f"{name}.{key}" if name else key)


def tensors(value: Any) -> dict[str, Tensor]:
    """The tensors within, by path."""
    return {name: part for name, part in leaves(value) if isinstance(part, Tensor)}


def item_axis(name: str, x: Tensor) -> int | None:
    """The axis of a tensor that counts the items of the batch, None where it has none.

    >>> item_axis("x_TB", torch.zeros(5, 2)), item_axis("weights_N", torch.zeros(3)), item_axis("0", torch.zeros(3))
    (1, None, 0)
    """
    found = LETTERS.search(name)
    if found and len(found[1]) == x.dim():
        return found[1].find("B") if "B" in found[1] else None
    return 0 if x.dim() else None


def finite(x: Any) -> bool:
    """Whether no value of a tensor is NaN or infinite, of one that is cut over processes none in this one; whole numbers never are."""
    if not isinstance(x, Tensor) or not (x.is_floating_point() or x.is_complex()) or not x.numel():
        return True
    return bool(torch.isfinite(own(x.detach())).all())
