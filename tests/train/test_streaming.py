"""Streamed batches are those of pictures in memory, bit for bit, whoever reads; nothing is left behind, and a lost file is named."""

import gc
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import twofold
from twofold.data import holding
from twofold.data.augment import Augmenter, Recipe
from twofold.data.augment_geometry import Geometry
from twofold.data.image_folder import image_folder
from twofold.data.mixing import Mixing
from twofold.data.options import DataOptions
from twofold.data.streamed import PictureFiles
from twofold.data.values import Images
from twofold.train import streaming as module
from twofold.train.batches import PictureBatches, pictures_in_order
from twofold.train.shards import Shard
from twofold.train.streaming import StreamedBatches, batches_of, in_order, read_ahead, streamed_in_order


@pytest.fixture
def sources(tmp_path):
    """The same folder held, and in its files."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(26):
            Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8)).save(tmp_path / name / f"{number:02}.png")
    return [image_folder(tmp_path, DataOptions(hold=hold)) for hold in ("memory", "files")]


def same(one, other):
    one, other = list(one), list(other)
    return len(one) == len(other) > 0 and all(map(equal, one, other))


def equal(batch, other):
    return all(a is b is None or torch.equal(a, b) for a, b in zip(batch, other, strict=True))


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("twofold-pictures")]


VARIED = {"augmenter": Augmenter(Recipe(Geometry(flip="both", rotate=20)), seed=5), "mixing": Mixing(2, mixup=0.4, cutmix=1.0, seed=6)}


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("shard", [Shard(), Shard(1, 3)])
@pytest.mark.parametrize("varied", [{}, VARIED, VARIED | {"mixing": None}, VARIED | {"augmenter": None}])
def test_batches_are_those_of_pictures_in_memory(sources, workers, shard, varied):
    held, filed = sources
    ours = batches_of(filed.train, filed.preparation, 10, 7, shard, workers, **varied)
    theirs = batches_of(held.train, held.preparation, 10, 7, shard, workers, **varied)
    assert (type(ours), type(theirs)) == (StreamedBatches, PictureBatches)
    assert ours.steps() == theirs.steps() == 4
    assert [ours.share(step) for step in range(4)] == [theirs.share(step) for step in range(4)]
    for epoch in (0, 1):
        for start in (0, 2):
            assert same(ours.epoch(epoch, start), theirs.epoch(epoch, start))
    assert list(ours.epoch(0, 4)) == []


@pytest.mark.parametrize("workers", [0, 3])
def test_evaluation_keeps_the_order(sources, workers, monkeypatch):
    held, filed = sources
    monkeypatch.setattr(module, "EVALUATION_BATCH", 3)
    theirs = list(pictures_in_order(held.test, held.preparation))
    ours = list(streamed_in_order(filed.test, filed.preparation, workers=workers))
    assert [len(batch.y_B) for batch in ours] == [3, 3, 2]
    assert torch.equal(torch.cat([b.x_BCHW for b in ours]), torch.cat([b.x_BCHW for b in theirs]))
    parts = [list(in_order(filed.test, filed.preparation, Shard(p, 9), workers)) for p in range(9)]
    assert [len(part) for part in parts] == [1] * 8 + [0]
    assert torch.equal(torch.cat([b.y_B for part in parts for b in part]), held.test.y_B)
    assert same(in_order(held.test, held.preparation), theirs)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_a_file_lost_in_the_middle_is_named_after_the_batches_before_it(sources, workers):
    filed = sources[1].train
    batches = StreamedBatches(filed, sources[1].preparation, 10, 0, workers=workers)
    rows = torch.randperm(len(filed.y_B), generator=torch.Generator().manual_seed(0)).tensor_split(4)[2]
    for row in rows[3:5].tolist():
        (filed.root / filed.files[row]).unlink()
    epoch = batches.epoch(0)
    assert [len(next(epoch).y_B) for _ in range(2)] == [9, 9]
    with pytest.raises(ValueError, match=f"{filed.files[rows[3]]}: there is no such file. It was read without a fault when"):
        next(epoch)
    assert readers() == []


@pytest.mark.parametrize("end", ["close", "drop", "exhaust"])
def test_the_threads_end_with_the_iterator(sources, end):
    epoch = StreamedBatches(sources[1].train, sources[1].preparation, 4, 0).epoch(0)
    next(epoch)
    assert len(readers()) in (1, 2)  # a second one starts when the first has too much to do
    if end == "close":
        epoch.close()
    elif end == "exhaust":
        assert len(list(epoch)) == 8
    del epoch
    gc.collect()
    assert readers() == []


class Watched:
    """Pictures that count who reads them."""

    def __init__(self, parties=1):
        self.y_B, self.names = torch.arange(400), ()
        self.rows, self.door = [], threading.Barrier(parties)

    def pictures(self, numbers_B):
        self.door.wait(timeout=30)
        self.rows += numbers_B.tolist()
        return numbers_B.to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)


def test_two_threads_read_at_once():
    """Each reader waits until another one has come, so a single one would break the barrier."""
    watched = Watched(parties=2)
    read = list(read_ahead(watched, torch.arange(400).split(2 * module.ROWS), 2))
    assert torch.cat(read)[:, 0, 0, 0].tolist() == [number % 256 for number in range(400)]


@pytest.mark.parametrize(("bytes_ahead", "first", "most"), [(1, 40, 60), (4 * 20 * 5, 40, 140), (1 << 30, 40, 360)])
def test_what_is_read_ahead_is_bounded(bytes_ahead, first, most, monkeypatch):
    """One batch beyond that in hand; then as many as the bytes allow, and no more than 16."""
    monkeypatch.setattr(module, "AHEAD", bytes_ahead)
    for taken, limit in ((1, first), (2, most)):
        watched = Watched()
        running = read_ahead(watched, torch.arange(400).split(20), 3)
        for _ in range(taken):
            next(running)
        running.close()
        assert 20 * taken <= len(watched.rows) <= limit


def test_too_many_processes_are_refused(sources):
    with pytest.raises(ValueError, match="the smallest batch: expected at least 10, one for each of the 10 processes, got 9"):
        batches_of(sources[1].train, sources[1].preparation, 10, 0, Shard(0, 10))


def test_pictures_in_memory_can_be_streamed_too(sources):
    held = sources[0]
    assert isinstance(held.train, Images)
    assert same(StreamedBatches(held.train, held.preparation, 10, 7).epoch(3), PictureBatches(held.train, held.preparation, 10, 7).epoch(3))


def test_a_folder_beyond_memory_trains_to_the_same_weights(sources, monkeypatch, tmp_path):
    """And its run judges, foretells and reports without holding it."""
    root = sources[1].train.root
    how = {"model": "lenet5", "epochs": 2, "batch_size": 8, "image_size": 28, "augment": "flip", "quiet": True}
    held = twofold.fit(root, hold="memory", out=tmp_path / "held", **how)
    monkeypatch.setattr(holding, "free_memory", lambda: 1000)
    monkeypatch.setattr(Images, "pictures", None)
    filed = twofold.fit(root, workers=1, out=tmp_path / "filed", **how)
    assert isinstance(filed.open().train, PictureFiles)
    assert all(torch.equal(one, other) for one, other in zip(held.model.parameters(), filed.model.parameters(), strict=True))
    assert [held.metrics[split] for split in ("validation", "test")] == [filed.metrics[split] for split in ("validation", "test")]
    assert filed.evaluate().scores == held.metrics["test"]
    assert filed.evaluate(root).details["probabilities"].shape == (52, 2)
    assert "they stay in their files" in filed.report.read_text()
    assert list(filed.path.rglob("mistakes.png")) and readers() == []
