"""ZFNet: the sizes of figure 3, counts, an independent statement, first weights, and the smallest picture."""

import pytest
import torch
import torch.nn.functional as F

from twofold.models.catalogue import build

SHAPES = {
    "features.0": (96, 3, 7, 7), "features.4": (256, 96, 5, 5), "features.8": (384, 256, 3, 3), "features.10": (384, 384, 3, 3),
    "features.12": (256, 384, 3, 3), "classifier.0": (4096, 9216), "classifier.3": (4096, 4096), "classifier.6": (1000, 4096),
}  # fmt: skip


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build("zfnet", classes=5, height=64, width=75, in_channels=2).eval()


def test_names_shapes_and_counts():
    with torch.device("meta"):
        found = {key: tuple(value.shape) for key, value in build("zfnet").state_dict().items()}
    expected = {f"{place}.weight": shape for place, shape in SHAPES.items()} | {
        f"{place}.bias": shape[:1] for place, shape in SHAPES.items()
    }
    assert found == expected
    assert sum(torch.Size(shape).numel() for shape in expected.values()) == 62_357_608


def test_sizes_are_those_of_figure_3(net):
    x, sides = torch.zeros(1, 2, 224, 224), []
    for layer in net.features:
        x = layer(x)
        if isinstance(layer, torch.nn.Conv2d | torch.nn.MaxPool2d):
            sides.append(tuple(x.shape[2:]))
    assert sides == [(n, n) for n in (110, 55, 26, 13, 13, 13, 13, 6)]


def restated(net, x):
    weights = [[net.state_dict()[f"{place}.{kind}"].clone().requires_grad_() for kind in ("weight", "bias")] for place in SHAPES]

    def pooled(x):  # windows may reach over the last row and column
        return F.max_pool2d(F.pad(x, (0, 1 - x.shape[3] % 2, 0, 1 - x.shape[2] % 2), value=-float("inf")), 3, 2)

    def normalised(x):
        i = torch.arange(x.shape[1])
        near = ((i[:, None] - i).abs() <= 2).to(x.dtype)
        return x / (2 + 1e-4 * torch.einsum("ij,bjhw->bihw", near, x**2)) ** 0.75

    x = normalised(pooled(F.relu(F.conv2d(x, *weights[0], stride=2, padding=1))))
    x = normalised(pooled(F.relu(F.conv2d(x, *weights[1], stride=2))))
    for place in (2, 3, 4):
        x = F.relu(F.conv2d(x, *weights[place], padding=1))
    x = F.adaptive_avg_pool2d(pooled(x), 6).flatten(1)
    x = F.relu(F.linear(x, *weights[5]))
    return F.linear(F.relu(F.linear(x, *weights[6])), *weights[7]), weights


def test_it_equals_an_independent_statement_and_every_weight_learns(net):
    x, target = 10 * torch.randn(3, 2, 64, 75), torch.tensor([0, 3, 4])
    logits, (expected, weights) = net(x), restated(net, x)
    assert torch.allclose(logits, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    loss, before = F.cross_entropy(logits, target), {key: value.clone() for key, value in net.state_dict().items()}
    loss.backward()
    F.cross_entropy(expected, target).backward()
    length = sum(p.grad.square().sum() for p in net.parameters()).sqrt()
    with torch.no_grad():
        for ours, theirs in zip(net.parameters(), [value for pair in weights for value in pair], strict=True):
            assert ours.grad.abs().sum() > 0
            assert (ours.grad - theirs.grad).norm() <= 1e-4 * theirs.grad.norm()
        for p in net.parameters():
            p -= 1e-2 * p.grad / length
        assert F.cross_entropy(net(x), target) < loss
    net.load_state_dict(before)


def test_first_weights(net):
    state = net.state_dict()
    for place in SHAPES:
        assert not state[f"{place}.bias"].any()
        assert state[f"{place}.weight"].std().item() == pytest.approx(0.01, rel=0.03)


def test_the_smallest_picture_is_named_and_works(net):
    assert net(torch.zeros(1, 2, 47, 47)).shape == (1, 5)
    with torch.device("meta"):
        assert build("zfnet", height=47, width=47).config.width == 47
    with pytest.raises(ValueError, match="zfnet: expected pictures of at least 47x47, got 46x300"):
        build("zfnet", height=46, width=300)
