"""Measuring side by side: contenders in one process, in turn, medians; and the machine that it was measured on."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from twofold.layers.choices import processor


def machine() -> str:
    """One line about the machine, to stand above every table."""
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"


def seconds(contenders: dict[Any, Callable[[], object]], rounds: int = 20, warm_up: int = 3) -> dict[Any, float]:
    """The median time of each contender. They run in turn, so that a change of the machine's speed meets all of them alike."""
    times: dict[Any, list[float]] = {name: [] for name in contenders}
    for turn in range(warm_up + rounds):
        for name, contender in contenders.items():
            began = time.perf_counter()
            contender()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in times.items()}
