"""GoogLeNet against its table: counts and work, names, values, auxiliary heads, sizes and messages."""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from twofold.layers.heads import WithHeads, loss_of
from twofold.models.catalogue import build
from twofold.see.summary import summarise

restated = SimpleNamespace(**run_path(str(Path(__file__).parent / "restated.py")))

# Szegedy et al., table 1: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
TABLE = """
3a 64 96 128 16 32 32
3b 128 128 192 32 96 64
4a 192 96 208 16 48 64
4b 160 112 224 24 64 64
4c 128 128 256 24 64 64
4d 112 144 288 32 64 64
4e 256 160 320 32 128 128
5a 256 160 320 32 128 128
5b 384 192 384 48 128 128
"""


def restate(classes, normed=True, window=3, heads=True):
    def forward(state, x):
        def conv(x, name, filters, size, stride=1):
            y = state.conv(x, f"{name}.conv", filters, size, stride, size // 2, bias=not normed)
            return F.relu(state.norm(y, f"{name}.bn", eps=1e-3) if normed else y)

        def hold(x):
            return x if normed else F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)

        def head(x, name):
            x = conv(F.adaptive_avg_pool2d(x, 4), f"{name}.conv", 128, 1).flatten(1)
            return state.linear(F.relu(state.linear(x, f"{name}.fc1", 1024)), f"{name}.fc2", classes)

        x = hold(F.max_pool2d(conv(x, "conv1", 64, 7, 2), 3, 2, ceil_mode=True))
        x = hold(conv(conv(x, "conv2", 64, 1), "conv3", 192, 3))
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        others = []
        for line in TABLE.split("\n")[1:-1]:
            name, *sizes = line.split()
            one, reduce3, three, reduce5, five, after = map(int, sizes)
            at = f"inception{name}"
            x = torch.cat(
                (
                    conv(x, f"{at}.branch1", one, 1),
                    conv(conv(x, f"{at}.branch2.0", reduce3, 1), f"{at}.branch2.1", three, 3),
                    conv(conv(x, f"{at}.branch3.0", reduce5, 1), f"{at}.branch3.1", five, window),
                    conv(F.max_pool2d(x, 3, 1, 1), f"{at}.branch4.1", after, 1),
                ),
                1,
            )
            if heads and name in ("4a", "4d"):
                others.append(head(x, "aux1" if name == "4a" else "aux2"))
            if name == "3b":
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            if name == "4e":
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        y = state.linear(x.mean((2, 3)), "fc", classes)
        return (y, tuple(others)) if heads and state.training else y

    return forward


# torchvision's form with and without heads; the Caffe reference model of the paper's form.
@pytest.mark.parametrize(
    ("name", "heads", "count"), [("googlenet", False, 6_624_904), ("googlenet", True, 13_004_888), ("googlenet-2014", False, 6_998_552)]
)
def test_weights_are_as_many_as_published(name, heads, count):
    assert sum(weight.numel() for weight in build(name, heads=heads).parameters()) == count


def test_the_work_is_that_of_the_paper():
    lines = {line.name: line.multiply_adds for line in summarise(build("googlenet"), torch.zeros(1, 3, 224, 224)) if line.multiply_adds}
    assert sum(lines.values()) == pytest.approx(1.5e9, rel=0.01)  # torchvision's figure: 1.498
    # Table 1, "ops": 360M for the second convolution with its reduction
    assert lines["conv2.conv"] + lines["conv3.conv"] == pytest.approx(360e6, rel=0.01)


@pytest.mark.parametrize(
    ("name", "changes", "law", "size"),
    [
        ("googlenet", {}, {}, (96, 70)),
        ("googlenet", {"in_channels": 1, "heads": False}, {"heads": False}, (64, 64)),
        ("googlenet-2014", {}, {"normed": False, "window": 5}, (70, 96)),
    ],
)
def test_names_shapes_and_values_are_those_of_the_paper(name, changes, law, size):
    torch.manual_seed(1)
    model = build(name, classes=7, height=size[0], width=size[1], **changes)
    restated.agree(model, restate(7, **law), torch.randn(4, model.config.in_channels, *size))


def test_heads_speak_in_training_alone():
    model, x = build("googlenet", classes=3, height=32, width=32), torch.randn(2, 3, 32, 32)
    output = model.train()(x)
    assert isinstance(output, WithHeads) and [y.shape for y in (output.logits_BN, *output.others)] == [(2, 3)] * 3
    assert model.eval()(x).shape == (2, 3)
    assert build("googlenet", classes=3, heads=False, height=32, width=32).train()(x).shape == (2, 3)


@pytest.mark.parametrize("name", ["googlenet", "googlenet-2014"])
def test_it_learns(name):
    torch.manual_seed(0)
    model, x, y = build(name, classes=5, height=64, width=64), torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    restated.learns(model, lambda: loss_of(model(x), lambda logits: F.cross_entropy(logits, y)), 1e-2)


def test_rescaled_pictures_are_torchvisions():
    model, x = build("googlenet", height=32, width=32, rescale=True).eval(), torch.randn(2, 3, 32, 32)
    scale, shift = torch.tensor([0.229, 0.224, 0.225]) / 0.5, (torch.tensor([0.485, 0.456, 0.406]) - 0.5) / 0.5
    plain = build("googlenet", height=32, width=32).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.allclose(model(x), plain(x * scale[:, None, None] + shift[:, None, None]), atol=1e-6)


def test_first_weights_are_torchvisions_or_those_of_the_reference_model():
    torch.manual_seed(0)
    model = build("googlenet")
    assert all(layer.weight.std().item() == pytest.approx(0.01, rel=0.02) for layer in (model.inception5b.branch2[1].conv, model.fc))
    paper = build("googlenet-2014")
    conv = paper.inception5b.branch2[1].conv
    assert conv.weight.std().item() == pytest.approx((9 * 192) ** -0.5, rel=0.02) and conv.bias.unique().tolist() == [pytest.approx(0.2)]
    assert not paper.fc.bias.any() and not paper.aux2.fc2.bias.any()


@pytest.mark.parametrize("name", ["googlenet", "googlenet-2014"])
def test_the_smallest_size_works_and_the_next_is_refused(name):
    model = build(name, height=15, width=15, classes=2).eval()
    assert model(torch.zeros(1, 3, 15, 15)).shape == (1, 2)
    with pytest.raises(ValueError, match="does not fit"):
        model(torch.zeros(1, 3, 14, 15))
    with pytest.raises(ValueError, match=f"{name}: expected pictures of at least 15x15, got 14x15: its maps would shrink to nothing"):
        build(name, height=14, width=15)


BAD = {
    "window": ({"window": 7}, "googlenet: expected window to be 3 (torchvision's) or 5 (the paper's), got 7."),
    "rescale": ({"rescale": True, "in_channels": 1}, "googlenet: rescale is for colour pictures: expected in_channels to be 3, got 1."),
    "classes": ({"classes": 1}, "googlenet: expected classes to be at least 2, got 1."),
    "channels": ({"in_channels": 0}, "googlenet: expected in_channels to be at least 1, got 0."),
    "dropout": ({"dropout": 1.0}, "googlenet: expected dropout from 0 up to, not including, 1, got 1.0."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    changes, message = BAD[name]
    with pytest.raises(ValueError) as error:
        build("googlenet", **changes)
    assert message in str(error.value)
