"""Launching: exit codes, signals, and starts that never hang."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from twofold.train.launching import launch

TOGETHER = str(Path(__file__).with_name("together.py"))
LAUNCH = "import sys; from twofold.train.launching import launch; sys.exit(launch([sys.executable, *sys.argv[1:]], 2))"


@pytest.mark.parametrize("starts", [3, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_every_start_comes_to_its_end(tmp_path, starts):
    for _ in range(starts):
        assert launch([sys.executable, TOGETHER, "start", str(tmp_path)], 2) == 0
        assert [torch.load(tmp_path / f"start-{process}.pt") for process in range(2)] == [2.0, 2.0]
        (tmp_path / "start-1.pt").unlink()


def test_a_killed_process_is_named_and_the_others_are_stopped(tmp_path, capfd):
    assert launch([sys.executable, TOGETHER, "killed", str(tmp_path)], 2) == 128 + signal.SIGKILL
    assert "twofold: process 1 of 2 was killed by SIGKILL; the others are stopped.\n" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_launcher_stops_all_after_the_same_step(tmp_path, number):
    """SIGKILL, which the launcher cannot forward, included; the first process is given the time to write."""
    command = [sys.executable, "-c", LAUNCH, TOGETHER, "stopped", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
        try:
            ready = [launcher.stdout.readline() for _ in range(2)]
            launcher.send_signal(number)
            rest, said = launcher.communicate(timeout=60)  # until all have closed it
        finally:
            launcher.kill()
    assert ready == ["ready\n", "ready\n"] and rest == ""
    assert launcher.returncode == (130 if number != signal.SIGKILL else -signal.SIGKILL)
    ours = [line for line in said.splitlines() if line.startswith("twofold: ")]
    assert ours == ["twofold: stopped by process 0"] and (said.count("\n") == 1 or number == signal.SIGKILL)
    assert int((tmp_path / "stopped").read_text()) >= 0


def test_a_number_of_processes_that_cannot_be_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="processes: expected 1 or more, got 0"):
        launch(["true"], 0)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="this process is one of 4 already, and starts no others"):
        launch(["true"], 2)


def test_processes_share_the_cores_unless_the_user_says_how_many(monkeypatch, tmp_path):
    program = "import os, sys; open(sys.argv[1] + os.environ['RANK'], 'w').write(os.environ['OMP_NUM_THREADS'])"
    tell = [sys.executable, "-c", program, str(tmp_path / "threads")]
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert launch(tell, 2) == 0
    assert [(tmp_path / f"threads{process}").read_text() for process in range(2)] == [str(max(1, cores // 2))] * 2
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert launch(tell, 1) == 0
    assert (tmp_path / "threads0").read_text() == "7"
