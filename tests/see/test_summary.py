"""The summary: shapes and weights against those counted by hand; shared weights once; nothing is left on the model."""

import pytest
import torch

from twofold.models.catalogue import build
from twofold.see.describe import describe
from twofold.see.summary import summarise


def test_lines_come_in_the_order_of_the_calls_with_their_shapes_and_weights():
    lines = summarise(build("lenet5"), torch.zeros(1, 1, 28, 28))
    assert [(line.name, line.shape, line.weights) for line in lines if line.weights] == [
        ("conv1", (1, 6, 28, 28), 6 * 26),
        ("conv2", (1, 16, 10, 10), 16 * 151),
        ("fc1", (1, 120), 120 * 401),
        ("fc2", (1, 84), 84 * 121),
        ("fc3", (1, 10), 10 * 85),
    ]
    assert [line.kind for line in lines][:3] == ["Conv2d", "ReLU", "MaxPool2d"]


def test_a_shared_weight_is_counted_once():
    model = build("char-lstm", vocabulary=30, units=16, embedding=8)
    lines = summarise(model, torch.zeros(5, 2, dtype=torch.long))
    assert sum(line.weights for line in lines) == sum(p.numel() for p in model.parameters())
    assert next(line for line in lines if line.name == "head").weights == 30  # the bias alone


class Tied(torch.nn.Module):
    """Weights in every place: in layers that are called and that are not, held directly, in a list, and shared."""

    def __init__(self):
        super().__init__()
        self.first, self.spare, self.same = torch.nn.Linear(4, 3), torch.nn.Linear(4, 5), torch.nn.Linear(4, 3, bias=False)
        self.same.weight = self.first.weight
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.several = torch.nn.ParameterList([torch.ones(2), torch.ones(7)])
        self.unknown = torch.nn.LazyLinear(2)

    def forward(self, x):
        return self.first(x) * self.scale + self.several[0].sum()


def test_weights_that_no_called_layer_has_are_counted_and_listed_as_such():
    model = Tied()
    lines = summarise(model, torch.zeros(1, 4))
    assert [(line.name, line.kind, line.output, line.weights) for line in lines] == [
        ("first", "Linear", "1x3", 15),
        ("", "Tied", "own weights", 3),
        ("spare", "Linear", "not called", 25),
        ("several", "ParameterList", "own weights", 9),
    ]
    assert [line.multiply_adds for line in lines] == [12, None, 0, None] and not any(line.bytes or line.shape for line in lines[1:])
    del model.unknown
    said = describe(model, (1, 4))
    assert said.parameters == (52, "37 of them outside the layers that were called")
    assert said.parameters.number == sum(p.numel() for p in model.parameters())
    assert "spare    Linear         not called           25" in str(said) and said.multiply_adds.number == 12


def test_the_model_is_left_as_it_was():
    model = build("vgg-mini").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    summarise(model, torch.ones(1, 1, 8, 8))
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_work_memory_and_reach_of_a_chain():
    """LeNet-5: 5x5; pooled 5 + 1; 6 + 4*2; 14 + 1*2: the second pool sees 16 pixels and moves by 4."""
    lines = {line.name: line for line in summarise(build("lenet5"), torch.zeros(2, 1, 28, 28))}
    assert [lines[name].field for name in ("conv1", "pool1", "conv2", "relu2", "pool2", "flatten")] == [
        *((5, 5), (6, 6), (14, 14), (14, 14), (16, 16), (16, 16)),
    ]
    assert lines["pool2"].stride == (4, 4) and (lines["pool2"].sees, lines["pool2"].steps) == ("16x16", "4x4")
    assert (lines["fc1"].field, lines["fc1"].stride, lines["fc1"].sees, lines["fc1"].steps) == ((28, 28), None, "all", "-")
    assert (lines["conv2"].multiply_adds, lines["conv2"].bytes) == (2 * 16 * 10 * 10 * 5 * 5 * 6, 4 * 2 * 16 * 10 * 10)


class Branches(torch.nn.Module):
    """A block with a way past it, joined in place, and a block behind the join."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.past, self.behind = (torch.nn.Conv2d(2, 2, 3, padding=1) for _ in range(4))
        self.activation = torch.nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.two(self.activation(self.one(x)))
        y += self.past(x)
        return self.behind(y.transpose(2, 3))


def test_branches_are_followed_up_to_where_they_meet():
    sees = {line.name: line.sees for line in summarise(Branches(), torch.zeros(1, 2, 8, 8))}
    assert sees == {"one": "3x3", "activation": "3x3", "two": "5x5", "past": "3x3", "behind": "-"}


CHANGES = {
    "turned": lambda y: y.transpose(2, 3),
    "in place": lambda y: y.mul_(2),
    "cut": lambda y: y[:, :, 1:],
    "anew": lambda y: y + 1,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_map_between_two_layers_ends_its_trace(change):
    class Changed(torch.nn.Sequential):
        def forward(self, x):
            return self[1](CHANGES[change](self[0](x)))

    model = Changed(torch.nn.Conv2d(1, 1, 3), torch.nn.Identity())
    assert [line.sees for line in summarise(model, torch.zeros(1, 1, 8, 8))] == ["3x3", "-"]


def test_what_has_no_law_is_not_guessed():
    class Strange(torch.nn.Conv2d):
        def forward(self, x):
            return super().forward(x)[:, :, 1:]

    line = summarise(torch.nn.Sequential(Strange(1, 1, 3)), torch.zeros(1, 1, 8, 8))[0]
    assert (line.shape, line.multiply_adds, line.field, line.sees, line.steps) == ((1, 1, 5, 6), None, None, "-", "-")
