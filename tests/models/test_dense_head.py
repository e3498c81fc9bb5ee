"""The head that AlexNet, ZFNet and VGG share: both poolings, the place of dropout, and words that it does not know."""

import pytest
import torch
import torch.nn.functional as F

from twofold.models.catalogue import build


def fixed(x_BCHW, pooling, grid):
    """Window i of n covers the pixels from floor(i H / n) up to, not including, ceil((i + 1) H / n)."""
    H, W = x_BCHW.shape[2:]
    values = []
    for n in (1, 2, 3, 6) if pooling == "pyramid" else (grid,):
        rows = [(i * H // n, -(-(i + 1) * H // n)) for i in range(n)]
        columns = [(i * W // n, -(-(i + 1) * W // n)) for i in range(n)]
        pool = torch.amax if pooling == "pyramid" else torch.mean
        values.append(torch.stack([pool(x_BCHW[:, :, a:b, c:d], (2, 3)) for a, b in rows for c, d in columns], 2).flatten(1))
    return torch.cat(values, 1)


@pytest.mark.parametrize("pooling", ["average", "pyramid"])
def test_every_size_gives_the_values_that_the_linear_layers_want(pooling):
    torch.manual_seed(0)
    net = build("vgg11", stages="4 M 8 M", height=9, width=30, classes=3, pooling=pooling, dropout=0.0)
    assert net.classifier[0].in_features == {"average": 8 * 49, "pyramid": 8 * 50}[pooling]
    for height, width in ((9, 30), (4, 4), (28, 28), (50, 31)):
        x = torch.randn(2, 3, height, width)
        h = fixed(net.features(x), pooling, 7)
        for place, weight in enumerate((0, 3, 6)):
            layer = net.classifier[weight]
            h = F.linear(h if place == 0 else F.relu(h), layer.weight, layer.bias)
        assert torch.allclose(net(x), h, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("vgg11", "Linear ReLU Dropout Linear ReLU Dropout Linear"),
        ("zfnet", "Linear ReLU Dropout Linear ReLU Dropout Linear"),
        ("alexnet-2012", "Linear ReLU Dropout Linear ReLU Dropout Linear"),
        ("alexnet", "Dropout Linear ReLU Dropout Linear ReLU Linear"),
    ],
)
def test_dropout_stands_where_the_paper_or_torchvision_has_it(name, kinds):
    with torch.device("meta"):
        net = build(name, dropout=0.25, classes=2)
    assert [type(layer).__name__ for layer in net.classifier] == kinds.split()
    assert [layer.p for layer in net.classifier if isinstance(layer, torch.nn.Dropout)] == [0.25, 0.25]


@pytest.mark.parametrize("name", ["alexnet", "zfnet", "vgg16"])
def test_bad_words(name):
    for changes, message in (
        ({"pooling": "max"}, "expected pooling to be average or pyramid, got 'max'."),
        ({"dropout": 1.0}, "expected dropout from 0 up to, not including, 1, got 1.0."),
        ({"classes": 1}, "expected classes to be at least 2, got 1."),
        ({"in_channels": 0}, "expected in_channels to be at least 1, got 0."),
    ):
        with pytest.raises(ValueError) as error:
            build(name, **changes)
        assert message in str(error.value)
