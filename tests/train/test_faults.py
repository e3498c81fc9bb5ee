"""Numbers gone wrong: whatever breaks, and whatever is wanted, no weight and no average ever sees it; and everything is bounded."""

import copy
import math

import pytest
import torch
from pydantic import ValidationError

from twofold import nn
from twofold.tasks.classify import Classification, Pictures
from twofold.train.culprit import Fault, find_fault, find_unsound
from twofold.train.faults import IN_A_ROW, Guard, NotFiniteError, Safety, judge
from twofold.train.moment import Moment

STEPS = 8
TASK = Classification(("a", "b", "c"))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


class Loop:
    """The loop as it is meant to be, on paper: `broken` says what breaks in which step, how many times."""

    def __init__(self, safety, broken, kind="", times=1, left_out=()):
        self.net, self.guard, self.broken, self.kind, self.times = Net(), Guard(safety), broken, kind, times
        self.optimizer = torch.optim.AdamW(self.net.parameters(), 0.01)
        self.average = copy.deepcopy(self.net.state_dict())
        self.step, self.rates, self.said, self.trail = 0, [], [], []
        self.left_out = left_out
        self.net.head.weight.register_hook(lambda g: torch.where(torch.arange(4) == 1, math.nan, g) if self.now("gradient") else None)
        self.good = self.state()

    def state(self):
        return copy.deepcopy((self.net.state_dict(), self.optimizer.state_dict(), self.average, self.step, torch.get_rng_state()))

    def now(self, kind):
        return self.kind == kind and self.step == self.broken and self.times > 0

    def batch(self):
        generator = torch.Generator().manual_seed(self.step)
        batch = Pictures(torch.randn(6, 1, 6, 6, generator=generator), torch.arange(6) % 3)
        if self.now("input"):
            batch.x_BCHW[2, 0, 1, 1] = math.inf
        return batch

    def loss(self, batch):
        loss = TASK.loss(self.net, batch).loss
        return loss * math.nan if self.now("loss") else loss

    def run(self):
        moment = Moment(self.net)
        while self.step < STEPS:
            if self.step in self.left_out:
                self.step += 1
                continue
            if self.now("buffer"):
                self.net.layers[1].running_var[1] = math.nan
            batch = self.batch()
            moment.take()
            self.optimizer.zero_grad()
            loss = self.loss(batch)
            loss.backward()
            norm = torch.linalg.vector_norm(torch.stack([w.grad.norm() for w in self.net.parameters()])).item()
            well = judge(loss.item(), norm)
            unsound = find_unsound(self.net) if well and self.step % 2 else None  # as before a checkpoint
            if not well or unsound is not None:
                moment.put_back()
                fault = unsound or find_fault(self.net, lambda batch=batch: self.loss(batch), batch)
                action, said = self.guard.decide(fault, f"epoch 1, step {self.step + 1}", loss.item(), norm)
                self.said.append((action, fault, said))
                self.times -= 1
                if action == "stop":
                    raise NotFiniteError(said)
                if action == "rollback":
                    weights, optimizer, self.average, self.step, random = copy.deepcopy(self.good)
                    self.net.load_state_dict(weights)
                    self.optimizer.load_state_dict(optimizer)
                    torch.set_rng_state(random)
                else:
                    self.step += 1
                continue
            self.optimizer.param_groups[0]["lr"] = rate = 0.01 * self.guard.rate
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimizer.step()
            self.guard.passed()
            for name, x in self.net.state_dict().items():
                assert x.isfinite().all() or self.kind == "buffer"
                self.average[name] = 0.9 * self.average[name] + 0.1 * x
            self.rates.append(rate)
            self.step += 1
            if self.step == 3:
                self.good = self.state()
        return self


def same(one, two):
    values = (
        (a, b)
        for x, y in ((one.net.state_dict(), two.net.state_dict()), (one.average, two.average))
        for a, b in zip(x.values(), y.values(), strict=True)
    )
    return all(torch.equal(a, b) for a, b in values)


def untouched():
    return Loop(Safety(), None).run()


PLACES = {"input": "batch", "loss": "loss", "gradient": "backward", "buffer": "buffers"}
KINDS = {"input": "Conv2d", "loss": "", "gradient": "Linear", "buffer": "BatchNorm2d"}


@pytest.mark.parametrize("kind", PLACES)
def test_stop(kind):
    loop = Loop(Safety(non_finite="stop"), 5, kind)
    before = {}
    loop.net.register_forward_pre_hook(lambda *_: before.update(copy.deepcopy(loop.state()[0])))
    with pytest.raises(NotFiniteError, match=r"Training stopped in epoch 1, step 6: the loss is .* non_finite=skip or non_finite=rollback"):
        loop.run()
    ((_, fault, said),) = loop.said
    assert (fault.place, fault.kind) == (PLACES[kind], KINDS[kind])
    assert all(torch.equal(x.nan_to_num(7), before[name].nan_to_num(7)) for name, x in loop.net.state_dict().items())
    if kind == "input":
        assert "in items of the batch 2." in said and "layers.0 (Conv2d)" in said and "Mend the data." in said


@pytest.mark.parametrize("kind", ["input", "loss", "gradient"])
def test_a_step_that_is_left_out_leaves_no_trace(kind):
    loop = Loop(Safety(non_finite="skip"), 5, kind).run()
    assert same(loop, Loop(Safety(), None, left_out=(5,)).run()) and not same(loop, untouched())
    ((action, fault, said),) = loop.said
    assert action == "skip" and fault.place == PLACES[kind] and said.startswith("The step is left out in epoch 1, step 6: the loss is ")
    assert loop.guard.state_dict() == {"rate": 1.0, "rolled_back": 0, "left_out": 1, "in_a_row": 0}


def test_to_leave_out_a_step_does_not_mend_a_buffer():
    with pytest.raises(NotFiniteError, match=r"running_var \(BatchNorm2d\) is not finite. To leave out the step would not mend the model"):
        Loop(Safety(non_finite="skip"), 5, "buffer").run()


@pytest.mark.parametrize("kind", ["loss", "gradient", "buffer"])
def test_back_to_the_last_good_state_with_a_lower_rate(kind):
    loop = Loop(Safety(rate_cut=0.25), 5, kind).run()
    assert loop.rates == [0.01] * 5 + [0.0025] * 5  # steps 0 to 4, then 3 to 7 again
    assert [(action, said[:82]) for action, _, said in loop.said] == [
        ("rollback", "Back to the last good state (1 of at most 3 times), with 0.25 of the learning rate"),
    ]  # fmt: skip
    assert same(Loop(Safety(rate_cut=1.0), 5, kind).run(), untouched())  # it goes the same way again
    assert all(x.isfinite().all() for x in (*loop.net.state_dict().values(), *loop.average.values()))


def test_a_broken_batch_is_left_out_not_gone_back_for():
    loop = Loop(Safety(), 5, "input").run()
    assert same(loop, Loop(Safety(), None, left_out=(5,)).run())
    assert loop.said[0][2].endswith("To go back would not make the batch whole.") and loop.guard.rolled_back == 0


def test_going_back_is_bounded():
    loop = Loop(Safety(rollbacks=2), 5, "loss", times=99)
    with pytest.raises(NotFiniteError, match=r"The run went back 2 times already, as often as rollbacks allows. Likely the learning rate"):
        loop.run()
    assert [action for action, *_ in loop.said] == ["rollback", "rollback", "stop"] and loop.guard.rate == 0.25


def test_leaving_out_is_bounded_but_only_in_a_row():
    guard, fault = Guard(Safety(non_finite="skip")), Fault("loss")
    for _ in range(3 * IN_A_ROW):
        assert guard.decide(fault, "here", math.nan, 1.0).action == "skip"
        guard.passed()
    assert [guard.decide(fault, "here", math.nan, 1.0).action for _ in range(IN_A_ROW + 1)] == ["skip"] * IN_A_ROW + ["stop"]
    assert guard.decide(fault, "here", math.nan, 1.0).said.endswith(f"The {IN_A_ROW} steps before it were left out, too. Likely the "
                                                                    "learning rate is too high: try a tenth of it.")  # fmt: skip


def test_the_counts_are_kept():
    guard = Guard(Safety(rate_cut=0.1))
    guard.decide(Fault("loss"), "here", math.nan, 1.0)
    again = Guard(Safety(rate_cut=0.1))
    again.load_state_dict(guard.state_dict())
    assert again == guard and again.rate == 0.1


@pytest.mark.parametrize(
    ("loss", "norm", "good"), [(1.0, 2.0, True), (math.nan, 1.0, False), (1.0, math.inf, False), (-math.inf, 1.0, False)]
)
def test_a_step_is_good_where_loss_and_norm_are_numbers(loss, norm, good):
    assert judge(loss, norm) is good


@pytest.mark.parametrize("wrong", [{"non_finite": "ignore"}, {"rollbacks": 0}, {"rate_cut": 0}, {"rate_cut": 1.5}, {"memory": "more"}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Safety(**wrong)
