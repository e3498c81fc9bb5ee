"""Max pooling: our native kernel beside PyTorch's own, in its two memory layouts.

    python bench/max_pool.py [--threads 2] [--rounds 300]

The contestants take turns, call by call, so that a busy machine slows all alike; medians are printed, and how many times as long
as ours each peer takes. Which route ran is asserted, and that all give the same numbers.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from twofold import kernels
from twofold.space.pooling import MaxPool2d

CASES = {  # batch, channels, height, width; kernel, stride, padding
    "LeNet": ((64, 6, 28, 28), (2, 2, 0)),
    "VGG": ((32, 64, 56, 56), (2, 2, 0)),
    "ResNet stem": ((8, 64, 112, 112), (3, 2, 1)),
    "GoogLeNet branch": ((16, 96, 28, 28), (3, 1, 1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    if not kernels.available():
        raise SystemExit(f"nothing to measure: {kernels.reason()}")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"{processor()}, {options.threads} threads, torch {torch.__version__}, our kernel: {kernels.instruction_set()}")
    print(f"{'':17}{'':18}{'':10}{'ours':>9} {'torch NCHW':>18} {'channels last':>18}")
    for name, (shape, window) in CASES.items():
        for what in ("forward", "training"):
            ours, nchw, last = (1e3 * seconds for seconds in race(contestants(shape, window, what), options.rounds))
            size = "x".join(map(str, shape))
            print(f"{name:17}{size:18}{what:10}{ours:6.3f} ms {nchw:8.3f} ms {nchw / ours:4.1f}x {last:8.3f} ms {last / ours:4.1f}x")


def contestants(shape: tuple[int, ...], window: tuple[int, int, int], what: str) -> list[Callable[[], Tensor]]:
    """Ours, torch's, torch's in channels-last: each a call that returns y or dx. Training: forward and backward."""
    x = torch.randn(shape)
    dy = torch.randn(nn.MaxPool2d(*window)(x).shape)
    calls, results = [], []
    for layer, layout in (
        (MaxPool2d(*window), torch.contiguous_format),
        (nn.MaxPool2d(*window), torch.contiguous_format),
        (nn.MaxPool2d(*window), torch.channels_last),
    ):
        given = x.to(memory_format=layout).requires_grad_(what == "training")
        weight = dy.to(memory_format=layout)
        call = training(layer, given, weight) if what == "training" else forward(layer, given)
        results.append(call())
        calls.append(call)
        if isinstance(layer, MaxPool2d):
            assert layer.last_route == "native", layer.last_route
    assert all(torch.equal(results[0], other) for other in results[1:]), "the contestants disagree"
    return calls


def forward(layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """A call of the layer without gradients."""

    def call() -> Tensor:
        with torch.no_grad():
            y: Tensor = layer(x)
        return y

    return call


def training(layer: nn.Module, x: Tensor, dy: Tensor) -> Callable[[], Tensor]:
    """A call of the layer and of its backward pass."""
    return lambda: torch.autograd.grad(layer(x), x, dy)[0]


def race(calls: list[Callable[[], Tensor]], rounds: int) -> list[float]:
    """The median seconds of each call, the calls taking turns."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 5):
        for call, times in zip(calls, seconds, strict=True):
            begin = time.perf_counter()
            call()
            if turn >= 5:  # the first turns warm up
                times.append(time.perf_counter() - begin)
    return [statistics.median(times) for times in seconds]


def processor() -> str:
    """The processor's name."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
