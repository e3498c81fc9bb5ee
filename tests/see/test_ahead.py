"""The table that is found without computing is the computed one; what is large is not computed, and what memory cannot hold not tried."""

import json

import pytest
import torch

from twofold.cli.main import main
from twofold.models.catalogue import MODELS, build, configure
from twofold.see import ahead, cost
from twofold.see.ahead import look
from twofold.see.cost import Trial, of_pictures
from twofold.see.summary import summarise

NAMES = {MODELS[name].build: name for name in reversed(MODELS) if MODELS[name].task != "language"}.values()  # one of each file
SIDES = {"alexnet": 67, "zfnet": 48, "vgg11": 32, "densenet121": 32}
SCHEME = "conv8k7 bn prelu {conv bn relu conv bn}+ lppool stochpool gausspool lrn maxout4 spp fc"


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(cost, "BOUND", 0.01)
    monkeypatch.setattr(cost, "LONG_BOUND", 0.01)


def parts(name, **changes):
    """(the model without content, what makes the model, one item, what to try it with)"""
    values = {**configure(name).as_dict(), **changes}
    size = tuple(values[axis] for axis in ("in_channels", "height", "width", "steps") if axis in values)
    with torch.device("meta"):
        bare = build(name, **values)
    return bare, lambda: build(name, **values), torch.zeros(1, *size, device="meta"), of_pictures(size, values["classes"])


def small(name, side=24):
    changes = {} if name == "signal-cnn" else {"height": SIDES.get(name, side), "width": SIDES.get(name, side)}
    return parts(name, classes=7, **changes)


@pytest.mark.parametrize("name", [*NAMES, SCHEME])
def test_the_table_without_content_is_the_computed_one_but_for_the_routes(name):
    bare, make, zeros, _ = small(name)
    computed = summarise(make(), torch.zeros(zeros.shape))
    assert summarise(bare, zeros) and ahead._without_content(bare, zeros) == [line._replace(route="") for line in computed]


def test_what_is_small_is_computed_as_ever():
    bare, make, zeros, trial = small("resnet18")
    found = look(bare, make, zeros, trial, batch=4)
    assert found.lines == summarise(make(), torch.zeros(zeros.shape)) and found.lines[0].route and found.missing == ""
    assert found.spent.times is not None


def never():
    raise AssertionError("the model was made")


def test_what_is_large_is_not_even_made(monkeypatch):
    bare, make, zeros, trial = small("resnet18")
    work = sum(line.multiply_adds or 0 for line in summarise(bare, zeros))
    monkeypatch.setattr(ahead, "WORK", work)
    assert look(bare, make, zeros, trial, batch=4).missing == ""
    monkeypatch.setattr(ahead, "WORK", work - 1)
    found = look(bare, never, zeros, trial, batch=4)
    assert found.missing.startswith(f"Not computed: one item takes {work:,} multiply-adds and ") and found.spent.times is None
    assert found.missing.endswith(" of outputs. Routes and times are not known. --time measures them.")
    assert {line.route for line in found.lines} == {""} and found.spent.total > 4 * found.spent.weights
    assert look(bare, make, zeros, trial, batch=4, long=True).spent.times is not None
    monkeypatch.setattr(ahead, "WORK", work)
    monkeypatch.setattr(ahead, "BYTES", 1)
    assert look(bare, never, zeros, trial, batch=4).missing


def test_where_memory_will_not_do_it_is_said_and_not_tried(monkeypatch):
    bare, _, zeros, trial = small("resnet18")
    monkeypatch.setattr(ahead, "WORK", 0)
    weights = 4 * sum(p.numel() for p in bare.parameters())
    monkeypatch.setattr(cost, "free_memory", lambda: cost.TRAINING * weights + 1000)
    found = look(bare, never, zeros, trial, batch=4, long=True)
    assert found.missing.endswith("They would be measured on a batch of 3, which does not fit.")
    assert found.spent.lines()[1].endswith("Not even one item fits: take smaller pictures, or a smaller model.")
    assert found.spent.free + weights == cost.TRAINING * weights + 1000  # nothing is held yet


def test_a_batch_that_an_operator_refuses_leaves_the_memory_unknown():
    bare, _, zeros, trial = small("vgg-mini")

    def refused(model, x):
        raise ValueError("Conv2d input: expected outputs of at most 7 numbers.")

    found = cost.cost(bare, Trial(trial.batch, refused), summarise(bare, zeros))
    said = "memory of a training step: not known, for a batch of 2 is refused. Conv2d input: expected outputs of at most 7 numbers."
    assert found.lines() == [said] and found.total is None and found.largest is None


def test_a_large_picture_takes_seconds(capsys):
    assert main(["summary", "resnet50", "--input", "3x4096x4096", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["multiply_adds"] == 1_366_606_954_496 and told["computed"] is False  # 4_087_136_256 * (4096 / 224)**2 + 2048 * 1000
    assert main(["summary", "lenet5"]) == 0 and "Not computed" not in capsys.readouterr().out
    assert main(["summary", "vgg16", "--input", "3x4096x4096", "--time"]) == 0
    assert "Not computed: one item takes 5,131,535,810,560 multiply-adds" in capsys.readouterr().out
