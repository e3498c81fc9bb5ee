"""What a checkpoint after every epoch costs: ResNet-18 in its form for 32x32 pictures, batch 32, AdamW; an epoch is 1563 steps (CIFAR-10).

    waits     the copy of weights and optimiser, for which training stands still
    written   from the call until the checkpoint is on the disk; training goes on meanwhile
    cost      the upper bound: as if training stood still for all of `written`      target: under 2 % of an epoch

Medians. `python bench/checkpoint.py [FOLDER] [DEVICE]`: the folder decides which disk is measured.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from side_by_side import machine
from twofold.train.checkpoints import Checkpoints, random_states

BATCH, STEPS, TARGET = 32, 1563, 0.02


class Block(nn.Module):
    """Two 3x3 convolutions and the way around them (He et al., "Deep Residual Learning", 2016, section 3.3)."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters)
        self.conv2, self.norm2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False), nn.BatchNorm2d(filters)
        self.around = nn.Sequential()
        if stride != 1 or channels != filters:
            self.around = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BFPQ = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x_BCHW)))))
        return F.relu(y_BFPQ + self.around(x_BCHW))


def resnet18() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    channels = 64
    for filters, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(channels, filters, stride), Block(filters, filters, 1)]
        channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(place: str | None, device: str) -> None:
    torch.manual_seed(0)
    model = resnet18().to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x_BCHW, y_B = torch.randn(BATCH, 3, 32, 32, device=device), torch.randint(0, 10, (BATCH,), device=device)

    def step() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x_BCHW), y_B)
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(3):
        step()
    epoch = STEPS * statistics.median(seconds(step) for _ in range(9))
    waits, written = [], []
    with tempfile.TemporaryDirectory(dir=place) as folder:
        checkpoints = Checkpoints(Path(folder) / "state")
        for number in range(6):
            states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": random_states()}
            began = time.perf_counter()
            waits.append(seconds(lambda: checkpoints.save(number, states)))  # noqa: B023
            assert checkpoints.wait() == ()
            written.append(time.perf_counter() - began)
        size = checkpoints.entries[-1].size
        read = seconds(checkpoints.load)
    wait, write = statistics.median(waits), statistics.median(written)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters / 1e6:.1f} M parameters, {size / 1e6:.0f} MB in a checkpoint; an epoch takes {epoch:.0f} s on {device}")
    print(f"{'training waits':<28}{wait:8.3f} s   {wait / epoch:8.3%} of an epoch")
    verdict = "holds" if write / epoch < TARGET else "MISSED"
    print(f"{'written, summed, on the disk':<28}{write:8.3f} s   {write / epoch:8.3%} of an epoch   asked: < {TARGET:.0%}: {verdict}")
    print(
        f"{TARGET:.0%} of an epoch of {write / TARGET:.0f} s; of one of {wait / TARGET:.1f} s where the writing has a processor to itself"
    )
    print(f"{'read and checked':<28}{read:8.3f} s")


if __name__ == "__main__":
    print(machine())
    main(sys.argv[1] if len(sys.argv) > 1 else None, sys.argv[2] if len(sys.argv) > 2 else "cpu")
