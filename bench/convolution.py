"""Convolutional nets and layers, ours against torch.nn at its best: whole training steps (forward, backward, all gradients).

    python bench/convolution.py [--only WORDS] [--rounds 15] [--no-compile]

Ours runs as a user finds it: by `auto`, which may measure for a minute here, and with twofold.precision("bf16") where reduced precision
is allowed; torch is tried eager and compiled, in fp32 and, where allowed, under bf16 autocast. Both are given maps in both layouts, and the
fastest of each is compared. All contenders run in one process, in turn; medians. What ran is said.
"""

import argparse
import gc
import os
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn as torch_nn

import twofold
from side_by_side import machine, seconds
from twofold import nn
from twofold.layers.routes import routes_taken

Step = Callable[[], object]


def lenet(n: Any) -> torch_nn.Module:
    """LeNet-5 in its modern form."""
    return n.Sequential(
        n.Conv2d(1, 6, 5, padding=2), n.ReLU(), n.MaxPool2d(2), n.Conv2d(6, 16, 5), n.ReLU(), n.MaxPool2d(2), n.Flatten(),
        n.Linear(400, 120), n.ReLU(), n.Linear(120, 84), n.ReLU(), n.Linear(84, 10),
    )  # fmt: skip


def digits(n: Any) -> torch_nn.Module:
    """vgg-mini, the net of the digits demo."""

    def block(channels: int, filters: int) -> list[torch_nn.Module]:
        return [n.Conv2d(channels, filters, 3, padding=1, bias=False), n.BatchNorm2d(filters), n.ReLU()]

    first, second = [*block(1, 32), *block(32, 32)], [*block(32, 64), *block(64, 64)]
    return n.Sequential(*first, n.MaxPool2d(2), *second, n.MaxPool2d(2), n.Flatten(), n.Dropout(0.3), n.Linear(256, 10))


class Residual(torch_nn.Module):
    """Two convolutions and a way around them (He et al. 2016, figure 2)."""

    def __init__(self, n: Any, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.body = n.Sequential(
            n.Conv2d(channels, filters, 3, stride, 1, bias=False), n.BatchNorm2d(filters), n.ReLU(),
            n.Conv2d(filters, filters, 3, 1, 1, bias=False), n.BatchNorm2d(filters),
        )  # fmt: skip
        self.relu = n.ReLU()
        self.around: torch_nn.Module = n.Identity()
        if stride > 1:
            self.around = n.Sequential(n.Conv2d(channels, filters, 1, stride, bias=False), n.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.around(x))


def resnet18(n: Any) -> torch_nn.Module:
    """ResNet-18 for pictures of 32x32: a 3x3 stem without pooling."""
    stages = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    stem = [n.Conv2d(3, 64, 3, 1, 1, bias=False), n.BatchNorm2d(64), n.ReLU()]
    return n.Sequential(*stem, *(Residual(n, *stage) for stage in stages), n.AdaptiveAvgPool2d(1), n.Flatten(), n.Linear(512, 10))


def vgg16(n: Any) -> torch_nn.Module:
    """VGG-16 (configuration D) for pictures of 224x224."""
    layers: list[torch_nn.Module] = []
    channels = 3
    for word in ["64", "64", "M", "128", "128", "M", "256", "256", "256", "M", "512", "512", "512", "M", "512", "512", "512", "M"]:
        if word == "M":
            layers.append(n.MaxPool2d(2))
            continue
        layers += [n.Conv2d(channels, int(word), 3, padding=1), n.ReLU()]
        channels = int(word)
    head = [n.Flatten(), n.Linear(25088, 4096), n.ReLU(), n.Linear(4096, 4096), n.ReLU(), n.Linear(4096, 1000)]
    return n.Sequential(*layers, *head)


@dataclass(frozen=True)
class Workload:
    """A net or layer, the size of its input, and the ratio that is asked for."""

    name: str
    build: Callable[[Any], torch_nn.Module]
    size: tuple[int, ...]
    target: float
    whole: bool = True  # a net with a loss; else one layer that also gives the gradient of its input
    reduced: bool = False  # bf16 allowed
    part: str = "step"  # or "forward", "backward"


def conv(channels: int, filters: int, kernel: int, **options: Any) -> Callable[[Any], torch_nn.Module]:
    """One convolution."""
    return lambda n: n.Conv2d(channels, filters, kernel, **options)


def gaussian(n: Any) -> torch_nn.Module:
    """Gaussian pooling, or the composition that a user of torch.nn would write."""
    return nn.GaussianPool2d(3, 2, padding=1) if n is nn else GaussianByHand()


class GaussianByHand(torch_nn.Module):
    """The weighted mean as a depthwise convolution, divided by the weight on the map."""

    def __init__(self) -> None:
        super().__init__()
        at = torch.arange(3) - 1.0
        kernel = torch.exp(-(at[:, None] ** 2 + at**2) / (2 * 0.75**2))
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None])

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        held = F.conv2d(torch.ones_like(x[:1, :1]), self.kernel, None, 2, 1)
        return F.conv2d(x, self.kernel.expand(channels, 1, 3, 3), None, 2, 1, 1, channels) / held


class PowerByHand(torch_nn.Module):
    """The 3-norm of every window in torch operations, right for every sign."""

    def forward(self, x: Tensor) -> Tensor:
        return (F.avg_pool2d(x.abs().pow(3), 2) * 4).pow(1 / 3)


WORKLOADS = [
    Workload("LeNet-5, batch 64", lenet, (64, 1, 28, 28), 2.0),
    Workload("LeNet-5, batch 8", lenet, (8, 1, 28, 28), 2.0),
    Workload("digits net, batch 32", digits, (32, 1, 8, 8), 1.5),
    Workload("conv 5x5 1->6, forward", conv(1, 6, 5, padding=2), (64, 1, 28, 28), 3.0, whole=False, part="forward"),
    Workload("conv 5x5 1->6, backward", conv(1, 6, 5, padding=2), (64, 1, 28, 28), 3.0, whole=False, part="backward"),
    Workload("conv 5x5 6->16, forward", conv(6, 16, 5), (64, 6, 14, 14), 3.0, whole=False, part="forward"),
    Workload("conv 5x5 6->16, backward", conv(6, 16, 5), (64, 6, 14, 14), 3.0, whole=False, part="backward"),
    Workload("max pool 2x2, 64x6x28x28", lambda n: n.MaxPool2d(2), (64, 6, 28, 28), 3.0, whole=False),
    Workload("max pool 2x2, 32x64x56x56", lambda n: n.MaxPool2d(2), (32, 64, 56, 56), 1.5, whole=False),
    Workload("Lp pool p=3 2x2, 32x64x28x28", lambda n: nn.LPPool2d(3, 2) if n is nn else PowerByHand(), (32, 64, 28, 28), 2.0, whole=False),
    Workload("Gaussian pool 3x3, 32x64x28x28", gaussian, (32, 64, 28, 28), 2.0, whole=False),
    Workload("depthwise 3x3, 32x128x28x28", conv(128, 128, 3, padding=1, groups=128), (32, 128, 28, 28), 1.3, whole=False),
    Workload("ResNet-18, 32x32, batch 32", resnet18, (32, 3, 32, 32), 1.0),
    Workload("ResNet-18, 32x32, batch 32, bf16 allowed", resnet18, (32, 3, 32, 32), 1.2, reduced=True),
    Workload("VGG-16, 224x224, batch 4", vgg16, (4, 3, 224, 224), 1.0),
    Workload("VGG-16, 224x224, batch 4, bf16 allowed", vgg16, (4, 3, 224, 224), 1.2, reduced=True),
    Workload("conv 31x31 on 512x512, 8->8", conv(8, 8, 31, padding=15), (1, 8, 512, 512), 2.0, whole=False),
]


def step_of(model: torch_nn.Module, x: Tensor, target: Tensor | None, part: str, amp: bool) -> Step:
    """A training step of a net, or a part of one of a layer with the gradient of its input."""

    def compute() -> Tensor:
        permission = twofold.precision("bf16") if amp and type(model).__module__.startswith("twofold") else nullcontext()
        with permission, torch.autocast("cpu", torch.bfloat16, enabled=amp and isinstance(permission, nullcontext)):
            y: Tensor = model(x)
        return y

    if target is not None:

        def train() -> None:
            model.zero_grad()
            F.cross_entropy(compute().float(), target).backward()

        return train
    if part == "forward":

        def forward() -> None:
            compute()

        return forward
    leaves = [x.requires_grad_(), *model.parameters()]
    if part == "step":

        def step() -> None:
            y = compute()
            torch.autograd.grad(y, leaves, torch.ones_like(y))

        return step
    y = compute()
    dy = torch.randn(y.shape)

    def backward() -> None:
        torch.autograd.grad(y, leaves, dy, retain_graph=True)

    return backward


def contenders(work: Workload, compiled: bool) -> tuple[dict[str, Step], dict[str, torch_nn.Module]]:
    """Every way to compute it, by name, and our models."""
    torch.manual_seed(0)
    x = torch.randn(work.size)
    target = torch.randint(0, 10, (work.size[0],)) if work.whole else None
    ways: dict[str, Step] = {}

    def add(name: str, model: torch_nn.Module, last: bool = False, amp: bool = False, whole: bool = False) -> None:
        images = x.clone()
        if last:
            model, images = model.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)
        ways[name] = step_of(torch.compile(model) if whole else model, images, target, work.part, amp)

    models = {layout: work.build(nn) for layout in ("NCHW", "NHWC")}
    for layout, model in models.items():
        add(f"ours {layout}", model, layout == "NHWC")
        if work.reduced:
            add(f"ours bf16 {layout}", model, layout == "NHWC", amp=True)
    for amp in (False, True) if work.reduced else (False,):
        for last in (False, True):
            for whole in (False, True) if compiled else (False,):
                words = ["torch", "bf16" if amp else "", "NHWC" if last else "NCHW", "compiled" if whole else ""]
                add(" ".join(filter(None, words)), work.build(torch_nn), last, amp, whole)
    return ways, models


def patient(ways: dict[str, Step], rounds: int) -> dict[str, float]:
    """Medians; a way that takes ten times the fastest is measured twice and left out of the rest."""
    first = seconds(ways, rounds=2, warm_up=2)
    quick = {name: way for name, way in ways.items() if first[name] < 10 * min(first.values())}
    return {**first, **seconds(quick, rounds=rounds, warm_up=1)}


def fastest(times: dict[str, float], who: str) -> str:
    """The fastest way of ours or torch's."""
    return min((name for name in times if name.startswith(who)), key=times.__getitem__)


def report(work: Workload, rounds: int, compiled: bool) -> None:
    """One row of the table."""
    ways, models = contenders(work, compiled)
    times = patient(ways, rounds)
    mine, best = fastest(times, "ours"), fastest(times, "torch")
    ratio = times[best] / times[mine]
    print(f"{work.name:42s} {1e3 * times[mine]:9.3f} ms ({mine})   {1e3 * times[best]:9.3f} ({best})   ", end="")
    verdict = "reached" if ratio >= work.target else "MISSED"
    print(f"ratio {ratio:5.2f}   asked {work.target:.1f} {verdict}   {routes_taken(models[mine[-4:]])}", flush=True)
    print("    " + "   ".join(f"{name} {1e3 * time:.3f}" for name, time in times.items()), flush=True)


def drawn(count: int, seed: int = 0) -> Iterator[Workload]:
    """Convolutions of random shapes: from one channel to hundreds, tiny maps and large ones, strides, groups."""
    dice = random.Random(seed)
    while count:
        groups = dice.choice([1, 1, 1, 1, 2, 4])
        channels, filters = (groups * dice.choice([1, 2, 3, 4, 6, 8, 16, 24, 32, 48, 64, 128, 256]) for _ in range(2))
        kernel, stride, size = dice.choice([1, 2, 3, 3, 3, 5, 7]), dice.choice([1, 1, 1, 2, 3]), dice.choice([4, 7, 8, 14, 16, 28, 32, 56])
        batch = dice.choice([1, 2, 4, 8, 16, 32, 64])
        work = batch * channels * filters // groups * kernel**2 * (size // stride) ** 2
        if not 10**5 < work < 10**9 or kernel > size:
            continue
        count -= 1
        options: dict[str, Any] = {"stride": stride, "padding": kernel // 2, "groups": groups}
        name = f"{batch}x{channels}x{size}x{size} -> {filters}, {kernel}x{kernel} stride {stride} groups {groups}"
        yield Workload(name, conv(channels, filters, kernel, **options), (batch, channels, size, size), 0.9, whole=False)


def random_shapes(count: int, rounds: int) -> None:
    """The worst ratio over shapes that nobody chose."""
    worst: tuple[float, str] = (float("inf"), "")
    for work in drawn(count):
        ways, models = contenders(work, False)
        times = patient(ways, rounds)
        mine, best = fastest(times, "ours"), fastest(times, "torch")
        ratio = times[best] / times[mine]
        worst = min(worst, (ratio, work.name))
        routes = routes_taken(models[mine[-4:]])
        print(f"    {work.name:60s} {ratio:6.2f}   {mine} {routes}   {best} {1e6 * times[best]:.0f} us", flush=True)
    print(f"{count} random convolutions: worst ratio {worst[0]:.2f} ({worst[1]})   asked 0.9 {'reached' if worst[0] >= 0.9 else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="workloads whose name contains these words")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes minutes")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    os.environ.setdefault("TWOFOLD_MEASURE", "60")  # read at the first choice: nets in a row need more than the usual two seconds
    print(machine())
    for work in WORKLOADS:
        if chosen.only in work.name:
            report(work, chosen.rounds, not chosen.no_compile)
            gc.collect()
            torch.compiler.reset()
    if chosen.only in "random shapes":
        random_shapes(40, chosen.rounds)


if __name__ == "__main__":
    main()
