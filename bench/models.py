"""Whole classifiers, ours against torch.nn at its best: training steps and inference, in fp32 and with bf16 allowed.

    python bench/models.py [--only "resnet50 step bf16"] [--rounds 3] [--threads 2] [--alone]

Ours is the model of the catalogue as a user finds it, by `auto`; in inference also as `twofold.nn.folded` makes it. bf16 allowed: under
twofold.precision("bf16") or autocast, whichever is faster. torch's is the same architecture written with torch.nn, with the same weights
(outputs are compared first), eager; where bf16 is allowed under autocast and without, for on some processors bf16 is the slower. Both are
given pictures and weights in both layouts, and the fastest of each is compared. All run in one process, in turn; medians. What ran is
asserted and said.

--alone: then the fastest of each once more, each in three processes of its own, as in use: what one gives back to the C library the other
cannot have there. With the page faults of a run, and the largest memory that the process had.
"""

import argparse
import gc
import math
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import twofold
from side_by_side import machine, seconds
from twofold.layers.routes import routes_taken
from twofold.models import catalogue
from twofold.nn import folded


class Block(nn.Module):
    """A block of a residual net (He et al. 2016, figure 5), basic or bottleneck, with torchvision's names."""

    def __init__(self, channels: int, planes: int, stride: int, deep: bool) -> None:
        super().__init__()
        filters, sizes = (4 * planes, (1, 3, 1)) if deep else (planes, (3, 3))
        self.depth, before = len(sizes), channels
        for n, size in enumerate(sizes, 1):
            after, step = (filters if n == self.depth else planes), (stride if n == self.depth - 1 else 1)
            setattr(self, f"conv{n}", nn.Conv2d(before, after, size, step, size // 2, bias=False))
            setattr(self, f"bn{n}", nn.BatchNorm2d(after))
            before = after
        changes = stride > 1 or channels != filters
        self.downsample = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for n in range(1, self.depth + 1):
            y = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(y))
            if n < self.depth:
                y = F.relu_(y)
        y += x if self.downsample is None else self.downsample(x)
        return F.relu_(y)


class ResNet(nn.Module):
    """A residual net as torch's users write it: in-place sums and ReLUs."""

    def __init__(self, blocks: tuple[int, ...], deep: bool, small: bool, classes: int) -> None:
        super().__init__()
        self.small, channels = small, 64
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False) if small else nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        for n, count in enumerate(blocks):
            stage = []
            for place in range(count):
                stage.append(Block(channels, 64 << n, 2 if n and not place else 1, deep))
                channels = (64 << n) * (4 if deep else 1)
            setattr(self, f"layer{n + 1}", nn.Sequential(*stage))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(self.bn1(self.conv1(x)))
        y = y if self.small else F.max_pool2d(y, 3, 2, 1)
        for n in range(1, 5):
            y = getattr(self, f"layer{n}")(y)
        return self.fc(y.mean((2, 3)))


class VGG16(nn.Module):
    """Configuration D (Simonyan and Zisserman 2015, table 1)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for filters in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(inplace=True)] if filters else [nn.MaxPool2d(2)]
            channels = filters or channels
        self.features = nn.Sequential(*layers)
        first, second = [nn.Linear(25088, 4096), nn.ReLU(True), nn.Dropout()], [nn.Linear(4096, 4096), nn.ReLU(True), nn.Dropout()]
        self.classifier = nn.Sequential(*first, *second, nn.Linear(4096, 1000))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class Net(NamedTuple):
    """The name in the catalogue, torch's own, the size of a batch, and the classes."""

    name: str
    theirs: Callable[[], nn.Module]
    size: tuple[int, int, int, int]
    classes: int


NETS = [
    Net("resnet18-cifar", lambda: ResNet((2, 2, 2, 2), False, True, 10), (32, 3, 32, 32), 10),
    Net("resnet50", lambda: ResNet((3, 4, 6, 3), True, False, 1000), (8, 3, 224, 224), 1000),
    Net("vgg16", VGG16, (8, 3, 224, 224), 1000),
]
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
TARGETS = {False: 1.0, True: 1.2}  # by whether bf16 is allowed
FAST = {"fused", "fused bf16", "native", "native bf16", "native channels last"}


def permission(way: str) -> AbstractContextManager[object]:
    """What a way is run under."""
    if "autocast" in way:
        return torch.autocast("cpu", torch.bfloat16)
    return twofold.precision("bf16") if "permitted" in way else nullcontext()


def runner(way: str, model: nn.Module, x: Tensor, target: Tensor, training: bool) -> Callable[[], object]:
    """A training step (forward, loss, backward) or a forward pass without gradients."""

    def step() -> None:
        model.zero_grad()
        with permission(way):
            y = model(x)
        F.cross_entropy(y.float(), target).backward()

    def infer() -> None:
        with torch.inference_mode(), permission(way):
            model(x)

    return step if training else infer


def contenders(net: Net, training: bool, reduced: bool) -> tuple[dict[str, Callable[[], object]], dict[str, nn.Module]]:
    """Every way to compute it, and the models by the same names."""
    torch.manual_seed(0)
    ours, theirs = catalogue.build(net.name).train(training), net.theirs().train(training)
    theirs.load_state_dict(ours.state_dict())
    x, target = torch.randn(net.size), torch.randint(0, net.classes, net.size[:1])
    expect_equal(ours, theirs, x)
    models: dict[str, nn.Module] = {}
    for layout, form in LAYOUTS.items():
        mine, other = (catalogue.build(net.name), net.theirs()) if layout == "NHWC" else (ours, theirs)
        for model in (mine, other):
            model.train(training).to(memory_format=form)  # type: ignore[call-overload]
        for whose, model, hows in (("ours", mine, ("permitted", "autocast")), ("torch", other, ("", "autocast"))):
            for how in hows if reduced else ("",):
                models[" ".join(filter(None, [whose, how, layout]))] = model
    if not training:
        models["ours folded permitted" if reduced else "ours folded"] = folded(ours)
    ways = {}
    for way, model in models.items():
        pictures = x.contiguous(memory_format=LAYOUTS["NHWC" if "NHWC" in way else "NCHW"])
        ways[way] = runner(way, model, pictures, target, training)
    return ways, models


def expect_equal(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """AssertionError unless both compute the same."""
    modes = ours.training, theirs.training
    with torch.inference_mode(), twofold.measuring(False):
        mine, other = ours.eval()(x[:2]), theirs.eval()(x[:2])
    assert torch.allclose(mine, other, rtol=1e-3, atol=1e-3 * other.abs().max().item()), "the two nets differ"
    ours.train(modes[0])
    theirs.train(modes[1])


def in_this_process(net: Net, training: bool, reduced: bool, way: str, rounds: int) -> None:
    """Prints the median seconds of one way, its page faults, and the peak of the process in gigabytes."""
    ways, models = contenders(net, training, reduced)
    run = ways.pop(way)
    for other in [name for name in models if models[name] is not models[way]]:
        del models[other]
    ways.clear()
    gc.collect()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    for _ in range(3):
        run()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    taken = seconds({way: run}, rounds, warm_up=0)[way]
    print(taken, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // rounds, peak())


def peak() -> float:
    """Gigabytes; nan where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 2**20
    return math.nan


def alone(row: str, mine: str, best: str, rounds: int) -> str:
    """The ratio of both, each in processes of its own, in turn."""
    found: dict[str, list[tuple[float, float, float]]] = {mine: [], best: []}
    for _ in range(3):
        for way, runs in found.items():
            command = [sys.executable, __file__, "--only", row, "--way", way, "--rounds", str(max(rounds, 7))]
            said = subprocess.run([*command, "--threads", str(torch.get_num_threads())], capture_output=True, text=True, check=True)
            taken, faults, most = map(float, said.stdout.splitlines()[-1].split())
            runs.append((taken, faults, most))
    middle = {way: [statistics.median(numbers) for numbers in zip(*runs, strict=True)] for way, runs in found.items()}
    each = "   ".join(
        f"{way} {1e3 * taken:.1f} ms, {faults:.0f} page faults, {most:.2f} GB" for way, (taken, faults, most) in middle.items()
    )
    return f"    alone: ratio {middle[best][0] / middle[mine][0]:.2f}   {each}"


def report(net: Net, training: bool, reduced: bool, rounds: int, apart: bool) -> None:
    """One row of the table."""
    ways, models = contenders(net, training, reduced)
    for run in ways.values():
        run()  # what is measured once is measured here
    times = seconds(ways, rounds=rounds, warm_up=1)
    mine, best = (min((way for way in times if way.startswith(who)), key=times.__getitem__) for who in ("ours", "torch"))
    ratio, asked = times[best] / times[mine], TARGETS[reduced]
    ways[mine]()  # models are shared between ways: what this one took
    routes = routes_taken(models[mine])
    assert FAST & routes.keys(), f"no kernel of ours ran: {routes}"
    row = f"{net.name} {'step' if training else 'infer'} {'bf16' if reduced else 'fp32'}"
    print(f"{row:26s} {1e3 * times[mine]:8.1f} ms ({mine})  {1e3 * times[best]:8.1f} ({best})  ratio {ratio:5.2f}", end="   ")
    print(f"asked {asked:.1f} {'reached' if ratio >= asked else 'MISSED'}   {routes}", flush=True)
    print("    " + "   ".join(f"{way} {1e3 * time:.1f}" for way, time in times.items()), flush=True)
    if apart:
        del ways, models
        gc.collect()
        print(alone(row, mine, best, rounds), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help='rows that have all these words, such as "resnet50 step bf16"')
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="the fastest of each once more, in processes of their own")
    parser.add_argument("--way", help="one way only, in this process: its seconds and page faults")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    os.environ.setdefault("TWOFOLD_MEASURE", "60")  # read at the first choice: nets in a row need more than the usual two seconds
    if not chosen.way:
        print(machine())
    for net in NETS:
        for training in (True, False):
            for reduced in (False, True):
                row = [net.name, "step" if training else "infer", "bf16" if reduced else "fp32"]
                if not set(chosen.only.split()) <= set(row):
                    continue
                if chosen.way:
                    in_this_process(net, training, reduced, chosen.way, chosen.rounds)
                else:
                    report(net, training, reduced, chosen.rounds, chosen.alone)
                    gc.collect()


if __name__ == "__main__":
    main()
