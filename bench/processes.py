"""Two processes with one thread each against one process with two threads: ResNet-18 for 32x32 pictures, forward, backward, SGD step.

A few steps each in turn, in the same two processes: the second one waits, asleep, while the first trains alone. Medians.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, section 4.2 (the form for CIFAR) and table 1 (18 layers)
"""

import os
import statistics
import sys
import time

import torch
from torch import Tensor

from side_by_side import machine
from twofold import nn
from twofold.layers.losses import cross_entropy
from twofold.train.joining import join
from twofold.train.launching import launch, launched
from twofold.train.processes import World
from twofold.train.replicas import averaging, copy_to_all
from twofold.train.synchronised import synchronise

BATCH, STEPS, ROUNDS = 32, 3, 9


class Block(nn.Module):
    """y = ReLU(f(x) + x), x by a 1x1 convolution where the size changes."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(),
            nn.Conv2d(filters, filters, 3, 1, 1, bias=False), nn.BatchNorm2d(filters),
        )  # fmt: skip
        same = stride == 1 and channels == filters
        self.short = nn.Identity() if same else nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.main(x) + self.short(x))


def resnet18() -> nn.Module:
    torch.manual_seed(0)
    sizes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    first = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*first, *(Block(*size) for size in sizes), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


class Training:
    """Steps of one net, over the processes of a world."""

    def __init__(self, world: World, threads: int, synchronised: bool = False) -> None:
        model = resnet18()
        if synchronised:
            synchronise(model)
        self.replica, self.threads = copy_to_all(model, world), threads
        self.optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, fused=True)
        own = world.shard.part(BATCH)
        self.x, self.y = torch.randn(BATCH, 3, 32, 32)[own], torch.randint(0, 10, (BATCH,))[own]

    def pictures_per_second(self) -> float:
        torch.set_num_threads(self.threads)
        began = time.perf_counter()
        for _ in range(STEPS):
            self.optimizer.zero_grad()
            with averaging(self.replica):
                cross_entropy(self.replica(self.x), self.y).backward()
            self.optimizer.step()
        return STEPS * BATCH / (time.perf_counter() - began)


def main() -> None:
    with join() as world:
        names = {"1 process, 2 threads": None, "2 processes, 1 thread each": False, "the same, batch norm synchronised": True}
        alone = Training(World(), 2) if world.first else None
        contenders = {name: alone if how is None else Training(world, 1, how) for name, how in names.items()}
        speeds: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(1 + ROUNDS):
            for name, contender in contenders.items():
                speed = contender.pictures_per_second() if contender is not None else 0.0
                world.any_of(False)  # the second process waits here while the first trains alone
                if turn:
                    speeds[name].append(speed)
        if world.first:
            torch.set_num_threads(2)
            print(machine())
            middle = {name: statistics.median(each) for name, each in speeds.items()}
            base = middle[next(iter(names))]
            for name, speed in middle.items():
                print(f"ResNet-18, 3x32x32, batch {BATCH}   {name:<36} {speed:7.1f} pictures/s   ratio {speed / base:.3f}")


if __name__ == "__main__":
    if launched():
        main()
    else:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that have nothing to do leave the core to the other process
        sys.exit(launch([sys.executable, __file__], 2))
