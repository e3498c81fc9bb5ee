"""A run that is killed, stopped, damaged, starved of disk or changed: it goes on bit for bit, or says what is wrong.

By the real command line, training for real with everything on that has a state.

The processes are forked from one that has loaded everything (forked.py); bench/resume.py does the same with cold ones.
"""

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from PIL import Image

import twofold
from twofold import nn
from twofold.train.checkpoints import Checkpoints
from twofold.train.signals import StoppedError
from twofold.train.watch import Watch

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork, /proc and limits of other processes")

OFTEN = ("--save-every", "0.0003", "--no-graph")  # every 18 ms
SMALL = ("train", "digits", "--config", "stages=8 M 8 M", "dropout=0.2", "--batch-size", 64, "--augment", "light", "--mixup", 0.2, *OFTEN)


def cnn(epochs):
    return (*SMALL, "--accumulate", "2", "--ema", "0.9", "--patience", "4", "--epochs", epochs)


RUNS = {
    "cnn": cnn(3),
    "plateau": (*SMALL, "--epochs", 9, "--patience", 2, "--schedule", "plateau", "--rate-patience", 1, "--learning-rate", 1),
    "text": (
        "train", "text.txt", "--config", "units=16", "embedding=8", "dropout=0.2", "--epochs", 4, "--batch-size", 4, "--window", 16,
        "--bptt", 40, "--items-per-epoch", 3000, *OFTEN,
    ),
    "streamed": (
        "train", "pictures", "--hold", "files", "--config", "stages=8 M 8", "--epochs", 3, "--batch-size", 8, "--augment", "light", *OFTEN,
    ),
}  # fmt: skip
STEPS = {"cnn": 17, "text": 46}  # of an epoch
UNCOMPARED = ("seconds", "time", "clock", "workers", "numpy", "python")
PATIENCE = 60  # seconds until a test gives up waiting for something to happen


class Shell:
    """Starts command lines in a folder, each in a process of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        (folder / "text.txt").write_text("".join(f"{i} times {i} is {i * i}.\n" for i in range(600)))
        for number in range(120):
            picture = folder / "pictures" / ("dark", "light")[number % 2] / f"{number}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((9, 9), 90).point(lambda value: value // 2 + number % 2 * 40).save(picture)  # noqa: B023
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).with_name("forked.py"))]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        assert json.loads(self.server.stdout.readline()) == {"ready": True}

    def start(self, *arguments, told=False, **how):
        words = [str(each) for each in arguments]
        return Command(self, self.ask(arguments=words, told=told, **{"folder": str(self.folder), **how})["process"])

    def run(self, *arguments, **how):
        return self.start(*arguments, **how).end()

    def ask(self, **question):
        self.server.stdin.write(json.dumps(question) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())


class Command:
    """One that is running."""

    def limit(self, size):
        """From now on no file of it grows beyond so many bytes: for the process, the disk is full."""
        resource.prlimit(self.process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def __init__(self, shell, process):
        self.shell, self.process = shell, process

    @property
    def over(self):
        return self._known()[0] == "Z"

    def seconds(self):
        """How long it has computed."""
        return sum(map(int, self._known()[11:13])) / os.sysconf("SC_CLK_TCK")

    def _known(self):
        return Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()

    def send(self, number):
        os.kill(self.process, number)

    def end(self):
        """(exit code, stdout, stderr)"""
        return tuple(self.shell.ask(**{"await": self.process}).values())


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    shell = Shell(tmp_path_factory.mktemp("shell"))
    yield shell
    shell.server.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def whole(shell):
    """The runs that nothing has disturbed, each trained once."""
    trained = {}

    def of(name):
        if name not in trained:
            began = time.monotonic()
            assert shell.run(*RUNS[name], "--out", shell.folder / name)[0] == 0
            trained[name] = End(shell.folder / name, time.monotonic() - began)
        return trained[name]

    return of


class End:
    """What a run has left."""

    def __init__(self, folder, seconds=0.0):
        self.seconds = seconds
        self.weights = (folder / "model.safetensors").read_bytes()
        self.described = (folder / "model.json").read_bytes()
        self.rows = untimed([json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()])
        self.states = untimed(Checkpoints(folder / "state").load().states)

    def other_than(self, other):
        """The paths of what is not the same, bit for bit."""
        return [path for name, mine in vars(self).items() if name != "seconds" for path in differing(mine, vars(other)[name], name)]


def untimed(value):
    """The same in values that compare bit for bit.

    Without what is read off a clock, the number of workers, on which nothing depends, and the generators that nothing here draws from:
    Python seeds its own anew in every process.
    """
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.contiguous().view(-1).numpy().tobytes()
    if isinstance(value, dict):
        return {name: untimed(part) for name, part in value.items() if name not in UNCOMPARED}
    return [untimed(part) for part in value] if isinstance(value, list | tuple) else value


def differing(one, two, path):
    if isinstance(one, dict) and isinstance(two, dict):
        return [found for name in one.keys() | two.keys() for found in differing(one.get(name), two.get(name), f"{path}.{name}")]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return [found for place, each in enumerate(zip(one, two, strict=True)) for found in differing(*each, f"{path}.{place}")]
    return [] if one == two else [path]


def await_that(happened):
    """Wait until it has; what it says then."""
    end = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.001)
    return found


def written(folder):
    """The names of the checkpoints that are there."""
    return sorted(path.name for path in (folder / "state").glob("*.safetensors"))


def rows_of(folder):
    return len((folder / "metrics.jsonl").read_text().splitlines()) if (folder / "metrics.jsonl").exists() else 0


def kill_and_resume(shell, name, folder, moments, kills, seconds, number=signal.SIGKILL):
    """Kill it at random moments, the first after the first checkpoint and every second one in a write, and let it end."""
    code, err, took = stopped(shell, name, folder, number, seconds=moments.uniform(0, seconds))
    assert took < 5 and (code == -9 if number == signal.SIGKILL else code == 143 and "Go on with: twofold train --resume" in err), err
    if name == "streamed":
        edit(folder, "workers: 2", "workers: 0")  # which may be anything
    for kill in range(1, kills + 1):
        command = shell.start("train", "--resume", folder)
        if kill < kills:
            time.sleep(moments.uniform(0, seconds))
            while kill % 2 and not command.over and not list((folder / "state").glob(".*.tmp")):
                time.sleep(0.0002)
            command.send(number)
        code, _, err = command.end()
        assert code == 0 or (code in (-9, -15, 143) and kill < kills) or (code == 2 and "is complete" in err), err
        assert "damaged" not in err and "missing" not in err


def stopped(shell, name, run, number=signal.SIGTERM, after=lambda: True, seconds=0.0, **how):
    """(exit code, stderr, seconds until it ended) of a run that gets a signal in the midst of it."""
    while True:
        command = shell.start(*RUNS[name], "--out", run, **how)
        await_that(lambda: written(run) and after())
        time.sleep(seconds)
        began = time.monotonic()
        command.send(number)
        code, _, err = command.end()
        if code:
            return code, err, time.monotonic() - began
        shutil.rmtree(run)
        seconds /= 2  # it was quicker than this moment


@pytest.fixture(scope="module")
def halted(shell):
    """A run that was stopped in its second epoch or later; every test gets a copy."""
    folder = shell.folder / "halted"
    assert stopped(shell, "cnn", folder, after=lambda: rows_of(folder) and len(written(folder)) > 2)[0] == 143

    def copy(place):
        shutil.copytree(folder, place)
        return place

    return copy


# ------------------------------------------------------------------------------------------------ killed and stopped


@pytest.mark.parametrize("name", RUNS)
def test_killed_at_any_moment_it_ends_bit_for_bit_the_same(shell, whole, tmp_path, name):
    undisturbed = whole(name)
    kill_and_resume(shell, name, tmp_path / "run", random.Random(name), 2, undisturbed.seconds / 2)
    assert End(tmp_path / "run").other_than(undisturbed) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("name", RUNS)
def test_killed_at_twenty_random_moments_it_ends_bit_for_bit_the_same(shell, whole, tmp_path, name, number):
    undisturbed, moments = whole(name), random.Random(f"twenty {name} {number}")
    for turn in range(20):
        kill_and_resume(shell, name, tmp_path / str(turn), moments, moments.randint(1, 3), undisturbed.seconds * 0.7, number)
        assert End(tmp_path / str(turn)).other_than(undisturbed) == []


@pytest.mark.parametrize(("name", "number", "code"), [("cnn", signal.SIGTERM, 143), ("text", signal.SIGINT, 130)])
def test_a_signal_saves_the_very_step_says_how_to_go_on_and_changes_no_bit(shell, whole, tmp_path, name, number, code):
    folder, moment = tmp_path / "run", random.Random(f"stop {name}").uniform(0, whole(name).seconds / 2)
    ended, err, seconds = stopped(shell, name, folder, number, seconds=moment)
    assert ended == code and seconds < 5
    said = re.search(rf"Stopped in epoch (\d+) after (\d+) of {STEPS[name]} steps; .* Go on with: twofold train --resume {folder}", err)
    progress = Checkpoints(folder / "state").load().states["progress"]
    assert (progress["epoch"] + 1, progress["step"]) == tuple(map(int, said.groups()))
    assert twofold.load(folder).model  # there are weights already, whatever epoch it was
    assert shell.run("train", "--resume", folder)[0] == 0
    assert End(folder).other_than(whole(name)) == []


def test_ctrl_c_twice_aborts_and_even_that_changes_no_bit(shell, whole, tmp_path):
    folder = tmp_path / "run"
    command = shell.start(*RUNS["cnn"], "--out", folder)
    await_that(lambda: written(folder))
    command.send(signal.SIGINT)
    time.sleep(0.003)
    command.send(signal.SIGINT)
    code, _, err = command.end()
    assert code == 130 and ("interrupted" in err or "Stopped in epoch" in err)  # the latter where Python saw both as one
    assert shell.run("train", "--resume", folder)[0] == 0
    assert End(folder).other_than(whole("cnn")) == []


def test_under_nohup_ctrl_c_is_nothing(shell, whole, tmp_path):
    command = shell.start(*RUNS["cnn"], "--out", tmp_path / "run", ignored=[signal.SIGINT])
    await_that(lambda: written(tmp_path / "run"))
    command.send(signal.SIGINT)
    assert command.end()[0] == 0
    assert End(tmp_path / "run").other_than(whole("cnn")) == []


def test_a_process_that_begins_cold_leaves_the_same_bits_and_is_gone_on_with(shell, whole, tmp_path):
    """python -m twofold itself, which reads, thinks and is told nothing in advance."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "twofold", *map(str, RUNS["cnn"]), "--out", str(folder)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    await_that(lambda: rows_of(folder))
    process.terminate()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143 and b"Go on with: twofold train --resume" in err
    assert shell.run("train", "--resume", folder)[0] == 0
    assert End(folder).other_than(whole("cnn")) == []


def test_killed_before_its_report_it_gets_one_and_then_it_is_complete(shell, whole, tmp_path):
    folder = tmp_path / "run"
    command = shell.start(*RUNS["cnn"], "--out", folder, told=True)
    await_that(lambda: rows_of(folder) == 3)
    command.send(signal.SIGKILL)
    assert command.end()[0] == -9 and not (folder / "report.html").exists()
    with pytest.raises(ValueError, match=f"its training did not end. Go on with: twofold train --resume {folder}"):
        _ = twofold.load(folder).metrics
    assert shell.run("train", "--resume", folder, told=True)[0] == 0
    assert (folder / "report.html").exists() and End(folder).other_than(whole("cnn")) == []
    code, _, err = shell.run("train", "--resume", folder)
    assert code == 2 and "run is complete: 3 epochs are done. Train anew for more." in err


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ((".lock",), "run is no run folder, or an unfinished one: it has no settings.yaml"),
        ((".lock", "settings.yaml"), "holds no checkpoint: the run ended before one was written. Train anew."),
        ((".lock", "settings.yaml", "state"), "holds no checkpoint: the run ended before one was written. Train anew."),
    ],
    ids=["nothing", "settings", "half a checkpoint"],
)
def test_killed_before_there_was_anything_to_go_on_with_it_says_so_and_the_folder_can_be_used(shell, halted, tmp_path, left, said):
    """What a kill leaves behind: a lock's file, half-written ones, and the first few whole ones."""
    killed = halted(tmp_path / "killed")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("{")
    (tmp_path / "run" / ".settings.yaml.0123456789abcdef.tmp").write_text("source: dig")
    if "settings.yaml" in left:
        shutil.copy(killed / "settings.yaml", tmp_path / "run")
    if "state" in left:
        (tmp_path / "run" / "state").mkdir()
        (tmp_path / "run" / "state" / ".checkpoint.0123456789abcdef.tmp").write_bytes(bytes(1000))
    code, _, err = shell.run("train", "--resume", tmp_path / "run")
    assert code == 2 and said in err
    anew = ["--overwrite"] if "settings.yaml" in left else []
    assert shell.run(*cnn(1), "--out", tmp_path / "run", *anew)[0] == 0
    assert not list((tmp_path / "run").rglob("*.tmp"))


# ------------------------------------------------------------------------------------------------ damaged


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


DAMAGE = {"cut": (cut, "damaged"), "flipped": (flip, "damaged"), "missing": (Path.unlink, "is missing"), "zeroed": (zero, "damaged")}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_said_the_one_before_is_used_and_no_bit_changes(shell, whole, halted, tmp_path, damage):
    folder = halted(tmp_path / "run")
    *_, before, newest = written(folder)
    act, word = DAMAGE[damage]
    act(folder / "state" / newest)
    code, _, err = shell.run("train", "--resume", folder)
    assert code == 0 and re.search(rf"{newest} (is )?{word}", err)
    assert f"The checkpoint of step {before.split('step')[1].split('-')[0]} is used." in err
    assert End(folder).other_than(whole("cnn")) == []


def test_where_all_checkpoints_are_damaged_each_is_named_and_nothing_changes(shell, halted, tmp_path):
    folder = halted(tmp_path / "run")
    for name in written(folder):
        cut(folder / "state" / name)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _, err = shell.run("train", "--resume", folder)
    assert code == 2 and all(name in err for name in written(folder)) and "Restore the files, or train anew." in err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


# ------------------------------------------------------------------------------------------------ changed


def edit(folder, old, new):
    text = (folder / "settings.yaml").read_text()
    assert text.count(old) == 1
    (folder / "settings.yaml").write_text(text.replace(old, new))


CHANGED = {  # what is changed in settings.yaml, what is said, and what --force says: None where it goes on
    "model": ("stages: 8 M 8 M", "stages: 8 M 4 M", "the source or the model changed since .*: config.stages was 8 M 8 M, now 8 M 4 M",
              "the checkpoint belongs to another model or to other settings"),
    "dropout": ("dropout: 0.2", "dropout: 0.5", "config.dropout was 0.2, now 0.5", None),
    "setting": ("learning_rate: 0.003", "learning_rate: 0.03", r"settings.yaml of \S+ was changed .*rate was 0.003, now 0.03", None),
    "unknown": ("epochs: 3", "epochs: 3\n  epoch: 3", r"settings: no setting 'learning.epoch'", r"settings: no setting 'learning.epoch'"),
    "average": ("ema: 0.9", "ema: 0", "ema was 0.9, now 0", None),
    "source": ("source: digits", "source: text.txt", "'vgg-mini' is for classify, but text is for language", "'vgg-mini' is for classify"),
    "no YAML": ("source: digits", "source: [", "settings.yaml is no YAML", "settings.yaml is no YAML"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGED)
def test_a_changed_run_is_refused_with_the_difference_and_forced_where_the_weights_fit(shell, halted, tmp_path, change):
    folder = halted(tmp_path / "run")
    old, new, said, forced = CHANGED[change]
    edit(folder, old, new)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _, err = shell.run("train", "--resume", folder)
    assert code == 2 and re.search(said, err), err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    code, _, err = shell.run("train", "--resume", folder, "--force")
    assert (code, bool(forced)) in ((0, False), (2, True)) and (not forced or re.search(forced, err)), err


def test_changed_data_are_refused_and_forced_where_the_words_are_the_same(shell, tmp_path):
    (tmp_path / "text.txt").write_text("abc def ghi.\n" * 600)
    assert stopped(shell, "text", tmp_path / "run", folder=str(tmp_path))[0] == 143
    (tmp_path / "text.txt").write_text("ihg fed cba.\n" + "abc def ghi.\n" * 599)
    code, _, err = shell.run("train", "--resume", tmp_path / "run")
    assert code == 2 and "text.txt are not those that" in err and "go on all the same with --force" in err
    assert shell.run("train", "--resume", tmp_path / "run", "--force")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True])
def test_another_number_of_processes_goes_on(shell, halted, tmp_path, sharded):
    folder = halted(tmp_path / "run")
    edit(folder, "processes: 1", "processes: 2")
    edit(folder, "shard_weights: false", f"shard_weights: {str(sharded).lower()}")
    command = [sys.executable, "-m", "twofold", "train", "--resume", folder]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["final"]


def test_of_two_processes_the_second_is_refused_and_a_kill_leaves_no_lock(shell, tmp_path):
    folder = tmp_path / "run"
    first = shell.start(*cnn(1000), "--out", folder)
    await_that(lambda: rows_of(folder))
    for second in ((*cnn(3), "--out", folder, "--overwrite"), ("train", "--resume", folder)):
        code, _, err = shell.run(*second)
        assert code == 2 and re.search(rf"run is being written by process {first.process} on .* since .*Wait until it ends", err)
    first.send(signal.SIGKILL)
    assert first.end()[0] == -9 and (folder / ".lock").exists()
    rows, again = rows_of(folder), shell.start("train", "--resume", folder)
    await_that(lambda: rows_of(folder) > rows)
    again.send(signal.SIGTERM)
    assert again.end()[0] == 143


# ------------------------------------------------------------------------------------------------ disks


@pytest.mark.parametrize("largest", [0, 5_000], ids=["nothing", "settings only"])
def test_a_disk_that_is_full_from_the_start_is_told_before_anything_is_trained(shell, tmp_path, largest):
    code, _, err = shell.run(*RUNS["cnn"], "--out", tmp_path / "run", largest=largest)
    assert code == 2 and "the disk is full" in err and "epoch" not in err, err
    assert list((tmp_path / "run").iterdir()) == []


class Full:
    """Ways for a disk to refuse, in the midst of a run and afterwards no more."""

    def __init__(self, shell, folder):
        self.shell, self.folder = shell, folder

    def start(self):
        return self.shell.start(*RUNS["cnn"], "--out", self.folder / "run")

    def refuse(self, command):
        command.limit(1)

    def relent(self):
        pass

    def close(self):
        pass


class Small(Full):
    """A real disk of 400 kB."""

    def __init__(self, shell, folder):
        super().__init__(shell, folder)
        folder.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True).returncode:
            pytest.skip("a small disk can be made by root alone")

    def refuse(self, command):
        with suppress(OSError), open(self.folder / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(1024))

    def relent(self):
        (self.folder / "filler").unlink()

    def close(self):
        subprocess.run(["umount", "-l", self.folder], check=True)


class ReadOnly(Full):
    """A folder that nobody may write any more."""

    def __init__(self, shell, folder):
        super().__init__(shell, Path(tempfile.mkdtemp()))
        self.folder.chmod(0o777)

    def start(self):
        return self.shell.start(*RUNS["cnn"], "--out", self.folder / "run", user=None if os.getuid() else 65534)

    def _allow(self, mode):
        for place in (self.folder / "run", self.folder / "run" / "state"):
            place.chmod(mode)

    def refuse(self, command):
        self._allow(0o555)

    def relent(self):
        self._allow(0o777)

    def close(self):
        shutil.rmtree(self.folder)


@pytest.fixture(params=[Full, Small, ReadOnly])
def disk(request, shell, tmp_path):
    disk = request.param(shell, tmp_path / "disk")
    yield disk
    disk.close()


def test_a_disk_that_refuses_for_good_costs_only_what_came_after_and_says_so(shell, whole, disk):
    folder, command = disk.folder / "run", disk.start()
    await_that(lambda: rows_of(folder) and len(written(folder)) > 1)
    disk.refuse(command)
    before = {name: (folder / name).read_bytes() for name in ("model.safetensors", "model.json", "settings.yaml")}
    code, _, err = command.end()
    assert code == 2 and "could not be written to" in err and "training goes on" in err, err
    assert re.search(r"epoch +3/3", err) and "cannot write to" in err.splitlines()[-1], err
    assert {name: (folder / name).read_bytes() for name in before} == before
    disk.relent()
    assert shell.run("train", "--resume", folder)[0] == 0
    assert End(folder).other_than(whole("cnn")) == []


def test_a_disk_that_has_room_again_costs_nothing(shell, tmp_path):
    assert shell.run(*cnn(6), "--out", tmp_path / "whole")[0] == 0
    command = shell.start(*cnn(6), "--out", tmp_path / "run")
    await_that(lambda: rows_of(tmp_path / "run"))
    command.limit(1)
    worked = command.seconds()
    await_that(lambda: command.seconds() > worked + 0.1)
    command.limit(resource.RLIM_INFINITY)
    code, _, err = command.end()
    assert code == 0 and "the disk is full" in err and "tensorboard failed" in err
    assert End(tmp_path / "run").other_than(End(tmp_path / "whole")) == []


def test_a_report_that_finds_no_room_is_said_and_written_later(shell, whole, tmp_path):
    folder = tmp_path / "run"
    code, out, err = shell.run(*RUNS["cnn"], "--out", folder, largest=200_000, told=True)
    assert code == 0 and "accuracy" in out
    assert "the disk is full" in err and f"the report and the final scores are not: twofold train --resume {folder}" in err
    assert rows_of(folder) == 3 and not (folder / "report.html").exists()
    assert shell.run("train", "--resume", folder, told=True)[0] == 0
    assert (folder / "report.html").exists() and End(folder).other_than(whole("cnn")) == []


# ------------------------------------------------------------------------------------------------ patience, and numbers that are none


def test_after_patience_weights_optimiser_and_random_states_are_those_of_the_best_epoch_bit_for_bit(shell, whole):
    whole("plateau")
    folder = shell.folder / "plateau"
    checkpoints = Checkpoints(folder / "state")
    newest, best = checkpoints.load(), checkpoints.load(best=True)
    progress, then = newest.states["progress"], best.states["progress"]
    assert (progress["epoch"], progress["stopped_epoch"], len(progress["history"])) == (then["epoch"], then["epoch"] + 2, then["epoch"] + 2)
    assert newest.entry.number > best.entry.number
    for each in (progress, then):
        del each["history"], each["stopped_epoch"]
    assert differing(untimed(newest.states), untimed(best.states), "states") == []
    run = twofold.load(folder)
    assert all(torch.equal(weight, best.states["model"][name]) for name, weight in run.model.state_dict().items())
    assert run.metrics["best_epoch"] == then["epoch"]
    code, _, err = shell.run("train", "--resume", folder)
    assert code == 2 and "plateau is complete" in err


class Broken:
    """A loss that is NaN at one call in training, and when the culprit is looked for after it."""

    def __init__(self, at):
        self.at, self.calls = at, 0

    def __call__(self, y, goal):
        self.calls += torch.is_grad_enabled()
        loss = torch.nn.functional.cross_entropy(y, goal)
        return loss * math.nan if torch.is_grad_enabled() and self.calls in (self.at, self.at + 1) else loss


STEADY = {"epochs": 2, "schedule": "constant", "warmup": 0.0, "ema": 0.5, "learning_rate": 0.01, "graph": False}


def fit(place, chosen, loss=torch.nn.functional.cross_entropy, **settings):
    """Train on batches of points, of which number 2 has a NaN, by a net with running statistics."""
    torch.manual_seed(1)
    points = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(6)]
    points[2][0][5, 3] = math.nan
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    return twofold.fit(([points[i] for i in chosen], points[3:]), model=model, task=loss, out=place, **{**STEADY, **settings})


@pytest.fixture
def without_report(monkeypatch):
    monkeypatch.setattr("twofold.fitting.tell", lambda *_: None)


def test_a_batch_with_a_nan_stops_the_run_before_it_reaches_the_weights(tmp_path):
    said = r"stopped in epoch 1, step 3 .*1 of 32 values of 0 are not finite, in items of the batch 5\..*The batch is kept in .*faults"
    with pytest.raises(ValueError, match=said):
        fit(tmp_path / "run", range(6), non_finite="stop")
    kept = json.loads(next((tmp_path / "run" / "faults").glob("*.json")).read_text())
    assert kept["fault"]["items"] == [5]


@pytest.mark.parametrize("how", ["skip", "rollback"])
@pytest.mark.usefixtures("without_report")
def test_a_batch_with_a_nan_is_left_out_as_if_it_had_not_been_there(tmp_path, capsys, how):
    run = fit(tmp_path / "run", range(6), non_finite=how)
    assert capsys.readouterr().err.count("The step is left out in epoch") == 2
    clean = fit(tmp_path / "clean", [0, 1, 3, 4, 5])
    assert all(torch.equal(one, two) for one, two in zip(run.model.state_dict().values(), clean.model.state_dict().values(), strict=True))
    seen = [[(row["train"], row["validation"]) for row in each.folder.read_rows()[:-1]] for each in (run, clean)]
    assert seen[0] == seen[1]


@pytest.mark.usefixtures("without_report")
def test_a_loss_that_was_nan_once_sends_the_run_back_with_half_the_rate(tmp_path, capsys):
    run = fit(tmp_path / "run", [0, 1, 3, 4, 5], Broken(at=7), non_finite="rollback")
    said = "Back to the last good state (1 of at most 3 times), with 0.5 of the learning rate, from epoch 2, step 2"
    assert said in capsys.readouterr().err
    assert [row.get("rate") for row in run.folder.read_rows()] == [0.01, 0.005, None]
    guard = Checkpoints(tmp_path / "run" / "state").load().states["guard"]
    assert (guard["rolled_back"], guard["rate"]) == (1, 0.5)


@pytest.mark.usefixtures("without_report")
def test_batches_that_a_dataloader_shuffles_come_as_before_in_the_middle_of_an_epoch_too(tmp_path, monkeypatch):
    """Its order is drawn from the generator that dropout draws from between the batches."""
    torch.manual_seed(2)
    x_BD, y_B = torch.randn(64, 4), torch.randint(0, 3, (64,))
    shuffled = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x_BD, y_B), 8, shuffle=True)

    def build():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 3))

    given = {"task": torch.nn.functional.cross_entropy, "quiet": True}
    whole = twofold.fit((shuffled, [(x_BD, y_B)]), model=build(), out=tmp_path / "whole", **given, **STEADY)
    step = Watch.step
    monkeypatch.setattr(Watch, "step", lambda self, *told: (step(self, *told), self.learner.number == 11 and self.wish.ask(2)))
    with pytest.raises(StoppedError):
        twofold.fit((shuffled, [(x_BD, y_B)]), model=build(), out=tmp_path / "run", **given, **STEADY)
    monkeypatch.setattr(Watch, "step", step)
    torch.manual_seed(99)
    run = twofold.resume(tmp_path / "run", source=(shuffled, [(x_BD, y_B)]), model=build(), **given)
    assert all(map(torch.equal, run.model.parameters(), whole.model.parameters()))
    assert End(tmp_path / "run").other_than(End(tmp_path / "whole")) == []
