"""One's own parts: sets, lists and loaders as batches, losses as tasks, and what is refused."""

from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from twofold import nn
from twofold.layers.heads import WithHeads
from twofold.train.own import OwnBatches, OwnTask
from twofold.train.shards import Shard

SET = TensorDataset(torch.arange(7.0)[:, None], torch.arange(7) % 2)


def seen(batches):
    return [batch[0].flatten().tolist() for batch in batches]


def test_a_set_is_cut_in_an_order_of_its_own_in_every_epoch():
    batches = OwnBatches(SET, 3, seed=1)
    first, again, second = seen(batches.epoch(0)), seen(batches.epoch(0)), seen(batches.epoch(1))
    assert batches.steps() == len(first) == 3 and first == again != second
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(7))
    assert seen(batches.epoch(1, 1)) == second[1:]
    assert seen(batches.in_order()) == [[0, 1, 2], [3, 4, 5], [6]]
    assert seen(OwnBatches(SET, 3, seed=2).epoch(0)) != first


def test_shards_share_every_batch_of_a_set():
    whole = seen(OwnBatches(SET, 4, seed=1).epoch(0))
    halves = [seen(OwnBatches(SET, 4, seed=1, shard=Shard(process, 2)).epoch(0)) for process in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole


@pytest.mark.parametrize("given", [list(DataLoader(SET, 3)), DataLoader(SET, 3)], ids=["list", "loader"])
def test_batches_are_taken_as_they_come(given):
    batches = OwnBatches(given, 99, seed=1)
    assert batches.steps() == 3 and seen(batches.epoch(5)) == [[0, 1, 2], [3, 4, 5], [6]] == seen(batches.in_order())
    assert seen(batches.epoch(0, 2)) == [[6]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (iter([1]), "gone through once for each epoch, got list_iterator"),
        (3, "a source, a data set or an iterable of batches, got int"),
        ([], "got none: the data set is empty"),
        (torch.zeros(5, 2), r"expected batches or a data set, got Tensor of shape \(5, 2\). Tensors x and y\? Give .*TensorDataset"),
    ],
)
def test_what_is_no_data_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        OwnBatches(given, 3, 0)


def test_a_loss_is_a_task_with_exact_means():
    task, model = OwnTask(F.cross_entropy), nn.Linear(1, 2)
    scores = task.evaluate(model, DataLoader(SET, 3)).scores
    x, y = SET.tensors
    assert scores["loss"] == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-5)
    assert scores["accuracy"] == pytest.approx((model(x).argmax(1) == y).double().mean().item())
    assert task.explain(scores)[0] == "accuracy" and task.rank(scores) == (-scores["loss"],)
    assert "accuracy" not in OwnTask(F.mse_loss).evaluate(nn.Linear(1, 1), [(x, x)]).scores


def test_auxiliary_heads_count_three_tenths():
    class Headed(nn.Module):
        def forward(self, x):
            return WithHeads(x, (2 * x,))

    x = torch.tensor([[1.0]])
    assert OwnTask(F.mse_loss).loss(Headed(), (x, 0 * x)).loss.item() == pytest.approx(1 + 0.3 * 4)


@pytest.mark.parametrize(
    ("loss", "batch", "message"),
    [
        (F.cross_entropy, torch.zeros(2), r"expected batches of two, \(input, target\), got Tensor"),
        (F.cross_entropy, (1, 2, 3), "got 3 values"),
        (lambda y, t: F.cross_entropy(y, t, reduction="none"), SET[:3], r"one number, the mean over the batch, got a tensor \(3,\)"),
        (lambda y, t: 1.0, SET[:3], "got float"),
    ],
)
def test_batches_and_losses_of_another_form_are_refused(loss, batch, message):
    with pytest.raises(ValueError, match=message):
        OwnTask(loss).loss(nn.Linear(1, 2), batch)


def test_no_validation_data_are_told():
    with pytest.raises(ValueError, match="the validation data are empty"):
        OwnTask(F.mse_loss).evaluate(nn.Linear(1, 1), [])


class Told:
    """Says that it has `length` batches, and has others."""

    def __init__(self, length, real):
        self.length, self.real = length, real

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter([SET[:3]] * self.real)


class Shrinking:
    """One batch fewer each time."""

    left = 5

    def __iter__(self):
        self.left -= 1
        return iter([SET[:3]] * self.left)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Told(3, 2), "expected 3 batches in every epoch, as Told says, got only 2 in epoch 1"),
        (Told(3, 4), "expected 3 batches in every epoch, as Told says, got more in epoch 1"),
        (Shrinking(), "expected 3 batches in every epoch, as Shrinking had at first, got only 2 in epoch 1"),
    ],
)
def test_an_epoch_of_another_length_is_told_and_not_waited_for(given, message):
    with pytest.raises(ValueError, match=message):
        list(OwnBatches(given, 3, 0).epoch(0))


def test_a_set_needs_no_more_than_a_length_and_items():
    class Squares:
        def __len__(self):
            return 5

        def __getitem__(self, place):
            if place > 4:
                raise IndexError
            return torch.tensor([float(place)]), place

    batches = OwnBatches(Squares(), 2, seed=0)
    assert batches.is_set and sorted(chain(*seen(batches.epoch(0)))) == [0, 1, 2, 3, 4]


def test_the_items_of_a_batch_are_named_by_their_places_in_the_set():
    batches = OwnBatches(SET, 3, seed=1)
    assert [batches.names(2, step) for step in range(3)] == [[int(x) for x in batch] for batch in seen(batches.epoch(2))]
    assert OwnBatches(SET, 3, 1, Shard(1, 2)).names(0, 0) == batches.names(0, 0)[2:]
    assert [len(batches.names(0, step)) for step in range(3)] == [3, 2, 2]  # no tiny last one for batch norm
    assert OwnBatches([SET[:3]], 3, 1).names(0, 0) is None


def test_shares_weigh_the_rows_of_every_process():
    shards = [OwnBatches(SET, 3, seed=1, shard=Shard(process, 2)) for process in range(2)]
    assert [[shard.share(step) for step in range(3)] for shard in shards] == [[4 / 3, 1.0, 1.0], [2 / 3, 1.0, 1.0]]
    assert OwnBatches(SET, 5, 1).share(0) == 1.0


@pytest.mark.parametrize(
    ("given", "size", "message"),
    [
        ([SET[:3]], 3, "batches of one's own cannot be shared over 2 processes. Give a data set"),
        (SET, 1, "a data set of 7 items in batches of at most 1, the smallest batch: expected at least 2, .* got 1. Take fewer processes"),
    ],
)
def test_what_processes_cannot_share_is_refused(given, size, message):
    with pytest.raises(ValueError, match=message):
        OwnBatches(given, size, 0, Shard(0, 2))


def test_what_is_drawn_for_ones_own_data_leaves_torchs_generator_alone():
    before = torch.get_rng_state()
    batches = OwnBatches(SET, 3, seed=1)
    seen(batches.epoch(0))
    seen(batches.in_order())
    assert torch.equal(before, torch.get_rng_state())


def test_inputs_and_targets_may_be_of_any_form():
    """The items are those of the input; boxes, of which each picture has its own number, count for nothing."""
    x = torch.rand(4, 1)
    task = OwnTask(lambda output, target: output.mean() + target["boxes"].mean())

    class Both(nn.Module):
        def forward(self, given):
            return given["a"] + given["b"][0]

    batch = ({"a": x, "b": (x, 3)}, {"boxes": torch.ones(7, 4)})
    step = task.loss(Both(), batch)
    assert step.items == 4 and step.loss.item() == pytest.approx(2 * x.mean().item() + 1)
    assert task.evaluate(Both(), [batch]).scores == {"loss": pytest.approx(step.loss.item())}
    (example,) = task.example(batch)
    assert torch.equal(example["a"], x[:1]) and torch.equal(example["b"][0], x[:1]) and example["b"][1] == 3
    assert OwnTask(lambda output, target: output.sum()).loss(lambda x: torch.ones(1), ("words", None)).items == 1
