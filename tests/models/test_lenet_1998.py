"""LeNet-5 of 1998: the paper's counts layer by layer, an independent statement of the net, every size, first weights, and its own loss."""

import pytest
import torch
import torch.nn.functional as F

from twofold.models.catalogue import build
from twofold.models.lenet_1998 import counts
from twofold.models.radial import competitive_loss

# Table I of the paper: a row for every map of S2, a column for every map of C3.
TABLE_1 = [
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
]


def test_the_counts_are_those_of_the_text():
    model = build("lenet5-1998")
    found = {count.layer: (count.parameters, count.connections) for count in counts(model)}
    assert found == {
        "C1": (156, 122_304), "S2": (12, 5_880), "C3": (1_516, 151_600), "S4": (32, 2_000), "C5": (48_120, 48_120), "F6": (10_164, 10_164),
        "output": (0, 840),
    }  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == 60_000
    assert sum(connections for _, connections in found.values()) == 340_908
    assert sum(p.numel() for p in build("lenet5-1998", trainable_codes=True).parameters()) == 60_840


@pytest.mark.parametrize(("height", "width"), [(32, 32), (28, 28), (8, 40), (45, 38)])
def test_counts_are_those_of_the_layers_on_every_size(height, width):
    model = build("lenet5-1998", in_channels=2, height=height, width=width, classes=3)
    shapes = {}
    for name in ("c1", "s2", "c3", "s4", "c5"):
        getattr(model, name).register_forward_hook(lambda _, __, y, name=name: shapes.update({name.upper(): tuple(y.shape[1:])}))
    model(torch.zeros(1, 2, height, width))
    rows = counts(model)
    assert {row.layer: row.maps for row in rows if "@" in row.maps} == {name: f"{f}@{h}x{w}" for name, (f, h, w) in shapes.items()}
    assert shapes["C5"] == (120, 1, 1)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())


def restated(state, x):
    """Section II.B, written with nothing of ours."""

    def squash(a):
        return 1.7159 * torch.tanh(2 * a / 3)

    def subsample(x, name):
        total = x[:, :, 0::2, 0::2] + x[:, :, 1::2, 0::2] + x[:, :, 0::2, 1::2] + x[:, :, 1::2, 1::2]
        return squash(total * state[f"{name}.gain"].view(-1, 1, 1) + state[f"{name}.bias"].view(-1, 1, 1))

    s2 = subsample(squash(F.conv2d(x, state["c1.weight"], state["c1.bias"])), "s2")
    kernels, maps = iter(state["c3.weight"]), []
    for f in range(16):
        seen = [c for c in range(6) if TABLE_1[c][f] == "X"]
        kernel = torch.cat([next(kernels) for _ in seen])[None]
        maps.append(F.conv2d(s2[:, seen], kernel, state["c3.bias"][f : f + 1]))
    s4 = subsample(squash(torch.cat(maps, 1)), "s4")
    c5 = squash(s4.flatten(1) @ state["c5.weight"].flatten(1).t() + state["c5.bias"])
    f6 = squash(c5 @ state["f6.weight"].t() + state["f6.bias"])
    return torch.stack([((f6 - code) ** 2).sum(1) for code in state["output.codes"]], 1)


@pytest.mark.parametrize("size", [(32, 32), (36, 44)])
def test_it_equals_an_independent_statement(size):
    torch.manual_seed(0)
    model = build("lenet5-1998", in_channels=3, height=size[0], width=size[1], classes=5, trainable_codes=True)
    x = torch.randn(4, 3, *size)
    state = {name: value.detach().clone().requires_grad_(value.is_floating_point()) for name, value in model.state_dict().items()}
    expected = restated(state, x)
    assert torch.allclose(model.distances(x), expected, rtol=1e-5, atol=1e-5)
    assert torch.allclose(model(x), -expected / 84**0.5, rtol=1e-5, atol=1e-5)
    model.distances(x).mean().backward()
    expected.mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad.abs().sum() > 0 and torch.allclose(weight.grad, state[name].grad, rtol=1e-3, atol=1e-5), name


def test_small_pictures_lie_in_the_middle_of_their_own_paper():
    model, x = build("lenet5-1998", height=28, width=30), torch.rand(2, 1, 28, 30)
    framed = torch.full((2, 1, 32, 32), float("nan"))
    for row in range(32):
        for column in range(32):
            framed[:, :, row, column] = x[:, :, min(max(row - 2, 0), 27), min(max(column - 1, 0), 29)]
    assert torch.equal(model(x), model(framed))


def test_first_weights_are_within_the_papers_bounds():
    torch.manual_seed(0)
    model = build("lenet5-1998", in_channels=2)
    fans = {"c1": 50, "s2": 4, "s4": 4, "c5": 400, "f6": 120}
    for name, fan in fans.items():
        for values in getattr(model, name).parameters():
            assert 0.5 * 2.4 / fan < values.abs().max() <= 2.4 / fan, name
    kernels = iter(model.c3.weight)
    for f in range(16):
        seen = sum(row[f] == "X" for row in TABLE_1)
        largest = max(next(kernels).abs().max().item() for _ in range(seen))
        assert 0.8 * 2.4 / (25 * seen) < largest <= 2.4 / (25 * seen)
        assert model.c3.bias[f].abs() <= 2.4 / (25 * seen)


@pytest.mark.parametrize("loss", [F.cross_entropy, competitive_loss])
def test_it_learns_sixteen_pictures_by_either_loss(loss):
    torch.manual_seed(0)
    model = build("lenet5-1998", height=28, width=28)
    x, target = torch.randn(16, 1, 28, 28), torch.arange(16) % 10

    def value():
        return loss(model(x) if loss is F.cross_entropy else model.distances(x), target)

    first = value()
    first.backward()
    length = sum(p.grad.square().sum() for p in model.parameters()).sqrt()
    with torch.no_grad():
        for p in model.parameters():
            p -= 1e-2 * p.grad / length
    assert value() < first
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        value().backward()
        optimizer.step()
    assert (model(x).argmax(1) == target).all()
    if loss is F.cross_entropy:
        assert first < 3 and value() < 0.1  # it begins near log 10 and comes near 0


BAD = {
    "no picture": (lambda: build("lenet5-1998", height=0), "lenet5-1998: expected height to be at least 1, got 0."),
    "one class": (lambda: build("lenet5-1998", classes=1), "lenet5-1998: expected classes to be at least 2, got 1."),
    "channels": (lambda: build("lenet5-1998", in_channels=0), "lenet5-1998: expected in_channels to be at least 1, got 0."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    call, message = BAD[name]
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)


def test_one_pixel_is_a_picture():
    assert build("lenet5-1998", height=1, width=1)(torch.randn(3, 1, 1, 1)).shape == (3, 10)
