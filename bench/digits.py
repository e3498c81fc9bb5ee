"""Digits with default settings: accuracy on the held-out third over five seeds, and seconds of training.

Target: mean of at least 99.0 %, worst at least 98.5 %, under 30 seconds each on 2 cores.
"""

import statistics
import tempfile
from pathlib import Path

import twofold
from side_by_side import machine

SEEDS = range(5)


def main() -> None:
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        runs = [twofold.fit("digits", out=Path(folder) / str(seed), seed=seed, quiet=True) for seed in SEEDS]
        accuracies = [100 * run.metrics["test"]["accuracy"] for run in runs]
        seconds = [run.metrics["seconds"] for run in runs]
        for seed, accuracy, time in zip(SEEDS, accuracies, seconds, strict=True):
            print(f"seed {seed}   test accuracy {accuracy:.2f} %   training {time:.1f} s")
    print(f"mean {statistics.mean(accuracies):.2f} %   worst {min(accuracies):.2f} %   slowest training {max(seconds):.1f} s")


if __name__ == "__main__":
    main()
