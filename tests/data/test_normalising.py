"""Pictures are normalised by their own numbers, by those of a known set, or by given ones."""

import re

import pytest
import torch

from twofold.data.normalising import KNOWN, normalised, read_numbers
from twofold.data.options import DataOptions
from twofold.data.sources import open_source


def test_what_the_words_mean():
    assert read_numbers("own") is None
    assert read_numbers("imagenet") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert read_numbers("0.5 / 0.25") == ((0.5,), (0.25,)) and read_numbers("1 2 3/4 5 6") == ((1, 2, 3), (4, 5, 6))
    assert all(len(mean) == len(std) == 3 for mean, std in KNOWN.values())


def test_the_source_carries_them():
    source = open_source("digits", DataOptions(normalise="0.5 / 0.25"))
    x_BCHW = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    assert source.preparation.normalise(x_BCHW).flatten().tolist() == pytest.approx([-2.0, 2.0], abs=1e-5)
    assert open_source("digits", DataOptions(normalise="own")).preparation == open_source("digits").preparation
    with pytest.raises(ValueError, match="normalise=imagenet: it has 3 means, and the pictures of digits are grey: expected 1"):
        normalised(source, "imagenet")
    with pytest.raises(ValueError, match="normalise='imagenet' does not apply to python-source"):
        open_source("python-source", DataOptions(normalise="imagenet"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("imagnet", "expected own, imagenet, cifar10, cifar100, or numbers such as \"0.5 0.5 0.5 / 0.25 0.25 0.25\", got 'imagnet'"),
        ("0.5 0.5 / 1", "expected own, imagenet"),
        ("0.5", "expected own, imagenet"),
        ("/", "expected own, imagenet"),
        ("0.5 / 0", "expected means that are numbers and deviations above 0, got '0.5 / 0'"),
        ("nan / 1", "expected means that are numbers"),
    ],
)
def test_mistakes(text, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        DataOptions(normalise=text)
