"""Symmetry: what stays alike for ever is refused, as training it shows; what starts alike and comes apart is not."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from twofold.layers.symmetry import refuse_symmetric


def data(classes=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 8, generator=generator), torch.randint(0, classes, (32,), generator=generator)


def filled(model, value, *, but=(), biases=True):
    """The model with one value in every parameter, but for the layers that are named."""
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.split(".")[0] not in but and (biases or values.dim() > 1):
                values.fill_(value)
    return model


def mlp(activation=nn.ReLU, dropout=0.0):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 6), activation(), nn.Dropout(dropout), nn.Linear(6, 5), activation(), nn.Linear(5, 4))


class Twice(nn.Module):
    """A branch that begins and ends in a layer of zeros: the first gets its gradient one step after the last."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        filled(self, 0.0, but=("inner", "head"))

    def forward(self, x):
        return self.head(torch.tanh(x) + self.last(torch.tanh(self.inner(x + self.first(x)))))


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.layer, self.head = nn.Embedding(10, 6), nn.LSTM(6, 7), nn.Linear(7, 4)

    def forward(self, x):
        return self.head(self.layer(self.table((x * 3).long().clamp(0, 9)).transpose(0, 1))[0][-1])


class Bag(nn.Module):
    """A sparse gradient."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.EmbeddingBag(10, 6, sparse=True), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.table((x * 3).long().clamp(0, 9)))


def convolution():
    layers = nn.ConvTranspose2d(2, 6, 2, groups=2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Unflatten(1, (2, 2, 2)), *layers, nn.Flatten(), nn.Linear(6, 4))


STUCK = {
    "zeros": (lambda: filled(mlp(), 0.0), "all weights of Sequential are 0"),
    "zeros but biases": (lambda: filled(mlp(), 0.0, biases=False), "nothing of the input reaches the output"),
    "zeros behind relu": (lambda: filled(mlp(), 0.0, but="5"), "the units of 0 (Linear), 3 (Linear) are all alike, their weights 0,"),
    "constant": (lambda: filled(mlp(nn.Tanh), 0.3), "the units of 0 (Linear), 3 (Linear) are all alike and stay alike"),
    "constant under dropout": (lambda: filled(mlp(dropout=0.5), 0.3), "the units of 0 (Linear), 3 (Linear) are all alike"),
    "constant in the middle": (lambda: filled(mlp(), 0.3, but="0"), "the units of 3 (Linear) are all alike and stay"),
    "recurrent": (lambda: filled(Reader(), 0.2), "the units of table (Embedding), layer (LSTM) are all alike"),
    "embedding": (lambda: filled(Bag(), 0.2), "the units of table (EmbeddingBag) are all alike"),
    "groups": (lambda: filled(convolution(), 0.3), "the units of 1 (ConvTranspose2d) are all alike"),
}
FREE = {
    "random": mlp,
    "output of zeros": lambda: filled(mlp(), 0.0, but="03"),
    "zeros before tanh": lambda: filled(mlp(nn.Tanh), 0.0, but="35"),
    "a chain of zeros": Twice,
    "one layer of zeros": lambda: filled(nn.Linear(8, 4), 0.0),
    "told apart by biases": lambda: filled(mlp(nn.Tanh), 0.3, biases=False),
    "told apart from state to state": lambda: filled(Reader(), 0.2, but=("layer", "head")),
    "a constant table before random layers": lambda: filled(Bag(), 0.2, but="head"),
}


def judged(model):
    """None, or the sentence; the model must be as it was."""
    x, y = data()
    model.train()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    try:
        refuse_symmetric(model, lambda: F.cross_entropy(model(x), y))
        return None
    except ValueError as error:
        return str(error)
    finally:
        assert model.training and all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
        assert all(values.grad is None for values in model.parameters())


@pytest.mark.parametrize("name", STUCK)
def test_what_stays_alike_is_refused_with_the_reason(name):
    build, words = STUCK[name]
    message = judged(build())
    assert message is not None and message.startswith("first weights: ") and words in message
    assert "every unit would compute the same" in message and '(symmetry). Start from random weights, such as init="he".' in message


@pytest.mark.parametrize("name", FREE)
def test_what_comes_apart_is_not(name):
    assert judged(FREE[name]()) is None


@pytest.mark.parametrize(("build", "stuck"), [(lambda: filled(mlp(nn.Tanh), 0.3), True), (lambda: filled(mlp(), 0.0, but="03"), False)])
def test_training_agrees(build, stuck):
    model, (x, y) = build(), data()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(50):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    rank = torch.linalg.matrix_rank(model[3].weight, rtol=1e-4).item()
    assert (rank == 1) is stuck


def test_frozen_weights_are_not_judged_and_a_model_without_alike_units_is_not_run():
    model = filled(mlp(), 0.3)
    model.requires_grad_(False)
    refuse_symmetric(model, pytest.fail)
    refuse_symmetric(mlp(), pytest.fail)
