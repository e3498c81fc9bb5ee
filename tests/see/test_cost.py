"""The cost of training against what is counted by hand, and the work of every net of the literature against what was published of it."""

import json

import pytest
import torch
from torch import nn

from twofold.cli.main import main
from twofold.models.catalogue import build, configure, find
from twofold.see import cost as costs
from twofold.see.cost import Times, Trial, cost, kept, of_pictures, of_text, spoken
from twofold.see.summary import summarise

# name, changes, side, 1e9 multiply-adds as published, where. Torchvision's are the GFLOPS in the metadata of its published weights.
PUBLISHED = [
    ("alexnet", {}, 224, 0.71, "torchvision: 0.714"),
    ("alexnet-2012", {}, 227, 0.724, "with the paper's two columns; the paper tells none"),
    ("vgg16", {}, 224, 15.47, "torchvision"),
    ("vgg19", {}, 224, 19.6, "He et al. 2016, section 3.3: 19.6 billion; torchvision: 19.63"),
    ("googlenet", {}, 224, 1.5, "Szegedy et al. 2015, section 1: 1.5 billion; torchvision: 1.498"),
    ("resnet18", {}, 224, 1.8, "He et al. 2016, table 1: 1.8e9; torchvision: 1.814"),
    ("resnet34", {}, 224, 3.664, "torchvision; table 1: 3.6e9"),
    ("resnet50", {}, 224, 4.089, "torchvision"),
    ("resnet101", {}, 224, 7.801, "torchvision"),
    ("resnet152", {}, 224, 11.514, "torchvision"),
    ("resnet101", {"stride_first": True}, 224, 7.6, "He et al. 2016, table 1: 7.6e9"),
    ("resnet152", {"stride_first": True}, 224, 11.3, "He et al. 2016, table 1: 11.3e9"),
    ("wide-resnet50-2", {}, 224, 11.398, "torchvision"),
    ("mobilenet-v1", {}, 224, 0.569, "Howard et al. 2017, table 4: 569 million"),
    ("mobilenet-v2", {}, 224, 0.300, "Sandler et al. 2018, table 4: 300 million; torchvision: 0.301"),
    ("squeezenet1-0", {}, 224, 0.819, "torchvision"),
    ("squeezenet1-1", {}, 224, 0.349, "torchvision"),
    ("densenet121", {}, 224, 2.834, "torchvision"),
]


@pytest.mark.parametrize(("name", "changes", "side", "billions", "source"), PUBLISHED)
def test_multiply_adds_are_those_that_were_published(name, changes, side, billions, source):
    with torch.device("meta"):
        model = find(name).build(configure(name, height=side, width=side, **changes))
        lines = summarise(model, torch.zeros(1, 3, side, side))
    assert all(line.multiply_adds is not None or line.apart for line in lines)
    assert sum(line.multiply_adds or 0 for line in lines) / 1e9 == pytest.approx(billions, rel=0.01), source


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(costs, "BOUND", 0.02)


def plain():
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2, bias=False))


SUM = Trial(lambda items, device: torch.randn(items, 4, device=device), lambda model, x: model(x).sum())


@pytest.mark.parametrize("items", [1, 2, 7])
def test_kept_is_the_input_and_the_output_of_tanh_each_once(items):
    """A linear layer keeps what it was given; tanh what it gave, which the next layer was given: one storage."""
    assert kept(plain(), SUM, items) == 4 * items * (4 + 3)


def test_memory_is_four_times_the_weights_and_what_is_kept():
    model = plain()
    found = cost(model, SUM, summarise(model, torch.zeros(1, 4)), batch=10)
    weights = 4 * (4 * 3 + 3 + 3 * 2)
    assert (found.weights, found.gradients, found.optimizer) == (weights, weights, 2 * weights)
    assert (found.activations, found.passing) == (4 * 10 * 7, 2 * 4 * 10 * 3)
    assert found.total == 4 * weights + found.activations + found.passing and found.suffices
    assert found.as_dict()["total_bytes"] == found.total


@pytest.mark.parametrize(("name", "size"), [("resnet18", (3, 48, 48)), ("vgg-mini", (1, 16, 16)), ("googlenet", (3, 32, 32))])
def test_what_a_large_batch_keeps_follows_from_two_small_ones(name, size):
    config = configure(name, in_channels=size[0], height=size[1], width=size[2], classes=7)
    model, trial = find(name).build(config), of_pictures(size, 7)
    found = cost(model, trial, summarise(model, torch.zeros(1, *size)), batch=12)
    model.train()
    assert found.activations == pytest.approx(kept(model, trial, 12), rel=0.02)


def test_text_is_tried_as_a_language_model_reads_it():
    model = build("char-lstm", vocabulary=11, units=8, layers=1)
    found = cost(model, of_text(5, 11), summarise(model, torch.zeros(5, 1, dtype=torch.long)), batch=6)
    assert found.activations == pytest.approx(kept(model, of_text(5, 11), 6), rel=0.05)
    assert found.times is not None and found.times.items <= 6 and found.times.forward > 0


def test_the_model_is_left_as_it_was():
    model = build("vgg-mini", height=8, width=8)
    lines = summarise(model, torch.zeros(1, 1, 8, 8))
    next(model.children()).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    cost(model, of_pictures((1, 8, 8), 10), lines, batch=4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes and torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


def test_the_largest_batch_that_fits_is_named(monkeypatch):
    model = plain()
    lines = summarise(model, torch.zeros(1, 4))
    monkeypatch.setattr(costs, "free_memory", lambda: 10_000)
    monkeypatch.setattr(costs, "memory", lambda: 1 << 20)
    found = cost(model, SUM, lines, batch=1000)
    each, weights = 4 * 7 + 2 * 4 * 3, 84
    assert found.largest == (10_000 - 3 * weights) // each and not found.suffices
    fits, over = (cost(model, SUM, lines, batch=found.largest + more).total for more in (0, 1))
    assert fits <= 10_000 + weights < over
    assert found.lines()[1] == (
        "The memory will not suffice: a batch of 1,000 needs 51.1 KiB, and 9.8 KiB of 1.0 MiB are to be had. "
        "The largest batch that fits is 187: --batch-size 187, or --accumulate."
    )
    assert cost(model, SUM, lines, batch=187).suffices


def test_without_room_it_is_measured_without_content(monkeypatch):
    """On the meta device; nothing is computed, so nothing is timed."""
    model = plain()
    model.register_buffer("factor", torch.ones(1))
    monkeypatch.setattr(costs, "free_memory", lambda: 280)
    found = cost(model, SUM, summarise(model, torch.zeros(1, 4)), batch=10)
    assert (found.activations, found.largest, found.times) == (4 * 10 * 7, 0, None)
    assert found.lines()[1].endswith("Not even one item fits: take smaller pictures, or a smaller model.")
    assert all(p.device.type == "cpu" for p in (*model.parameters(), *model.buffers()))


def test_the_part_of_a_step_that_does_not_grow_is_not_multiplied():
    found = cost(plain(), SUM, [], batch=8)._replace(times=Times(2, 10.0, 50.0, 20.0))
    assert found.lines()[-2:] == [
        "measured here, batch of 2: forward 10.0 ms, training step 50.0 ms (20.0 ms of it AdamW)",
        "so about 40 ms and 140 ms for a batch of 8; --time measures it",
    ]


def test_a_batch_below_one_is_refused():
    with pytest.raises(ValueError, match=r"summary: expected --batch of at least 1, got 0\."):
        cost(plain(), SUM, [], batch=0)


def test_sizes_are_told_in_the_unit_that_suits_them():
    assert [spoken(size) for size in (0, 1 << 10, 1 << 20, 3 << 29)] == ["0.0 KiB", "1.0 KiB", "1.0 MiB", "1.5 GiB"]


def test_summary_prints_the_cost_and_json_holds_it(capsys):
    assert main(["summary", "lenet5", "--batch", "4"]) == 0
    said = capsys.readouterr().out
    assert "memory of a training step, batch of 4: " in said and "measured here, batch of " in said
    assert main(["summary", "lenet5", "--batch", "4", "--time", "--json"]) == 0
    training = json.loads(capsys.readouterr().out)["training"]
    assert training["batch"] == training["timed_batch"] == 4 and training["suffices"] and training["step_milliseconds"] > 0
    assert main(["summary", "lenet5", "--batch", "0"]) == 2
    assert "--batch of at least 1, got 0" in capsys.readouterr().err
