"""Pools and depthwise convolution: our compiled kernels beside PyTorch at its best, forward and backward.

    python bench/pooling.py [--only WORDS] [--rounds 25] [--compile]

Ours is given maps in both layouts; where a kernel serves one of them only, the other is left out. PyTorch is tried in both, eager and
(with --compile) compiled; the fastest of these is the peer. It has no Gaussian pool and no Lp pool that is right for every sign, so
there the peer is the composition of operations that a user would write. All contenders run in one process, in turn; medians. Which route
ran is asserted, and that all agree.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn as torch_nn

from side_by_side import machine, seconds
from twofold import kernels, nn

LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


class GaussianByHand(torch_nn.Module):
    """The weighted mean as a depthwise convolution, divided by the weight on the map."""

    def __init__(self, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        at = torch.arange(kernel) - (kernel - 1) / 2
        self.register_buffer("kernel", torch.exp(-(at[:, None] ** 2 + at**2) / (2 * (kernel / 4) ** 2))[None, None])

    def forward(self, x: Tensor) -> Tensor:
        held = F.conv2d(torch.ones_like(x[:1, :1]), self.kernel, None, self.stride, self.padding)
        each = self.kernel.expand(x.shape[1], 1, -1, -1)
        return F.conv2d(x, each, None, self.stride, self.padding, 1, x.shape[1]) / held


class PowerByHand(torch_nn.Module):
    """The p-norm of every window, right for every sign."""

    def __init__(self, p: float, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.p, self.window = p, (kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return (F.avg_pool2d(x.abs().pow(self.p), *self.window) * self.window[0] ** 2).pow(1 / self.p)


@dataclass(frozen=True)
class Contest:
    """Our layer and PyTorch's, the size of the input, the ratio that is asked for."""

    name: str
    ours: Callable[[], torch_nn.Module]
    torchs: Callable[[], torch_nn.Module]
    size: tuple[int, ...]
    target: float


SIZES = {(64, 6, 28, 28): (2, 2, 0), (32, 64, 56, 56): (2, 2, 0), (8, 64, 112, 112): (3, 2, 1), (16, 96, 28, 28): (3, 1, 1)}


def contests() -> list[Contest]:
    """Every pool at every size; depthwise convolution of several shapes."""
    rows: list[Contest] = []
    for size, (kernel, stride, padding) in SIZES.items():
        window, where = (kernel, stride, padding), f"{kernel}x{kernel}/{stride} {'x'.join(map(str, size))}"
        rows += [
            Contest(f"max {where}", lambda w=window: nn.MaxPool2d(*w), lambda w=window: torch_nn.MaxPool2d(*w), size, 1.5),
            Contest(f"average {where}", lambda w=window: nn.AvgPool2d(*w), lambda w=window: torch_nn.AvgPool2d(*w), size, 1.0),
            Contest(f"Gaussian {where}", lambda w=window: nn.GaussianPool2d(*w), lambda w=window: GaussianByHand(*w), size, 2.0),
        ]
        for p in (2, 3, 2.5):
            ours = lambda p=p, w=window: nn.LPPool2d(p, *w[:2], padding=w[2])  # noqa: E731
            rows.append(Contest(f"Lp p={p} {where}", ours, lambda p=p, w=window: PowerByHand(p, *w), size, 2.0))
    for batch, channels, side, kernel, stride in ((32, 128, 28, 3, 1), (32, 128, 28, 3, 2), (32, 128, 28, 5, 1), (16, 256, 14, 3, 1)):
        options = (channels, channels, kernel, stride, kernel // 2, 1, channels)
        name = f"depthwise {kernel}x{kernel}/{stride} {batch}x{channels}x{side}x{side}"
        ours, torchs = (lambda o=options: nn.Conv2d(*o)), (lambda o=options: torch_nn.Conv2d(*o))
        rows.append(Contest(name, ours, torchs, (batch, channels, side, side), 1.3))
    return rows


def step(layer: torch_nn.Module, x: Tensor, dy: Tensor) -> Callable[[], list[Tensor]]:
    """A call of the layer and its gradients."""
    leaves = [x.requires_grad_(), *layer.parameters()]
    return lambda: list(torch.autograd.grad(layer(x), leaves, dy))


def measure(contest: Contest, rounds: int, compiled: bool) -> dict[str, float]:
    """Medians by contender; ours first."""
    torch.manual_seed(0)
    ours, torchs = contest.ours(), contest.torchs()
    torchs.load_state_dict(ours.state_dict(), strict=False)
    x = torch.randn(contest.size)
    dy = torch.randn(torchs(x).shape)
    calls: dict[str, Callable[[], list[Tensor]]] = {}
    for name, layout in LAYOUTS.items():
        given = [t.contiguous(memory_format=layout) for t in (x, dy)]
        call = step(ours, *given)
        call()
        if ours.last_route == "native":
            calls[f"ours {name}"] = call
        calls[f"torch {name}"] = step(torchs, *(t.clone() for t in given))
        if compiled:
            calls[f"torch {name} compiled"] = step(torch.compile(torchs), *(t.clone() for t in given))
    assert "ours NCHW" in calls, f"the kernel did not run: {ours.last_route}"
    results = {name: call() for name, call in calls.items()}
    for name, found in results.items():
        for mine, theirs in zip(results["ours NCHW"], found, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * float(mine.abs().max()), msg=f"{name} disagrees")
    return seconds(calls, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="contests whose name contains these words")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--compile", action="store_true", help="torch.compile, too: it takes minutes")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    if not kernels.available():
        raise SystemExit(f"nothing to measure: {kernels.reason()}")
    torch.set_num_threads(chosen.threads)
    print(f"{machine()}, our kernels: {kernels.instruction_set()}; forward and backward, milliseconds")
    for contest in contests():
        if chosen.only in contest.name:
            times = measure(contest, chosen.rounds, chosen.compile)
            torch.compiler.reset()
            mine = min(time for name, time in times.items() if name.startswith("ours"))
            best = min(time for name, time in times.items() if name.startswith("torch"))
            ratios = f"{best / mine:5.2f} of the best, {times['torch NCHW'] / times['ours NCHW']:5.2f} in NCHW; asked {contest.target}"
            print(f"{contest.name:34s} {ratios}   " + "  ".join(f"{name} {1e3 * time:.3f}" for name, time in times.items()), flush=True)


if __name__ == "__main__":
    main()
