"""Killed at random moments (kill -9) and resumed: does a run end as if nothing had been?     python bench/resume.py [RUNS]

A small CNN and a small LSTM, with everything on that has a state: order, augmentation, mixup, dropout, batch norm, AdamW, cosine and
warm-up, accumulation, average of the weights; dropout, carried state, overlapping windows, several epochs to a pass of the text.

Each run is a process of its own, `python -m twofold train`, with a checkpoint every 60 ms. It is killed after its first checkpoint, at a
moment drawn from what was left of the undisturbed run then, every second one in the next write after it; resumed, killed again up to twice,
at moments of the whole length; and left to its end.

bit-identical: model.safetensors, model.json, every state of the last checkpoint (weights, optimiser, average, schedule, progress, random
states of torch), and all rows of metrics.jsonl but for the times.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from side_by_side import machine
from twofold.train.checkpoints import Checkpoints

OFTEN = ["--save-every", "0.001", "--no-graph"]
RUNS = {
    "CNN": ["digits", "--config", "stages=16 M 16 M", "dropout=0.2", "--epochs", "6", "--batch-size", "64", "--accumulate", "2",
            "--ema", "0.9", "--augment", "light", "--mixup", "0.2", "--patience", "4", *OFTEN],
    "language": ["text.txt", "--config", "units=32", "embedding=16", "dropout=0.2", "--epochs", "6", "--batch-size", "4", "--window", "16",
                 "--bptt", "40", "--items-per-epoch", "6000", *OFTEN],
}  # fmt: skip
CHECKPOINT, WRITING = "state/*.safetensors", "state/.*.tmp"
UNTIMED = ("seconds", "time", "clock", "numpy", "python")  # of the clock; and generators that nothing draws from, seeded by each process


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TWOFOLD_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "twofold", "train", *words]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, err = process.communicate()
    return process.returncode, err.decode()


def await_file(process: subprocess.Popen[bytes], run: Path, pattern: str) -> bool:
    """Whether there was one before the process ended."""
    while not list(run.glob(pattern)):
        if process.poll() is not None:
            return False
        time.sleep(0.0002)
    return True


def end_of(run: Path) -> list[Any]:
    """What it has left, bit for bit."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    whole = [(run / name).read_bytes() for name in ("model.safetensors", "model.json")]
    return [*whole, bits(rows), bits(Checkpoints(run / "state").load().states)]


def bits(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {name: bits(part) for name, part in value.items() if name not in UNTIMED}
    return [bits(part) for part in value] if isinstance(value, list | tuple) else value


def main(count: int) -> None:
    moments = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "text.txt").write_text("".join(f"{i} times {i} is {i * i}.\n" for i in range(1200)))
        for name, words in RUNS.items():
            began = time.monotonic()
            process = start(folder, *words, "--out", "whole")
            assert await_file(process, folder / "whole", CHECKPOINT), ended(process)
            before = time.monotonic() - began
            assert ended(process)[0] == 0
            length, whole = time.monotonic() - began, end_of(folder / "whole")
            resumed = same = unreadable = kills = within = 0
            for turn in range(count):
                run, alive, moment = folder / "run", False, moments.uniform(0, length - before)
                while not alive:
                    shutil.rmtree(run, ignore_errors=True)
                    process = start(folder, *words, "--out", "run")
                    assert await_file(process, run, CHECKPOINT), ended(process)
                    time.sleep(moment)
                    alive = await_file(process, run, WRITING) if turn % 2 else process.poll() is None
                    moment /= 2  # where it was too late
                for again in range(moments.randint(1, 3)):
                    if again:
                        time.sleep(moments.uniform(0, length))
                    process.kill()
                    kills += ended(process)[0] == -9
                    within += any(path.name.endswith(".tmp") for path in run.rglob(".*"))
                    unreadable += bool(Checkpoints(run / "state").load().notes)
                    process = start(folder, "--resume", "run")
                code, err = ended(process)
                resumed += code == 0 or "is complete" in err
                same += end_of(run) == whole
                shutil.rmtree(run)
            print(
                f"{name:<9} {resumed} of {count} resumed, {same} bit-identical, {unreadable} checkpoints unreadable"
                f"   ({kills} kills, {within} of them while a file was being written)",
                flush=True,
            )
            shutil.rmtree(folder / "whole")


if __name__ == "__main__":
    print(machine())
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
