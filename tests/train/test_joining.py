"""Joining: who does not come, and what a user sees when one fails."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from twofold.train.joining import join
from twofold.train.launching import launch
from twofold.train.processes import World

TOGETHER = str(Path(__file__).with_name("together.py"))


@pytest.mark.parametrize(
    ("scenario", "code", "message"),
    [
        ("mistake", 2, "the picture 'cat.png' is cut short."),  # of process 1 alone
        ("both", 2, "no source 'digitz'."),
        ("bug", 1, "KeyError: 'layer'"),
        (
            "differ",
            2,
            "settings of process 1 differ from those of process 0: learning_rate is 0.2, not 0.1. Start all processes with the same "
            "command and the same files.",
        ),
        (
            "idle",
            2,
            "processes: idle.weight, idle.bias got no gradient, and the processes would wait for it in vain. Where that is meant, freeze "
            "them (requires_grad_(False)); where they are used in some steps only, copy the model with unused=True.",
        ),
    ],
)
def test_what_one_process_says_is_said_once_and_ends_all(tmp_path, capfd, scenario, code, message):
    assert launch([sys.executable, TOGETHER, scenario, str(tmp_path)], 2) == code
    assert capfd.readouterr().err == f"twofold: {message}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_torchrun_starts_them_too_and_names_the_cause(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", TOGETHER]
    met = subprocess.run([*command, "start", str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert (met.returncode, torch.load(tmp_path / "start-1.pt")) == (0, 2.0), met.stderr
    failed = subprocess.run([*command, "mistake", str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert failed.returncode == 1
    assert failed.stderr.count("twofold: the picture 'cat.png' is cut short.\n") == 1
    root = failed.stderr.split("Root Cause")[1]  # whichever it takes for the first
    assert "ValueError: the picture 'cat.png' is cut short." in root or "ValueError: process 1: the picture 'cat.png' is cut short." in root
    assert failed.stderr.count("the picture 'cat.png' is cut short.") >= 3  # each of the two is listed with it


@pytest.fixture
def store(monkeypatch):
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    values = {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True}
    for name, value in {**values, "GLOO_SOCKET_IFNAME": "lo"}.items():
        monkeypatch.setenv(name, str(value))
    return store


def test_a_process_that_does_not_come_is_missed(store):
    wanted = rf"process 0 of 2 could not meet the others at 127\.0\.0\.1 port {store.port} within 1 seconds: only 1 of 2 came\. Do all of"
    with pytest.raises(ValueError, match=wanted), join(joining=timedelta(seconds=1)):
        pass
    assert not dist.is_initialized()


def test_without_the_first_process_the_others_say_so(store, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with (
        pytest.raises(ValueError, match="process 1 of 2 could not meet the others.*: process 0 did not come"),
        join(joining=timedelta(seconds=1)),
    ):
        pass


def test_what_a_dead_process_asked_does_not_mislead(store, monkeypatch):
    """torchrun keeps the store through restarts: the first answers the dead one as well, and waits for the living."""
    store.set("asks 1", "a dead one")
    with pytest.raises(ValueError, match="only 1 of 2 came"), join(joining=timedelta(seconds=1)):
        pass
    assert store.check(["answer to a dead one"])


def test_a_torch_without_gloo_is_told(store, monkeypatch):
    monkeypatch.setattr(dist, "is_gloo_available", lambda: False)
    with (
        pytest.raises(ValueError, match="WORLD_SIZE=2, but this build of torch has no gloo, by which processes talk. Train with one."),
        join(),
    ):
        pass


def test_a_process_alone_joins_nobody(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join() as world:
        assert world == World() and not dist.is_initialized()
