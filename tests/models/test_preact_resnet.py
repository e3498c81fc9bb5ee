"""Pre-activation and wide residual nets: exact weights by rule, names, values against a second writing, and what is refused."""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from twofold.models.catalogue import build

restated = SimpleNamespace(**run_path(str(Path(__file__).parent / "restated.py")))

# kind, blocks of a stage, widening, option, weights. 10 classes; "36.5M" and "2.7M" in the paper on wide nets, "1.7M" in the other.
NETS = {
    "cifar-preresnet20": ("basic", 3, 1, "A", 269_722),
    "cifar-preresnet56": ("basic", 9, 1, "A", 853_018),
    "cifar-preresnet110": ("basic", 18, 1, "A", 1_727_962),
    "cifar-preresnet164": ("bottleneck", 18, 1, "B", 1_703_258),
    "wrn-16-4": ("basic", 2, 4, "B", 2_748_890),
    "wrn-28-10": ("basic", 4, 10, "B", 36_479_194),
}


def restate(net, x, kind, blocks, widening, option, classes=10):
    """Figure 4(e) of the paper; the first block and those that change the shape share their pre-activation with the shortcut."""
    x = net.conv(x, "conv1", 16, 3, 1, 1)
    for stage, planes in enumerate((16, 32, 64), 1):
        width = planes * widening
        filters = width if kind == "basic" else 4 * width
        for place in range(blocks):
            at, stride = f"layer{stage}.{place}", 2 if stage > 1 and place == 0 else 1
            y = F.relu(net.norm(x, f"{at}.bn1"))
            x = y if place == 0 else x
            if x.shape[1] != filters and option == "B":
                x = net.conv(x, f"{at}.shortcut", filters, 1, stride)
            elif x.shape[1] != filters:
                x = x[:, :, ::stride, ::stride]
                zeros = torch.zeros_like(x[:, :1]).expand(-1, (filters - x.shape[1]) // 2, -1, -1)
                x = torch.cat([zeros, x, zeros], 1)
            if kind == "basic":
                y = F.relu(net.norm(net.conv(y, f"{at}.conv1", width, 3, stride, 1), f"{at}.bn2"))
                y = net.conv(y, f"{at}.conv2", width, 3, 1, 1)
            else:
                y = F.relu(net.norm(net.conv(y, f"{at}.conv1", width, 1), f"{at}.bn2"))
                y = F.relu(net.norm(net.conv(y, f"{at}.conv2", width, 3, stride, 1), f"{at}.bn3"))
                y = net.conv(y, f"{at}.conv3", filters, 1)
            x = x + y
    return net.linear(F.relu(net.norm(x, "bn")).flatten(2).mean(2), "linear", classes)


@pytest.mark.parametrize("name", NETS)
def test_names_shapes_and_number_of_the_weights(name):
    *rule, weights = NETS[name]
    with torch.device("meta"):
        model = build(name)
        net = restated.State(model.state_dict(), training=False)
        restate(net, torch.empty(1, 3, 32, 32, dtype=torch.float64), *rule)
    assert net.left == set()
    assert sum(p.numel() for p in model.parameters()) == weights


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"stages": "basic 3 3 3"}, ("basic", 3, 1, "A")),
        ({"stages": "basic 2 2 2", "shortcut": "B", "in_channels": 1, "classes": 3}, ("basic", 2, 1, "B", 3)),
        ({"stages": "bottleneck 2 2 2", "shortcut": "B"}, ("bottleneck", 2, 1, "B")),
        ({"stages": "bottleneck*2 2 2 2"}, ("bottleneck", 2, 2, "A")),
        ({"stages": "basic*4 2 2 2", "shortcut": "B"}, ("basic", 2, 4, "B")),
    ],
)
def test_the_net_is_what_the_paper_says(changes, rule):
    torch.manual_seed(0)
    model = build("cifar-preresnet20", **changes)
    restated.agree(model, lambda net, x: restate(net, x, *rule), torch.randn(8, model.config.in_channels, 32, 27))


@pytest.mark.parametrize("name", ["cifar-preresnet20", "wrn-16-4"])
def test_every_weight_learns_and_a_step_lowers_the_loss(name):
    torch.manual_seed(0)
    model, x = build(name, classes=4), torch.randn(8, 3, 32, 32)
    target = torch.arange(8) % 4
    restated.learns(model, lambda: F.cross_entropy(model(x), target), 1e-3)


def test_dropout_lies_between_the_convolutions_and_only_in_training():
    torch.manual_seed(0)
    model = build("wrn-16-4", dropout=0.3)
    plain = build("wrn-16-4")
    plain.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.eval()(x), plain.eval()(x))
    block, seen = model.train().layer1[0], []
    block.conv1.register_forward_pre_hook(lambda _, given: seen.append(float((given[0] == 0).float().mean())))
    block.conv2.register_forward_pre_hook(lambda _, given: seen.append(float((given[0] == 0).float().mean())))
    model(x)
    assert seen[0] == pytest.approx(0.5, abs=0.05)  # what ReLU stops
    assert seen[1] == pytest.approx(0.5 + 0.5 * 0.3, abs=0.05)  # and what dropout takes of the rest


def test_first_weights_keep_gradients():
    torch.manual_seed(0)
    model = build("wrn-16-4")
    assert float(model.layer3[0].conv1.weight.detach().std()) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert not model.linear.bias.any()


def test_the_smallest_picture_is_one_pixel():
    assert build("wrn-16-4", height=1, width=1).eval()(torch.zeros(2, 3, 1, 1)).shape == (2, 10)


BAD = {
    "nothing": (lambda: build("wrn-16-4", height=0), "wrn-16-4: expected height to be at least 1, got 0."),
    "one class": (lambda: build("wrn-16-4", classes=1), "expected classes to be at least 2, got 1"),
    "stages": (lambda: build("wrn-16-4", stages="basic*4 2 2 2 2"), 'wrn-16-4: expected stages like "basic 3 3 3"'),
    "shortcut": (lambda: build("wrn-16-4", shortcut="b"), 'wrn-16-4: expected shortcut to be "A"'),
    "dropout": (lambda: build("wrn-16-4", dropout=1.0), "expected dropout from 0 up to, not including, 1, got 1.0"),
    "dropout in bottlenecks": (lambda: build("cifar-preresnet164", dropout=0.3), "expected dropout only in basic blocks, got dropout=0.3"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
