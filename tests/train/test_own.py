"""One's own parts: sets, lists and loaders as batches, losses as tasks, and what is refused."""

from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from twofold import nn
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
