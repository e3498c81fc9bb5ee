"""Heads and stages of networks of every form."""

import pytest
import torch

from twofold import nn
from twofold.layers.parts import head_weights, heads, stages
from twofold.models.catalogue import MODELS

WANTED = {
    "resnet18": ["conv1+bn1", "layer1", "layer2", "layer3", "layer4", "fc"],
    "cifar-resnet20": ["conv1+bn1", "layer1", "layer2", "layer3", "linear"],
    "vgg-mini": [*(f"features.conv{n}+features.norm{n}" for n in (1, 2, 3, 4)), "head"],
    "mobilenet-v1": ["conv_stem+bn1", *(f"blocks.{n}" for n in range(5)), "classifier"],
    "squeezenet1-1": [*(f"features.{n}" for n in (0, 3, 4, 6, 7, 9, 10, 11, 12)), "classifier.1"],
    "lenet5": ["conv1", "conv2", "fc1", "fc2", "fc3"],
}


def on_meta(name):
    with torch.device("meta"):
        return MODELS[name].build(MODELS[name].preset)


@pytest.mark.parametrize("name", WANTED)
def test_stages_by_name(name):
    assert [stage.name for stage in stages(on_meta(name))] == WANTED[name]


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.task == "classify"])
def test_every_weight_is_in_one_stage_and_the_head_alone_in_the_last(name):
    model = on_meta(name)
    found = stages(model)
    assert sorted(each for stage in found for each in stage.weights) == sorted(each for each, _ in model.named_parameters())
    assert len(found) > 2 and found[-1].weights[-1] in head_weights(model)
    assert all(each in found[-1].weights for each in head_weights(model))


def test_auxiliary_heads_belong_to_the_head():
    model = on_meta("googlenet")
    assert heads(model) == ("fc", "aux1.fc2", "aux2.fc2")
    assert stages(model)[-1].name == "aux1+aux2+fc" and "aux1.conv.conv.weight" in stages(model)[-1].weights


def test_models_of_ones_own():
    assert [stage.name for stage in stages(nn.Linear(2, 3))] == [""] and heads(nn.Linear(2, 3)) == ("",)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)), nn.Linear(8, 2))
    assert [stage.name for stage in stages(net)] == ["0", "2.0+2.1", "3"]
    only = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    assert heads(only) == () and head_weights(only) == ("0.weight", "0.bias") and len(stages(only)) == 1


def test_a_weight_beside_the_layers_belongs_to_the_first_stage():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(2))
            self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)

    assert [stage.weights[0] for stage in stages(Shifted())] == ["shift", "two.weight"]
