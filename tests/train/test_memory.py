"""Memory gone: the batch in parts gives the same gradient, whatever the parts; and no more parts than needed."""

import os
import subprocess
import sys

import pytest
import torch

from twofold import nn
from twofold.layers.losses import cross_entropy
from twofold.models.language import LanguageConfig, LanguageModel
from twofold.tasks.classify import Classification, Pictures
from twofold.tasks.language import Language, Window
from twofold.train.memory import NoRoomError, Portion, Room, handed_out, is_out_of_memory, item_count, join, split
from twofold.train.shards import Shard

B, T, V = 7, 5, 6
CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."


class Narrow(torch.nn.Module):
    """Memory for `most` items at a time, along an axis."""

    def __init__(self, inside, most, axis=0, error=None):
        super().__init__()
        self.inside, self.most, self.axis, self.error, self.seen = inside, most, axis, error or RuntimeError(CPU), []

    def forward(self, x, *more):
        self.seen.append(x.shape[self.axis])
        y = self.inside(x, *more)
        if x.shape[self.axis] > self.most:
            raise self.error
        return y


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4))


def text():
    torch.manual_seed(0)
    return LanguageModel(LanguageConfig(V, 4, 5, 2))


def pictures():
    return Pictures(torch.randn(B, 1, 5, 5, generator=torch.Generator().manual_seed(1)), torch.arange(B) % 4)


def window():
    codes = torch.randint(V, (T + 1, B), generator=torch.Generator().manual_seed(1))
    return Window(codes[:-1], codes[1:], False)


def state():
    return tuple(torch.randn(2, B, 5, generator=torch.Generator().manual_seed(seed)) for seed in (2, 3))


CASES = {
    "pictures": (cnn, Classification(tuple("abcd")), pictures, lambda: None, 0),
    "text": (text, Language(), window, state, 1),
}


def step(model, task, batch, carried, room, said=None):
    """One step as the loop makes it."""
    said = [] if said is None else said
    model.zero_grad()

    def learn(portion):
        found = task.loss(model, portion.batch, portion.carried)
        (found.loss * portion.share).backward()
        return found._replace(loss=found.loss.detach())

    done = room.step(batch, carried, learn, model.zero_grad, said.append)
    return done, [weight.grad.clone() for weight in model.parameters()]


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("parts", [2, 3, 4, 7, 50])
def test_the_parts_have_the_gradient_of_the_whole(kind, parts):
    build, task, batch, carried, _ = CASES[kind]
    wanted, theirs = step(build(), task, batch(), carried(), Room())
    done, ours = step(build(), task, batch(), carried(), Room(accumulate=parts))
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(ours, theirs, strict=True))
    assert done.loss.item() == pytest.approx(wanted.loss.item(), rel=1e-6) and done.items == wanted.items
    if wanted.carried is not None:
        assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(done.carried, wanted.carried, strict=True))


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize(("most", "seen"), [(7, [7]), (4, [7, 4, 3]), (3, [7, 4, 2, 2, 2, 1]), (1, [7, 4, 2, *[1] * 7])])
def test_where_memory_ends_the_parts_are_halved_until_they_fit(kind, most, seen):
    build, task, batch, carried, axis = CASES[kind]
    said, room, model = [], Room(), Narrow(build(), most, axis)
    _, ours = step(model, task, batch(), carried(), room, said)
    _, theirs = step(build(), task, batch(), carried(), Room())
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(ours, theirs, strict=True))
    assert model.seen == seen
    parts = [2, 4, 7][: len(said)]
    assert room.parts == ([1, *parts])[-1]
    sizes = [7, 4, 2][: len(said)]
    assert said == [
        f"Memory ended with {size} items at a time. From here on a batch of 7 is taken in {part} parts, whose gradients add up to the same."
        for size, part in zip(sizes, parts, strict=True)
    ]
    model.seen.clear()
    step(model, task, batch(), carried(), room, said)
    assert max(model.seen) <= most and len(said) == len(parts)  # remembered, and not said again
    again = Room()
    again.load_state_dict(room.state_dict())
    assert again == room


def test_what_was_asked_for_is_halved_from_there():
    room = Room(accumulate=2)
    step(Narrow(cnn(), 2), Classification(tuple("abcd")), pictures(), None, room)
    assert room.parts == 4


def test_where_it_does_not_help_or_is_not_wanted_the_run_stops():
    task = Classification(tuple("abcd"))
    with pytest.raises(
        NoRoomError, match=r"memory ends with a single item at a time: \[enforce fail.*Take a smaller model, pictures or windows"
    ):
        step(Narrow(cnn(), 0), task, pictures(), None, Room())
    with pytest.raises(NoRoomError, match=r"memory ends with 7 items at a time.* Take a smaller batch_size, accumulate=2, or memory=halve"):
        step(Narrow(cnn(), 3), task, pictures(), None, Room(memory="stop"))
    with pytest.raises(RuntimeError, match="another matter"):
        step(Narrow(cnn(), 3, error=RuntimeError("another matter")), task, pictures(), None, Room())


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (RuntimeError(CPU), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shape '[2]' is invalid"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_memory_has_ended(error, is_one):
    assert is_out_of_memory(error) is is_one


def test_weights_that_do_not_follow_from_the_rows():
    """Targets that are masked: the mean is over those that count."""
    torch.manual_seed(0)
    layer, x_BD, y_B = nn.Linear(3, 4), torch.randn(5, 3), torch.tensor([1, -100, -100, 2, 3])

    def gradient(portions):
        layer.zero_grad()
        for (x, y), _, share, _ in portions:
            (cross_entropy(layer(x), y) * share).backward()
        return layer.weight.grad.clone()

    portions = split((x_BD, y_B), 2, weigh=lambda part: float((part[1] >= 0).sum()))
    assert [portion.share for portion in portions] == pytest.approx([1 / 3, 2 / 3])
    assert torch.allclose(gradient(portions), gradient(split((x_BD, y_B), 1)), atol=1e-6)


def test_every_part_has_the_rows_of_all_that_has_rows():
    batch = {
        "x_BCHW": torch.arange(3)[:, None, None, None],
        "boxes": ["a", "b", "c"],
        "scale_N": torch.ones(9),
        "flip": True,
        "pair": (torch.arange(3),) * 2,
    }
    first, second = split(batch, 2)
    assert (first.share, first.last, second.share, second.last) == (2 / 3, False, 1 / 3, True)
    assert first.batch["x_BCHW"].flatten().tolist() == [0, 1] and first.batch["boxes"] == ["a", "b"] and second.batch["boxes"] == ["c"]
    assert second.batch["scale_N"] is batch["scale_N"] and second.batch["flip"] is True
    assert [part.tolist() for part in first.batch["pair"]] == [[0, 1], [0, 1]]
    assert split(batch, 1) == [Portion(batch, None, 1.0, True)]
    cut = [part.carried for part in split(window(), 3, state())]
    assert all(torch.equal(*pair) for pair in zip(join(cut), state(), strict=True)) and join([None, None]) is None


def test_states_of_processes_are_handed_out_to_others():
    h, c = torch.arange(10.0).view(1, 5, 2), torch.arange(5)
    left = [(h[:, part], c[part]) for part in (Shard(process, 2).part(5) for process in range(2))]
    assert handed_out(left, Shard(1, 2)) is left[1]
    for processes in (1, 3):
        for process in range(processes):
            part = Shard(process, processes).part(5)
            mine = handed_out(left, Shard(process, processes))
            assert torch.equal(mine[0], h[:, part]) and torch.equal(mine[1], c[part])
    assert handed_out([None, None], Shard(2, 3)) is None


def test_all_processes_can_be_held_to_the_same_number_of_parts():
    assert [Room(4, most=most).portions for most in (None, 3, 9)] == [4, 3, 4]


def test_what_cannot_be_split_is_refused():
    with pytest.raises(ValueError, match=r"split: expected tensors with the same number of items, got a batch in which 0 has 3, 1 has 4"):
        item_count((torch.zeros(3), torch.zeros(4)))
    with pytest.raises(ValueError, match="there is no tensor in str"):
        split("batch", 2)
    with pytest.raises(ValueError, match=r"expected a carried state of 7 rows, \(..., B=7, U\), got \(2, 3, 5\) in 0"):
        split(window(), 2, (torch.zeros(2, 3, 5),))


LIMITED = """
import resource, torch
from twofold.tasks.task import Step
from twofold.train.memory import Portion, Room
torch.set_num_threads(1)
layer = torch.nn.Linear(1, 1)
def learn(portion):
    loss = layer(portion.batch).expand(-1, 1 << 22).tanh().mean()  # 16 MB an item, and as much again on the way back
    (loss * portion.share).backward()
    return Step(loss.detach(), len(portion.batch), None)
learn(Portion(torch.ones(1, 1), None, 1.0, True))
layer.zero_grad()
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + (150 << 20), resource.RLIM_INFINITY))
room, said = Room(), []
step = room.step(torch.ones(16, 1), None, learn, layer.zero_grad, said.append)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
whole = layer(torch.ones(1, 1)).tanh().mean()
ours = layer.weight.grad.clone(); layer.zero_grad(); whole.backward()
assert torch.allclose(ours, layer.weight.grad, rtol=1e-3), (ours, layer.weight.grad)
assert room.parts in (4, 8, 16) and len(said) >= 2 and step.items == 16, (room, said)
print("fits in", room.parts, "parts")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory as Linux has them")
def test_a_real_limit_of_memory():
    child = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert child.returncode == 0 and child.stdout.startswith("fits in"), child.stderr[-2000:]
