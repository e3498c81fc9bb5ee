"""Digits: 1,797 handwritten digits, 8x8, grey, that ship with scikit-learn.

    v in 0..16 -> round(255 v / 16)

One fixed split: a stratified third is the test, a stratified tenth of the rest is the validation.
E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998 (its test part)
"""

from __future__ import annotations

import numpy as np
import torch

from twofold.data.preparation import Preparation
from twofold.data.values import Images, ImageSource

SENTENCE = "1,797 handwritten digits, 8x8 pixels, grey, 10 classes; ships with scikit-learn"
LICENCE = "CC BY 4.0"


def digits() -> ImageSource:
    """The digits: 1,078 to train on, 120 to validate, 599 to test. The same on every call and every machine."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    x_BCHW = torch.from_numpy(np.rint(bunch.images * 255 / 16).astype(np.uint8))[:, None]
    y_B = torch.from_numpy(bunch.target.astype(np.int64))

    def split(rows: np.ndarray, share: float) -> list[np.ndarray]:
        parts = train_test_split(rows, test_size=share, random_state=0, stratify=bunch.target[rows])
        return [np.sort(part) for part in parts]

    def images(rows: np.ndarray) -> Images:
        return Images(x_BCHW[rows], y_B[rows], tuple(f"digit {row}" for row in rows))

    rest, test = split(np.arange(len(y_B)), 1 / 3)
    train, validation = (images(rows) for rows in split(rest, 0.1))
    return ImageSource(
        name="digits",
        classes=tuple(str(name) for name in bunch.target_names),
        preparation=Preparation.of(train.x_BCHW),
        train=train,
        validation=validation,
        test=images(test),
        sizes=((8, 8),) * len(y_B),
        modes=("L",) * len(y_B),
    )
