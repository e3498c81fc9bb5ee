"""DenseNet against its table: counts, names, values, recomputation, sizes and messages."""

from copy import deepcopy
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from twofold.models.catalogue import build

restated = SimpleNamespace(**run_path(str(Path(__file__).parent / "restated.py")))


def restate(blocks, growth, first, classes):
    def forward(state, x):
        x = F.relu(state.norm(state.conv(x, "features.conv0", first, 7, 2, 3), "features.norm0"))
        x = F.max_pool2d(x, 3, 2, 1)
        for number, layers in enumerate(blocks, 1):
            for layer in range(1, layers + 1):
                at = f"features.denseblock{number}.denselayer{layer}"
                y = state.conv(F.relu(state.norm(x, f"{at}.norm1")), f"{at}.conv1", 4 * growth, 1)
                x = torch.cat((x, state.conv(F.relu(state.norm(y, f"{at}.norm2")), f"{at}.conv2", growth, 3, 1, 1)), 1)
            if number < 4:
                at = f"features.transition{number}"
                x = F.avg_pool2d(state.conv(F.relu(state.norm(x, f"{at}.norm")), f"{at}.conv", x.shape[1] // 2, 1), 2)
        return state.linear(F.relu(state.norm(x, "features.norm5")).mean((2, 3)), "classifier", classes)

    return forward


# torchvision's counts.
@pytest.mark.parametrize(
    ("name", "count"),
    [("densenet121", 7_978_856), ("densenet169", 14_149_480), ("densenet201", 20_013_928), ("densenet161", 28_681_000)],
)
def test_weights_are_as_many_as_torchvisions(name, count):
    assert sum(weight.numel() for weight in build(name).parameters()) == count


@pytest.mark.parametrize(
    ("name", "changes", "law", "size"),
    [
        ("densenet121", {}, ((6, 12, 24, 16), 32, 64), (64, 64)),
        ("densenet161", {"blocks": "2 1 3 2", "in_channels": 1}, ((2, 1, 3, 2), 48, 96), (70, 33)),
    ],
)
def test_names_shapes_and_values_are_those_of_the_paper(name, changes, law, size):
    torch.manual_seed(1)
    model = build(name, classes=7, height=size[0], width=size[1], **changes)
    restated.agree(model, restate(*law, 7), torch.randn(4, model.config.in_channels, *size))


def test_it_learns():
    torch.manual_seed(0)
    model, x, y = build("densenet121", classes=5, height=64, width=64), torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    restated.learns(model, lambda: F.cross_entropy(model(x), y), 1e-2)


def small(**changes):
    torch.manual_seed(0)
    return build("densenet121", blocks="3 4 3 2", growth=8, first=16, height=32, width=32, classes=3, **changes)


def kept(model, x):
    """(numbers that are kept for the way back, outputs, gradients, running values)"""
    sizes = {}

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    torch.manual_seed(5)  # of dropout
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = model(x)
    y.square().sum().backward()
    return sum(sizes.values()), y, [weight.grad for weight in model.parameters()], dict(model.named_buffers())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputing_changes_nothing_but_the_memory(dropout):
    model, saving = small(dropout=dropout), small(dropout=dropout, recompute=True)
    saving.load_state_dict(deepcopy(model.state_dict()))
    x = torch.randn(8, 3, 32, 32)
    whole, y, gradients, buffers = kept(model, x)
    less, again, others, running = kept(saving, x)
    assert torch.equal(y, again) and all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(gradients, others, strict=True))
    assert all(torch.equal(buffers[name], running[name]) for name in buffers)  # a batch is remembered once
    assert less < 0.6 * whole


@pytest.mark.parametrize("size", [(29, 29), (29, 60)])
def test_the_smallest_size_works(size):
    assert small().eval()(torch.zeros(1, 3, *size)).shape == (1, 3)


def test_a_smaller_size_does_not_work_and_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        small().eval()(torch.zeros(1, 3, 28, 28))
    with pytest.raises(ValueError, match="densenet121: expected pictures of at least 29x29, got 40x28: its maps would shrink to nothing"):
        build("densenet121", height=40, width=28)


BAD = {
    "blocks": ({"blocks": "6 12 24"}, "densenet121: expected blocks as four numbers of layers, such as \"6 12 24 16\", got '6 12 24'."),
    "many": ({"blocks": "6 12 2000 16"}, "densenet121: expected layers to be at most 1,000, got 2,000."),
    "growth": ({"growth": 0}, "densenet121: expected growth to be at least 1, got 0."),
    "classes": ({"classes": 1}, "densenet121: expected classes to be at least 2, got 1."),
    "dropout": ({"dropout": 1.0}, "densenet121: expected dropout from 0 up to, not including, 1, got 1.0."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations(name):
    changes, message = BAD[name]
    with pytest.raises(ValueError) as error:
        build("densenet121", **changes)
    assert message in str(error.value)
