"""The loop: what it does to the weights step by step, and where it stops."""

import copy
import math

import pytest
import torch

from twofold import nn
from twofold.tasks.task import Evaluation, Step
from twofold.train.loop import Data, NotFiniteError, learn
from twofold.train.optimizers import build_optimizer
from twofold.train.progress import Progress, load_progress, save_progress
from twofold.train.settings import Settings


class Toy:
    """Fit y = w x to 3; the carried value counts steps; the scores may be scripted."""

    name = "toy"

    def __init__(self, scores=None):
        self.scores, self.carried = scores, []

    def loss(self, model, batch, carried):
        self.carried.append(carried)
        return Step((model(batch) - 3).square().mean(), len(batch), (carried or 0) + 1)

    def evaluate(self, model, batches):
        next(iter(batches))
        return Evaluation({"loss": next(self.scores) if self.scores else 1.0}, {})

    def rank(self, scores):
        return (-scores["loss"],)

    def explain(self, scores):
        return "loss", f"{scores['loss']}"


class Ones:
    def __init__(self, steps=4, broken=None):
        self.count, self.broken = steps, broken

    def steps(self):
        return self.count

    def epoch(self, number, start=0):
        for index in range(start, self.count):
            yield torch.full((2, 1), math.nan if (number, index) == self.broken else 1.0 + index)


class Quiet:
    stop = False

    def __init__(self, stop_at=None):
        self.stop_at, self.rows, self.better, self.steps = stop_at, [], [], 0

    def step(self, progress, loss, rate):
        self.steps += 1
        self.stop = self.stop or self.steps == self.stop_at

    def epoch(self, progress, row, better):
        self.rows.append(row)
        self.better.append(better)


def start(**settings):
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    chosen = Settings.of("toy", **{"epochs": 3, "learning_rate": 0.01, "weight_decay": 0.0, **settings})
    return model, build_optimizer(model, chosen.optimisation), chosen


def run(watch=None, task=None, broken=None, progress=None, **settings):
    model, optimizer, chosen = start(**settings)
    progress, watch = progress or Progress(), watch or Quiet()
    learn(model, task or Toy(), Data(Ones(broken=broken), lambda: [1]), chosen, optimizer, progress, watch)
    return model, optimizer, progress, watch, chosen


def test_the_steps_are_those_of_a_loop_written_by_hand():
    model, *_ = run(optimizer="sgd", schedule="constant", warmup=0.0, momentum=0.0, clip=0.5)
    torch.manual_seed(0)
    theirs = torch.nn.Linear(1, 1)
    for _ in range(3):
        for index in range(4):
            theirs.zero_grad()
            (theirs(torch.full((2, 1), 1.0 + index)) - 3).square().mean().backward()
            norm = math.sqrt(sum(p.grad.square().sum().item() for p in theirs.parameters()))
            with torch.no_grad():
                for p in theirs.parameters():
                    p -= 0.01 * p.grad * min(1.0, 0.5 / norm)
    assert torch.allclose(model.weight, theirs.weight, rtol=1e-5) and torch.allclose(model.bias, theirs.bias, rtol=1e-5)


def test_every_epoch_has_its_row_and_the_best_is_marked():
    _, _, progress, watch, _ = run(task=Toy(iter([2.0, 1.0, 1.0])))
    assert watch.better == [True, True, True]  # of equals the later
    assert [row["epoch"] for row in watch.rows] == [1, 2, 3] and [row["step"] for row in watch.rows] == [4, 8, 12]
    assert (progress.best_epoch, progress.epoch, progress.step) == (3, 3, 0)
    assert progress.history == watch.rows


def test_what_a_batch_carries_reaches_the_next_and_the_next_epoch():
    task = Toy()
    run(task=task)
    assert task.carried == [None, *range(1, 12)]


@pytest.mark.parametrize(("losses", "best"), [([1.0, 2.0, 2.0, 0.0], 1), ([1.0, 1.0, 1.0, 0.0], 3)])
def test_patience_ends_the_run_where_nothing_gets_better(losses, best):
    _, _, progress, watch, _ = run(task=Toy(iter(losses)), epochs=10, patience=2)
    assert (progress.epoch, progress.best_epoch) == (3, best)
    assert watch.better[-1] is (best == 3)


@pytest.mark.parametrize("stop_at", [1, 3, 4, 6, 12])
def test_stopped_at_any_step_and_resumed_it_ends_bit_for_bit_the_same(tmp_path, stop_at):
    whole, _, progress, *_ = run(patience=0)
    model, optimizer, halted, watch, chosen = run(watch=Quiet(stop_at))
    assert (halted.epoch, halted.step) == divmod(stop_at, 4)
    save_progress(tmp_path / "state" / "run.pt", halted, model, optimizer)
    torch.manual_seed(99)
    fresh, other, _ = start()
    torch.manual_seed(98)
    loaded = load_progress(tmp_path / "state" / "run.pt", fresh, other)
    learn(fresh, Toy(), Data(Ones(), lambda: [1]), chosen, other, loaded, Quiet())
    assert torch.equal(fresh.weight, whole.weight) and torch.equal(fresh.bias, whole.bias)
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in progress.history]
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in loaded.history] == strip


def test_a_loss_that_is_no_number_never_reaches_the_weights():
    model, optimizer, chosen = start()
    seen = []

    class Keep(Quiet):
        def step(self, progress, loss, rate):
            seen.append(copy.deepcopy(model.state_dict()))

    with pytest.raises(NotFiniteError, match=r"epoch 2, step 3: the loss is nan.*learning rate .* too high"):
        learn(model, Toy(), Data(Ones(broken=(1, 2)), lambda: [1]), chosen, optimizer, Progress(), Keep())
    assert all(torch.equal(value, seen[-1][name]) for name, value in model.state_dict().items())


def test_an_epoch_that_became_shorter_is_refused_not_awaited():
    with pytest.raises(ValueError, match="9 steps of the epoch are done, but with this data and these settings it has 4"):
        run(progress=Progress(step=9))
