"""Batches: every picture once, every token once and in order, the same again from the middle."""

import pytest
import torch

from twofold.data.preparation import Preparation
from twofold.data.values import Images, Text
from twofold.train.batches import PictureBatches, TextBatches, pictures_in_order, side_by_side, text_in_order
from twofold.train.shards import Shard


def pictures(count):
    x = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 2, 2).contiguous()
    return Images(x, torch.arange(count), tuple(map(str, range(count))))


KIND = Preparation("L", 2, 2, (0.0,), (1.0,))


@pytest.mark.parametrize(("count", "size"), [(10, 3), (9, 3), (7, 100), (33, 32), (1, 1)])
def test_every_picture_comes_once_an_epoch_with_its_label(count, size):
    batches = PictureBatches(pictures(count), KIND, size, seed=0)
    epoch = list(batches.epoch(0))
    assert len(epoch) == batches.steps() == -(-count // size)
    assert torch.cat([y for _, y, _ in epoch]).sort().values.tolist() == list(range(count))
    for x, y, _ in epoch:
        assert torch.allclose(x[:, 0, 0, 0] * 255, y.float())


def test_no_batch_is_much_smaller_than_the_others():
    sizes = [len(y) for _, y, _ in PictureBatches(pictures(33), KIND, 32, seed=0).epoch(0)]
    assert sizes == [17, 16]


def test_the_order_is_decided_by_seed_and_epoch():
    def order(seed, epoch):
        return torch.cat([y for _, y, _ in PictureBatches(pictures(50), KIND, 8, seed).epoch(epoch)]).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_an_epoch_goes_on_from_the_middle():
    batches = PictureBatches(pictures(50), KIND, 8, seed=3)
    whole, rest = list(batches.epoch(1)), list(batches.epoch(1, start=4))
    assert [y.tolist() for _, y, _ in rest] == [y.tolist() for _, y, _ in whole[4:]]


def test_evaluation_keeps_the_order():
    assert torch.cat([y for _, y, _ in pictures_in_order(pictures(200)._replace(), KIND)]).tolist() == list(range(200))


def text(count):
    return Text(torch.arange(count, dtype=torch.int32), count, ("a",))


def test_streams_stand_side_by_side_and_targets_are_one_token_on():
    x, y = side_by_side(torch.arange(11), 2)
    assert x.t().tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert torch.equal(y, x + 1)


@pytest.mark.parametrize(("count", "streams", "size"), [(101, 4, 7), (100, 3, 8), (12, 11, 64), (65, 1, 64)])
def test_windows_follow_each_other_and_lose_only_the_remainder(count, streams, size):
    windows = list(TextBatches(text(count), streams, size).epoch(0))
    x, y = torch.cat([w.x_TB for w in windows]), torch.cat([w.y_TB for w in windows])
    assert x.shape == ((count - 1) // streams, streams)
    assert torch.equal(y, x + 1) and torch.equal(x[1:], x[:-1] + 1)
    assert [w.fresh for w in windows] == [True] + [False] * (len(windows) - 1)


def test_a_pass_over_the_text_may_take_several_epochs():
    batches = TextBatches(text(101), 4, 5, items_per_epoch=40)  # 5 windows of 20 tokens: 2 an epoch
    seen = [(w.x_TB[0, 0].item(), w.fresh) for epoch in range(3) for w in batches.epoch(epoch)]
    assert seen == [(0, True), (5, False), (10, False), (15, False), (20, False), (0, True)]


def test_streams_go_on_from_the_middle():
    batches = TextBatches(text(301), 4, 5, items_per_epoch=200)
    whole, rest = list(batches.epoch(1)), list(batches.epoch(1, start=3))
    assert [w.x_TB.tolist() for w in rest] == [w.x_TB.tolist() for w in whole[3:]]


def test_a_text_shorter_than_the_streams_is_refused():
    with pytest.raises(ValueError, match=r"text of 32 tokens: expected more than 32.*smaller --batch-size"):
        TextBatches(text(32), 32, 5)


@pytest.mark.parametrize("count", [2, 500, 5000])
def test_evaluation_reads_every_token_but_the_remainder(count):
    windows = list(text_in_order(text(count)))
    streams = windows[0].x_TB.shape[1]
    assert sum(w.y_TB.numel() for w in windows) == (count - 1) // streams * streams


@pytest.mark.parametrize("count", [0, 1])
def test_a_text_without_a_token_to_foretell_is_refused(count):
    with pytest.raises(ValueError, match=f"evaluate: expected a text of at least 2 tokens.*got {count}. Give more text"):
        text_in_order(text(count))


def shards(processes):
    return [Shard(process, processes) for process in range(processes)]


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_the_shards_of_a_batch_are_together_the_batch_of_one_process(processes):
    alone = list(PictureBatches(pictures(33), KIND, 8, seed=1).epoch(2, start=1))
    several = [PictureBatches(pictures(33), KIND, 8, 1, shard) for shard in shards(processes)]
    for step, (whole, *parts) in enumerate(zip(alone, *(batches.epoch(2, start=1) for batches in several), strict=True), 1):
        assert torch.cat([part.y_B for part in parts]).tolist() == whole.y_B.tolist()
        assert torch.equal(torch.cat([part.x_BCHW for part in parts]), whole.x_BCHW)
        for batches, part in zip(several, parts, strict=True):
            assert batches.share(step) == pytest.approx(len(part.y_B) * processes / len(whole.y_B), rel=1e-15)


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_streams_are_shared_out_whole(processes):
    alone = TextBatches(text(301), 7, 5, items_per_epoch=200)
    several = [TextBatches(text(301), 7, 5, 200, shard) for shard in shards(processes)]
    assert {batches.steps() for batches in several} == {alone.steps()}
    for whole, *parts in zip(alone.epoch(1), *(batches.epoch(1) for batches in several), strict=True):
        assert torch.equal(torch.cat([part.x_TB for part in parts], 1), whole.x_TB)
        assert torch.equal(torch.cat([part.y_TB for part in parts], 1), whole.y_TB)
        assert {part.fresh for part in parts} == {whole.fresh}
    streams = [part.x_TB.shape[1] for part in parts]
    assert [batches.share(0) for batches in several] == pytest.approx([own * processes / 7 for own in streams], rel=1e-15)


@pytest.mark.parametrize("count", [2, 3000, 9000])  # 1, 2 and 8 streams
def test_evaluation_counts_everything_once_over_all_shards(count):
    labels = [y for shard in shards(4) for _, y, _ in pictures_in_order(pictures(count % 256), KIND, shard)]
    assert torch.cat(labels).tolist() == list(range(count % 256))
    read = [w.y_TB.flatten() for shard in shards(4) for w in text_in_order(text(count), shard)]
    assert (
        torch.cat(read).sort().values.tolist() == torch.cat([w.y_TB.flatten() for w in text_in_order(text(count))]).sort().values.tolist()
    )


def test_more_processes_than_a_batch_has_items_are_refused():
    wanted = r"5 pictures in batches of at most 4, the smallest batch: expected at least 4, one for each of the 4 processes, got 2\."
    with pytest.raises(ValueError, match=wanted):
        PictureBatches(pictures(5), KIND, 4, 0, Shard(0, 4))
    with pytest.raises(ValueError, match=r"streams of the text \(--batch-size\): expected at least 4.*got 3\. Take fewer processes"):
        TextBatches(text(100), 3, 5, shard=Shard(3, 4))
