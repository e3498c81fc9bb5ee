"""Shards: every item in exactly one, and weights that make the mean of parts the mean of the whole."""

import pytest
import torch

from twofold.train.shards import Shard


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("items", [4, 5, 7, 64])
def test_parts_follow_each_other_nearly_equal_and_weigh_to_the_mean_of_all(items, processes):
    values = torch.arange(items, dtype=torch.float64).square()
    shards = [Shard(process, processes) for process in range(processes)]
    parts = [values[shard.part(items)] for shard in shards]
    assert torch.equal(torch.cat(parts), values)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    together = sum(shard.share(items) * part.mean() for shard, part in zip(shards, parts, strict=True)) / processes
    assert torch.allclose(together, values.mean(), rtol=1e-15)


def test_fewer_items_than_processes_are_refused():
    with pytest.raises(ValueError, match=r"streams: expected at least 4, one for each of the 4 processes, got 3\. Take fewer processes\."):
        Shard(0, 4).refuse_fewer("streams", 3, "Take fewer processes.")
