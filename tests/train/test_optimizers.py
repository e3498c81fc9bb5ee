"""Optimisers against their laws written by hand and against torch's, who decays, what Muon is for, and both clippings."""

import io
import math
import re

import pytest
import torch

from twofold import nn
from twofold.models import catalogue
from twofold.train.optimizers import MEMORYLESS, Optimisation, Together, build_optimizer, clip_gradient, describe, give_rate, inner_matrices

KINDS = ("sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw", "muon")


def deep(dtype=torch.float64):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 2))
    return layers.to(dtype)


def descend(model, optimizer, steps=4):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(3, 1, 6, 6, generator=generator, dtype=torch.float64).to(next(model.parameters()).dtype)
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()


class Law:
    """The updates of the module's first lines, one number at a time as they are written there."""

    def __init__(self, kind, weight, rate, momentum, decay):
        self.kind, self.w, self.rate, self.momentum, self.decay = kind, weight, rate, momentum, decay
        self.v, self.s, self.t = torch.zeros_like(weight), torch.zeros_like(weight), 0

    def step(self, g):
        self.t += 1
        if self.kind == "adamw":
            self.w = self.w - self.rate * self.decay * self.w
        else:
            g = g + self.decay * self.w
        if self.kind == "sgd":
            move = g
        elif self.kind in ("momentum", "nesterov"):
            self.v = self.momentum * self.v + g
            move = self.v if self.kind == "momentum" else g + self.momentum * self.v
        elif self.kind == "rmsprop":
            self.s = 0.99 * self.s + 0.01 * g * g
            move = g / (self.s.sqrt() + 1e-8)
        else:
            self.v = self.momentum * self.v + (1 - self.momentum) * g
            self.s = 0.999 * self.s + 0.001 * g * g
            move = self.v / (1 - self.momentum**self.t) / ((self.s / (1 - 0.999**self.t)).sqrt() + 1e-8)
        self.w = self.w - self.rate * move


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "muon"])
def test_each_step_is_its_law(kind):
    weight = nn.Parameter(torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64))
    model = nn.Module()
    model.weight = weight
    momentum = {} if kind in MEMORYLESS else {"momentum": 0.7}
    optimizer = build_optimizer(model, Optimisation(optimizer=kind, learning_rate=0.1, weight_decay=0.05, **momentum))
    law = Law(kind, weight.detach().clone(), 0.1, 0.7, 0.05)
    for step in range(5):
        g = torch.tensor([[3.0, -1.0, 0.2]], dtype=torch.float64) * (step - 2.5)
        weight.grad = g.clone()
        optimizer.step()
        law.step(g)
        torch.testing.assert_close(weight.detach(), law.w)


THEIRS = {
    "sgd": lambda groups: torch.optim.SGD(groups, 0.01),
    "momentum": lambda groups: torch.optim.SGD(groups, 0.01, momentum=0.8),
    "nesterov": lambda groups: torch.optim.SGD(groups, 0.01, momentum=0.8, nesterov=True),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, 0.01),
    "adam": lambda groups: torch.optim.Adam(groups, 0.01, betas=(0.8, 0.999)),
    "adamw": lambda groups: torch.optim.AdamW(groups, 0.01, betas=(0.8, 0.999)),
}


@pytest.mark.parametrize("kind", THEIRS)
def test_each_is_torchs_own_in_its_fastest_form(kind):
    ours, theirs = deep(), deep()
    momentum = {} if kind in MEMORYLESS else {"momentum": 0.8}
    optimizer = build_optimizer(ours, Optimisation(optimizer=kind, learning_rate=0.01, weight_decay=0.1, **momentum))
    groups = [
        {"params": [p for p in theirs.parameters() if (p.dim() >= 2) is decays], "weight_decay": 0.1 * decays} for decays in (True, False)
    ]
    descend(ours, optimizer)
    descend(theirs, THEIRS[kind](groups))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert describe(optimizer).endswith("foreach" if kind == "rmsprop" else "fused")


@pytest.mark.parametrize("kind", KINDS)
def test_only_matrices_decay(kind):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    before = [layer.weight.detach().clone() for layer in model]
    optimizer = build_optimizer(model, Optimisation(optimizer=kind, learning_rate=0.1, weight_decay=0.5))
    (model(torch.zeros(1, 3)) * 0).sum().backward()
    optimizer.step()
    for layer, weight in zip(model, before, strict=True):
        assert layer.bias.tolist() == [1.0, 1.0, 1.0]
        assert (layer.weight.abs() < weight.abs()).all()
        if kind in ("adamw", "muon", "sgd"):
            assert torch.allclose(layer.weight, weight * (1 - 0.1 * 0.5))


def names_of(model, weights):
    return [name for name, w in model.named_parameters() if any(w is each for each in weights)]


def test_muon_is_for_the_matrices_between_the_first_and_the_last():
    model = deep()
    assert names_of(model, inner_matrices(model)) == ["1.weight", "3.weight"]
    for tied in (True, False):
        language = catalogue.find("char-lstm").build(catalogue.configure("char-lstm", vocabulary=11, units=8, embedding=6, tied=tied))
        inner = ["lstm.weight_ih_l0", "lstm.weight_hh_l0"] + ["bridge.weight"] * tied
        assert names_of(language, inner_matrices(language)) == inner
    lstm = nn.LSTM(3, 4, 2)
    assert names_of(lstm, inner_matrices(lstm)) == ["weight_hh_l0", "weight_ih_l1"]


def test_muon_and_adamw_behave_as_one_and_come_back_from_their_state():
    settings = Optimisation(optimizer="muon", learning_rate=0.01, weight_decay=0.1)
    whole, model, again = deep(), deep(), deep()
    through, first = build_optimizer(whole, settings), build_optimizer(model, settings)
    assert isinstance(first, Together) and describe(first) == "Muon (2 tensors) and AdamW, fused (6 tensors)"
    assert {p for group in first.param_groups for p in group["params"]} == set(model.parameters())
    descend(whole, through, 2)
    descend(whole, through, 3)
    descend(model, first, 2)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    again.load_state_dict(model.state_dict())
    second = build_optimizer(again, settings)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    give_rate(second, 0.01)
    assert [group["lr"] for part in second.parts for group in part.param_groups] == [0.01] * 3
    descend(again, second, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    second.zero_grad()
    assert all(p.grad is None for p in again.parameters())
    assert second.step(lambda: 2.5) == 2.5


def test_a_rate_reaches_every_group_with_its_factor_and_the_momentum_where_there_is_one():
    optimizer = build_optimizer(deep(), Optimisation(optimizer="muon"))
    optimizer.param_groups[1]["factor"] = 0.1
    give_rate(optimizer, 2.0, 0.6)
    assert [group["lr"] for group in optimizer.param_groups] == [2.0, 0.2, 2.0]
    assert [group.get("momentum") for group in optimizer.param_groups] == [0.6, None, None]
    assert [group["betas"] for group in optimizer.param_groups[1:]] == [(0.6, 0.999)] * 2
    plain = build_optimizer(deep(), Optimisation(optimizer="sgd"))
    give_rate(plain, 1.0, 0.6)
    assert plain.param_groups[0]["momentum"] == 0
    assert [describe(build_optimizer(deep(), Optimisation(optimizer=kind))) for kind in ("momentum", "nesterov")] == [
        "SGD with momentum, fused",
        "SGD with Nesterov's momentum, fused",
    ]


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        (nn.Linear(2, 2).requires_grad_(False), "adamw", "got none that requires a gradient. Is every layer frozen?"),
        (nn.ReLU(), "sgd", "expected a model with weights to train"),
        (
            nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
            "muon",
            "optimizer=muon: expected a model with a matrix between its first and its",
        ),
    ],
)
def test_models_that_cannot_be_trained_so(model, kind, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build_optimizer(model, Optimisation(optimizer=kind))


def with_gradient(*numbers):
    model = nn.Linear(len(numbers) - 1, 1)
    model.weight.grad, model.bias.grad = torch.tensor([numbers[:-1]]), torch.tensor(numbers[-1:])
    return model


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("largest", "value"), [(1.0, 0.0), (100.0, 0.0), (0.0, 0.0), (0.0, 3.5), (4.0, 3.5), (0.0, 4.5), (7.0, 3.5), (0.0, 99.0)]
)
def test_clipping_is_by_value_then_by_norm_and_tells_the_norm_before(largest, value):
    model, theirs = with_gradient(3.0, -4.0), with_gradient(3.0, -4.0)
    assert clip_gradient(model.parameters(), largest, value) == pytest.approx(5.0)
    if value:
        torch.nn.utils.clip_grad_value_(theirs.parameters(), value)
    if largest:
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), largest)
    torch.testing.assert_close(gradient(model), gradient(theirs), rtol=1e-5, atol=0)
    law = torch.tensor([3.0, -4.0]).clamp(-(value or math.inf), value or math.inf)
    torch.testing.assert_close(gradient(model), law * min(1.0, (largest or math.inf) / law.norm().item()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_left_untouched(broken):
    model = with_gradient(300.0, broken, -4.0)
    assert not math.isfinite(clip_gradient(model.parameters(), 1.0, 0.5))
    torch.testing.assert_close(gradient(model), torch.tensor([300.0, broken, -4.0]), equal_nan=True, rtol=0, atol=0)


def test_without_any_gradient_the_norm_is_zero():
    assert clip_gradient(nn.Linear(1, 1).parameters(), 1.0, 1.0) == 0.0
