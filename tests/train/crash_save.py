"""Saves checkpoints without end and is killed in the midst of it, again and again; test_checkpoints.py runs it.

    python crash_save.py FOLDER KILLS SEED      prints, for each kill, a line of JSON: what had been reported as safe, and what was loaded

One process loads torch and forks one child after another, each of which goes on in the same folder.
"""

import json
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path

import torch

from twofold.data import files
from twofold.train.checkpoints import Checkpoints

STEP = struct.Struct("<q")
SIZE = 500_000  # so that writing takes as long as forcing to the disk


def save_without_end(folder, report):
    checkpoints, step = Checkpoints(folder), 0
    if checkpoints.entries:
        step = checkpoints.load().entry.step
    while True:
        step += 1
        assert not checkpoints.save(step, {"model": {"weight": torch.full((SIZE,), float(step))}, "step": step}, best=step % 5 == 1)
        assert not checkpoints.wait()
        os.write(report, STEP.pack(step))


def killed(folder, moment):
    """The last step that a child reported as safe before it was killed, so many seconds after its first."""
    ear, mouth = os.pipe()
    child = os.fork()
    if not child:
        save_without_end(folder, mouth)
    os.close(mouth)
    said = os.read(ear, STEP.size)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(ear, 1 << 16):
        said += more
    os.close(ear)
    return STEP.unpack(said[-STEP.size :])[0]


def main(folder, kills, seed):
    torch.set_num_threads(1)
    moments = random.Random(seed)
    for _ in range(kills):
        safe = killed(folder, moments.uniform(0, 0.05))
        left = sorted(path.name for path in folder.iterdir() if files.left_of(path.name))
        entry, states, notes = Checkpoints(folder).load()
        best = Checkpoints(folder).load(best=True).entry.step
        whole = states["step"] == entry.step and bool((states["model"]["weight"] == entry.step).all())
        print(json.dumps({"safe": safe, "loaded": entry.step, "best": best, "whole": whole, "notes": notes, "left": left}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
