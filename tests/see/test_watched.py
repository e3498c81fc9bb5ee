"""What trackers show of a model while it learns: the filters as they are now, and the same pictures every time."""

import torch

from twofold.data.preparation import Preparation
from twofold.data.values import Images
from twofold.models.catalogue import build
from twofold.see.watched import first_filters, samples


def words(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [text.get_text() for text in figure.texts]


def test_the_first_convolution_is_shown_and_a_model_without_one_shows_nothing():
    model = build("lenet5", classes=3)
    figure = first_filters(model)["filters"]
    assert any("6 filters of 5×5 over 1 channel" in word for word in words(figure))
    assert first_filters(build("char-lstm", vocabulary=9, units=4, embedding=4)) == {}


def test_the_same_pictures_are_named_by_the_model_as_it_is_now():
    model = build("lenet5", classes=3, height=12, width=12)
    model.train()
    with torch.no_grad():
        model.fc3.weight.zero_()
        model.fc3.bias.copy_(torch.tensor([0.0, 50.0, 0.0]))
    y_B = torch.tensor([0, 1] * 20)
    held = Images(torch.zeros(40, 1, 12, 12, dtype=torch.uint8), y_B, ("",) * 40)
    kind = Preparation("L", 12, 12, (0.0,), (1.0,))
    first, again = (samples(model, held, kind, ("cat", "dog", "owl"))["samples"] for _ in range(2))
    assert words(first) == words(again) and model.training
    right = int(y_B[torch.randperm(40, generator=torch.Generator().manual_seed(0))[:32]].sum())
    said = " ".join(words(first))
    assert f"{right} right ✓, {32 - right} wrong ✗" in said and "dog" in said and "owl" not in said
