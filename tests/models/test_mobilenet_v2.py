"""MobileNetV2 against its tables: counts and work, names, values, sizes and messages."""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from twofold.models.catalogue import build
from twofold.see.summary import summarise

restated = SimpleNamespace(**run_path(str(Path(__file__).parent / "restated.py")))

# Sandler et al., table 2, a row for every block: (t, c, s).
ROWS = [
    (1, 16, 1),
    *[(6, 24, 2), (6, 24, 1)],
    *[(6, 32, 2), (6, 32, 1), (6, 32, 1)],
    *[(6, 64, 2), (6, 64, 1), (6, 64, 1), (6, 64, 1)],
    *[(6, 96, 1), (6, 96, 1), (6, 96, 1)],
    *[(6, 160, 2), (6, 160, 1), (6, 160, 1)],
    (6, 320, 1),
]
# Channels of torchvision's width 0.35 and 1.4, row for row, with the first convolution before and the last behind.
WIDE = {
    1.0: [32, *[channels for _, channels, _ in ROWS], 1280],
    0.35: [16, 8, *[8] * 2, *[16] * 3, *[24] * 4, *[32] * 3, *[56] * 3, 112, 1280],
    1.4: [48, 24, *[32] * 2, *[48] * 3, *[88] * 4, *[136] * 3, *[224] * 3, 448, 1792],
}


def restate(multiplier, classes):
    def forward(state, x):
        stem, *wide, last = WIDE[multiplier]
        x = F.relu6(state.norm(state.conv(x, "features.0.0", stem, 3, 2, 1), "features.0.1"))
        for place, ((expansion, _, stride), filters) in enumerate(zip(ROWS, wide, strict=True), 1):
            at, y, inner, layer = f"features.{place}.conv", x, expansion * x.shape[1], 0
            if expansion > 1:
                y = F.relu6(state.norm(state.conv(y, f"{at}.0.0", inner, 1), f"{at}.0.1"))
                layer = 1
            y = F.relu6(state.norm(state.conv(y, f"{at}.{layer}.0", inner, 3, stride, 1, groups=inner), f"{at}.{layer}.1"))
            y = state.norm(state.conv(y, f"{at}.{layer + 1}", filters, 1), f"{at}.{layer + 2}")
            x = x + y if y.shape == x.shape and stride == 1 else y
        x = F.relu6(state.norm(state.conv(x, "features.18.0", last, 1), "features.18.1"))
        return state.linear(x.mean((2, 3)), "classifier.1", classes)

    return forward


def test_weights_and_work_are_those_of_the_paper_and_torchvision():
    model = build("mobilenet-v2")
    assert sum(weight.numel() for weight in model.parameters()) == 3_504_872
    work = sum(line.multiply_adds or 0 for line in summarise(model, torch.zeros(1, 3, 224, 224)))
    assert work == pytest.approx(300e6, rel=0.01)  # table 4: 300M


# The table of the authors' repository, in millions, which leaves out those of batch norm.
@pytest.mark.parametrize(("multiplier", "millions"), [(0.35, 1.66), (0.5, 1.95), (0.75, 2.61), (1.0, 3.47), (1.3, 5.34), (1.4, 6.06)])
def test_narrow_and_wide_ones_have_the_published_number_of_weights(multiplier, millions):
    weights = build("mobilenet-v2", multiplier=multiplier).parameters()
    assert sum(weight.numel() for weight in weights if weight.dim() > 1) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(
    ("multiplier", "channels", "classes", "size"), [(1.0, 3, 10, (64, 40)), (0.35, 1, 3, (33, 47)), (1.4, 3, 2, (20, 20))]
)
def test_names_shapes_and_values_are_those_of_the_paper(multiplier, channels, classes, size):
    torch.manual_seed(1)
    model = build("mobilenet-v2", multiplier=multiplier, in_channels=channels, classes=classes, height=size[0], width=size[1])
    restated.agree(model, restate(multiplier, classes), 3 * torch.randn(4, channels, *size))


def test_it_learns():
    torch.manual_seed(0)
    model, x, y = build("mobilenet-v2", classes=5, height=64, width=64), torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    restated.learns(model, lambda: F.cross_entropy(model(x), y), 1e-2)


def test_first_weights_are_torchvisions():
    torch.manual_seed(0)
    model = build("mobilenet-v2")
    assert model.features[18][0].weight.std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.02)
    assert model.features[17].conv[1][0].weight.std().item() == pytest.approx((2 / (960 * 9)) ** 0.5, rel=0.03)
    assert model.classifier[1].weight.std().item() == pytest.approx(0.01, rel=0.02) and not model.classifier[1].bias.any()


@pytest.mark.parametrize("size", [(1, 1), (1, 37)])
def test_every_size_works(size):
    model = build("mobilenet-v2", multiplier=0.35, height=size[0], width=size[1], classes=2)
    assert model(torch.randn(2, 3, *size)).shape == (2, 2)


BAD = {
    "multiplier": (
        {"multiplier": -1.0},
        "mobilenet-v2: expected a multiplier of the channels above 0, such as 0.25, 0.5 or 1.4, got -1.0.",
    ),
    "classes": ({"classes": 1}, "mobilenet-v2: expected classes to be at least 2, got 1."),
    "size": ({"width": 0}, "mobilenet-v2: expected width to be at least 1, got 0."),
    "dropout": ({"dropout": 1.0}, "mobilenet-v2: expected dropout from 0 up to, not including, 1, got 1.0."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    changes, message = BAD[name]
    with pytest.raises(ValueError) as error:
        build("mobilenet-v2", **changes)
    assert message in str(error.value)
