"""Sets of pictures that come as arrays, as MNIST and CIFAR do, in parts.

with a test part       a tenth of each class of the others to validate, by u (split.py)
without                15 % of each class to validate, and again for the test
"""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.data.preparation import CHANNELS, Preparation
from twofold.data.split import take
from twofold.data.values import Images, ImageSource

VALIDATED = 0.1  # share of the training pictures of each class
SHARE = 0.15  # the same where the test is taken from them as well
CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
}


def in_parts(name: str, classes: tuple[str, ...], learnt: tuple[Tensor, Tensor], kept: tuple[Tensor, Tensor] | None) -> ImageSource:
    """The source of pictures (uint8 BCHW) and labels: to learn from, and, where there are some, for the test.

    Raises ValueError for a class without a picture to learn from, and for fewer pictures of one than there are parts.
    """
    x_BCHW, y_B = learnt
    names = [f"train {row}" for row in range(len(y_B))]
    shares = [VALIDATED] if kept is not None else [SHARE, SHARE]
    parts: list[list[int]] = [[] for _ in range(1 + len(shares))]
    for label, label_name in enumerate(classes):
        rows = {names[row]: row for row in torch.nonzero(y_B == label).flatten().tolist()}
        if len(rows) < 2:
            raise ValueError(f"{name}: class {label_name} has {len(rows)} of {len(y_B)} pictures to learn from; expected at least 2.")
        for part, chosen in zip(parts, take(list(rows), *shares), strict=True):
            part += [rows[each] for each in chosen]
    split = [Images(x_BCHW[rows], y_B[rows], tuple(names[row] for row in rows)) for rows in map(sorted, parts)]
    test = Images(*kept, tuple(f"test {number}" for number in range(len(kept[1])))) if kept is not None else split[2]
    count, (C, H, W) = len(y_B) + (0 if kept is None else len(kept[1])), x_BCHW.shape[1:]
    mode = {channels: mode for mode, channels in CHANNELS.items()}[C]
    notes = () if kept is not None else (f"there is no test file: {len(test.names):,} pictures are kept from training for the test",)
    return ImageSource(
        name,
        classes,
        Preparation.of(split[0].x_BCHW),
        split[0],
        split[1],
        test,
        notes=notes,
        sizes=((H, W),) * count,
        modes=(mode,) * count,
    )
