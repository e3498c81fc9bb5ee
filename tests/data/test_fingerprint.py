"""A fingerprint tells one datum that changed, in what is trained on and in what chooses the best epoch."""

from zlib import crc32

import torch

from twofold.data.fingerprint import fingerprint
from twofold.data.preparation import Preparation
from twofold.data.values import Images, ImageSource, Text, TextSource
from twofold.data.vocabulary import Vocabulary

PIXELS = torch.arange(48, dtype=torch.uint8).view(3, 1, 4, 4)
CLASSES = torch.tensor([0, 1, 0])


def pictures(x=PIXELS, y=CLASSES, held=PIXELS):
    kind = Preparation("L", 4, 4, (0.0,), (1.0,))
    return fingerprint(ImageSource("x", ("a", "b"), kind, Images(x, y, ("1", "2", "3")), Images(held, CLASSES, ("4", "5", "6")), None))


def text(*codes):
    part = Text(torch.tensor(codes, dtype=torch.int32), len(codes), ("a",))
    return fingerprint(TextSource("x", Vocabulary(("\ufffd", "a", "b")), part, part, None))


def test_one_changed_pixel_class_or_code_shows():
    other = PIXELS.clone()
    other[2, 0, 3, 3] = 0
    usual = pictures()
    assert pictures(PIXELS.clone()) == usual
    assert pictures(other)["training"] != usual["training"] == pictures(held=other)["training"]
    assert pictures(y=torch.tensor([0, 1, 1]))["training"] != usual["training"]
    assert pictures(held=other)["validation"] != usual["validation"]
    assert text(1, 2, 1) == text(1, 2, 1) != text(1, 1, 2)


def test_it_is_that_of_the_values_not_of_their_place_in_memory():
    assert pictures(PIXELS.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)) == pictures()
    assert text(1)["training"] == f"{crc32(bytes([1, 0, 0, 0])):08x}"
