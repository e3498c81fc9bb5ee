"""The residual net of group convolutions: its law, its weights beside the plain net's, and values against a second writing."""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from twofold.models.catalogue import build

restated = SimpleNamespace(**run_path(str(Path(__file__).parent / "restated.py")))


def moves(x, mirrored):
    """The picture in every position that the group knows."""
    positions = [x, x.flip(-1)] if mirrored else [x]
    return [torch.rot90(position, turns, (-2, -1)) for position in positions for turns in range(4)]


@pytest.mark.parametrize("group", ["p4", "p4m"])
@pytest.mark.parametrize(
    ("size", "dtype", "most"),
    [((32, 32), torch.float32, 1e-5), ((16, 16), torch.float64, 1e-10), ((15, 15), torch.float64, 1e-10), ((14, 9), torch.float64, 1e-10)],
)
def test_a_moved_picture_has_the_same_logits(group, size, dtype, most):
    torch.manual_seed(0)
    model = restated.stir(build("p4-resnet", group=group)).to(dtype)
    x = torch.randn(2, 3, *size, dtype=dtype)
    for training in (False, True):
        with torch.no_grad():
            at_home, *moved = (model.train(training)(position) for position in moves(x, group == "p4m"))
        scale = at_home.abs().max()
        assert all((logits - at_home).abs().max() < most * scale for logits in moved)
        assert (at_home[0] - at_home[1]).abs().max() > 0.01 * scale  # another picture is another thing


def test_quarter_turns_alone_tell_a_mirror_image():
    torch.manual_seed(0)
    model, x = restated.stir(build("p4-resnet")).eval(), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert (model(x) - model(x.flip(-1))).abs().max() > 0.01 * model(x).abs().max()


def test_about_as_many_weights_as_the_plain_net():
    def weights(name, **changes):
        with torch.device("meta"):
            return sum(p.numel() for p in build(name, **changes).parameters())

    plain = weights("cifar-resnet20")
    assert (plain, weights("p4-resnet"), weights("p4-resnet", group="p4m")) == (269_722, 271_154, 276_034)
    # The paper's table for CIFAR: ResNet44 of p4m, 2.62 million.
    assert weights("p4-resnet", group="p4m", depth=44, filters=32) == 2_618_679
    assert build("p4-resnet", group="p4m", filters=32).config.widths() == (11, 23, 45)


def restate(net, x, widths, blocks, classes):
    """p4 as plain convolutions: filters turned r times read the maps of the turns h from place h - r (equations 10 to 12)."""

    def lift(x, name, filters):
        weight = net.take(f"{name}.weight", filters, x.shape[1], 3, 3)
        turned = torch.stack([torch.rot90(weight, r, (-2, -1)) for r in range(4)], 1)
        return F.conv2d(x, turned.flatten(0, 1), padding=1).unflatten(1, (-1, 4))

    def group(x, name, filters, size):
        weight = net.take(f"{name}.weight", filters, x.shape[1], 4, size, size)
        turned = [torch.stack([torch.rot90(weight[:, :, (h - r) % 4], r, (-2, -1)) for h in range(4)], 2) for r in range(4)]
        filters = torch.stack(turned, 1).flatten(2, 3).flatten(0, 1)
        return F.conv2d(x.flatten(1, 2), filters, padding=size // 2).unflatten(1, (-1, 4))

    def half(x):
        return F.avg_pool2d(x.flatten(1, 2), 2).unflatten(1, (-1, 4))

    x = F.relu(net.norm(lift(x, "conv1", widths[0]), "bn1"))
    for stage, width in enumerate(widths, 1):
        for place in range(blocks):
            at = f"layer{stage}.{place}"
            y = F.relu(net.norm(group(x, f"{at}.conv1", width, 3), f"{at}.bn1"))
            if stage > 1 and place == 0:
                y, x = half(y), net.norm(group(half(x), f"{at}.shortcut", width, 1), f"{at}.shortcut_bn")
            x = F.relu(net.norm(group(y, f"{at}.conv2", width, 3), f"{at}.bn2") + x)
    return net.linear(x.flatten(2).mean(2), "fc", classes)


def test_the_net_is_plain_convolutions_with_turned_filters():
    torch.manual_seed(0)
    model = build("p4-resnet", in_channels=1, classes=3)
    restated.agree(model, lambda net, x: restate(net, x, (8, 16, 32), 3, 3), torch.randn(4, 1, 32, 16))


@pytest.mark.parametrize("group", ["p4", "p4m"])
def test_every_weight_learns_and_a_step_lowers_the_loss(group):
    torch.manual_seed(0)
    model, x = build("p4-resnet", group=group, depth=8, classes=4), torch.randn(8, 3, 16, 16)
    target = torch.arange(8) % 4
    restated.learns(model, lambda: F.cross_entropy(model(x), target), 1e-3)


def test_the_smallest_picture_is_one_pixel():
    assert build("p4-resnet", height=1, width=1).eval()(torch.zeros(2, 3, 1, 1)).shape == (2, 10)


BAD = {
    "nothing": (lambda: build("p4-resnet", width=0), "p4-resnet: expected width to be at least 1, got 0."),
    "no filters": (lambda: build("p4-resnet", filters=0), "expected filters to be at least 1, got 0"),
    "one class": (lambda: build("p4-resnet", classes=1), "expected classes to be at least 2, got 1"),
    "group": (lambda: build("p4-resnet", group="p6"), 'p4-resnet: expected group to be "p4" (4 rotations) or "p4m"'),
    "depth": (lambda: build("p4-resnet", depth=18), "p4-resnet: expected a depth of 6 n + 2 layers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
