"""The loop: what it does to the weights step by step, where it stops, and what follows a step that went wrong."""

import copy
import math

import pytest
import torch

from twofold import nn
from twofold.tasks.task import Evaluation, Step
from twofold.train.checkpoints import Checkpoints
from twofold.train.faults import NotFiniteError
from twofold.train.learner import Learner
from twofold.train.loop import Data, judge_epoch, learn
from twofold.train.settings import Settings


class Toy:
    """Fit y = w x to 3; the carried value counts steps; the scores may be scripted."""

    name = "toy"

    def __init__(self, scores=None):
        self.scores, self.carried = scores, []

    def loss(self, model, batch, carried):
        self.carried.append(carried)
        return Step((model(batch) - 3).square().mean(), len(batch), (torch.zeros(len(batch), 1) if carried is None else carried) + 1)

    def evaluate(self, model, batches):
        next(iter(batches))
        return Evaluation({"loss": next(self.scores) if self.scores else 1.0}, {})

    def rank(self, scores):
        return (-scores["loss"],)

    def explain(self, scores):
        return "loss", f"{scores['loss']}"


class Ones:
    def __init__(self, steps=4, broken=()):
        self.count, self.broken = steps, broken

    def steps(self):
        return self.count

    def share(self, step):
        return 1.0

    def epoch(self, number, start=0):
        for index in range(start, self.count):
            yield torch.full((2, 1), math.nan if (number, index) in self.broken else 1.0 + index)


class Quiet:
    """Keeps the states of each epoch's end, and goes back to them."""

    stop = False

    def __init__(self, stop_at=None, folder=None):
        self.stop_at, self.rows, self.better, self.steps, self.backs = stop_at, [], [], 0, 0
        self.kept = Checkpoints(folder) if folder else None

    def step(self, learner, outcome):
        self.steps += 1
        self.stop = self.stop or self.steps == self.stop_at

    def epoch(self, learner, row, better):
        self.rows.append(row)
        self.better.append(better)
        if self.kept:
            self.kept.save(learner.number, learner.states())

    def go_back(self, learner):
        self.backs += 1
        learner.restore(self.kept.load().states, guarded=True)


def start(task=None, steps=4, said=None, **settings):
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    chosen = Settings.of("toy", **{"epochs": 3, "learning_rate": 0.01, "weight_decay": 0.0, **settings})
    return Learner(model, task or Toy(), chosen, steps, tell=said.append if said is not None else print)


def run(watch=None, task=None, broken=(), learner=None, **settings):
    learner, watch = learner or start(task, **settings), watch or Quiet()
    learn(learner, Data(Ones(broken=broken), lambda: [1]), watch)
    return learner, watch


def by_hand(steps, size=0.5):
    torch.manual_seed(0)
    theirs = torch.nn.Linear(1, 1)
    for x in steps:
        theirs.zero_grad()
        (theirs(torch.full((2, 1), x)) - 3).square().mean().backward()
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in theirs.parameters()))
        with torch.no_grad():
            for p in theirs.parameters():
                p -= 0.01 * p.grad * min(1.0, size / norm)
    return theirs


PLAIN = {"optimizer": "sgd", "schedule": "constant", "warmup": 0.0, "clip": 0.5}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_steps_are_those_of_a_loop_written_by_hand(accumulate):
    learner, _ = run(**PLAIN, accumulate=accumulate)
    theirs = by_hand([1.0 + index for _ in range(3) for index in range(4)])
    assert torch.allclose(learner.model.weight, theirs.weight, rtol=1e-5)
    assert torch.allclose(learner.model.bias, theirs.bias, rtol=1e-5)


def test_every_epoch_has_its_row_and_the_best_is_marked():
    learner, watch = run(task=Toy(iter([2.0, 1.0, 1.0])))
    progress = learner.progress
    assert watch.better == [True, True, True]  # of equals the later
    assert [row["epoch"] for row in watch.rows] == [1, 2, 3] and [row["step"] for row in watch.rows] == [4, 8, 12]
    assert (progress.best_epoch, progress.epoch, progress.step) == (3, 3, 0)
    assert progress.history == watch.rows


def test_what_a_batch_carries_reaches_the_next_and_the_next_epoch():
    task = Toy()
    run(task=task)
    assert [0 if seen is None else int(seen[0]) for seen in task.carried] == list(range(12))


@pytest.mark.parametrize(("losses", "best"), [([1.0, 2.0, 2.0, 0.0], 1), ([1.0, 1.0, 1.0, 0.0], 3)])
def test_patience_ends_the_run_where_nothing_gets_better(losses, best):
    learner, watch = run(task=Toy(iter(losses)), epochs=10, patience=2)
    progress = learner.progress
    assert (progress.epoch, progress.best_epoch) == (3, best)
    assert watch.better[-1] is (best == 3)


EVERYTHING = {"ema": 0.9, "l1": 1e-3, "schedule": "plateau", "rate_patience": 1, "optimizer": "adamw"}


@pytest.mark.parametrize("settings", [{}, EVERYTHING, {"optimizer": "nesterov", "max_norm": 1.0}])
@pytest.mark.parametrize("stop_at", [1, 3, 4, 6, 12])
def test_stopped_at_any_step_and_resumed_it_ends_bit_for_bit_the_same(tmp_path, stop_at, settings):
    whole, _ = run(**settings)
    halted, _ = run(watch=Quiet(stop_at), **settings)
    assert halted.number == stop_at
    kept = Checkpoints(tmp_path)
    kept.save(halted.number, halted.states())
    kept.wait()
    torch.manual_seed(99)
    fresh = start(**settings)
    torch.manual_seed(98)
    fresh.restore(kept.load().states)
    run(learner=fresh)
    assert torch.equal(fresh.model.weight, whole.model.weight) and torch.equal(fresh.model.bias, whole.model.bias)
    if whole.average:
        averages = [list(learner.average.state_dict()["average"].values()) for learner in (fresh, whole)]
        assert all(map(torch.equal, *averages))
    strip = [[{k: v for k, v in row.items() if k != "seconds"} for row in learner.progress.history] for learner in (fresh, whole)]
    assert strip[0] == strip[1]


def test_a_stop_does_not_wait_for_the_validation_which_is_made_when_the_run_goes_on(tmp_path):
    """A signal in the middle of judging the second epoch."""
    whole, told = run(**EVERYTHING)

    class Long(Toy):
        def evaluate(self, model, batches):
            for batch in batches:
                self.watch.stop = self.watch.stop or (batch == 2 and len(self.watch.rows) == 1)
            return Evaluation({"loss": 1.0}, {})

    task, watch = Long(), Quiet()
    task.watch, halted = watch, start(task, **EVERYTHING)
    own = halted.model.weight
    learn(halted, Data(Ones(), lambda: [1, 2, 3]), watch)
    progress = halted.progress
    assert (progress.epoch, progress.step, len(watch.rows)) == (1, 4, 1) and halted.unfinished()
    assert torch.equal(own, halted.model.weight)
    kept = Checkpoints(tmp_path)
    kept.save(halted.number, halted.states())
    fresh = start(**EVERYTHING)
    fresh.restore(kept.load().states)
    _, rest = run(learner=fresh)
    assert all(map(torch.equal, fresh.model.parameters(), whole.model.parameters()))
    assert [row["epoch"] for row in rest.rows] == [2, 3] and rest.better == told.better[1:]


def test_a_loss_that_is_no_number_never_reaches_the_weights():
    learner, seen = start(non_finite="stop"), []

    class Keep(Quiet):
        def step(self, learner, outcome):
            seen.append(copy.deepcopy(learner.model.state_dict()))

    with pytest.raises(NotFiniteError, match=r"Training stopped in epoch 2, step 3.*the loss is nan.*batch is broken: 2 of 2 values"):
        run(learner=learner, watch=Keep(), broken=[(1, 2)])
    assert all(torch.equal(value, seen[-1][name]) for name, value in learner.model.state_dict().items())


def test_a_step_that_is_left_out_leaves_no_trace():
    said = []
    learner, watch = run(learner=start(non_finite="skip", said=said, **PLAIN), broken=[(1, 2)])
    theirs = by_hand([1.0 + index for epoch in range(3) for index in range(4) if (epoch, index) != (1, 2)])
    assert torch.allclose(learner.model.weight, theirs.weight, rtol=1e-5)
    assert watch.steps == 12 and [row["epoch"] for row in watch.rows] == [1, 2, 3] and learner.guard.left_out == 1
    assert len(said) == 1 and "The step is left out" in said[0] and "epoch 2, step 3" in said[0]


def test_a_run_that_diverges_goes_back_with_a_lower_rate(tmp_path):
    """The loss is broken, once, in the second epoch: from there on everything is as after the first epoch, with half the rate."""

    class Once(Toy):
        broken = True

        def loss(self, model, batch, carried):
            step = super().loss(model, batch, carried)
            if self.broken and len(self.carried) >= 6:
                self.broken = len(self.carried) < 7  # found again when the culprit is looked for
                return step._replace(loss=step.loss * math.nan)
            return step

    said = []
    learner = start(Once(), non_finite="rollback", said=said, **PLAIN)
    watch = Quiet(folder=tmp_path)
    run(learner=learner, watch=watch)
    assert watch.backs == 1 and learner.guard.rate == 0.5 and learner.progress.epoch == 3
    torch.manual_seed(0)
    theirs = torch.nn.Linear(1, 1)
    for epoch in range(3):
        for x in (1.0, 2.0, 3.0, 4.0):
            theirs.zero_grad()
            (theirs(torch.full((2, 1), x)) - 3).square().mean().backward()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
            with torch.no_grad():
                for p in theirs.parameters():
                    p -= (0.01 if epoch == 0 else 0.005) * p.grad
    assert torch.allclose(learner.model.weight, theirs.weight, rtol=1e-4)
    assert "Back to the last good state (1 of at most 3 times)" in said[0]


def test_states_of_another_model_or_other_settings_are_refused():
    states = start().states()
    with pytest.raises(ValueError, match="resume: the checkpoint has no average: it was written with other settings"):
        start(ema=0.9).restore(states)
    other = start()
    other.model.weight = torch.nn.Parameter(torch.zeros(2, 1))
    with pytest.raises(ValueError, match="resume: the checkpoint belongs to another model or to other settings"):
        other.restore(states)


def test_an_epoch_that_became_shorter_is_refused_not_awaited():
    learner = start()
    learner.progress.step = 9
    with pytest.raises(ValueError, match="9 steps of the epoch are done, but with this data and these settings it has 4"):
        run(learner=learner)


def test_the_time_of_every_phase_is_counted():
    learner, _ = run()
    seconds = learner.clock.seconds
    assert all(seconds[phase] > 0 for phase in ("data", "forward", "backward", "optimiser", "validation"))
    assert sum(learner.clock.shares().values()) == pytest.approx(1)


def test_what_is_judged_is_where_the_model_is():
    class Looks(Toy):
        def evaluate(self, model, batches):
            self.seen = [x.device for x in batches]
            return Evaluation({"loss": 1.0}, {})

    learner = start(Looks())
    learner.model.to("meta")
    judge_epoch(learner, Data(Ones(), lambda: [torch.zeros(2), torch.ones(2)]), Quiet())
    assert learner.task.seen == [torch.device("meta")] * 2
