"""One writer for a folder; however it ends, the folder is free at once."""

import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from twofold.train import lock
from twofold.train.lock import NAME, locked

HOLD = """
import os, sys
from pathlib import Path
from twofold.train.lock import locked
with locked(Path(sys.argv[1])):
    worker = sys.argv[2:] == ["fork"] and not os.fork()  # who goes on when its parent is gone
    if worker or not sys.argv[2:]:
        print("held", flush=True)
    sys.stdin.read()
    if worker:
        os._exit(0)
"""


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds the folder until its input is closed."""
    started = []

    def start(*more):
        process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run", *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline().strip() == b"held"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path, holder):
    first = holder()
    who = (
        rf"run is being written by process {first.pid} on {socket.gethostname()}, since 20\S+ \S+\. Wait until it ends, or stop it, or name"
    )
    for _ in range(2):
        with pytest.raises(ValueError, match=who), locked(tmp_path / "run"):
            pass
    first.communicate()
    assert first.returncode == 0 and list((tmp_path / "run").iterdir()) == []
    with locked(tmp_path / "run"):
        pass


@pytest.mark.parametrize("more", [(), ("fork",)], ids=["alone", "with a worker that goes on"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_kill_the_folder_is_free_at_once(tmp_path, holder, more):
    first = holder(*more)
    first.kill()
    first.wait()
    assert (tmp_path / "run" / NAME).exists()
    with locked(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / NAME).read_text())["process"] == os.getpid()


def test_this_process_is_refused_its_own_folder_too_by_any_name(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    (tmp_path / "run").mkdir()
    refused = pytest.raises(ValueError, match=rf"link is being written by another run of this very process, {os.getpid()} on")
    with locked(tmp_path / "run"), locked(tmp_path / "other"):
        with refused, locked(tmp_path / "link"):
            pass
        assert (tmp_path / "run" / NAME).read_text()  # looking into the file lets go of nothing
        with refused, locked(tmp_path / "link"):
            pass
    with locked(tmp_path / "link"):
        pass


def test_the_lock_is_let_go_by_an_error_and_its_file_is_removed(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("said", [b"", b"[" * 5000, b'{"process": "x"}', b"\xff"])
def test_a_holder_that_says_nothing_sensible_is_still_a_holder(tmp_path, holder, said):
    holder()
    with open(tmp_path / "run" / NAME, "r+b") as file:
        file.truncate()
        file.write(said)
    with pytest.raises(ValueError, match="run is being written by another process. Wait"), locked(tmp_path / "run"):
        pass


def test_a_file_that_its_last_holder_has_just_removed_is_no_lock(tmp_path, monkeypatch):
    """Between opening and locking the file, the holder removes it and lets go; another process would make a new one."""
    taken = []

    def take(handle):
        if not taken:
            (tmp_path / NAME).unlink()
        taken.append(handle)
        original(handle)

    original = lock._take
    monkeypatch.setattr(lock, "_take", take)
    with locked(tmp_path):
        assert len(taken) == 2 and (tmp_path / NAME).exists()


def test_of_many_that_come_at_once_one_is_in_at_a_time(tmp_path):
    inside, most, begin = [], [], threading.Barrier(8)

    def come():
        begin.wait()
        for _ in range(50):
            try:
                with locked(tmp_path / "run"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except ValueError:
                continue

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
