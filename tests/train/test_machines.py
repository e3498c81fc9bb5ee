"""Two machines: two network namespaces with a cable between them, that share nothing but it. No rights on this machine are needed."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from twofold.train.processes import World

HERE = Path(__file__).parent
ALONE = ["--pid", "--fork", "--kill-child", "--mount-proc"]  # what runs there ends with the test
APART = ["unshare", "--map-root-user", "--net", "--mount", *ALONE, "sh", str(HERE / "two_machines.sh")]


def run(*command, **environment):
    return subprocess.run([*APART, *command], env={**os.environ, **environment}, capture_output=True, text=True, timeout=200)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machines():
    """Runs torchrun on both."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        pytest.skip("there is no unshare or no ip on this system, to make two machines of one")
    made = run()
    if made.returncode:
        pytest.skip(f"this system lets nobody make network namespaces: {made.stderr.strip()}")

    def torchrun(scenario, folder):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
        address = ["--master-addr", "10.77.0.1", "--master-port", "29500"]
        return run(*command, *address, SCRIPT=str(HERE / "together.py"), ARGUMENTS=f"{scenario} {folder}")

    return torchrun


def test_two_machines_learn_what_one_does(machines, tmp_path):
    done = machines("machines", tmp_path)
    assert done.returncode == 0, done.stderr
    specification = importlib.util.spec_from_file_location("together", HERE / "together.py")
    together = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(together)
    alone = together.scenario_machines(World())
    for process in range(2):
        found = torch.load(tmp_path / f"machines-{process}.pt")
        assert found["machine"] == process
        for name, value in alone["weights"].items():
            assert (found["weights"][name] - value).abs().max() < 1e-6, name


def test_a_failure_on_one_machine_is_told_on_the_other(machines, tmp_path):
    failed = machines("mistake", tmp_path)
    assert failed.returncode != 0
    assert failed.stderr.count("twofold: the picture 'cat.png' is cut short.\n") == 1
    assert failed.stderr.count("twofold: process 1 on another machine: the picture 'cat.png' is cut short.\n") == 1
