"""AlexNet in both forms: counts, names and shapes, an independent statement, map sizes, first weights, and the smallest picture."""

import pytest
import torch
import torch.nn.functional as F

from twofold.models.catalogue import build

# The weights (F, C / groups, k, k) of the convolutions and (U, D) of the linear layers, with the places of torchvision's modules.
SHAPES = {
    "alexnet": {
        "features.0": (64, 3, 11, 11), "features.3": (192, 64, 5, 5), "features.6": (384, 192, 3, 3), "features.8": (256, 384, 3, 3),
        "features.10": (256, 256, 3, 3), "classifier.1": (4096, 9216), "classifier.4": (4096, 4096), "classifier.6": (1000, 4096),
    },
    "alexnet-2012": {
        "features.0": (96, 3, 11, 11), "features.4": (256, 48, 5, 5), "features.8": (384, 256, 3, 3), "features.10": (384, 192, 3, 3),
        "features.12": (256, 192, 3, 3), "classifier.0": (4096, 9216), "classifier.3": (4096, 4096), "classifier.6": (1000, 4096),
    },
}  # fmt: skip
COUNTS = {"alexnet": 61_100_840, "alexnet-2012": 60_965_224}
SMALLEST = {"alexnet": 63, "alexnet-2012": 67}


@pytest.fixture(scope="module", params=SHAPES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def net(name):
    torch.manual_seed(0)
    return build(name, classes=5, height=80, width=96, in_channels=2).eval()


def test_names_shapes_and_counts(name):
    with torch.device("meta"):
        found = {key: tuple(value.shape) for key, value in build(name).state_dict().items()}
    expected = {f"{place}.weight": shape for place, shape in SHAPES[name].items()}
    expected |= {f"{place}.bias": shape[:1] for place, shape in SHAPES[name].items()}
    assert found == expected
    assert sum(torch.Size(shape).numel() for shape in expected.values()) == COUNTS[name]


def restated(name, net, x):
    """The net from its papers, with torch's functions alone."""
    weights = [(net.state_dict()[f"{place}.weight"], net.state_dict()[f"{place}.bias"]) for place in SHAPES[name]]
    weights = [(w.clone().requires_grad_(), b.clone().requires_grad_()) for w, b in weights]

    def normalised(x):  # section 3.3 of the paper
        i = torch.arange(x.shape[1])
        near = ((i[:, None] - i).abs() <= 2).to(x.dtype)
        return x / (2 + 1e-4 * torch.einsum("ij,bjhw->bihw", near, x**2)) ** 0.75

    if name == "alexnet":
        stems = [{"stride": 4, "padding": 2}, {"padding": 2}, {"padding": 1}, {"padding": 1}, {"padding": 1}]
    else:
        columns = {"padding": 1, "groups": 2}
        stems = [{"stride": 4}, {"padding": 2, "groups": 2}, {"padding": 1}, columns, columns]
    for place, settings in enumerate(stems):
        x = F.relu(F.conv2d(x, *weights[place], **settings))
        if name == "alexnet-2012" and place < 2:
            x = normalised(x)
        if place in (0, 1, 4):
            x = F.max_pool2d(x, 3, 2)
    x = F.adaptive_avg_pool2d(x, 6).flatten(1)
    x = F.relu(F.linear(x, *weights[5]))
    x = F.relu(F.linear(x, *weights[6]))
    return F.linear(x, *weights[7]), weights


def test_it_equals_an_independent_statement_and_every_weight_learns(name, net):
    x, target = torch.randn(3, 2, 80, 96), torch.tensor([0, 3, 4])
    logits, (expected, weights) = net(x), restated(name, net, x)
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
            p -= 1e-3 * p.grad / length
        assert F.cross_entropy(net(x), target) < loss
    net.load_state_dict(before)


def test_maps_are_those_of_the_papers(name, net):
    x, sides = torch.zeros(1, 2, *[224 if name == "alexnet" else 227] * 2), []
    for layer in net.features:
        x = layer(x)
        if isinstance(layer, torch.nn.Conv2d | torch.nn.MaxPool2d):
            sides.append((*x.shape[1:],))
    assert [side[1:] for side in sides] == [(n, n) for n in (55, 27, 27, 13, 13, 13, 13, 6)]
    if name == "alexnet-2012":  # the neurons of section 3.5 from the second layer on
        assert [torch.Size(sides[at]).numel() for at in (2, 4, 5, 6)] == [186_624, 64_896, 64_896, 43_264]


def test_the_smallest_picture_is_named_and_works(name, net):
    smallest = SMALLEST[name]
    assert net(torch.zeros(1, 2, smallest, smallest)).shape == (1, 5)
    with torch.device("meta"):
        assert build(name, height=smallest, width=smallest).config.height == smallest
    with pytest.raises(ValueError, match=f"{name}: expected pictures of at least {smallest}x{smallest}, got 300x{smallest - 1}"):
        build(name, height=300, width=smallest - 1)


def test_first_weights(name, net):
    for place, bias in zip(SHAPES[name], (0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0), strict=True):
        weight, biases = (net.state_dict()[f"{place}.{kind}"] for kind in ("weight", "bias"))
        if name == "alexnet":  # torch's: uniform within 1 / sqrt(fan-in)
            bound = weight[0].numel() ** -0.5
            assert 0.95 * bound < weight.abs().max() <= bound and 0 < biases.abs().max() <= bound
        else:
            assert (biases == bias).all()
            assert weight.std().item() == pytest.approx(0.01, rel=0.03) and weight.mean().abs() < 3e-4


def test_columns_are_one_or_two():
    with pytest.raises(ValueError, match="alexnet: expected columns to be 1 or 2, got 3."):
        build("alexnet", columns=3)
