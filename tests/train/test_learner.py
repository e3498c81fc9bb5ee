"""The learner: its step is that of a loop written by hand, bit for bit, and what it keeps comes back."""

import math
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F

from twofold.tasks.task import Step
from twofold.train.checkpoints import random_states
from twofold.train.faults import NotFiniteError
from twofold.train.learner import Learner
from twofold.train.own import OwnTask
from twofold.train.settings import Settings

PLAIN = {"optimizer": "sgd", "learning_rate": 0.1, "schedule": "constant", "warmup": 0.0, "clip": 0.0, "weight_decay": 0.0}
RAGGED = {"boxes": torch.rand(5, 4), "labels": torch.zeros(3)}


def net(limit=99):
    """With batch norm and dropout; it finds no memory for more items than `limit` at once."""

    class Net(torch.nn.Sequential):
        def forward(self, x):
            if self.training and len(x) > limit:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
            return super().forward(x)

    torch.manual_seed(0)
    return Net(torch.nn.Linear(6, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(16, 3))


def batches(count=6):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 6, generator=generator), torch.randint(0, 3, (16,), generator=generator)) for _ in range(count)]


def learner(model=None, task=None, said=None, **settings):
    chosen = Settings.of("own", **{**PLAIN, **settings})
    return Learner(model or net(), task or OwnTask(F.cross_entropy), chosen, 6, tell=said.append if said is not None else print)


def taught(ours, given=None):
    torch.manual_seed(3)
    ours.begin()
    return [ours.step(batch) for batch in given or batches()]


def same(ours, theirs):
    return all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))


def by_hand(parts=1, average=None):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.manual_seed(3)
    for x, y in batches():
        optimizer.zero_grad()
        for part in range(parts):
            rows = slice(16 // parts * part, 16 // parts * (part + 1))
            (F.cross_entropy(model(x[rows]), y[rows]) / parts).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("parts", [1, 4])
def test_the_steps_are_those_of_a_plain_loop_bit_for_bit(parts):
    ours = learner(accumulate=parts)
    outcomes = taught(ours)
    assert same(ours.model, by_hand(parts))
    assert all(outcome.rate == 0.1 and not outcome.action and not outcome.stop and outcome.norm > 0 for outcome in outcomes)
    assert ours.number == 6 and ours.progress.items == 96


def test_where_memory_ends_the_halves_add_up_to_the_same():
    """In the first step the batch is halved twice, which is said; from then on it is taken so from the start."""
    said = []
    ours = learner(net(limit=4), said=said)
    taught(ours)
    assert same(ours.model, by_hand(4)) and len(said) == 2 and "a batch of 16 is taken in 4 parts" in said[1]


def test_a_batch_that_cannot_be_parted_is_no_riddle_where_memory_ends():
    ours = learner(net(limit=4), OwnTask(lambda output, target: output.mean()))
    with pytest.raises(ValueError, match="memory ends: .*The batch cannot be taken in parts: .*1.boxes has 5"):
        taught(ours, [(torch.zeros(8, 6), RAGGED)])


@pytest.mark.parametrize("action", ["stop", "skip"])
def test_a_broken_batch_of_whatever_form_is_named(action):
    said, x = [], torch.zeros(8, 6)
    x[5] = math.nan
    ours = learner(task=OwnTask(lambda output, target: output.mean() + target["boxes"].mean()), said=said, non_finite=action)
    before = {name: value.clone() for name, value in ours.model.state_dict().items()}
    if action == "stop":
        with pytest.raises(NotFiniteError, match="6 of 48 values of 0 are not finite, in items of the batch 5"):
            taught(ours, [(x, RAGGED)])
    else:
        assert taught(ours, [(x, RAGGED)])[0].action == "skip" and "6 of 48 values of 0" in said[0]
        assert ours.progress.items == 0 and ours.progress.step == 1
    assert all(torch.equal(value, before[name]) for name, value in ours.model.state_dict().items())


def test_a_broken_item_is_named_in_the_part_in_which_it_is_taken():
    x, y = batches(1)[0]
    x[13] = math.inf
    with pytest.raises(NotFiniteError, match="in samples picture 13"):
        ours = learner(accumulate=4, non_finite="stop")
        ours.names = lambda epoch, step: [f"picture {place}" for place in range(16)]
        taught(ours, [(x, y)])


EVERYTHING = {"ema": 0.9, "optimizer": "nesterov", "schedule": "plateau", "rate_patience": 1, "clip": 1.0, "accumulate": 2}


def test_states_bring_everything_back():
    whole, half, rest = (learner(**EVERYTHING) for _ in range(3))
    taught(whole)
    taught(half, batches()[:4])
    states = half.states()
    torch.manual_seed(99)
    rest.begin()
    rest.restore(states)
    for batch in batches()[4:]:
        rest.step(batch)
    assert same(rest.model, whole.model) and rest.number == whole.number
    averages = [list(each.average.state_dict()["average"].values()) for each in (rest, whole)]
    assert all(map(torch.equal, *averages))


def test_going_back_forgets_nothing_that_was_learnt_of_the_machine_and_of_the_faults():
    ours = learner()
    states = ours.states()
    ours.guard.rolled_back, ours.guard.rate, ours.room.parts, ours.clock.seconds["data"] = 2, 0.25, 8, 99.0
    ours.restore(states, guarded=True)
    assert (ours.guard.rolled_back, ours.guard.rate, ours.room.parts, ours.clock.seconds["data"]) == (2, 0.25, 8, 99.0)
    ours.restore(states)
    assert (ours.guard.rolled_back, ours.guard.rate, ours.room.parts, ours.clock.seconds["data"]) == (0, 1.0, 1, 0.0)


def test_a_share_weighs_the_gradient_and_a_given_rate_replaces_the_schedules():
    """A shard of a batch whose gradient counts one and a half times, at another rate than the schedule's."""
    model, ours = net(), learner(clip=0.0)
    x, y = batches(1)[0]
    torch.manual_seed(3)
    F.cross_entropy(model(x), y).mul(1.5).backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.3 * p.grad
    torch.manual_seed(3)
    ours.begin()
    assert ours.step((x, y), share=1.5, rate=0.3).rate == 0.3
    assert all(map(torch.allclose, ours.model.parameters(), model.parameters()))


class Scaled:
    """A scale as fp16 has it, on a processor: it sees by itself that a gradient is not finite."""

    def __init__(self, scale):
        self.now = scale

    def scale(self, loss):
        return loss * self.now

    def unscale_(self, optimizer):
        for p in optimizer.param_groups[0]["params"]:
            p.grad.mul_(1 / self.now)

    def step(self, optimizer):
        pass

    def update(self):
        self.now /= 2

    def get_scale(self):
        return self.now


class Exploding(OwnTask):
    """A finite loss with a gradient that is not, or, asked for, a loss that is not either."""

    def __init__(self, loss_too):
        super().__init__(F.cross_entropy)
        self.loss_too = loss_too

    def loss(self, model, batch, carried=None):
        step = super().loss(model, batch)
        bad = step.loss * math.inf if self.loss_too else (step.loss - step.loss.detach()).abs().sqrt() + 1
        return step._replace(loss=bad)


@pytest.mark.parametrize(("scale", "loss_too", "ends"), [(4.0, False, False), (0.5, False, True), (4.0, True, True)])
def test_too_large_a_scale_is_lowered_and_what_it_does_not_explain_is_a_fault(scale, loss_too, ends):
    ours = learner(task=Exploding(loss_too), non_finite="stop")
    ours.scaler = Scaled(scale)
    if ends:
        with pytest.raises(NotFiniteError, match="Training stopped in epoch 1, step 1"):
            taught(ours, batches(1))
        return
    assert taught(ours, batches(1))[0].action == "" and (ours.progress.step, ours.progress.items) == (1, 0)


def test_one_process_goes_on_with_the_states_of_two():
    ours = learner()
    states = ours.states()
    torch.manual_seed(7)
    there, carried = random_states(), [torch.ones(1, 3, 2), torch.zeros(1, 2, 2)]
    ours.restore({**states, "random": [there, states["random"][0]], "carried": carried})
    assert torch.equal(ours.progress.carried, torch.cat(carried, 1)) and torch.equal(torch.get_rng_state(), there["torch"])


@pytest.mark.parametrize(("last", "kept"), [(1.0, True), (math.nan, False), (math.inf, False)])
def test_after_a_step_that_is_left_out_the_state_is_kept_where_all_of_it_is_finite(last, kept):
    State = namedtuple("State", "h c")
    state = State(torch.ones(2, 3), (torch.tensor([[0.0], [last]]),))

    class Broken(OwnTask):
        def loss(self, model, batch, carried=None):
            return Step(model(batch).mean() * math.nan, len(batch), state)

    learner = Learner(torch.nn.Linear(1, 1), Broken(F.mse_loss), Settings.of("own", non_finite="skip", **PLAIN), 4)
    assert learner.step(torch.ones(2, 1)).action == "skip"
    assert (learner.progress.step, learner.progress.carried) == (1, state if kept else None)
