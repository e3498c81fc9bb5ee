"""VGG: counts, torchvision's names and shapes, an independent statement in both modes, first weights, letters, the smallest picture."""

import re

import pytest
import torch
import torch.nn.functional as F

from twofold.models.catalogue import build, configure
from twofold.models.vgg import parsed

COUNTS = {
    "vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544, "vgg19": 143_667_240, "vgg16-c": 133_638_952,
    "vgg11-bn": 132_868_840, "vgg13-bn": 133_053_736, "vgg16-bn": 138_365_992, "vgg19-bn": 143_678_248,
}  # fmt: skip
# Where torchvision's features have their convolutions, and how many there are in each of the five stages.
PLACES = {
    "vgg11": [0, 3, 6, 8, 11, 13, 16, 18],
    "vgg13": [0, 2, 5, 7, 10, 12, 15, 17, 20, 22],
    "vgg16": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
    "vgg16-c": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
    "vgg19": [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34],
    "vgg11-bn": [0, 4, 8, 11, 15, 18, 22, 25],
    "vgg13-bn": [0, 3, 7, 10, 14, 17, 21, 24, 28, 31],
    "vgg16-bn": [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40],
    "vgg19-bn": [0, 3, 7, 10, 14, 17, 20, 23, 27, 30, 33, 36, 40, 43, 46, 49],
}
DEEP = {8: (1, 1, 2, 2, 2), 10: (2, 2, 2, 2, 2), 13: (2, 2, 3, 3, 3), 16: (2, 2, 4, 4, 4)}


def shapes(name, in_channels=3, classes=1000):
    """Table 1 of the paper under torchvision's names."""
    places, found, channels = iter(PLACES[name]), {}, in_channels
    for stage, depth in enumerate(DEEP[len(PLACES[name])]):
        for number in range(depth):
            filters, side = min(64 << stage, 512), 1 if name == "vgg16-c" and stage > 1 and number == 2 else 3
            place = next(places)
            found[f"features.{place}.weight"] = (filters, channels, side, side)
            found[f"features.{place}.bias"] = (filters,)
            if name.endswith("bn"):
                found |= {f"features.{place + 1}.{kind}": (filters,) for kind in ("weight", "bias", "running_mean", "running_var")}
                found[f"features.{place + 1}.num_batches_tracked"] = ()
            channels = filters
    for place, (inputs, outputs) in zip((0, 3, 6), ((25_088, 4096), (4096, 4096), (4096, classes)), strict=True):
        found |= {f"classifier.{place}.weight": (outputs, inputs), f"classifier.{place}.bias": (outputs,)}
    return found


@pytest.mark.parametrize("name", COUNTS)
def test_names_shapes_and_counts(name):
    with torch.device("meta"):
        net = build(name)
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == shapes(name)
    assert sum(p.numel() for p in net.parameters()) == COUNTS[name]


def restated(name, state, x, training):
    """The net from table 1, with torch's functions alone."""
    places = iter(PLACES[name])
    for depth in DEEP[len(PLACES[name])]:
        for _ in range(depth):
            place = f"features.{next(places)}"
            x = F.conv2d(x, state[f"{place}.weight"], state[f"{place}.bias"], padding=state[f"{place}.weight"].shape[2] // 2)
            if name.endswith("bn"):
                norm = f"features.{int(place.split('.')[1]) + 1}"
                weight, bias, mean, var = (state[f"{norm}.{kind}"] for kind in ("weight", "bias", "running_mean", "running_var"))
                if training:
                    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
                scale = weight / (var + 1e-5).sqrt()
                x = (x - mean[:, None, None]) * scale[:, None, None] + bias[:, None, None]
            x = F.relu(x)
        x = F.max_pool2d(x, 2)
    x = F.adaptive_avg_pool2d(x, 7).flatten(1)
    for place in (0, 3):
        x = F.relu(F.linear(x, state[f"classifier.{place}.weight"], state[f"classifier.{place}.bias"]))
    return F.linear(x, state["classifier.6.weight"], state["classifier.6.bias"])


@pytest.mark.parametrize("name", ["vgg11-bn", "vgg13", "vgg16-c", "vgg19"])
def test_it_equals_an_independent_statement_and_every_weight_learns(name):
    torch.manual_seed(0)
    narrow = re.sub(r"\d{2,}", lambda filters: str(int(filters[0]) // 32), configure(name).stages)
    net = build(name, stages=narrow, in_channels=2, classes=5, height=64, width=70, dropout=0.0)
    x, target = torch.randn(4, 2, 64, 70), torch.tensor([0, 3, 4, 4])
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # moments that are not 0 and 1
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    state = {key: value.detach() for key, value in net.state_dict().items()}
    for training in (False, True):
        net.train(training)
        with torch.no_grad():
            expected = restated(name, {key: value.clone() for key, value in state.items() if "num" not in key}, x, training)
            assert torch.allclose(net(x), expected, rtol=1e-5, atol=1e-5 * max(1.0, expected.abs().max().item()))
        if not name.endswith("bn"):
            break
    loss = F.cross_entropy(net(x), target)
    loss.backward()
    for key, p in net.named_parameters():  # a bias before batch norm has none but rounding
        before_norm = name.endswith("bn") and key.startswith("features") and key.endswith("bias") and int(key.split(".")[1]) in PLACES[name]
        assert p.grad.abs().max() > 0 or before_norm, key
    length = sum(p.grad.square().sum() for p in net.parameters()).sqrt()
    with torch.no_grad():
        for p in net.parameters():
            p -= 1e-2 * p.grad / length
        assert F.cross_entropy(net(x), target) < loss


def test_first_weights_are_he_by_fan_out_and_001():
    torch.manual_seed(0)
    net = build("vgg11-bn", stages="64 128 M", height=8, width=8)
    convolution, norm, linear = net.features[3], net.features[4], net.classifier[3]
    assert convolution.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not any(layer.bias.any() for layer in (convolution, norm, linear)) and (norm.weight == 1).all()


def test_letters():
    assert parsed("8 16x1 M 4") == [(8, 3), (16, 1), (0, 0), (4, 3)]
    net = build("vgg11", stages="4 M 6x1 M", in_channels=1, height=4, width=9, classes=2)
    assert net(torch.zeros(1, 1, 4, 9)).shape == (1, 2)


BAD = {
    "word": ("4 MM", "vgg11: expected stages like \"64 M 128 128x1 M\" (filters of 3x3, with x1 of 1x1, M for pooling), got 'MM'."),
    "kernel": ("4x5 M", "got '4x5'."),
    "zero": ("0 M", "got '0'."),
    "pool first": ("M 4", "vgg11: expected stages that begin with a convolution, like \"64 M 128 M\", got 'M 4'."),
    "nothing": ("", "got ''."),
    "many": (f"{1 << 25}", "vgg11: expected filters to be at most 16,777,216, got 33,554,432."),
}


@pytest.mark.parametrize("name", BAD)
def test_letters_that_make_no_net(name):
    stages, message = BAD[name]
    with pytest.raises(ValueError) as error:
        build("vgg11", stages=stages)
    assert message in str(error.value)


def test_the_smallest_picture_is_named_and_works():
    with torch.device("meta"):
        assert build("vgg16", height=32, width=32).config.height == 32
    small = build("vgg16", stages="2 M 2 M 2 M 2 M 2 M", height=32, width=32, classes=2)
    assert small(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    for name in ("vgg11", "vgg19-bn"):
        with pytest.raises(ValueError, match=f"{name}: expected pictures of at least 32x32, got 31x300"):
            build(name, height=31, width=300)
