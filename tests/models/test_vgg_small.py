"""The small nets in the manner of VGG: letters as layers, the grid before the last layer, and letters that make no net."""

import pytest
import torch

from twofold.models.catalogue import build


def test_letters_are_layers():
    model = build("vgg-mini", stages="8 M 16 16 M")
    names = [name for name, _ in model.features.named_children()]
    assert names == [
        "conv1", "norm1", "relu1", "pool1", "conv2", "norm2", "relu2", "conv3", "norm3", "relu3", "pool2",
    ]  # fmt: skip
    assert [(c.in_channels, c.out_channels) for c in (model.features.conv1, model.features.conv2, model.features.conv3)] == [
        (1, 8), (8, 16), (16, 16),
    ]  # fmt: skip


@pytest.mark.parametrize(("height", "width", "inputs"), [(8, 8, 64), (4, 8, 32), (4, 4, 16), (33, 20, 64)])
def test_what_is_left_is_averaged_to_two_by_two_at_most(height, width, inputs):
    model = build("vgg-mini", stages="8 M 16 M", height=height, width=width)
    assert model.head.in_features == inputs
    assert model(torch.zeros(2, 1, height, width)).shape == (2, 10)


BAD = {
    "stages": (lambda: build("vgg-mini", stages="M 32"), "expected stages like"),
    "too many poolings": (lambda: build("vgg-mini", stages="8 M M M M"), "4 poolings leave nothing"),
    "dropout": (lambda: build("vgg-mini", dropout=1.0), "expected dropout from 0 up to, not including, 1, got 1.0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
