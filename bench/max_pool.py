"""Max pooling: our native kernel beside PyTorch's own, in its two memory layouts.

The contestants take turns, call by call, so that a busy machine slows all alike; medians are printed, and how many times as long
as ours each peer takes. Which route ran is asserted, and that all give the same numbers.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from side_by_side import machine, seconds
from twofold import kernels
from twofold.space.max_pooling import MaxPool2d

CASES = {  # batch, channels, height, width; kernel, stride, padding
    "LeNet": ((64, 6, 28, 28), (2, 2, 0)),
    "VGG": ((32, 64, 56, 56), (2, 2, 0)),
    "ResNet stem": ((8, 64, 112, 112), (3, 2, 1)),
    "GoogLeNet branch": ((16, 96, 28, 28), (3, 1, 1)),
}


def main() -> None:
    if not kernels.available():
        raise SystemExit(f"nothing to measure: {kernels.reason()}")
    torch.manual_seed(0)
    print(f"{machine()}, our kernel: {kernels.instruction_set()}")
    print(f"{'':17}{'':18}{'':10}{'ours':>9} {'torch NCHW':>18} {'channels last':>18}")
    for name, (shape, window) in CASES.items():
        for what in ("forward", "training"):
            calls = dict(enumerate(contestants(shape, window, what)))
            ours, nchw, last = (1e3 * taken for taken in seconds(calls, rounds=300, warm_up=5).values())
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


if __name__ == "__main__":
    main()
