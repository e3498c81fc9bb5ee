"""The summary: shapes and weights against those counted by hand; shared weights once; nothing is left on the model."""

import torch

from twofold.models.catalogue import build
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


def test_the_model_is_left_as_it_was():
    model = build("vgg-mini").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    summarise(model, torch.ones(1, 1, 8, 8))
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
