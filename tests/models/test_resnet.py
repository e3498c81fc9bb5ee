"""Residual nets for photographs: exact weights, work, names, values against a second writing, and what is refused."""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from twofold.models.catalogue import build

restated = SimpleNamespace(**run_path(str(Path(__file__).parent / "restated.py")))

# Weights and 10^9 multiply-adds at 224x224, to three places, as torchvision's pages have them.
PUBLISHED = {
    "resnet18": (11_689_512, 1.814),
    "resnet34": (21_797_672, 3.664),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnet152": (60_192_808, 11.514),
    "wide-resnet50-2": (68_883_240, 11.398),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_and_work_are_the_published_ones(name):
    work = []

    def note(layer, _, y):
        work.append(layer.weight[0].numel() * y[0].numel())

    with torch.device("meta"):
        model = build(name).eval()
        for part in model.modules():
            if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
                part.register_forward_hook(note)
        model(torch.empty(1, 3, 224, 224))
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name][0]
    assert round(sum(work) / 1e9, 3) == PUBLISHED[name][1]


def test_the_cifar_form_has_a_small_stem():
    model = build("resnet18-cifar")
    # 7x7x3 -> 3x3x3 filters, and 10 classes for 1000
    assert sum(p.numel() for p in model.parameters()) == 11_689_512 - 64 * 3 * (49 - 9) - 513 * 990
    assert model.layer1(model.maxpool(model.conv1(torch.zeros(1, 3, 32, 32)))).shape == (1, 64, 32, 32)
    pooled = build("resnet18-cifar", stem="3x3 pool")
    assert pooled.layer1(pooled.maxpool(pooled.conv1(torch.zeros(1, 3, 32, 32)))).shape == (1, 64, 16, 16)


def restate(net, x, bottleneck, blocks, widening=1, small=False, stride_first=False, classes=1000):
    """Table 1 and figure 5 of the paper, under the names of torchvision's modules."""
    x = net.conv(x, "conv1", 64, 3, 1, 1) if small else net.conv(x, "conv1", 64, 7, 2, 3)
    x = F.relu(net.norm(x, "bn1"))
    x = x if small else F.max_pool2d(x, 3, 2, 1)
    for stage, number in enumerate(blocks):
        width = 64 * 2**stage
        for place in range(number):
            at, stride, y = f"layer{stage + 1}.{place}", 2 if stage > 0 and place == 0 else 1, x
            if bottleneck:
                first, second = (stride, 1) if stride_first else (1, stride)
                y = F.relu(net.norm(net.conv(y, f"{at}.conv1", width * widening, 1, first), f"{at}.bn1"))
                y = F.relu(net.norm(net.conv(y, f"{at}.conv2", width * widening, 3, second, 1), f"{at}.bn2"))
                y = net.norm(net.conv(y, f"{at}.conv3", 4 * width, 1), f"{at}.bn3")
            else:
                y = F.relu(net.norm(net.conv(y, f"{at}.conv1", width, 3, stride, 1), f"{at}.bn1"))
                y = net.norm(net.conv(y, f"{at}.conv2", width, 3, 1, 1), f"{at}.bn2")
            if place == 0 and (stage > 0 or bottleneck):
                x = net.norm(net.conv(x, f"{at}.downsample.0", y.shape[1], 1, stride), f"{at}.downsample.1")
            x = F.relu(x + y)
    return net.linear(x.flatten(2).mean(2), "fc", classes)


@pytest.mark.parametrize(
    ("name", "rule", "entries"),
    [
        ("resnet18", (False, (2, 2, 2, 2)), 122),
        ("resnet34", (False, (3, 4, 6, 3)), 218),
        ("resnet50", (True, (3, 4, 6, 3)), 320),
        ("resnet101", (True, (3, 4, 23, 3)), 626),
        ("resnet152", (True, (3, 8, 36, 3)), 932),
        ("wide-resnet50-2", (True, (3, 4, 6, 3), 2), 320),
    ],
)
def test_names_and_shapes_are_those_of_torchvision(name, rule, entries):
    with torch.device("meta"):
        state = build(name).state_dict()
        net = restated.State(state, training=False)
        assert restate(net, torch.empty(1, 3, 64, 64, dtype=torch.float64), *rule).shape == (1, 1000)
    assert (net.left, len(state)) == (set(), entries)


@pytest.mark.parametrize(
    ("name", "changes", "rule", "size"),
    [
        ("resnet18", {"in_channels": 1, "classes": 3}, {"blocks": (2, 2, 2, 2), "classes": 3}, (70, 51)),
        ("resnet18", {"stages": "basic 1 2 3 1"}, {"blocks": (1, 2, 3, 1)}, (64, 64)),
        ("resnet50", {}, {"blocks": (3, 4, 6, 3)}, (64, 64)),
        ("resnet50", {"stages": "bottleneck 1 2 1 1", "stride_first": True}, {"blocks": (1, 2, 1, 1), "stride_first": True}, (64, 64)),
        ("wide-resnet50-2", {"stages": "bottleneck*2 1 2 1 1"}, {"blocks": (1, 2, 1, 1), "widening": 2}, (64, 64)),
        ("resnet18-cifar", {}, {"blocks": (2, 2, 2, 2), "small": True, "classes": 10}, (32, 32)),
    ],
)
def test_the_net_is_what_the_paper_says(name, changes, rule, size):
    torch.manual_seed(0)
    model = build(name, **changes)
    x_BCHW, bottleneck = torch.randn(4, model.config.in_channels, *size), model.config.stages.startswith("bottleneck")
    restated.agree(model, lambda net, x: restate(net, x, bottleneck, **rule), x_BCHW)


@pytest.mark.parametrize("name", ["resnet18-cifar", "resnet50"])
def test_every_weight_learns_and_a_step_lowers_the_loss(name):
    torch.manual_seed(0)
    model, x = build(name, classes=4), torch.randn(8, 3, 32, 32)
    target = torch.arange(8) % 4
    restated.learns(model, lambda: F.cross_entropy(model(x), target), 1e-3)


def test_first_weights_keep_gradients_and_may_leave_the_shortcut_alone():
    torch.manual_seed(0)
    weight = build("resnet18").layer3[1].conv1.weight
    assert float(weight.detach().std()) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    x = torch.rand(2, 64, 8, 8)  # not below 0, so that ReLU leaves it
    assert torch.equal(build("resnet18", zero_gamma=True).layer1(x), x)
    assert not torch.allclose(build("resnet18").layer1(x), x)
    assert all((block.bn3.weight == 0).all() for block in build("resnet50", zero_gamma=True).layer2)


def test_the_smallest_picture_is_one_pixel():
    model = build("resnet18", height=1, width=1).eval()
    assert model(torch.zeros(2, 3, 1, 1)).shape == (2, 1000)


BAD = {
    "nothing": (lambda: build("resnet18", width=0), "resnet18: expected width to be at least 1, got 0."),
    "one class": (lambda: build("resnet18", classes=1), "expected classes to be at least 2, got 1"),
    "kind": (lambda: build("resnet18", stages="dense 2 2 2 2"), 'expected stages like "basic 3 3 3 3"'),
    "number": (lambda: build("resnet18", stages="basic 2 2 2"), "the blocks of each of the 4 stages), got 'basic 2 2 2'"),
    "none": (lambda: build("resnet18", stages="basic 2 0 2 2"), "expected stages like"),
    "times": (lambda: build("resnet50", stages="bottleneck* 3 4 6 3"), "expected stages like"),
    "too many": (lambda: build("resnet50", stages="bottleneck 3 4 60000 3"), "expected blocks to be at most 1,000, got 60,000"),
    "too wide": (lambda: build("resnet50", stages="bottleneck*2000 3 4 6 3"), "expected widening to be at most 1,000, got 2,000"),
    "wide basic": (lambda: build("resnet18", stages="basic*2 2 2 2 2"), "expected only bottlenecks to be widened"),
    "stem": (lambda: build("resnet18", stem="5x5"), "expected stem to be one of 7x7, 3x3, 3x3 pool, got '5x5'"),
    "stride": (lambda: build("resnet18", stride_first=True), "stride_first is for bottlenecks"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
