"""The culprit is named: layer by layer, forward and back; and of the search nothing remains."""

import math
import re

import pytest
import torch

from twofold import nn
from twofold.models.language import LanguageConfig, LanguageModel
from twofold.tasks.classify import Classification, Pictures
from twofold.tasks.language import Language, Window
from twofold.train.culprit import find_broken_items, find_fault, find_unsound


class Breaks(torch.nn.Module):
    """Passes on what it is given, or breaks it on the way: x 0 / 0 forward; or backward alone, by the square root's slope at 0."""

    def __init__(self, forward=False, backward=False, weight=False):
        super().__init__()
        self.forward_breaks, self.backward_breaks = forward, backward
        self.weight = torch.nn.Parameter(torch.zeros(()))
        if weight:
            self.weight.register_hook(lambda gradient: gradient / 0)

    def forward(self, x):
        if self.forward_breaks:
            x = torch.where(torch.arange(x.shape[-1]) == 1, x / 0 * 0, x)
        if self.backward_breaks:
            x = x + ((x * 0) ** 2).sqrt()
        return x + self.weight


class Net(torch.nn.Module):
    def __init__(self, breaks=None, between=lambda x: x):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), breaks or nn.Identity())
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(3, 4)
        self.between = between

    def forward(self, x):
        return self.head(self.dropout(self.between(self.features(x).mean((2, 3)))))


TASK = Classification(("a", "b", "c", "d"))


def pictures():
    return Pictures(torch.randn(6, 1, 5, 5, generator=torch.Generator().manual_seed(3)), torch.arange(6) % 4)


def search(net, batch=None, task=TASK, **more):
    batch = batch or pictures()
    state = {name: x.clone() for name, x in net.state_dict().items()}
    random = torch.get_rng_state()
    for weight in net.parameters():
        weight.grad = torch.ones_like(weight)
    fault = find_fault(net, lambda: task.loss(net, batch, more.get("carried")).loss, batch, **more)
    assert all(torch.equal(x.nan_to_num(7), state[name].nan_to_num(7)) for name, x in net.state_dict().items())
    assert torch.equal(random, torch.get_rng_state()) and all(weight.grad.eq(1).all() for weight in net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    return fault


CASES = {
    "layer forward": (
        lambda: Net(Breaks(forward=True)),
        "forward",
        "features.3",
        "Breaks",
        r"54 of 162 values of the output .*; what came",
    ),
    "layer backward": (lambda: Net(Breaks(backward=True)), "backward", "features.3", "Breaks", "the gradient of its input is not finite"),
    "one gradient": (lambda: Net(Breaks(weight=True)), "backward", "features.3", "Breaks", "the gradient of weight is not finite"),
    "between, forward": (
        lambda: Net(between=lambda x: x / 0),
        "forward",
        "",
        "Net",
        r"outside of its layers: what layer dropout \(Dropout\) was given",
    ),
    "between, back": (lambda: Net(between=lambda x: x + ((x * 0) ** 2).sqrt()), "backward", "", "Net", "gradient within is not finite"),
    "nothing": (Net, "nowhere", "", "", "Repeated, the step is finite"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_layer_that_broke_it_is_named(name):
    build, place, layer, kind, said = CASES[name]
    fault = search(build())
    assert (fault.place, fault.layer, fault.kind, fault.items) == (place, layer, kind, ())
    assert re.search(said, fault.said), fault.said


def test_weights_and_running_statistics_that_were_broken_before():
    net = Net()
    assert find_unsound(net) is None
    with torch.no_grad():
        net.head.weight[1, 2] = math.inf
    fault = search(net)
    assert fault[:3] == ("weights", "head", "Linear") and fault.in_model
    assert fault.said.startswith("The model was broken before the step: weight head.weight (Linear) is not finite. The first output")
    net = Net()
    net.features[1].running_var[0] = math.inf
    assert find_unsound(net)[:3] == ("buffers", "features.1", "BatchNorm2d")
    assert search(net).said == "The model was broken before the step: buffer features.1.running_var (BatchNorm2d) is not finite."


def test_a_mask_may_be_infinite_but_not_nan():
    net = Net()
    net.register_buffer("mask", torch.full((2,), -math.inf))
    assert find_unsound(net) is None
    net.mask[0] = math.nan
    assert find_unsound(net)[:3] == ("buffers", "", "Net")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_items_of_a_broken_batch_are_named_and_the_layer_that_they_reach(value):
    batch = pictures()
    batch.x_BCHW[4, 0, 0, 0] = batch.x_BCHW[1, 0, 2, 2] = batch.x_BCHW[1, 0, 2, 3] = value
    fault = search(Net(), batch, names=[f"p{n}" for n in range(6)])
    assert fault[:3] == ("batch", "features.0", "Conv2d") and fault.items == (1, 4)
    assert fault.said == (
        "The batch is broken: 3 of 150 values of x_BCHW are not finite, in samples p1, p4. "
        "The first output that is not finite is that of layer features.0 (Conv2d)."
    )
    assert "in items of the batch 1, 4." in search(Net(), batch).said


def test_many_broken_items_are_counted():
    said = find_broken_items((torch.full((20,), math.nan), torch.zeros(20))).said
    assert said == "The batch is broken: 20 of 20 values of 0 are not finite, in items of the batch 0, 1, 2, 3, 4, 5, 6, 7 and 12 more."


def test_the_loss_forward_and_back():
    class Broken:
        def __init__(self, value):
            self.value = value

        def loss(self, model, batch, carried):
            step = TASK.loss(model, batch)
            return step._replace(loss=self.value(step.loss))

    assert (
        search(Net(), task=Broken(lambda x: x / 0)).said
        == "The loss is inf, though every layer's output is finite: it was computed outside."
    )
    fault = search(Net(), task=Broken(lambda x: x + ((x * 0) ** 2).sqrt()))
    assert fault.place == "loss" and "its gradient at the model's output is not finite" in fault.said
    fault = search(Net(), task=Broken(lambda x: x * 1e30))
    assert (fault.place, fault.kind) == ("backward", "") and "Every gradient is finite, their norm is not: that of" in fault.said


def test_where_memory_ends_the_search_ends_too():
    def full(x):
        raise MemoryError

    batch = pictures()
    assert search(Net(between=full)).said == "Memory does not suffice to look for the layer."
    batch.x_BCHW[3] = math.nan
    assert search(Net(between=full), batch).items == (3,)


def test_a_recurrent_model_and_the_state_that_it_goes_on_from():
    torch.manual_seed(0)
    model, codes = LanguageModel(LanguageConfig(5, 4, 6, 2)), torch.randint(5, (7, 3))
    batch, state = Window(codes, codes, False), (torch.zeros(2, 3, 6), torch.full((2, 3, 6), math.nan))
    fault = search(model, batch, Language(), carried=state)
    assert fault[:3] == ("carried", "lstm", "LSTM") and "The state that the batch goes on from is not finite." in fault.said
    with torch.no_grad():
        model.lstm.bias_ih_l1[3] = math.nan
    assert search(model, batch._replace(fresh=True), Language())[:3] == ("weights", "lstm", "LSTM")
