"""The keeper: the best weights and no others, a disk that refuses, checkpoints in time, and the way back to the best epoch."""

import pytest
import torch

from twofold import nn
from twofold.tasks.classify import Classification
from twofold.train.checkpoints import Keeping
from twofold.train.folder import RunFolder
from twofold.train.keeper import Keeper
from twofold.train.learner import Learner
from twofold.train.settings import Settings

ROW = {"epoch": 1, "validation": {"accuracy": 0.9}}


def build(tmp_path, every=0.0, **settings):
    said = []
    torch.manual_seed(0)
    learner = Learner(nn.Linear(2, 2), Classification(("a", "b")), Settings.of("digits", **settings), 4)
    return (
        learner,
        Keeper(RunFolder(tmp_path / "run"), Keeping(save_every=every), {"architecture": "x", "classes": ["a"]}, said.append),
        said,
    )


def end_epoch(learner, keeper, accuracy, change=1.0):
    """An epoch whose only effect is to add to the weights."""
    with torch.no_grad():
        learner.model.weight.add_(change)
        if learner.average:
            learner.average.update()
    keeper.epoch(learner, learner.progress.end_epoch({**ROW, "validation": {"accuracy": accuracy}}, (accuracy,)))
    keeper.finish(learner)
    return learner.model.weight.detach().clone()


def written(keeper):
    other = nn.Linear(2, 2)
    keeper.folder.read_weights(other)
    return other.weight


def test_only_the_best_weights_are_kept_and_every_row(tmp_path):
    learner, keeper, _ = build(tmp_path)
    best = [end_epoch(learner, keeper, accuracy) for accuracy in (0.8, 0.9, 0.7)][1]
    assert torch.equal(written(keeper), best)
    assert [row["validation"]["accuracy"] for row in keeper.folder.read_rows()] == [0.8, 0.9, 0.7]


def test_with_an_average_the_averaged_weights_are_kept(tmp_path):
    learner, keeper, _ = build(tmp_path, ema=0.5)
    end_epoch(learner, keeper, 0.8)
    own = end_epoch(learner, keeper, 0.9)
    assert torch.equal(written(keeper), learner.average.state_dict()["average"]["weight"])
    assert not torch.equal(written(keeper), own) and torch.equal(learner.model.weight, own)


def test_after_patience_everything_is_that_of_the_best_epoch_but_the_log(tmp_path):
    learner, keeper, said = build(tmp_path, patience=2)
    best = [end_epoch(learner, keeper, accuracy) for accuracy in (0.8, 0.9, 0.7, 0.6)][1]
    learner.optimizer.param_groups[0]["lr"] = 7.0
    keeper.end_early(learner)
    keeper.wait()
    progress = learner.progress
    assert torch.equal(learner.model.weight, best) and learner.optimizer.param_groups[0]["lr"] != 7.0
    assert (progress.epoch, progress.stopped_epoch, len(progress.history)) == (2, 4, 4)
    assert "Patience ended after epoch 4" in said[-1] and "those of epoch 2 again" in said[-1]
    fresh, again, _ = build(tmp_path, patience=2)
    again.take_up(fresh)
    assert torch.equal(fresh.model.weight, best) and not fresh.unfinished()


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_is_used(tmp_path):
    learner, keeper, _ = build(tmp_path)
    first = [end_epoch(learner, keeper, accuracy) for accuracy in (0.8, 0.9)][0]
    newest = max((tmp_path / "run" / "state").glob("*.safetensors"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 16
    newest.write_bytes(bytes(content))
    fresh, again, said = build(tmp_path)
    again.take_up(fresh)
    assert torch.equal(fresh.model.weight, first) and fresh.progress.epoch == 1
    assert any(newest.name in sentence and "damaged" in sentence for sentence in said)


def test_a_disk_that_refuses_stops_nothing_and_is_told_at_the_end(tmp_path, monkeypatch):
    learner, keeper, said = build(tmp_path)
    before = end_epoch(learner, keeper, 0.8)
    monkeypatch.setattr("twofold.data.files.os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ValueError, match="cannot write to .*disk is full.*What was written before is intact"):
        end_epoch(learner, keeper, 0.9)
    assert learner.progress.epoch == 2 and any("Training goes on" in sentence for sentence in said)
    monkeypatch.undo()
    assert torch.equal(written(keeper), before)
    fresh, again, _ = build(tmp_path)
    again.take_up(fresh)
    assert torch.equal(fresh.model.weight, before)
    after = end_epoch(learner, keeper, 0.95)  # the disk has room again
    assert torch.equal(written(keeper), after)


def test_checkpoints_within_an_epoch_are_due_by_the_clock(tmp_path, monkeypatch):
    learner, keeper, _ = build(tmp_path, every=1.0)
    assert not keeper.due(learner)
    now = keeper.checkpoints._saved
    monkeypatch.setattr("twofold.train.checkpoints.time.monotonic", lambda: now + 61)
    assert keeper.due(learner)
    keeper.save(learner)
    assert not keeper.due(learner)
    keeper.wait()


def test_what_was_stopped_before_the_first_epoch_has_weights_all_the_same(tmp_path):
    learner, keeper, _ = build(tmp_path)
    learner.progress.step = 2
    keeper.stopped(learner)
    keeper.wait()
    assert torch.equal(written(keeper), learner.model.weight) and keeper.folder.read_description()["classes"] == ["a"]


def test_the_one_who_takes_up_may_look_at_description_and_settings_first(tmp_path):
    learner, keeper, _ = build(tmp_path)
    keeper.begin(learner)
    keeper.wait()
    seen = []
    keeper.take_up(learner, lambda *found: seen.extend(found))
    assert seen == [{"architecture": "x", "classes": ["a"]}, learner.settings.model_dump(mode="json")]
