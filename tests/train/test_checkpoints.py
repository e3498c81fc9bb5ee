"""Checkpoints come back bit for bit; whatever happens to one is said, and the one before it is used."""

import errno
import hashlib
import json
import os
import pickle
import random
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from twofold.data import files
from twofold.train import checkpoints as module
from twofold.train.checkpoints import MANIFEST, Checkpoints, Keeping, random_states, restore_random


def states(step, size=40):
    return {"model": {"weight": torch.full((size, 3), float(step))}, "progress": {"step": step}}


def saved(folder, *steps, best=None, keep_last=3):
    """The checkpoints of these steps, each on the disk."""
    checkpoints = Checkpoints(folder, Keeping(keep_last=keep_last))
    for step in steps:
        checkpoints.save(step, states(step), epoch=step // 10, best=step == best)
    assert checkpoints.wait() == ()
    return checkpoints


def steps_in(folder):
    return [int(path.name.split("step")[1].split("-")[0]) for path in sorted(folder.glob("*.safetensors"))]


def newest(folder):
    return sorted(folder.glob("*.safetensors"))[-1]


# ------------------------------------------------------------------------------------------------ what is written


def test_a_run_goes_on_bit_for_bit_from_what_was_loaded(tmp_path):
    """The uninterrupted run and the one that was saved, loaded and continued agree in every bit, momenta and dropout masks included."""

    def fresh():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Dropout(0.5))
        model.to(memory_format=torch.channels_last)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2)

    def train(model, optimizer, steps):
        for _ in range(steps):
            x_BCHW = torch.randn(2, 3, 6, 6) + float(np.random.rand()) + random.random()
            optimizer.zero_grad()
            model(x_BCHW).square().sum().backward()
            optimizer.step()

    model, optimizer = fresh()
    train(model, optimizer, 3)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": random_states()})
    train(model, optimizer, 3)  # while it is being written: what is written is a copy

    again, its_optimizer = fresh()
    loaded = checkpoints.load()
    again.load_state_dict(loaded.states["model"])
    its_optimizer.load_state_dict(loaded.states["optimizer"])
    restore_random(loaded.states["random"])
    momentum = its_optimizer.state[again[0].weight]["exp_avg"]
    assert momentum.is_contiguous(memory_format=torch.channels_last)
    train(again, its_optimizer, 3)
    assert loaded.notes == ()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert torch.equal(optimizer.state[model[0].weight]["exp_avg"], momentum)


def test_random_generators_go_on_where_they_stood():
    def draw():
        return torch.rand(3).tolist(), np.random.standard_normal(3).tolist(), random.gauss(), random.random()

    draw()  # an odd number of normal values: both keep one in hand
    kept = random_states()
    first = draw()
    restore_random(kept)
    assert draw() == first


def test_only_the_last_and_the_best_are_kept(tmp_path):
    checkpoints = saved(tmp_path, 10, 20, 30, 40, best=20, keep_last=2)
    assert steps_in(tmp_path) == [20, 30, 40]
    assert checkpoints.load().entry.step == 40
    entry, loaded, _ = checkpoints.load(best=True)
    assert entry == checkpoints.entries[0] and entry.step == loaded["progress"]["step"] == loaded["model"]["weight"][0, 0] == 20
    checkpoints.save(50, states(50), best=True)
    checkpoints.wait()
    assert steps_in(tmp_path) == [40, 50]


def test_going_back_makes_the_newest_the_one_that_was_written_last(tmp_path):
    saved(tmp_path, 10, 20, 30, 15)
    assert Checkpoints(tmp_path).load().entry.step == 15


def test_what_killed_writes_left_is_no_trouble_and_is_swept_and_other_files_are_not(tmp_path):
    saved(tmp_path, 10, 20)
    mine = [".thesis.txt.0123456789abcdef.tmp", "notes.txt"]
    old = "000000-step5-0123456789abcdef.safetensors"  # the manifest no longer named it, and then came the kill
    for name in (*mine, old, ".checkpoint.0123456789abcdef.tmp", ".manifest.json.0123456789abcdef.tmp"):
        (tmp_path / name).write_text("x")
    assert Checkpoints(tmp_path).load().notes == ()
    saved(tmp_path, 30, keep_last=1)
    assert {path.name for path in tmp_path.iterdir()} == {newest(tmp_path).name, MANIFEST, *mine}


def test_any_reader_of_safetensors_shows_the_tensors_by_their_paths(tmp_path):
    saved(tmp_path, 10)
    assert torch.equal(safetensors.torch.load_file(newest(tmp_path))["model/weight"], states(10)["model"]["weight"])


def test_the_manifest_says_of_each_what_it_is(tmp_path):
    saved(tmp_path, 10, 20, best=10)
    rows = json.loads((tmp_path / MANIFEST).read_text())["checkpoints"]
    assert [(row["step"], row["epoch"], row["best"]) for row in rows] == [(10, 1, True), (20, 2, False)]
    assert [(tmp_path / row["name"]).stat().st_size for row in rows] == [row["size"] for row in rows]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """The state of the call is written though it changes before the write begins."""
    begin, write = threading.Event(), files.write_pieces
    monkeypatch.setattr(files, "write_pieces", lambda *arguments: begin.wait(60) and write(*arguments))
    checkpoints, weight = Checkpoints(tmp_path), torch.zeros(5)
    checkpoints.save(1, {"model": {"weight": weight}})
    weight.fill_(7)
    assert not list(tmp_path.iterdir())
    begin.set()
    assert torch.equal(checkpoints.load().states["model"]["weight"], torch.zeros(5))


def test_a_checkpoint_is_due_when_its_minutes_are_over(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    checkpoints, never = Checkpoints(tmp_path, Keeping(save_every=2)), Checkpoints(tmp_path, Keeping(save_every=0))
    for now[0], is_due in ((119.0, False), (121.0, True)):
        assert checkpoints.due() is is_due
    checkpoints.save(1, states(1))
    assert checkpoints.wait() == () and not checkpoints.due()
    now[0] = 1e9
    assert not never.due()


def test_what_is_no_state_is_refused_at_the_call(tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint: model/bias: expected a tensor or a plain value .*, got ndarray"):
        Checkpoints(tmp_path).save(1, {"model": {"bias": np.zeros(2)}})


def test_our_own_fault_in_the_background_is_raised_in_front(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, 10)
    monkeypatch.setattr(module.archive, "pieces", lambda *_: 1 / 0)
    checkpoints.save(20, states(20))
    with pytest.raises(ZeroDivisionError):
        checkpoints.wait()
    assert checkpoints.load().entry.step == 10


# ------------------------------------------------------------------------------------------------ damage


def damage(path, kind, chance):
    """Change a file in one place; its content is never what it was."""
    before = path.read_bytes()
    content, place = bytearray(before), chance.randrange(len(before))
    if kind == "flip":
        content[place] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del content[place:]
    else:
        block = slice(place, place + 64)
        content[block] = bytes(len(content[block])) if any(content[block]) else b"\xff" * len(content[block])
    assert content != before
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["flip", "zero", "cut"])
def test_every_change_to_a_checkpoint_is_noticed_named_and_survived(tmp_path, kind):
    chance = random.Random(kind)
    saved(tmp_path, 10, 20, 30)
    path, whole = newest(tmp_path), newest(tmp_path).read_bytes()
    for place in range(60):
        damage(path, kind, chance)
        entry, loaded, notes = Checkpoints(tmp_path).load()
        assert entry.step == 20 and torch.equal(loaded["model"]["weight"], states(20)["model"]["weight"]), place
        assert notes[0].startswith(f"{path} is ") and notes[1:] == ("The checkpoint of step 20 is used.",), place
        path.write_bytes(whole)


@pytest.mark.parametrize("kind", ["flip", "zero", "cut"])
def test_every_change_to_the_manifest_is_noticed_and_costs_no_checkpoint(tmp_path, kind):
    chance = random.Random(kind)
    saved(tmp_path, 10, 20, 30, best=20)
    path, whole = tmp_path / MANIFEST, (tmp_path / MANIFEST).read_bytes()
    for place in range(20):
        damage(path, kind, chance)
        entry, _, notes = Checkpoints(tmp_path).load()
        assert (entry.step, entry.epoch) == (30, 3), place
        assert notes[0].startswith(f"{path} is damaged (it") and "judged by the sum in its name" in notes[0], place
        assert Checkpoints(tmp_path).load(best=True).entry.step == 20, place
        path.write_bytes(whole)


def remove(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"x")


def a_folder(path):
    path.unlink()
    path.mkdir()


SAID = {remove: "is missing", empty: "is empty", lengthen: "bytes, and", a_folder: "is no file"}


@pytest.mark.parametrize("harm", SAID)
def test_what_happened_to_a_checkpoint_is_said(tmp_path, harm):
    saved(tmp_path, 10, 20, best=10)
    harm(newest_of := newest(tmp_path))
    entry, _, notes = Checkpoints(tmp_path).load()
    assert entry.step == 10 and str(newest_of) in notes[0] and SAID[harm] in notes[0]


def test_a_missing_manifest_is_said_and_costs_nothing(tmp_path):
    saved(tmp_path, 10, 20, 30, best=10)
    (tmp_path / MANIFEST).unlink()
    entry, _, notes = Checkpoints(tmp_path).load()
    assert entry.step == 30 and f"{tmp_path / MANIFEST} is missing" in notes[0]
    checkpoints = Checkpoints(tmp_path, Keeping(keep_last=1))
    checkpoints.save(40, states(40))
    checkpoints.wait()
    assert steps_in(tmp_path) == [10, 40] and Checkpoints(tmp_path).load().notes == ()


def test_the_next_save_forgets_the_damaged_one(tmp_path):
    checkpoints = saved(tmp_path, 10, 20)
    empty(newest(tmp_path))
    checkpoints.load()
    checkpoints.save(20, states(20))
    checkpoints.wait()
    assert steps_in(tmp_path) == [10, 20]
    assert Checkpoints(tmp_path).load()[2] == () and Checkpoints(tmp_path).load().entry.number == 3


def test_where_none_is_good_each_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint: the run ended before one was written"):
        Checkpoints(tmp_path / "state").load()
    saved(tmp_path, 10, 20)
    with pytest.raises(ValueError, match="holds no best checkpoint: the run"):
        Checkpoints(tmp_path).load(best=True)
    for path in tmp_path.glob("*.safetensors"):
        empty(path)
    with pytest.raises(ValueError, match=r"no checkpoint that can be used. .*step20-\w+.safetensors is empty. .*step10-.* is empty."):
        Checkpoints(tmp_path).load()


# ------------------------------------------------------------------------------------------------ hostile checkpoints


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def planted(folder, content):
    """A folder whose newest checkpoint has this content, with the right sum in its name."""
    saved(folder, 10)
    return files.write_pieces(folder, "x", [content], lambda total: f"000002-step20-{total[:16]}.safetensors").path


def hostile(tmp_path):
    torch.save({"model": Evil(tmp_path / "executed")}, tmp_path / "evil.pt")
    header = {"__metadata__": {"twofold": "1", "step": "1", "epoch": "0", "best": "0", "structure": "[" * 100_000}}
    tensor = {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}

    def archived(header):
        written = json.dumps(header).encode()
        return len(written).to_bytes(8, "little") + written + bytes(4)

    def of(structure, version="1"):
        one = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
        return archived({"__metadata__": header["__metadata__"] | {"structure": structure, "twofold": version}, **one})

    return {
        "pickle": (pickle.dumps(Evil(tmp_path / "executed")), "is no checkpoint: it is no archive of states"),
        "torch.save": ((tmp_path / "evil.pt").read_bytes(), "is no checkpoint: it is no archive of states"),
        "shape bomb": (archived(header | tensor), "is no checkpoint: it is no archive of states"),
        "header bomb": ((1 << 62).to_bytes(8, "little") + b"{}", "is no checkpoint: it is no archive of states"),
        "deep": (of("[" * 100_000), "is no checkpoint: it is no archive of states"),
        "unknown tensor": (of('{"tensor": "b", "order": []}'), "is no checkpoint: it is no archive of states"),
        "no states": (of("[1]"), "is no checkpoint: expected states by their names, got list"),
        "later": (of("[1]", "2"), "expected an archive of format 1, got '2'; was it written by a later version?"),
        "empty": (b"", "is empty"),
    }


@pytest.mark.parametrize(
    "name", ["pickle", "torch.save", "shape bomb", "header bomb", "deep", "unknown tensor", "no states", "later", "empty"]
)
def test_a_hostile_checkpoint_is_refused_and_nothing_is_executed(tmp_path, name):
    content, words = hostile(tmp_path)[name]
    path = planted(tmp_path / "state", content)
    entry, _, notes = Checkpoints(tmp_path / "state").load()
    assert entry.step == 10 and notes[0].startswith(str(path)) and words in notes[0] and len(notes[0]) < 500
    assert not (tmp_path / "executed").exists()


def test_a_manifest_reaches_no_file_outside_its_folder(tmp_path):
    saved(tmp_path / "state", 10)
    outside = shutil.copy(newest(tmp_path / "state"), tmp_path)
    entry = Checkpoints(tmp_path / "state").entries[0]._replace(name=f"../{Path(outside).name}")
    (tmp_path / "state" / MANIFEST).write_bytes(module._manifest([entry]))
    loaded = Checkpoints(tmp_path / "state").load()
    assert loaded.entry.name == Path(outside).name and "manifest.json is damaged" in loaded.notes[0]


# ------------------------------------------------------------------------------------------------ crashes and disks


def test_each_step_is_on_the_disk_before_the_next_one_counts_on_it(tmp_path, monkeypatch):
    """What a loss of power would find: never a name before its bytes, never a manifest before its checkpoint, never a removal before it."""
    saved(tmp_path, 10, keep_last=1)
    done, fsync, replace, unlink = [], os.fsync, os.replace, Path.unlink

    def kind(path):
        return "manifest" if path.name == MANIFEST else "checkpoint"

    def forced(handle):
        done.append("force folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"force {os.fstat(handle).st_size > 0}")
        fsync(handle)

    def renamed(source, target):
        done.append(f"name {kind(target)}")
        if kind(target) == "checkpoint":
            assert not target.exists() and hashlib.sha256(source.read_bytes()).hexdigest()[:16] == target.stem[-16:]
        replace(source, target)

    def removed(path, missing_ok=False):
        done.append(f"remove {kind(path)}")
        unlink(path, missing_ok)

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(os, "replace", renamed)
    monkeypatch.setattr(Path, "unlink", removed)
    saved(tmp_path, 20, keep_last=1)
    written = ["force True", "name checkpoint", "force folder", "force True", "name manifest", "force folder", "remove checkpoint"]
    assert done == (written if os.name != "nt" else [what for what in written if what != "force folder"])


def after_kills(folder, kills):
    program = [sys.executable, Path(__file__).with_name("crash_save.py"), folder, str(kills), "0"]
    said = subprocess.run(program, capture_output=True, text=True, timeout=280, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    return [json.loads(line) for line in said.stdout.splitlines()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_of_a_save_loses_nothing(tmp_path, kills):
    rows = after_kills(tmp_path, kills)
    assert len(rows) == kills
    for row in rows:
        assert row["whole"] and row["notes"] == [] and row["safe"] <= row["loaded"] <= row["safe"] + 1, row
        assert row["best"] % 5 == 1 and row["loaded"] - 5 < row["best"] <= row["loaded"], row
    assert any(row["left"] for row in rows), "no kill came during a write"


FULL = """
import resource, sys, torch
from pathlib import Path
from twofold.train.checkpoints import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]))
def save(step, size):
    checkpoints.save(step, {"model": torch.full((size,), float(step))})
    print(step, *checkpoints.wait(), checkpoints.load().entry.step)
save(1, 10)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
save(2, 100_000)
save(3, 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
save(4, 100_000)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_write_beyond_the_file_size_limit_is_told_and_training_goes_on(tmp_path):
    said = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=120, check=True).stdout
    refused = (
        f"2 The checkpoint of step 2 could not be written to {tmp_path}: the disk is full. The one of step 1 is kept; training goes on. 1"
    )
    assert said.splitlines() == ["1 1", refused, "3 3", "4 4"]
    assert not [path.name for path in tmp_path.iterdir() if files.left_of(path.name)]


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True).returncode
    ):
        pytest.skip("a small disk cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_survived(small_disk):
    """Room for two checkpoints and not for a third; then for it again."""
    checkpoints = saved(small_disk / "state", 1, 2, keep_last=2)
    (ballast := small_disk / "ballast").write_bytes(bytes(150_000))
    checkpoints.save(3, states(3, 10_000))
    (warning,) = checkpoints.wait()
    assert "step 3 could not be written" in warning and "the disk is full. The one of step 2 is kept; training goes on." in warning
    assert steps_in(small_disk / "state") == [1, 2] and checkpoints.load()[2] == ()
    ballast.unlink()
    checkpoints.save(4, states(4, 10_000))
    assert checkpoints.wait() == () and steps_in(small_disk / "state") == [2, 4]


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "Read-only file system")])
def test_a_disk_that_refuses_leaves_everything_as_it_was(tmp_path, monkeypatch, number, words):
    checkpoints = saved(tmp_path, 10, 20)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def refuse(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    checkpoints.save(30, states(30))
    (warning,) = checkpoints.save(40, states(40))  # the failed write is told by the next call
    assert (
        warning == f"The checkpoint of step 30 could not be written to {tmp_path}: {words}. The one of step 20 is kept; training goes on."
    )
    assert "step 40" in checkpoints.wait()[0]
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_manifest_that_cannot_be_written_costs_no_checkpoint(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, 10, 20, keep_last=1)

    def refuse(path, content):
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(files, "write", refuse)
    checkpoints.save(30, states(30))
    assert checkpoints.wait() == (
        f"{tmp_path / MANIFEST} could not be written: the disk is full. The checkpoint of step 30 itself is safe.",
    )
    monkeypatch.undo()
    assert Checkpoints(tmp_path).load()[2] == () and Checkpoints(tmp_path).load().entry.step == 30
    checkpoints.save(40, states(40))
    checkpoints.wait()
    assert steps_in(tmp_path) == [40]
