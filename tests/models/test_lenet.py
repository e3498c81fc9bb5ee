"""LeNet-5: the maps of the paper, every size that fits, and the sizes that do not."""

import pytest
import torch

from twofold.models.catalogue import build


def test_the_maps_are_those_of_the_paper():
    model = build("lenet5")
    x, shapes = torch.zeros(1, 1, 28, 28), {}
    for name, layer in model.named_children():
        x = layer(x)
        shapes[name] = tuple(x.shape[1:])
    assert [shapes[name] for name in ("conv1", "pool1", "conv2", "pool2", "fc1", "fc2", "fc3")] == [
        (6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,), (10,),
    ]  # fmt: skip


@pytest.mark.parametrize("size", [(12, 12), (28, 28), (33, 20)])
def test_lenet_takes_every_size_from_12(size):
    model = build("lenet5", height=size[0], width=size[1], classes=3)
    assert model(torch.zeros(2, 1, *size)).shape == (2, 3)


BAD = {
    "small": (lambda: build("lenet5", height=8, width=8), "expected pictures of at least 12x12, got 8x8"),
    "one class": (lambda: build("lenet5", classes=1), "expected classes to be at least 2, got 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
