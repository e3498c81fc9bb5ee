"""`auto` that measures: what is chosen, how long it may take, what it leaves alone. Only the contenders move the clock, so it is exact."""

import os
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import twofold
from twofold.layers import choices, measured
from twofold.layers.differentiable import Native, Other, differentiable
from twofold.layers.measured import clock, measuring


class Clock:
    """Time that stands still, and the contenders that were at work."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def operation(self, vendor, native, worth=lambda x: None, **more):
        """The square of x, whose forms take so many seconds."""

        def form(name, seconds):
            def compute(x):
                self.now += seconds
                self.calls.append(name)
                return x * x

            return compute

        others = {name: Other(form(name, seconds)) for name, seconds in more.items()}
        compiled = Native(form("native", native), None, lambda x: "", worth)
        return differentiable(forward, backward, vendor=form("vendor", vendor), native=compiled, others=others)


def forward(x):
    return x * x, x


def backward(dy, x):
    return 2 * x * dy


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Nothing measured before, and permission to measure."""
    monkeypatch.setenv("TWOFOLD_CACHE", str(tmp_path / "cache"))
    forget(monkeypatch)
    with measuring():
        yield tmp_path / "cache"


def forget(monkeypatch):
    """As in a new process."""
    monkeypatch.setattr(measured, "_remembered", {})
    monkeypatch.setattr(measured, "_spent", 0.0)


@pytest.fixture
def time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(measured, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


X = torch.ones(3)


@pytest.mark.parametrize(
    ("milliseconds", "route"),
    [
        ({"vendor": 2, "native": 1}, "native"),
        ({"vendor": 1, "native": 2}, "vendor"),
        ({"vendor": 1.04, "native": 1}, "vendor"),
        ({"vendor": 1.06, "native": 1}, "native"),
        ({"vendor": 3, "native": 2, "winograd": 1}, "winograd"),
        ({"vendor": 1.2, "native": 2, "by channels": 1}, "vendor"),
        ({"vendor": 1.3, "native": 2, "by channels": 1}, "by channels"),
        ({"vendor": 60, "native": 50}, "vendor"),  # no time for turns: warm-ups alone convince less
        ({"vendor": 65, "native": 50}, "native"),
    ],
)
def test_the_fastest_is_chosen_and_the_default_kept_unless_it_is_clearly_slower(time, milliseconds, route):
    operation = time.operation(**{name: number / 1e3 for name, number in milliseconds.items()})
    assert operation.decide(X) == (route, "measured")
    calls = len(time.calls)
    assert operation(X).tolist() == [1, 1, 1] and time.calls[calls:] == [route]


def test_a_choice_is_made_once_in_a_process_and_once_on_a_machine(time, monkeypatch, cache):
    operation = time.operation(2e-3, 1e-3)
    assert operation.choose(X) == "native" and time.calls
    for again in (lambda: None, lambda: forget(monkeypatch)):
        again()
        time.calls.clear()
        assert operation.decide(X) == ("native", "measured") and time.calls == []
    (path,) = cache.glob("*.json")
    assert path == choices.place() and choices.number() == 1
    for other in (torch.ones(4), X.double(), X.clone().requires_grad_()):  # each is a question of its own
        time.calls.clear()
        assert operation.choose(other) == "native" and time.calls
    assert choices.number() == 4


def test_threads_have_files_of_their_own(monkeypatch):
    first = choices.place()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 97)
    assert choices.place() != first and "97t" in choices.place().name


def test_one_question_ends_at_its_bound(time):
    time.operation(10e-3, 9e-3).choose(X)
    assert time.now <= 19e-3 + 60e-3


def test_a_process_ends_at_its_bound_and_what_it_could_not_measure_stays(time, monkeypatch):
    operation = time.operation(0.9, 0.5)
    seen = [operation.decide(torch.ones(size)) for size in range(1, 5)]
    assert seen == [("native", "measured"), *[("vendor", "no time was left to measure")] * 3]
    assert time.now <= 2 + 0.9
    forget(monkeypatch)
    time.calls.clear()
    assert operation.choose(torch.ones(4)) == "vendor" and time.calls == []  # the next run computes the same
    with measuring(100):
        assert operation.decide(torch.ones(4)) == ("native", "measured")  # more time was granted
    forget(monkeypatch)
    assert operation.decide(torch.ones(4)) == ("native", "measured")


def test_a_contender_that_fails_is_not_chosen(time):
    def fails(x):
        raise RuntimeError("cannot")

    operation = time.operation(1e-3, 2e-3)
    operation.others = {"broken": Other(fails)}
    assert operation.choose(X) == "vendor"
    broken = differentiable(forward, backward, vendor=fails, native=Native(forward, backward, lambda x: "", lambda x: None))
    assert broken.choose(X) == "vendor" and choices.number() == 1  # the default says what is wrong itself, and nothing is remembered
    with pytest.raises(RuntimeError, match="cannot"):
        broken(X)


def test_backward_counts_where_gradients_are_wanted(time):
    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, dy):
            time.now += 5e-3
            return dy

    def vendor(x):
        time.now += 1e-3
        return Slow.apply(x)

    operation = time.operation(1e-3, 2e-3)
    operation.vendor = vendor
    x = torch.ones(3, requires_grad=True)
    assert operation.choose(x) == "native"
    with torch.no_grad():
        assert operation.choose(x) == "vendor"


@pytest.mark.parametrize("rule", [True, False])
def test_a_rule_that_knows_is_not_measured(time, rule):
    operation = time.operation(1, 1, worth=lambda x: rule)
    assert operation.decide(X) == ("native" if rule else "vendor", "rule") and time.calls == []


def test_without_measuring_nothing_remembered_is_used_either(time):
    operation = time.operation(2e-3, 1e-3)
    operation.choose(X)
    with measuring(False):
        assert operation.decide(X) == ("vendor", "measuring is switched off")
    assert operation.choose(X) == "native"


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("", 2.0), ("7.5", 7.5)])
def test_the_environment_sets_the_bound(monkeypatch, text, seconds):
    monkeypatch.setenv("TWOFOLD_MEASURE", text)
    assert measured._environment.__wrapped__() == seconds


def test_bounds_that_are_none_are_refused(monkeypatch):
    monkeypatch.setenv("TWOFOLD_MEASURE", "never")
    with pytest.raises(ValueError, match="TWOFOLD_MEASURE: expected a number of seconds, 0 for never, got 'never'"):
        measured._environment.__wrapped__()
    for wrong in (-1, float("nan"), "long"):
        with pytest.raises(ValueError, match="measuring: expected a number of seconds"), measuring(wrong):
            pass


def states():
    return torch.get_rng_state(), random.getstate(), str(np.random.get_state())


def test_the_users_numbers_and_generators_are_left_alone():
    def greedy(x):
        y = x.detach()
        torch.rand(3), y.add_(1)
        return y * 2

    operation = differentiable(forward, backward, vendor=greedy, native=Native(forward, backward, lambda x: "", lambda x: None))
    x, before = torch.zeros(5), states()
    operation.decide(x)
    after = states()
    assert x.tolist() == [0] * 5 and torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_hooks_and_modes_do_not_see_the_trials():
    """A checkpoint counts what forward keeps: with the trials' tensors its second forward pass would not fit the first."""
    operation = differentiable(
        forward, backward, vendor=lambda x: x.exp() * x, native=Native(forward, backward, lambda x: "", lambda x: None)
    )
    x, kept = torch.ones(4, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(1) or t, lambda t: t), FlopCounterMode(display=False) as counted:
        operation.decide(x)
    assert kept == [] and counted.get_total_flops() == 0
    (dx,) = torch.autograd.grad(checkpoint(operation, x * 1, use_reentrant=False).sum(), x)
    assert dx.isfinite().all() and choices.number() == 1


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_who_looks_on_sees_the_default(time):
    operation = time.operation(2e-3, 1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert operation.decide(X) == ("vendor", "autocast settles the precision")
    assert operation.decide(X.to("meta")) == ("vendor", "not measurable")
    assert torch.compile(operation, backend="eager", fullgraph=True)(X).tolist() == [1, 1, 1]
    assert torch.func.grad(lambda x: operation(x).sum())(X).tolist() == [2, 2, 2]
    assert torch.jit.trace(operation, X, check_trace=False)(X).tolist() == [1, 1, 1]
    assert choices.number() == 0 and "native" not in time.calls


@pytest.mark.parametrize("surroundings", [torch.inference_mode, torch.no_grad, lambda: torch.device("meta")])
def test_it_works_wherever_layers_work(time, surroundings):
    operation = time.operation(2e-3, 1e-3)
    with surroundings():
        assert operation.decide(X) == ("native", "measured")


def test_times_are_those_of_the_real_clock():
    """The noise has the layout of the argument and as many numbers, more than are drawn."""
    seen = []

    def look(x):
        seen.append((x.shape, x.stride(), x.std().item()))
        return x.sum()

    x = torch.empty(2, 3, 200, 100).to(memory_format=torch.channels_last)
    times, _ = clock({"a": look}, (x,), 0.01)
    assert 0 < times["a"] < 1e4 and seen[0][:2] == (x.shape, x.stride()) and 0.9 < seen[0][2] < 1.1


def test_a_filled_cache_makes_runs_identical(monkeypatch):
    """The first run measures before it computes; so it computes what the later ones do."""
    runs = []
    for _ in range(3):
        forget(monkeypatch)
        torch.manual_seed(0)
        layer = twofold.nn.Conv2d(20, 24, 3, padding=1)
        x = torch.randn(4, 20, 24, 24, requires_grad=True)
        y = layer(x)
        y.square().sum().backward()
        runs.append((layer.last_route, layer.last_reason, y.detach(), x.grad, layer.weight.grad))
    assert choices.number() == 1 and runs[0][1] == "measured"
    for run in runs[1:]:
        assert run[:2] == runs[0][:2] and all(torch.equal(a, b) for a, b in zip(run[2:], runs[0][2:], strict=True))


def test_the_suite_measures_nothing_by_accident():
    assert os.environ["TWOFOLD_MEASURE"] == "0"
