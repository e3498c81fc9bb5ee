"""Residual nets for 32x32: exact weights, names, values against a second writing, and the published error of published weights."""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from twofold.data.cifar import read_cifar
from twofold.models.catalogue import build

restated = SimpleNamespace(**run_path(str(Path(__file__).parent / "restated.py")))
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
WEIGHTS, PICTURES = SHARED / "weights/cifar-resnet/resnet20-12fca82f.th", SHARED / "cifar10/test_batch.bin.xz"
COUNTS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}


def restate(net, x, depth, option, classes=10):
    """Section 4.2 of the paper, under the names of the published nets."""
    x = F.relu(net.norm(net.conv(x, "conv1", 16, 3, 1, 1), "bn1"))
    for stage, width in enumerate((16, 32, 64), 1):
        for place in range((depth - 2) // 6):
            at, stride = f"layer{stage}.{place}", 2 if stage > 1 and place == 0 else 1
            y = F.relu(net.norm(net.conv(x, f"{at}.conv1", width, 3, stride, 1), f"{at}.bn1"))
            y = net.norm(net.conv(y, f"{at}.conv2", width, 3, 1, 1), f"{at}.bn2")
            if stride == 2 and option == "B":
                x = net.norm(net.conv(x, f"{at}.shortcut.0", width, 1, stride), f"{at}.shortcut.1")
            elif stride == 2:
                zeros = torch.zeros_like(x[:, : width // 4, ::2, ::2])
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], 1)
            x = F.relu(x + y)
    return net.linear(x.flatten(2).mean(2), "linear", classes)


@pytest.mark.parametrize("depth", COUNTS)
@pytest.mark.parametrize("option", ["A", "B"])
def test_names_shapes_and_number_of_the_weights(depth, option):
    with torch.device("meta"):
        model = build(f"cifar-resnet{depth}", shortcut=option)
        net = restated.State(model.state_dict(), training=False)
        restate(net, torch.empty(1, 3, 32, 32, dtype=torch.float64), depth, option)
    assert net.left == set()
    projections = 0 if option == "A" else 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert sum(p.numel() for p in model.parameters()) == COUNTS[depth] + projections


@pytest.mark.parametrize(("depth", "option", "size"), [(20, "A", (32, 32)), (20, "B", (33, 27)), (56, "A", (32, 32)), (8, "A", (9, 14))])
def test_the_net_is_what_the_paper_says(depth, option, size):
    torch.manual_seed(0)
    model = build("cifar-resnet20", depth=depth, shortcut=option)
    restated.agree(model, lambda net, x: restate(net, x, depth, option), torch.randn(8, 3, *size))


@pytest.mark.parametrize("option", ["A", "B"])
def test_every_weight_learns_and_a_step_lowers_the_loss(option):
    torch.manual_seed(0)
    model, x = build("cifar-resnet20", shortcut=option, in_channels=1, classes=4), torch.randn(8, 1, 32, 32)
    target = torch.arange(8) % 4
    restated.learns(model, lambda: F.cross_entropy(model(x), target), 1e-3)


def test_first_weights_keep_the_size_of_signals():
    torch.manual_seed(0)
    assert float(build("cifar-resnet20").layer3[1].conv1.weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.skipif(not (WEIGHTS.exists() and PICTURES.exists()), reason="needs the published ResNet-20 and CIFAR-10 of shared/data")
@pytest.mark.parametrize(("pictures", "right"), [(1000, 921), pytest.param(10_000, 9173, marks=pytest.mark.slow)])
def test_published_weights_have_their_published_error(pictures, right):
    model = build("cifar-resnet20").eval()
    state = torch.load(WEIGHTS, weights_only=True, map_location="cpu")["state_dict"]
    model.load_state_dict({name.removeprefix("module."): values for name, values in state.items()})
    x_BCHW, y_B = read_cifar(PICTURES)
    mean, deviation = (torch.tensor(values).reshape(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        found = [model((part / 255 - mean) / deviation).argmax(1) for part in x_BCHW[:pictures].split(500)]
    assert int((torch.cat(found) == y_B[:pictures]).sum()) == right


def test_the_smallest_picture_is_one_pixel():
    assert build("cifar-resnet20", height=1, width=1).eval()(torch.zeros(2, 3, 1, 1)).shape == (2, 10)


BAD = {
    "nothing": (lambda: build("cifar-resnet20", height=0), "cifar-resnet20: expected height to be at least 1, got 0."),
    "one class": (lambda: build("cifar-resnet20", classes=1), "expected classes to be at least 2, got 1"),
    "depth": (
        lambda: build("cifar-resnet20", depth=18),
        "cifar-resnet20: expected a depth of 6 n + 2 layers (8, 14, 20, ... 56, 110), got 18",
    ),
    "shallow": (lambda: build("cifar-resnet20", depth=2), "expected a depth of 6 n + 2 layers"),
    "deep": (lambda: build("cifar-resnet20", depth=6_000_002), "expected depth to be at most 6,002, got 6,000,002"),
    "shortcut": (lambda: build("cifar-resnet20", shortcut="C"), 'expected shortcut to be "A" (zeros for new channels) or "B"'),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
