"""The layers of ResNet-50 and ResNet-18 one by one, ours against torch's operators on maps that lie the same way.

    python bench/resnet_layers.py [--only "3x3 bf16"] [--rounds 15] [--threads 2]

Convolutions of maps that lie channels last, and in both layouts the end of a residual block (norm, shortcut, ReLU) and a norm alone:
forward and backward with all gradients, maps of float32 or bfloat16, weights of float32, as autocast has them. Each pair runs in one
process, in turn; medians. Whole nets, where each side chooses its layout, are in models.py.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import twofold
from side_by_side import machine, seconds
from twofold import nn
from twofold.kernels import convolution_last, norm_join
from twofold.space.joined_norm import norm_join as join
from twofold.space.windows import Window

THREE = [(32, 64, 32), (32, 128, 16), (32, 256, 8), (8, 64, 56), (8, 128, 28), (8, 256, 14), (8, 512, 7)]  # batch, channels, side
ONE = [  # batch, channels, filters, side
    (8, 64, 64, 56), (8, 64, 256, 56), (8, 256, 64, 56), (8, 256, 128, 56), (8, 512, 128, 28), (8, 128, 512, 28), (8, 512, 256, 28),
    (8, 1024, 256, 14), (8, 256, 1024, 14), (8, 1024, 512, 14), (8, 2048, 512, 7), (8, 512, 2048, 7),
]  # fmt: skip
NORM = [(8, 64, 56), (8, 256, 56), (8, 512, 28), (8, 1024, 14), (8, 2048, 7), (32, 64, 32), (32, 128, 16), (32, 256, 8), (32, 512, 4)]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LAYOUTS = {"last": torch.channels_last, "first": torch.contiguous_format}


class Pair(NamedTuple):
    """Two steps that compute the same, or why ours is not there."""

    what: str
    ours: Callable[[], object]
    torchs: Callable[[], object]
    unfit: str


def steps(forward: Callable[[], Tensor], wanted: list[Tensor], dy: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(forward(), wanted, dy)


def allowed(kind: str) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if kind == "bf16" else nullcontext()


def convolutions(taps: int, kind: str) -> Iterator[Pair]:
    """Channels last."""
    shapes = [(batch, channels, channels, side) for batch, channels, side in THREE] if taps == 3 else ONE
    dtype, window = DTYPES[kind], Window((taps, taps), padding=(taps // 2,))
    for batch, channels, filters, side in shapes:
        layer = nn.Conv2d(channels, filters, taps, padding=taps // 2, bias=False)
        x = torch.randn(batch, channels, side, side).to(dtype, memory_format=torch.channels_last).requires_grad_()
        dy = torch.randn(batch, filters, side, side).to(dtype, memory_format=torch.channels_last)
        weight = layer.weight

        def ours(x: Tensor = x, layer: nn.Conv2d = layer) -> Tensor:
            with allowed(kind), twofold.route("native channels last"):
                y: Tensor = layer(x)
            assert layer.last_route == "native channels last"
            return y

        def torchs(x: Tensor = x, weight: Tensor = weight) -> Tensor:
            with allowed(kind):
                return F.conv2d(x, weight, None, padding=taps // 2)

        what = f"{batch}x{channels}x{side}x{side} to {filters}"
        unfit = convolution_last.unfit(x, weight, None, window)
        yield Pair(what, steps(ours, [x, weight], dy), steps(torchs, [x, weight], dy), unfit)


def norms(joined: bool, layout: str, kind: str) -> Iterator[Pair]:
    dtype, lies = DTYPES[kind], LAYOUTS[layout]
    for batch, channels, side in NORM:
        x, shortcut, dy = (torch.randn(batch, channels, side, side).to(dtype, memory_format=lies) for _ in range(3))
        scale, shift = torch.ones(channels, requires_grad=True), torch.zeros(channels, requires_grad=True)
        wanted = [x.requires_grad_(), scale, shift, *([shortcut.requires_grad_()] if joined else [])]
        given = (x, shortcut if joined else None, scale, shift, None, None)

        def ours(given: tuple[Tensor | None, ...] = given) -> Tensor:
            y: Tensor = join.by("native", *given, 1e-5, joined)[0]
            return y

        def torchs(x: Tensor = x, shortcut: Tensor = shortcut, scale: Tensor = scale, shift: Tensor = shift) -> Tensor:
            y = F.batch_norm(x, None, None, scale, shift, True, 0.0, 1e-5)
            return F.relu(y + shortcut) if joined else y

        yield Pair(f"{batch}x{channels}x{side}x{side}", steps(ours, wanted, dy), steps(torchs, wanted, dy), norm_join.unfit(*given))


def rate(kind: str) -> Callable[[], object]:
    """A product of large matrices."""
    a, b = (torch.randn(1024, 1024).to(DTYPES[kind]) for _ in range(2))
    return lambda: a @ b


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help='groups that have all these words, such as "3x3 bf16" or "block last"')
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    print(machine())
    for kind, taken in seconds({kind: rate(kind) for kind in DTYPES}, chosen.rounds).items():
        print(f"rate of products of large matrices, {kind}: {2e-9 * 1024**3 / taken:.0f} GFLOP/s")
    groups = {f"conv {taps}x{taps} last {kind}": convolutions(taps, kind) for taps in (3, 1) for kind in DTYPES}
    for kind in DTYPES:
        for layout in LAYOUTS:
            groups[f"block {layout} {kind}"] = norms(True, layout, kind)
            groups[f"norm {layout} {kind}"] = norms(False, layout, kind)
    for name, pairs in groups.items():
        if not set(chosen.only.split()) <= set(name.split()):
            continue
        ratios = []
        for pair in pairs:
            if pair.unfit:
                print(f"{name:20s} {pair.what:24s} not ours here: {pair.unfit}")
                continue
            times = seconds({"ours": pair.ours, "torch": pair.torchs}, chosen.rounds)
            ratios.append(times["torch"] / times["ours"])
            print(f"{name:20s} {pair.what:24s} {1e3 * times['ours']:8.2f} ms  {1e3 * times['torch']:8.2f} torch  ratio {ratios[-1]:5.2f}")
        if ratios:
            print(f"{name:20s} {'from':>24s} {min(ratios):.2f} to {max(ratios):.2f}", flush=True)


if __name__ == "__main__":
    main()
