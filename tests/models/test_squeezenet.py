"""SqueezeNet against its tables: counts, names, values, sizes and messages."""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from twofold.models.catalogue import build

restated = SimpleNamespace(**run_path(str(Path(__file__).parent / "restated.py")))

# Iandola et al., table 1: (s1x1, e1x1, e3x3) of fire2 to fire9.
FIRES = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
# The place of the first convolution, of each fire module and of the pools in torchvision's `features`.
STEM = {"squeezenet1-0": (96, 7), "squeezenet1-1": (64, 3)}
POOLS = {"squeezenet1-0": (2, 6, 11), "squeezenet1-1": (2, 5, 8)}


def restate(name, classes):
    def forward(state, x):
        filters, size = STEM[name]
        x = F.relu(state.conv(x, "features.0", filters, size, stride=2, bias=True))
        fires = iter(FIRES)
        for place in range(2, 13):
            at = f"features.{place}"
            if place in POOLS[name]:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
                continue
            squeezed, expanded = next(fires)
            few = F.relu(state.conv(x, f"{at}.squeeze", squeezed, 1, bias=True))
            one = F.relu(state.conv(few, f"{at}.expand1x1", expanded, 1, bias=True))
            x = torch.cat((one, F.relu(state.conv(few, f"{at}.expand3x3", expanded, 3, padding=1, bias=True))), 1)
        return F.relu(state.conv(x, "classifier.1", classes, 1, bias=True)).mean((2, 3))

    return forward


@pytest.mark.parametrize(("name", "count"), [("squeezenet1-0", 1_248_424), ("squeezenet1-1", 1_235_496)])
def test_weights_are_as_many_as_torchvisions(name, count):
    assert sum(weight.numel() for weight in build(name).parameters()) == count


@pytest.mark.parametrize("name", STEM)
@pytest.mark.parametrize(("channels", "classes", "size"), [(3, 10, (64, 50)), (1, 3, (31, 70))])
def test_names_shapes_and_values_are_those_of_the_paper(name, channels, classes, size):
    torch.manual_seed(1)
    model = build(name, in_channels=channels, classes=classes, height=size[0], width=size[1])
    restated.agree(model, restate(name, classes), torch.randn(2, channels, *size))


@pytest.mark.parametrize("name", STEM)
def test_it_learns(name):
    torch.manual_seed(0)
    model, x, y = build(name, classes=5, height=48, width=48), torch.randn(4, 3, 48, 48), torch.tensor([0, 1, 2, 3])
    restated.learns(model, lambda: F.cross_entropy(model(x), y), 1e-2)


def test_first_weights_are_torchvisions_but_for_the_last_bias():
    torch.manual_seed(0)
    model = build("squeezenet1-1")
    fire = model.features[12].expand3x3
    assert fire.weight.abs().max() <= (bound := (6 / (9 * 64)) ** 0.5) and fire.weight.std().item() == pytest.approx(
        bound / 3**0.5, rel=0.02
    )
    assert model.classifier[1].weight.std().item() == pytest.approx(0.01, rel=0.02)
    biases = {name: bias.unique().tolist() for name, bias in model.named_parameters() if name.endswith("bias")}
    assert biases.pop("classifier.1.bias") == [1] and set(map(tuple, biases.values())) == {(0,)}


@pytest.mark.parametrize("name", STEM)
def test_every_class_is_learnt_though_a_relu_ends_the_net(name):
    torch.manual_seed(0)
    model, x, y = build(name, classes=4, height=48, width=48, dropout=0.0), torch.randn(16, 3, 48, 48), torch.arange(16) % 4
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        if (right := (model(x).argmax(1) == y).sum()) == 16:
            break
    assert right == 16


@pytest.mark.parametrize(("name", "smallest"), [("squeezenet1-0", 21), ("squeezenet1-1", 17)])
def test_the_smallest_size_works_and_the_next_is_refused(name, smallest):
    model = build(name, height=smallest, width=smallest, classes=2).eval()
    assert model(torch.zeros(1, 3, smallest, smallest)).shape == (1, 2)
    with pytest.raises(ValueError, match="does not fit"):
        model(torch.zeros(1, 3, smallest - 1, smallest))
    with pytest.raises(ValueError, match=f"{name}: expected pictures of at least {smallest}x{smallest}, got {smallest - 1}x{smallest}"):
        build(name, height=smallest - 1, width=smallest)


BAD = {
    "version": ({"version": "1.2"}, "squeezenet1-0: expected version to be one of 1.0, 1.1, got '1.2'."),
    "classes": ({"classes": 1}, "squeezenet1-0: expected classes to be at least 2, got 1."),
    "channels": ({"in_channels": 0}, "squeezenet1-0: expected in_channels to be at least 1, got 0."),
    "dropout": ({"dropout": 1.0}, "squeezenet1-0: expected dropout from 0 up to, not including, 1, got 1.0."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    changes, message = BAD[name]
    with pytest.raises(ValueError) as error:
        build("squeezenet1-0", **changes)
    assert message in str(error.value)
