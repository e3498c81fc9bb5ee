"""MobileNet against its tables: counts and work for each width and resolution, names, values, sizes and messages."""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from twofold import nn
from twofold.models.catalogue import build
from twofold.models.mobilenet import eights
from twofold.see.summary import summarise

restated = SimpleNamespace(**run_path(str(Path(__file__).parent / "restated.py")))

# Howard et al., table 1, rows "Conv dw" and behind each "Conv / s1": (stride, filters); the last stride is 1 (see the file).
ROWS = [(1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5, (2, 1024), (1, 1024)]
# Of timm's blocks.S.N, in that order.
PLACES = ["0.0", "1.0", "1.1", "2.0", "2.1", "3.0", "3.1", "3.2", "3.3", "3.4", "3.5", "4.0", "4.1"]


def restate(multiplier, classes, act):
    def forward(state, x):
        def wide(filters):
            return int(filters * multiplier)

        x = act(state.norm(state.conv(x, "conv_stem", wide(32), 3, 2, 1), "bn1"))
        for (stride, filters), place in zip(ROWS, PLACES, strict=True):
            at = f"blocks.{place}"
            x = act(state.norm(state.conv(x, f"{at}.conv_dw", x.shape[1], 3, stride, 1, groups=x.shape[1]), f"{at}.bn1"))
            x = act(state.norm(state.conv(x, f"{at}.conv_pw", wide(filters), 1), f"{at}.bn2"))
        return state.linear(x.mean((2, 3)), "classifier", classes)

    return forward


def work(model, size):
    return sum(line.multiply_adds or 0 for line in summarise(model, torch.zeros(1, 3, size, size)))


# Tables 6 and 7: million multiply-adds, million weights.
@pytest.mark.parametrize(
    ("multiplier", "size", "millions", "weights"),
    [(1.0, 224, 569, 4.2), (0.75, 224, 325, 2.6), (0.5, 224, 149, 1.3), (0.25, 224, 41, 0.5), (1.0, 192, 418, 4.2), (1.0, 128, 186, 4.2)],
)
def test_weights_and_work_are_those_of_the_tables(multiplier, size, millions, weights):
    model = build("mobilenet-v1", multiplier=multiplier, height=size, width=size)
    assert work(model, size) / 1e6 == pytest.approx(millions, abs=0.51)
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6, 1) == weights


def test_weights_are_4_231_976():
    assert sum(weight.numel() for weight in build("mobilenet-v1").parameters()) == 4_231_976


@pytest.mark.parametrize(
    ("multiplier", "channels", "classes", "size", "relu6"), [(1.0, 3, 10, (64, 40), False), (0.5, 2, 3, (33, 47), True)]
)
def test_names_shapes_and_values_are_those_of_the_paper(multiplier, channels, classes, size, relu6):
    torch.manual_seed(1)
    model = build("mobilenet-v1", multiplier=multiplier, in_channels=channels, classes=classes, height=size[0], width=size[1], relu6=relu6)
    restated.agree(model, restate(multiplier, classes, F.relu6 if relu6 else F.relu), 3 * torch.randn(4, channels, *size))


def test_it_learns():
    torch.manual_seed(0)
    model, x, y = build("mobilenet-v1", classes=5, height=64, width=64), torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    restated.learns(model, lambda: F.cross_entropy(model(x), y), 1e-2)


def test_convolutions_start_with_variance_2_by_the_inputs_of_a_unit():
    torch.manual_seed(0)
    last = build("mobilenet-v1").blocks[4][1]
    assert last.conv_dw.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.02)
    assert last.conv_pw.weight.std().item() == pytest.approx((2 / 1024) ** 0.5, rel=0.02)


@pytest.mark.parametrize("size", [(1, 1), (1, 37)])
def test_every_size_works(size):
    model = build("mobilenet-v1", multiplier=0.25, height=size[0], width=size[1], classes=2)
    assert model(torch.randn(2, 3, *size)).shape == (2, 2)


def test_channels_are_multiples_of_eight_and_none_loses_a_tenth():
    widths = [multiplier * channels for multiplier in (0.1, 0.35, 0.7, 1.3) for channels in (16, 32, 96, 320)]
    assert all(eights(width) % 8 == 0 and eights(width) >= max(8, 0.9 * width) for width in widths)
    assert isinstance(build("mobilenet-v1", multiplier=0.33).blocks[0][0].conv_dw, nn.Conv2d)
    assert [eights(0.35 * channels) for channels in (32, 16, 24, 32, 64, 96, 160, 320)] == [16, 8, 8, 16, 24, 32, 56, 112]


BAD = {
    "multiplier": ({"multiplier": 0.0}, "mobilenet-v1: expected a multiplier of the channels above 0, such as 0.25, 0.5 or 1.4, got 0.0."),
    "classes": ({"classes": 1}, "mobilenet-v1: expected classes to be at least 2, got 1."),
    "size": ({"height": 0}, "mobilenet-v1: expected height to be at least 1, got 0."),
    "dropout": ({"dropout": -0.1}, "mobilenet-v1: expected dropout from 0 up to, not including, 1, got -0.1."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    changes, message = BAD[name]
    with pytest.raises(ValueError) as error:
        build("mobilenet-v1", **changes)
    assert message in str(error.value)
