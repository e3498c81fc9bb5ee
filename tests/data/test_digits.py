"""The digits: values, counts and the fixed split."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from twofold.data.digits import digits
from twofold.data.values import ImageSource


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return digits()


def test_every_digit_is_there_once(source: ImageSource) -> None:
    rows = [int(name.split()[1]) for part in (source.train, source.validation, source.test) for name in part.names]
    assert sorted(rows) == list(range(1797))
    assert [len(part.y_B) for part in (source.train, source.validation, source.test)] == [1078, 120, 599]


def test_values_are_those_of_scikit_learn(source: ImageSource) -> None:
    bunch = load_digits()
    for part in (source.train, source.validation, source.test):
        rows = [int(name.split()[1]) for name in part.names]
        assert (part.x_BCHW.dtype, tuple(part.x_BCHW.shape[1:])) == (torch.uint8, (1, 8, 8))
        np.testing.assert_array_equal(np.round(part.x_BCHW[:, 0].double().numpy() * 16 / 255), bunch.images[rows])
        np.testing.assert_array_equal(part.y_B.numpy(), bunch.target[rows])
        assert part.y_B.dtype == torch.int64
    assert int(source.train.x_BCHW.max()) == 255


def test_the_split_is_stratified(source: ImageSource) -> None:
    assert torch.bincount(source.validation.y_B).tolist() == [12] * 10
    assert set(torch.bincount(source.test.y_B).tolist()) <= {58, 59, 60, 61}


def test_the_split_never_moves(source: ImageSource) -> None:
    again = digits()
    assert again.test.names == source.test.names
    assert again.validation.names == source.validation.names
    assert hashlib.sha256(" ".join(source.test.names).encode()).hexdigest()[:16] == "a6fda57649ebc0b7"


def test_the_preparation_is_of_the_training_pictures(source: ImageSource) -> None:
    P = source.preparation
    assert (P.mode, P.height, P.width) == ("L", 8, 8)
    assert P.mean[0] == pytest.approx(float(source.train.x_BCHW.double().mean() / 255))
    assert source.classes == tuple("0123456789")
    assert source.task == "classify"
