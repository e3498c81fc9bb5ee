"""A process that is killed in the middle: torchrun starts all anew, they go on from the last checkpoint, and end as if nothing had been."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ELASTIC = str(Path(__file__).with_name("elastic.py"))


def run(folder, kill):
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "2"]
    done = subprocess.run([*command, ELASTIC, str(folder), str(kill)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "end.pt"), done.stderr


@pytest.mark.slow
def test_a_killed_process_costs_the_steps_since_the_last_checkpoint_and_changes_no_bit(tmp_path):
    (whole, _), (mended, said) = run(tmp_path / "whole", 0), run(tmp_path / "mended", 13)  # in the third of four epochs, of 5 steps each
    assert (whole["restarts"], whole["steps"]) == (0, 20)
    assert (mended["restarts"], mended["steps"]) == (1, 10)
    assert all(torch.equal(value, mended["weights"][name]) for name, value in whole["weights"].items())
    if "LostProcessError" in said:  # unless torchrun was quicker to end the one that was left
        assert "process 0 waits for another one in vain: it was killed, its machine has gone, or it does something else (" in said
