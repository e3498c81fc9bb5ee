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
    first, _ = (end_epoch(learner, keeper, accuracy) for accuracy in (0.8, 0.9))
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
    full(monkeypatch)
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


def full(monkeypatch):
    monkeypatch.setattr("twofold.data.files.os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))


def test_best_weights_that_found_no_room_are_written_at_the_end_by_a_later_session_too(tmp_path, monkeypatch):
    """Only the checkpoint of the best epoch was written; then the process was killed."""
    learner, keeper, _ = build(tmp_path)
    end_epoch(learner, keeper, 0.8)
    monkeypatch.setattr(keeper.folder, "write_model", lambda *_: (_ for _ in ()).throw(ValueError("cannot write")))
    with pytest.raises(ValueError, match="cannot write"):
        end_epoch(learner, keeper, 0.9)
    best = learner.model.weight.detach().clone()
    fresh, again, _ = build(tmp_path)
    again.take_up(fresh)
    assert again.written() == 1 and not torch.equal(written(again), best)
    with torch.no_grad():
        fresh.model.weight.add_(1)  # an epoch that was no better
    again.epoch(fresh, fresh.progress.end_epoch(ROW | {"validation": {"accuracy": 0.7}}, (0.7,)))
    again.finish(fresh)
    assert again.written() == 2 and torch.equal(written(again), best)


def test_without_the_checkpoint_of_the_best_epoch_patience_leaves_everything_as_it_is_and_says_so(tmp_path, monkeypatch):
    """The disk refused the checkpoint, and has room again."""
    learner, keeper, said = build(tmp_path, patience=1)
    end_epoch(learner, keeper, 0.8)
    with monkeypatch.context() as patched:
        patched.setattr(keeper.checkpoints, "save", lambda *_, **__: ())
        best = end_epoch(learner, keeper, 0.9)
    last = end_epoch(learner, keeper, 0.7)
    keeper.end_early(learner)
    keeper.finish(learner)
    assert torch.equal(learner.model.weight, last) and torch.equal(written(keeper), best)
    assert "The checkpoint of epoch 2, the best, was not written. So optimiser" in said[-1]
    assert (learner.progress.stopped_epoch, learner.progress.best_epoch) == (3, 2) and not learner.unfinished()


def test_best_weights_that_are_nowhere_are_told(tmp_path, monkeypatch):
    learner, keeper, _ = build(tmp_path)
    end_epoch(learner, keeper, 0.8)
    full(monkeypatch)
    with pytest.raises(ValueError, match="The weights of epoch 2, the best, are not kept: cannot write to .*disk is full"):
        end_epoch(learner, keeper, 0.9)
    with pytest.raises(ValueError, match="The checkpoint of epoch 2, the best, was not written. cannot write to .*disk is full"):
        end_epoch(learner, keeper, 0.7)


def test_the_best_weights_are_written_from_memory_where_they_are_those_of_now(tmp_path, monkeypatch):
    """The disk refused both the weights and their checkpoint, and has room again when the run ends."""
    learner, keeper, _ = build(tmp_path)
    end_epoch(learner, keeper, 0.8)
    with monkeypatch.context() as patched:
        patched.setattr(keeper.checkpoints, "save", lambda *_, **__: ())
        patched.setattr(keeper, "finish", lambda _: None)
        full(patched)
        best = end_epoch(learner, keeper, 0.9)
    keeper.finish(learner)
    assert keeper.written() == 2 and torch.equal(written(keeper), best)


def test_going_back_is_kept_so_that_a_crash_does_not_forget_how_often_it_was(tmp_path):
    learner, keeper, _ = build(tmp_path)
    keeper.begin(learner)
    learner.guard.rolled_back, learner.guard.rate = 1, 0.5
    keeper.go_back(learner)
    keeper.wait()
    fresh, again, _ = build(tmp_path)
    again.take_up(fresh)
    assert (fresh.guard.rolled_back, fresh.guard.rate) == (1, 0.5)


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
